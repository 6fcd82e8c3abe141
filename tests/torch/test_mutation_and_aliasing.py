"""Mutation, aliasing, views, strides and fresh outputs are eager's, while the compute runs in an engine."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch_checks import assert_close, assert_runs_as_eager, compile_trt

import models


def rows(*shape, seed=0, dtype=torch.float32):
    return models.randn(*shape, seed=seed).to(dtype)


def x43():
    return (rows(4, 3),)


# -- programs that mutate their inputs --


def add_to_input(x):
    x.add_(1)
    return x * 2


def add_twice_and_return_it(x):
    x.add_(1)
    x.mul_(3)
    return x, x * 2


def mutate_a_column(x):
    x[:, 0].mul_(2)
    return x.exp()


def mutate_a_transpose(x):
    v = x.t()
    v.add_(1)
    return v.sigmoid(), v


def mutate_two_overlapping_views(x):
    x[:2].add_(1)
    x[1:3].mul_(2)
    return x.exp()


def assign_a_slice(x):
    x[1:3] = x[:2] * 2
    return x.exp()


def masked_fill_in_place(x):
    x.masked_fill_(x > 0, -1.0)
    return x.exp()


def mutate_after_use(x):
    y = x.exp()
    x.zero_()
    return y + x


def mutate_and_return_nothing_of_it(x):
    y = x * 2
    x.copy_(y + 1)
    return y.exp()


def overwrite_without_reading(x):
    x.fill_(2.0)
    return x.exp()


def relu_in_place(x):
    return F.relu(x, inplace=True) * 2


def mutate_in_place_of_a_temporary(x):
    y = x.exp()
    y.add_(1)
    y[0] = 0
    return y


@pytest.mark.parametrize(
    "fn",
    [
        add_to_input,
        add_twice_and_return_it,
        mutate_a_column,
        mutate_a_transpose,
        mutate_two_overlapping_views,
        assign_a_slice,
        masked_fill_in_place,
        mutate_after_use,
        mutate_and_return_nothing_of_it,
        overwrite_without_reading,
        relu_in_place,
        mutate_in_place_of_a_temporary,
    ],
)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_mutation_of_an_input(fn, mode, report):
    with mode():
        assert_runs_as_eager(fn, x43)
    report.engines_ran(calls=3)


@pytest.mark.parametrize("mutate", ["itself", "slice view", "transposed", "strided"])
def test_mutation_reaches_the_callers_base(mutate, report):
    def fn(x):
        x.add_(1)
        return x.exp()

    def make():
        base = rows(6, 6)
        view = {"itself": base, "slice view": base[2:5], "transposed": base.t(), "strided": base[::2, 1::2]}[
            mutate
        ]
        return base, view

    compiled = compile_trt(fn)
    with torch.no_grad():
        for _ in range(3):
            (base, view), (base_ref, view_ref) = make(), make()
            assert_close(compiled(view), fn(view_ref))
            assert_close(base, base_ref)
    report.engines_ran(calls=3)


# -- the KV cache and other state --


class Attention(nn.Module):
    """One decode step over a static KV cache held in buffers, written with `index_copy_` or by slicing."""

    def __init__(self, write: str) -> None:
        super().__init__()
        self.write = write
        self.qkv = nn.Linear(8, 24)
        self.register_buffer("k", torch.zeros(1, 2, 6, 4))
        self.register_buffer("v", torch.zeros(1, 2, 6, 4))

    def forward(self, x, position):
        q, k, v = self.qkv(x).view(1, 1, 3, 2, 4).permute(2, 0, 3, 1, 4)
        for cache, new in ((self.k, k), (self.v, v)):
            if self.write == "index_copy_":
                cache.index_copy_(2, position, new)
            elif self.write == "index_put_":
                cache[:, :, position] = new
            else:
                cache.copy_(torch.cat([cache[:, :, 1:], new], dim=2))
        scores = (q @ self.k.transpose(-1, -2)) / 2
        visible = torch.arange(6, device=position.device) <= position
        return (scores.masked_fill(~visible, -1e9).softmax(-1) @ self.v).reshape(1, 1, 8)


@pytest.mark.parametrize("write", ["index_copy_", "index_put_", "roll"])
def test_kv_cache_in_buffers(write, report):
    steps = iter([0, 0, 1, 1, 2, 2, 3, 3, 4, 4])  # each for us, then for eager

    def make_args():
        step = next(steps)
        return rows(1, 1, 8, seed=step), torch.tensor([step])

    with torch.no_grad():
        assert_runs_as_eager(models.randomise(Attention(write)), make_args, calls=5)
    report.engines_ran(calls=5)


def test_kv_cache_as_arguments(report):
    def fn(cache, position, new):
        cache.index_copy_(1, position, new)
        return cache.softmax(-1).sum(1)

    cache, cache_ref = torch.zeros(2, 5, 4), torch.zeros(2, 5, 4)
    compiled = compile_trt(fn)
    with torch.no_grad():
        for step in range(5):
            args = torch.tensor([step]), rows(2, 1, 4, seed=step)
            assert_close(compiled(cache, *args), fn(cache_ref, *args))
            assert_close(cache, cache_ref)
    assert cache.abs().sum(-1).ne(0).all()
    report.engines_ran(calls=5)


class Counter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, x):
        self.calls += 1
        self.mean.lerp_(x.mean(0), 0.5)
        return x * self.calls - self.mean


def test_counter_buffer(report):
    with torch.no_grad():
        compiled = assert_runs_as_eager(Counter(), x43, calls=4)
    assert compiled.calls == 4
    report.engines_ran(calls=4)


def test_rebinding_a_buffer(report):
    class Rebinds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("state", torch.ones(3))

        def forward(self, x):
            self.state = self.state * 2
            return x + self.state

    with torch.no_grad():
        assert_runs_as_eager(Rebinds(), x43, calls=4)
    report.engines_ran(calls=4, rebuilds=True)


@pytest.mark.parametrize("dims", [1, 2])
def test_batch_norm_in_train_mode_moves_its_statistics(dims, report):
    if dims == 1:
        net = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2))
        shape = (4, 3)
    else:
        net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 2, 1))
        shape = (2, 3, 6, 6)
    models.randomise(net).train()
    before = net[1].running_mean.clone()
    with torch.no_grad():
        assert_runs_as_eager(net, lambda: (rows(*shape),))
    assert not torch.allclose(net[1].running_mean, before)
    assert net[1].num_batches_tracked == 3
    report.engines_ran(calls=3)


@pytest.mark.parametrize("min_block_size", [1, 100])
@pytest.mark.parametrize("gradients", [False, True])
@pytest.mark.parametrize(
    "moved", [lambda x: F.channel_shuffle(x, 2), lambda x: x.roll((1, 1), (2, 3))], ids=["shuffle", "roll"]
)
def test_views_of_what_keeps_channels_last_against_its_promise(moved, gradients, min_block_size, report):
    """torch promises row-major results of these, and AOTAutograd a view of them."""

    def fn(x):
        return (moved(x * 2).flatten(1) + 1).sigmoid()

    compiled = compile_trt(fn, options={"min_block_size": min_block_size})
    ours, theirs = (
        rows(2, 8, 6, 6).to(memory_format=torch.channels_last).requires_grad_(gradients) for _ in range(2)
    )
    got, wanted = compiled(ours), fn(theirs)
    assert_close(got, wanted)
    if gradients:
        got.sum().backward()
        wanted.sum().backward()
        assert_close(ours.grad, theirs.grad)
    elif min_block_size == 1:
        report.engines_ran()


@pytest.mark.parametrize("options", [{}, {"build": "background"}, {"min_block_size": 100}])
@pytest.mark.parametrize("gradients", [False, True])
def test_group_norm_of_one_image_that_is_channels_last_in_the_promise_only(gradients, options):
    """As in the attention of a VAE: `reshape` gives a batch of one strides that torch does not promise."""
    weight = rows(16, 16)

    def fn(x):
        y = F.linear(x.reshape(1, 16, 64).transpose(1, 2), weight).transpose(1, 2).reshape(1, 16, 8, 8)
        return F.silu(F.group_norm(y + x, 4)) * 2

    ours, theirs = (rows(1, 16, 8, 8).requires_grad_(gradients) for _ in range(2))
    got, wanted = compile_trt(fn, options=options)(ours), fn(theirs)
    assert_close(got, wanted)
    if gradients:
        got.sum().backward()
        wanted.sum().backward()
        assert_close(ours.grad, theirs.grad)


# -- what outputs may be --

OUTPUTS = {
    "the input": lambda x: (x, x.exp()),
    "the input alone twice": lambda x: (x, x, x.exp()),
    "views of the input": lambda x: (x.t(), x[0], x[:, 1:], x.view(-1), x.exp()),
    "detached input": lambda x: (x.detach(), x.exp()),
    "no-op contiguous": lambda x: (x.contiguous(), x.to(torch.float32), x.exp()),
    # of an intermediate: of an input, torch 2.13's AOT gives a copy where eager gives the input
    "no-op dropout": lambda x: F.dropout(x.exp(), 0.5, training=False),
    "arithmetic no-ops are fresh": lambda x: (x + 0, x * 1, x - 0, x / 1, x.exp()),
    "clone is fresh": lambda x: (x.clone(), x.exp()),
    "cast there and back is fresh": lambda x: (x.double().float(), x.exp()),
    "one tensor twice": lambda x: (lambda y: (y, y))(x.exp()),
    "equal computations are two tensors": lambda x: (x.exp(), x.exp()),
    "views of one intermediate": lambda x: (lambda y: (y, y.t(), y[1], y.view(12)))(x.exp()),
    "only a view of an intermediate": lambda x: x.exp()[1:],
    "chunks": lambda x: x.exp().chunk(2),
    "unbind": lambda x: x.exp().unbind(1),
    "permuted": lambda x: (x * 2).permute(1, 0),
    "transposed linear": lambda x: (x @ x.t()).t(),
    "expanded": lambda x: x.sum(0, keepdim=True).expand(4, -1),
    "expanded and materialised": lambda x: x.sum(0, keepdim=True).expand(4, -1).contiguous(),
    "flipped": lambda x: x.exp().flip(0),
    "reshaped copy": lambda x: x.exp().t().reshape(-1),
    "constant": lambda x: (
        torch.ones(3, device=x.device),
        torch.arange(4, device=x.device),
        torch.tensor([1.5, 2.5], device=x.device),
        x.exp(),
    ),
    "constants that are equal": lambda x: (
        torch.zeros(3, device=x.device),
        torch.zeros(3, device=x.device),
        x.exp(),
    ),
    "scalar": lambda x: x.sum(),
    "scalar of an index": lambda x: x.exp()[0, 0],
    "python values": lambda x: (x.exp(), 3, "text", None, x.shape[1]),
    "nested": lambda x: {"a": [x.exp(), (x.sin(), {"b": x.cos()})], "c": None},
    "bool and int": lambda x: (x > 0, x.argmax(1), (x * 10).int()),
    "sorted": lambda x: x.exp().sort(dim=1),
    "topk": lambda x: x.exp().topk(2, dim=1),
    "max and its index": lambda x: x.exp().max(dim=1),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs(name, report):
    """Every kind of output, also after the caller wrote into the outputs of the call before."""
    with torch.no_grad():
        assert_runs_as_eager(OUTPUTS[name], x43)
    report.engines_ran(calls=3)


VIEWS = {
    "chunks": lambda x: (*x.chunk(2, 1), ((x * 2).sin() + 1).sum(1)),
    "second half": lambda x: (x[:, x.shape[1] // 2 :], x.exp()),
    "last columns": lambda x: (x.exp(), x[:, x.shape[1] - 2 :].transpose(0, 1)),
    "a row of a view": lambda x: (x.view(4, 2, x.shape[1] // 2)[:, 1], x.exp()),
    "steps": lambda x: (x[1:, ::2], x[1], x.exp()),
}


@pytest.mark.parametrize("dynamic", [None, True])
@pytest.mark.parametrize("name", VIEWS)
def test_views_of_an_input_of_any_size(name, dynamic, report):
    fn = VIEWS[name]
    compiled = compile_trt(fn, dynamic=dynamic)
    with torch.no_grad():
        for n in (4, 6, 8, 10):
            x = rows(4, n)
            got, want = compiled(x), fn(x)
            assert_close(got, want, strides=True)
            for mine, other in zip(got, want, strict=True):
                assert (mine.data_ptr() == other.data_ptr()) == (
                    other.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
                )
    report.engines_ran(calls=4, rebuilds=True)


def test_constant_outputs_alone():
    """Nothing to compute: whatever runs it, a fresh constant comes out at each call."""

    def fn(x):
        return torch.full((2, 2), 7.0, device=x.device), torch.tensor([1, 2, 3], device=x.device)

    with torch.no_grad():
        assert_runs_as_eager(fn, x43)


def test_a_parameter_as_output(report):
    class Returns(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(rows(3))

        def forward(self, x):
            return self.w, self.w * 2 + x, self.w[1:]

    with torch.no_grad():
        assert_runs_as_eager(Returns(), x43)
    report.engines_ran(calls=3, rebuilds=True)  # writing into the outputs changes the weight


def test_a_captured_tensor_is_an_input_not_a_constant(report):
    captured = rows(3)

    def fn(x):
        return (x + captured).exp()

    compiled = compile_trt(fn)
    with torch.no_grad():
        for _ in range(3):
            assert_close(compiled(*x43()), fn(*x43()))
            captured.add_(1)
    report.engines_ran(calls=3)


def test_outputs_are_fresh_at_each_call(report):
    """Outputs kept in a list do not change when the engine runs again."""
    model, make_inputs = models.resnet()
    compiled = compile_trt(model)
    with torch.no_grad():
        kept = [compiled(*(t + i for t in make_inputs(2))).logits for i in range(6)]
        for i, out in enumerate(kept):
            assert_close(out, model(*(t + i for t in make_inputs(2))).logits)
    assert len({t.data_ptr() for t in kept}) == 6
    report.engines_ran(calls=6)


def test_an_output_fed_back_as_input(report):
    compiled = compile_trt(lambda x: x.sin() + 1)
    with torch.no_grad():
        ours = theirs = rows(4, 3)
        for _ in range(5):
            ours, theirs = compiled(ours), theirs.sin() + 1
    assert_close(ours, theirs)
    report.engines_ran(calls=5)


def test_outputs_outlive_the_compiled_function(report):
    compiled = compile_trt(lambda x: x.sin() + 1)
    x = rows(64, 64)
    with torch.no_grad():
        out = compiled(x)
    report.engines_ran()
    del compiled
    torch._dynamo.reset()
    _ = [torch.full((64, 64), 9.0) for _ in range(8)]  # would land in memory that was freed
    assert_close(out, x.sin() + 1)


# -- strides --


@pytest.mark.parametrize("model_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("input_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_channels_last(model_format, input_format, norm, report):
    model, make_inputs = models.unet(norm, "nearest")
    model = model.to(memory_format=model_format)
    with torch.no_grad():
        assert_runs_as_eager(model, lambda: (make_inputs(2)[0].to(memory_format=input_format),), calls=2)
    report.engines_ran(calls=2)


STRIDED = {
    "convolution": lambda x: F.conv2d(x, torch.ones(4, 3, 3, 3, device=x.device), padding=1),
    "elementwise": lambda x: x.exp() + 1,
    "mixed formats": lambda x: x.exp() + torch.ones(2, 3, 4, 5, device=x.device),
    "pooling": lambda x: F.max_pool2d(x.exp(), 2),
    "to contiguous": lambda x: x.exp().contiguous(),
    "to channels_last": lambda x: x.exp().to(memory_format=torch.channels_last),
    "flattened": lambda x: x.exp().flatten(1),
    "sum": lambda x: x.exp().sum(1),
    "nhwc": lambda x: x.exp().permute(0, 2, 3, 1),
    "zeros_like": lambda x: torch.zeros_like(x) + x,
    "softmax": lambda x: x.softmax(1),
}


@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "permuted"])
@pytest.mark.parametrize("name", STRIDED)
def test_output_strides(name, layout, report):
    def make_args():
        x = rows(2, 3, 4, 5)
        if layout == "channels_last":
            x = x.to(memory_format=torch.channels_last)
        elif layout == "permuted":
            x = rows(4, 5, 2, 3).permute(2, 3, 0, 1)
        return (x,)

    with torch.no_grad():
        assert_runs_as_eager(STRIDED[name], make_args, calls=2)
    report.engines_ran(calls=2)


def test_a_view_of_a_channels_last_output(report):
    """A graph break after a convolution: what follows sees, and may view, eager's strides."""

    def fn(x):
        y = F.conv2d(x, torch.ones(4, 3, 1, 1, device=x.device)).exp()
        torch._dynamo.graph_break()
        return y.permute(0, 2, 3, 1).view(2, 20, 4) * 2, y.stride()

    with torch.no_grad():
        assert_runs_as_eager(fn, lambda: (rows(2, 3, 4, 5).to(memory_format=torch.channels_last),))
    report.engines_ran(calls=3)


