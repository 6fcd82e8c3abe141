"""Dynamic shapes: few compiles, eager's answers at every size, sizes used as numbers, all of it in engines."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_checks import assert_close, compile_trt, graphs_compiled

import models

SIZES = (4, 6, 9, 5)


def rows(n, k=3):
    return models.randn(n, k, seed=n)


# Made inside a compiled function, a tensor names its device: torch 2.11 gives some the CPU under another default device.
PROGRAMS = {
    "times the size": lambda x: x * x.shape[0],
    "divided by the size": lambda x: x.sum(0) / x.shape[0],
    "divided by its root": lambda x: x / x.shape[0] ** 0.5,
    "arithmetic of sizes": lambda x: x + (x.shape[0] * 2 - 1) // 3 + x.shape[0] % 2,
    "arange": lambda x: x.exp() + torch.arange(x.shape[0], device=x.device)[:, None],
    "arange as positions": lambda x: (
        F.embedding(torch.arange(x.shape[0], device=x.device), torch.eye(16, device=x.device)[:, :3]) + x
    ),
    "full": lambda x: torch.full((x.shape[0], 3), 2.0, device=x.device) + x,
    "new_zeros of another size": lambda x: torch.cat([x.new_zeros(x.shape[0] + 1, 3), x.exp()]),
    "ones_like": lambda x: torch.ones_like(x) + x.exp(),
    "flatten": lambda x: x.exp().view(x.shape[0] * x.shape[1]),
    "view with an inferred size": lambda x: x.exp().view(-1, 1, 3),
    "reshape to a product": lambda x: x.exp().reshape(x.shape[0] * 3, 1),
    "unflatten": lambda x: torch.cat([x, x]).view(2, x.shape[0], 3).sum(0),
    "expand": lambda x: x[:1].exp().expand(x.shape[0], 3) + x,
    "repeat": lambda x: x.exp().repeat(2, 1),
    "split in halves": lambda x: torch.cat([x, x]).exp().split(x.shape[0]),
    "slice to half": lambda x: x.exp()[: x.shape[0] // 2],
    "slice from the end": lambda x: x.exp()[-2:],
    "last row": lambda x: x.exp()[-1],
    "causal mask": lambda x: (x @ x.t()).masked_fill(
        ~torch.ones(x.shape[0], x.shape[0], dtype=torch.bool, device=x.device).tril(), -1e9
    ),
    "square product": lambda x: (x @ x.t()).softmax(-1) @ x,
    "pad": lambda x: F.pad(x.exp(), (0, 0, 1, 2)),
    "mean and variance": lambda x: (x - x.mean(0)) / x.var(0).sqrt(),
    "layer norm": lambda x: F.layer_norm(x, (3,)),
    "cumulative": lambda x: x.exp().cumsum(0),
    "interpolate": lambda x: F.interpolate(x.exp()[None, None], size=(x.shape[0] * 2, 3), mode="nearest"),
    "stack": lambda x: torch.stack([x.exp(), x.sin()]),
    "gather": lambda x: x.exp().gather(1, x.argmax(1, keepdim=True)),
    "the size itself": lambda x: (x.exp(), x.shape[0], x.shape[0] * 2),
    "a size that nothing needs": lambda x: (x.exp()[None].expand(x.shape[0] + 2, -1, -1)[0] * 2, x.shape[0]),
    "slice to half, in floats": lambda x: x.exp()[: int(x.shape[0] * 0.5)],
    "slice to a quotient": lambda x: x.exp()[: math.ceil(x.shape[0] / 2)],
    "times a quotient": lambda x: x.exp() * (x.shape[0] / 7),
    "less a quotient": lambda x: 1 / x.shape[0] - x.exp() / (x.shape[0] / 2),
    "quotients of other types": lambda x: (
        x.long() * (x.shape[0] / 3),
        x.sum() + x.shape[0] / 3,
        x.double() * (x.shape[0] / 3),
    ),
    "the size as a tensor": lambda x: torch.tensor(x.shape[0]) + x.exp(),
}


@pytest.mark.parametrize("how", ["marked", "automatic"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_sizes_in_programs(name, how, report):
    fn = PROGRAMS[name]
    compiled = compile_trt(fn, fullgraph=True)
    with torch.no_grad():
        for n in SIZES:
            x = rows(n)
            if how == "marked":
                torch._dynamo.mark_dynamic(x, 0)
            assert_close(compiled(x), fn(x), strides=True)
    assert graphs_compiled() == (1 if how == "marked" else 2)
    report.engines_ran(calls=len(SIZES), rebuilds=True)


@pytest.mark.parametrize(
    "count",
    [
        lambda n: int(n * 0.3),
        lambda n: round(n * 0.5),
        lambda n: int((n - 4) / 2) + 2,
    ],
    ids=["not exact", "to even", "perhaps negative"],
)
def test_sizes_that_floats_round_are_native(count, report):
    def fn(x):
        return x.exp()[: count(x.shape[0])].sin()

    compiled = compile_trt(fn, dynamic=True)
    with torch.no_grad():
        for n in SIZES:
            assert_close(compiled(rows(n)), fn(rows(n)), strides=True)
    report.native("unsupported", "sin")


def mlp():
    return models.randomise(nn.Sequential(nn.Linear(3, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 2)))


def test_a_symbol_that_passes_get_rid_of(report):
    def fn(x, n):
        y = ((x * 2).sin() + 1).exp()
        return y, y[:, x.shape[1] - n :], y.expand(n, *y.shape)[0] * 2

    compiled = compile_trt(fn, dynamic=True)
    with torch.no_grad():
        for n in (2, 3):
            x = rows(3, 4)
            assert_close(compiled(x, n), fn(x, n), strides=True)
    report.engines_ran(calls=2, rebuilds=True)


def test_a_result_that_is_empty_for_some_sizes(report):
    def fn(x, y):
        return (x * 2 + 1)[:, : y.shape[0] - 2].sin() + 1

    compiled = compile_trt(fn, dynamic=True)
    with torch.no_grad():
        for n in (4, 3, 2, 5):
            assert_close(compiled(rows(3), rows(n)), fn(rows(3), rows(n)), strides=True)
    report.engines_ran(rebuilds=True)
    assert not any("failed" in reason for reason in report.reasons())


@pytest.mark.parametrize("dynamic", [None, True, False])
def test_last_partial_batch(dynamic, report):
    """An epoch of full batches and a smaller last one, three times over."""
    model = mlp()
    compiled = compile_trt(model, dynamic=dynamic)
    data = rows(8 * 4 + 3)
    with torch.no_grad():
        for _ in range(3):
            got = torch.cat([compiled(batch) for batch in data.split(8)])
            assert_close(got, model(data))
    assert graphs_compiled() == (1 if dynamic else 2)
    report.engines_ran(calls=15, share=0.98, rebuilds=True)


@pytest.mark.parametrize("how", ["marked", "automatic", "dynamic=True"])
def test_batch_one_after_dynamic(how, report):
    model = mlp()
    compiled = compile_trt(model, dynamic=True if how == "dynamic=True" else None)
    with torch.no_grad():
        for n in (4, 7, 1, 6, 1, 2):
            x = rows(n)
            if how == "marked" and n > 1:
                torch._dynamo.mark_dynamic(x, 0)
            assert_close(compiled(x), model(x), strides=True)
    report.engines_ran(calls=6, share=0.98, rebuilds=True)


def test_batch_one_first(report):
    model = mlp()
    compiled = compile_trt(model)
    with torch.no_grad():
        for n in (1, 4, 1, 7, 5):
            assert_close(compiled(rows(n)), model(rows(n)), strides=True)
    report.engines_ran(calls=5, share=0.98, rebuilds=True)


def test_many_sizes_through_one_graph(report):
    model = mlp()
    compiled = compile_trt(model, dynamic=True)
    with torch.no_grad():
        for n in [*range(2, 40), *range(39, 1, -7), 1000]:
            assert_close(compiled(rows(n)), model(rows(n)))
    assert graphs_compiled() == 1
    report.engines_ran(calls=45, share=0.98, rebuilds=True)


def test_marked_with_a_range(report):
    model = mlp()
    compiled = compile_trt(model)
    with torch.no_grad():
        for n in (4, 2, 16):
            x = rows(n)
            torch._dynamo.mark_dynamic(x, 0, min=2, max=16)
            assert_close(compiled(x), model(x))
    assert graphs_compiled() == 1
    report.engines_ran(calls=3)


@pytest.mark.parametrize("dims", [(1,), (0, 1)], ids=["length", "batch and length"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bert_with_dynamic_length(attention, dims, report):
    model, _ = models.bert(attention)
    compiled = compile_trt(model, options={"min_block_size": 3})
    with torch.no_grad():
        for batch, length in ((3, 12), (3, 7), (3, 20)) if dims == (1,) else ((2, 12), (4, 7), (3, 20)):
            ids = torch.arange(batch * length).view(batch, length) * 7 % models.VOCAB
            mask = (torch.arange(length) < length - torch.arange(batch)[:, None]).long()
            for t in (ids, mask):
                torch._dynamo.mark_dynamic(t, dims)
            assert_close(compiled(ids, mask), model(ids, mask))
    assert graphs_compiled() == 1
    report.engines_ran(calls=3, share=0.98, rebuilds=True)


def test_fully_convolutional_with_dynamic_image_sizes(report):
    model, _ = models.unet("group", "nearest")
    compiled = compile_trt(model)
    with torch.no_grad():
        for h, w in ((16, 16), (24, 8), (8, 32), (32, 16)):
            x = models.randn(2, 3, h, w, seed=h)
            assert_close(compiled(x), model(x))
    report.engines_ran(calls=4, share=0.95, rebuilds=True)


def test_integer_arguments(report):
    """A Python int that moves becomes a symbol that no tensor carries."""

    def fn(x, n, s):
        return x.exp()[:n] * n + math.pi, x * s, torch.full((n, 2), 1.0, device=x.device) + n

    compiled = compile_trt(fn)
    with torch.no_grad():
        for n, s in ((3, 2), (4, 2), (5, 7), (2, 9), (1, 1), (0, 0)):
            assert_close(compiled(rows(8), n, s), fn(rows(8), n, s))
    report.engines_ran(calls=6, rebuilds=True)


def test_float_arguments(report):
    def fn(x, scale):
        return x.exp() * scale + scale

    compiled = compile_trt(fn)
    with torch.no_grad():
        for scale in (0.5, 1.5, 2.5, float("inf"), -0.0):
            assert_close(compiled(rows(4), scale), fn(rows(4), scale))
    report.engines_ran(calls=5)


def test_two_inputs_of_one_size(report):
    """Two tensors that shared a size at first, then two that differ."""

    def fn(a, b):
        return torch.cat([a.exp(), b.sin()]), a.sum(0) + b.sum(0)

    compiled = compile_trt(fn)
    with torch.no_grad():
        for m, n in ((4, 4), (5, 5), (5, 6), (7, 3)):
            assert_close(compiled(rows(m), rows(n)), fn(rows(m), rows(n)))
    report.engines_ran(calls=4, rebuilds=True)


def test_the_number_of_dimensions_changes(report):
    model = mlp()
    compiled = compile_trt(model)
    with torch.no_grad():
        for shape in ((4, 3), (2, 4, 3), (3,), (1, 1, 2, 3)):
            x = rows(math.prod(shape[:-1])).reshape(shape)
            assert_close(compiled(x), model(x))
    report.engines_ran(calls=4, share=0.98, rebuilds=True)


def test_the_last_token_of_a_growing_sequence(report):
    """One row of a longer tensor: the stride of a dimension of size 1 changes with the length."""

    def fn(x):
        return (x.exp() + 1).sin()

    compiled = compile_trt(fn)
    with torch.no_grad():
        for n in SIZES:
            x = torch.randn(1, n, 16)[:, -1:]
            assert_close(compiled(x), fn(x), strides=True)
    report.engines_ran(calls=len(SIZES), rebuilds=True)


def test_a_region_behind_a_flattened_batch(report):
    def fn(x):
        values, _ = torch.linalg.qr(x.exp().sin().reshape(-1, 1) + 1)
        return (values.abs() * 2).exp()

    compiled = compile_trt(fn)
    with torch.no_grad():
        for n in SIZES:
            x = rows(n)
            assert_close(compiled(x), fn(x))
    report.engines_ran(calls=2 * len(SIZES), rebuilds=True)


def test_what_stays_native_sees_promised_strides_along_one_element(report):
    """Torch takes [N, C, 1, L] for channels last, or not, by the stride of its one row."""

    def fn(x):
        return torch.nn.functional.adaptive_avg_pool1d((x.transpose(-1, -2) * 2).sin().exp(), 3)

    x = models.randn(2, 12, 10)
    with torch.no_grad():
        assert_close(compile_trt(fn, dynamic=True)(x), fn(x), strides=True)
    report.engines_ran()
    report.native("unsupported", "pool")


def test_borders_that_keep_a_size_as_tensorflow_does(report):
    """Half of a border before, the rest behind: neither is negative."""
    conv = models.randomise(nn.Conv2d(3, 4, 3, stride=2))

    def fn(x):
        border = [max((-(size // -2) - 1) * 2 + 3 - size, 0) for size in x.shape[-2:]]
        (above, left), (rows, columns) = [size // 2 for size in border], border
        y = torch.nn.functional.pad(x * 2, [left, columns - left, above, rows - above])
        return conv(y).relu()

    compiled = compile_trt(fn, dynamic=True)
    with torch.no_grad():
        for size in (16, 17, 19):
            x = models.randn(2, 3, size, size + 3)
            assert_close(compiled(x), fn(x))
    report.engines_ran(calls=3, share=1, rebuilds=True)
