"""Attention stays one op from the user's call to the engine, whichever kernel torch would have chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch_checks import (
    ReportChecks,
    assert_close,
    assert_runs_as_eager,
    clone,
    compile_trt,
    device,
    keeps_whole,
    needs_trt,
)

from models import randn, randomise
from trt_backend_torch.attention import ATTENTION, keep_attention

HEADS, SIZE = 4, 16


def qkv(heads: int = HEADS, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    shapes = ((2, HEADS, 5, SIZE), (2, heads, 7, SIZE), (2, heads, 7, SIZE))
    q, k, v = (randn(*shape, seed=i).to(dtype) for i, shape in enumerate(shapes))
    return q, k, v


def around(**options: Any) -> Callable[..., Tensor]:
    """Attention between ops that engines take, and the reshape that follows it in every model."""

    def call(q: Tensor, k: Tensor, v: Tensor, *mask: Tensor) -> Tensor:
        y = F.scaled_dot_product_attention(q * 2, k, v, *mask, **options)
        return y.transpose(1, 2).reshape(2, 5, HEADS * SIZE).relu()

    return call


def shown(*shape: int) -> Tensor:
    """A mask that shows about half, and nothing to one query."""
    mask = randn(*shape) > 0
    mask[..., 1, :] = False
    return mask


def additive(*shape: int) -> Tensor:
    return torch.zeros(shape).masked_fill(~shown(*shape), -torch.inf)


CASES: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "plain": (around(), qkv()),
    "causal": (around(is_causal=True), qkv()),
    "scale": (around(scale=0.5), qkv()),
    "grouped queries": (around(enable_gqa=True), qkv(heads=2)),
    "mask": (around(), (*qkv(), additive(2, 1, 5, 7))),
    "mask of rank 2": (around(), (*qkv(), additive(5, 7))),
    "mask bool": (around(), (*qkv(), shown(2, 1, 5, 7))),
}


@needs_trt
@pytest.mark.parametrize("name", CASES)
def test_runs_whole(name: str, report: ReportChecks, tmp_path: Path) -> None:
    function, inputs = CASES[name]
    with torch.no_grad():
        assert_runs_as_eager(function, lambda: clone(inputs), options={"dump_dir": str(tmp_path)})
    report.engines_ran(calls=3, share=1.0, exactly=True)
    (lowered,) = tmp_path.rglob("*lowered.ir")
    assert lowered.read_text().count("= Attention(") == 1


def from_products(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return (q * q.shape[-1] ** -0.5 @ k.mT).softmax(-1) @ v


class Projected(nn.Module):
    """Attention of a first sequence's projection to two of a second."""

    def __init__(self, attention: Callable[..., Tensor]) -> None:
        super().__init__()
        self.attention = attention
        self.q, self.k, self.v, self.y = (nn.Linear(HEADS * SIZE, HEADS * SIZE) for _ in range(4))

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        q, k, v = (
            y.reshape(*y.shape[:2], HEADS, SIZE).transpose(1, 2)
            for y in (self.q(x), self.k(context), self.v(context))
        )
        return self.y(self.attention(q, k, v).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("attention", [F.scaled_dot_product_attention, from_products])
@pytest.mark.parametrize(("queries", "keys"), [(1, 17), (2, 17), (17, 1), (1, 1)])
def test_one_query_or_key_of_each_of_a_batch(
    attention: Callable[..., Tensor], queries: int, keys: int, report: ReportChecks
) -> None:
    """TensorRT 8.6 fuses attention, and that of one query wrongly."""
    model = randomise(Projected(attention))
    inputs = [randn(3, length, HEADS * SIZE, seed=length) for length in (queries, keys)]
    with torch.no_grad():
        assert_runs_as_eager(model, lambda: clone(inputs))
    report.engines_ran(calls=3, share=1.0, exactly=True)


def keeps(function: Callable[..., Any], *inputs: Tensor) -> bool:
    """Whether `keep_attention` puts the op into dynamo's graph."""
    return keeps_whole(keep_attention, ATTENTION, function, *inputs)


def in_autocast(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with torch.autocast(device(), torch.bfloat16):
        return F.scaled_dot_product_attention(q, k, v)


def with_gradients(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with torch.enable_grad():
        return F.scaled_dot_product_attention(q, k, v)


def without_inputs() -> Tensor:
    x = torch.arange(320.0, device=device()).view(2, 4, 5, 8).sin()
    return F.scaled_dot_product_attention(x, x, x)


LEFT: dict[str, Callable[..., Tensor]] = {
    "rank 3": lambda q, k, v: F.scaled_dot_product_attention(q[0], k[0], v[0]),
    "dropout": lambda q, k, v: F.scaled_dot_product_attention(q, k, v, dropout_p=0.5),
    "autocast in the graph": in_autocast,
    "wider mask": lambda q, k, v: F.scaled_dot_product_attention(
        q.half(), k.half(), v.half(), torch.zeros(5, 7)
    ),
    "vmap": torch.vmap(lambda q, k, v: F.scaled_dot_product_attention(q[None], k[None], v[None])),
}


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # torch has no rule for it under vmap
@pytest.mark.parametrize("name", LEFT)
def test_is_left_as_it_is(name: str) -> None:
    with torch.no_grad():
        assert not keeps(LEFT[name], *qkv())


def test_is_left_where_gradients_are_recorded() -> None:
    q, k, v = qkv()
    assert keeps(around(), q, k, v)
    assert not keeps(around(), q.requires_grad_(), k, v)
    with torch.no_grad():
        assert not keeps(with_gradients, q, k, v)


def test_is_left_under_autocast() -> None:
    with torch.no_grad(), torch.autocast(device(), torch.bfloat16):
        assert not keeps(around(), *qkv())
        assert not keeps(without_inputs)


FOLLOWED: dict[str, Callable[..., Any]] = {
    "returned": lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
    "viewed": lambda q, k, v: F.scaled_dot_product_attention(q, k, v).view(8, 5, 16) + 1,
    "written to": lambda q, k, v: F.scaled_dot_product_attention(q, k, v).view(-1).add_(1),
    "strided": lambda q, k, v: F.scaled_dot_product_attention(q, k, v).as_strided((3, 3), (4, 1)) + 1,
}


@needs_trt
@pytest.mark.parametrize("heads_last", [False, True])
@pytest.mark.parametrize("min_block_size", [1, 100])
@pytest.mark.parametrize("name", FOLLOWED)
def test_layout_is_torchs(name: str, min_block_size: int, heads_last: bool, report: ReportChecks) -> None:
    """Some kernels write heads first, some last; what follows may rely on it."""
    function, inputs = FOLLOWED[name], qkv()
    if heads_last:
        inputs = tuple(x.transpose(1, 2).contiguous().transpose(1, 2) for x in inputs)
    with torch.no_grad():
        try:
            function(*clone(inputs))
        except RuntimeError as error:
            if "view size is not compatible" not in str(error):
                raise
            pytest.skip("torch has no such view of what its kernel writes here")
        assert_runs_as_eager(function, lambda: clone(inputs), options={"min_block_size": min_block_size})
    if min_block_size == 1:
        report.engines_ran(calls=3)


@needs_trt
def test_half_precision_stays_half(tmp_path: Path, report: ReportChecks) -> None:
    """What torch falls back to where it has no kernel would compute in float32 between casts."""
    inputs = (*qkv(dtype=torch.float16), additive(2, 1, 5, 7).half())
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        got = compile_trt(around(), options={"dump_dir": str(tmp_path)})(*inputs)
        assert_close(got, around()(*inputs), rtol=1e-2)
    report.engines_ran(share=1.0, exactly=True)
    (lowered,) = tmp_path.rglob("*lowered.ir")
    assert "f32" not in lowered.read_text()


@needs_trt
def test_natively_it_is_torchs_own(report: ReportChecks) -> None:
    function, inputs = CASES["mask bool"]
    with torch.no_grad():
        assert_runs_as_eager(function, lambda: clone(inputs), options={"min_block_size": 100})
    report.no_engine_ran("region too small")


def test_keys_and_values_that_grow_are_in_the_engine(report: ReportChecks) -> None:
    """Dynamo gives the lengths of both a symbol of their own."""

    class Growing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads, self.out = nn.Linear(16, 48), nn.Linear(16, 16)

        def forward(self, x: Tensor, seen: dict[str, Tensor]) -> Tensor:
            q, k, v = self.heads(x).view(1, 1, 3, 2, 8).permute(2, 0, 3, 1, 4)
            seen["k"], seen["v"] = (torch.cat([seen[name], new], 2) for name, new in (("k", k), ("v", v)))
            return self.out(F.scaled_dot_product_attention(q, seen["k"], seen["v"]).reshape(1, 1, 16)).relu()

    model = randomise(Growing())
    compiled = compile_trt(model)
    ours, theirs = ({name: randn(1, 2, 3, 8, seed=i) for i, name in enumerate("kv")} for _ in range(2))
    with torch.no_grad():
        for i in range(6):
            token = randn(1, 1, 16, seed=i)
            assert_close((compiled(token, ours), ours), (model(token, theirs), theirs))
    report.engines_ran(calls=6, share=1.0, rebuilds=True)