# -- what inputs may be --

INPUTS = {
    "transposed": lambda: (rows(3, 4).t(),),
    "sliced": lambda: (rows(8, 6)[2:6, :3],),
    "strided": lambda: (rows(8, 6)[::2, ::2],),
    "storage offset": lambda: (rows(13)[1:].view(4, 3),),
    "misaligned": lambda: (rows(12 + 1).view(torch.uint8)[4:].view(torch.float32).view(4, 3),),
    "expanded": lambda: (rows(1, 3).expand(4, 3),),
    "expanded scalar": lambda: (rows(1).expand(4, 3),),
    "flipped view": lambda: (torch.as_strided(rows(20), (4, 3), (5, 1), 2),),
    "overlapping": lambda: (torch.as_strided(rows(20), (4, 3), (1, 1), 2),),
    "0-d": lambda: (torch.tensor(2.0),),
    "one element": lambda: (rows(1, 1),),
    "8-d": lambda: (rows(1, 2, 1, 2, 1, 3, 1, 1),),
    "a parameter": lambda: (nn.Parameter(rows(4, 3)),),
    "negative bit": lambda: (torch.complex(rows(4, 3), rows(4, 3)).conj().imag,),
    "huge values": lambda: (rows(4, 3) * 1e30,),
    "nan and inf": lambda: (torch.tensor([[1.0, float("nan"), float("inf")], [0.0, -0.0, float("-inf")]]),),
}


NAN = pytest.mark.cpu_only(reason="TensorRT promises nothing for NaN")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=NAN) if name == "nan and inf" else name for name in INPUTS]
)
def test_inputs(name, report):
    with torch.no_grad():
        assert_runs_as_eager(lambda x: ((x * 2).relu(), x.sigmoid() - x), INPUTS[name])
    report.engines_ran(calls=3)


def test_layout_changes_between_calls(report):
    """The same shape in other layouts, through one compiled function."""

    def fn(x):
        return (x * 2).relu() + 1

    compiled = compile_trt(fn)
    layouts = [
        rows(4, 4),
        rows(4, 4).t(),
        rows(8, 8)[::2, ::2],
        rows(1, 4).expand(4, 4),
        rows(17)[1:].view(4, 4),
    ]
    with torch.no_grad():
        for x in layouts + layouts[::-1]:
            assert_close(compiled(x), fn(x), strides=True)
    report.engines_ran(calls=10)


EMPTY = {
    "empty rows": (lambda x: x.relu() + 1, (0, 3)),
    "empty columns": (lambda x: x.relu() + 1, (4, 0)),
    "sum of nothing": (lambda x: x.exp().sum(1), (4, 0)),
    "product with nothing inside": (lambda x: x @ x.t() + 1, (4, 0)),
    "cat with nothing": (lambda x: torch.cat([x.exp(), torch.ones(2, 3, device=x.device)]), (0, 3)),
    "an empty slice": (lambda x: (x.exp()[4:], x.exp()), (4, 3)),
}


@pytest.mark.parametrize("name", EMPTY)
def test_empty_tensors(name, report):
    fn, shape = EMPTY[name]
    with torch.no_grad():
        assert_runs_as_eager(fn, lambda: (rows(*shape),))
    if report.total("engine_calls") == 0:
        report.no_engine_ran("empty tensor")


def test_a_dynamic_batch_that_is_empty_once(report):
    model = models.randomise(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)))
    compiled = compile_trt(model, dynamic=True)
    with torch.no_grad():
        for batch in (4, 3, 0, 5, 1):
            assert_close(compiled(rows(batch, 3)), model(rows(batch, 3)))
    report.engines_ran(calls=3, rebuilds=True)


def test_scalars_on_the_host(report):
    """0-d tensors and Python numbers mix as in eager, dtypes promoted."""

    def fn(x, t, i):
        return x * t, x + i, t + i, x.int() * t, x > t, torch.where(x > 0, t, x)

    with torch.no_grad():
        for args in [
            (torch.tensor(2.5), 3),
            (torch.tensor(2), 3),
            (torch.tensor(2.5, dtype=torch.float64), 2.5),
            (torch.tensor(True), False),
        ]:
            assert_runs_as_eager(fn, lambda args=args: (rows(4, 3), *args), calls=1)
    report.engines_ran(calls=4)


# -- arguments that share memory --


def add_then_double(a, b):
    a.add_(1)
    return b * 2, a.exp()


def _overlap():
    base = rows(6, 3)
    return base[:4], base[2:]


SHARED = {
    "same tensor": lambda: (lambda x: (x, x))(rows(4, 3)),
    "view of the other": lambda: (lambda x: (x, x.view(4, 3)))(rows(4, 3)),
    "transposed view of the other": lambda: (lambda x: (x, x.t()))(rows(3, 3)),
    "overlapping slices": _overlap,
    "disjoint slices": lambda: (lambda x: (x[:4], x[4:]))(rows(8, 3)),
}


@pytest.mark.parametrize(
    "fn", [add_then_double, lambda a, b: (a + b.sum(), a.exp())], ids=["mutates", "reads"]
)
@pytest.mark.parametrize("name", SHARED)
def test_arguments_that_share_memory(name, fn, report):
    with torch.no_grad():
        assert_runs_as_eager(fn, SHARED[name])
    report.engines_ran(calls=3)


def test_apart_then_the_same_tensor(report):
    """First two tensors, then one twice, then two again: each call is eager's."""
    compiled = compile_trt(add_then_double)
    with torch.no_grad():
        for same in (False, True, False, True):
            a, ra = rows(4, 3), rows(4, 3)
            b, rb = (a, ra) if same else (rows(4, 3, seed=1), rows(4, 3, seed=1))
            assert_close(compiled(a, b), add_then_double(ra, rb))
            assert_close((a, b), (ra, rb))
    report.engines_ran(calls=4)


@pytest.mark.cpu_only(reason="looks at what a provider is asked to freeze")
def test_what_the_graph_writes_is_no_weight(compile_trt, monkeypatch):
    """An engine that had a cache or a counter built in would be rebuilt at each call."""
    from trt_backend.engine.onnxruntime import OnnxRuntimeProvider

    seen = []
    original = OnnxRuntimeProvider.worth_freezing

    def worth_freezing(self, graph):
        seen.append({tuple(value.shape) for value in graph.weights})
        return original(self, graph)

    monkeypatch.setattr(OnnxRuntimeProvider, "worth_freezing", worth_freezing)

    class Counter(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(3, 5)
            self.register_buffer("total", torch.zeros(7, 5))

        def forward(self, x):
            y = self.linear(x).relu()
            self.total.add_(y)
            return self.total * 2

    model = Counter().eval()
    compiled = compile_trt(model, options={"min_block_size": 1})
    with torch.no_grad():
        compiled(torch.ones(7, 3))
    assert seen
    assert set().union(*seen) == {(5, 3), (5,)}
