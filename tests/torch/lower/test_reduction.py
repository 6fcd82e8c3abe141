"""Ops that look along axes: torch, the reference and ONNX Runtime agree."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from harness import check, lower, overloads, refusal, trace
from torch import Tensor

from trt_backend.errors import ReasonKind
from trt_backend.ir.ops.elementwise import BatchNorm
from trt_backend.ir.ops.reduction import Normalization, Pooling, Reduce, Softmax
from trt_backend.passes.eliminate_dead import eliminate_dead
from trt_backend_torch.lower.reduction import RULES

_aten = torch.ops.aten

Case = tuple[Callable[..., Any], tuple[Tensor, ...]]

_NAN, _INF = math.nan, math.inf


def _randn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


FLOATS = _randn(2, 3, 4)
DOUBLES = _randn(2, 3, 4, dtype=torch.float64)
INTS = torch.tensor([[-7, 2, 5, 5], [7, -2, 1, 7]])
BYTES = torch.tensor([[100, 200, 0], [3, 0, 3]], dtype=torch.uint8)
BOOLS = torch.tensor([[True, False, True], [False, False, True], [True, True, True]])
SCALAR, INT_SCALAR = torch.tensor(-1.5), torch.tensor(3)
NANS = torch.tensor([[1.0, _NAN, 3.0, _NAN], [_INF, 2.0, -_INF, 2.0], [2.0, 5.0, 5.0, -0.0]])
INFINITE = torch.tensor([[0.0, -_INF, 1.0], [-_INF, -_INF, -_INF], [_INF, 0.0, 1.0]])
IMAGES = _randn(2, 4, 6, 6)


def _on_each(function: Callable[..., Any], *inputs: Tensor) -> Case:
    """One graph that applies `function` to each input."""

    def apply(*tensors: Tensor) -> tuple[Tensor, ...]:
        results: list[Tensor] = []
        for tensor in tensors:
            result = function(tensor)
            results.extend(result if isinstance(result, (tuple, list)) else (result,))
        return tuple(results)

    return apply, inputs


SUMS: dict[str, Case] = {
    "sum": _on_each(torch.sum, FLOATS, INTS, BOOLS, BYTES, DOUBLES, SCALAR),
    "sum dim": _on_each(lambda x: x.sum(-1), FLOATS, INTS, BOOLS, INTS.int(), SCALAR),
    "sum dims": (lambda x: x.sum((0, -1), keepdim=True), (FLOATS,)),
    "sum no dims": _on_each(lambda x: x.sum(()), FLOATS, INTS),
    "sum dtype": _on_each(lambda x: x.sum(0, dtype=torch.float64), FLOATS, INTS),
    "sum of nan": _on_each(lambda x: x.sum(1), NANS),
    "mean": _on_each(torch.mean, FLOATS, DOUBLES, SCALAR),
    "mean dims": _on_each(lambda x: x.mean((-1, 1)), FLOATS, DOUBLES),
    "mean keepdim": (lambda x: x.mean((2, 3), keepdim=True), (IMAGES,)),
    "mean dtype": _on_each(lambda x: x.mean(-1, dtype=torch.float32), INTS, BOOLS),
    "sum wraps": _on_each(torch.sum, torch.tensor([2**60 + 1, 5, 7]), torch.tensor([2**62] * 3)),
    "prod": _on_each(torch.prod, FLOATS, SCALAR),
    "prod dim": _on_each(lambda x: x.prod(-1, keepdim=True), FLOATS),
    "cumsum": _on_each(lambda x: x.cumsum(-1), FLOATS, INTS, BOOLS, NANS, SCALAR),
    "cumsum dtype": _on_each(lambda x: x.cumsum(0, dtype=torch.float32), INTS),
    "var": _on_each(lambda x: x.var(-1), FLOATS, DOUBLES),
    "var all": _on_each(lambda x: x.var(correction=0), FLOATS, SCALAR),
    "var of one": _on_each(lambda x: x.var(0), 100 + FLOATS),
    "var correction": _on_each(lambda x: x.var((0, 2), correction=3, keepdim=True), FLOATS),
    "std": _on_each(lambda x: x.std((0, -1)), FLOATS, DOUBLES),
    "var_mean": _on_each(lambda x: torch.var_mean(x, (1,)), FLOATS),
    "std_mean": _on_each(lambda x: torch.std_mean(x, 1, keepdim=True), FLOATS),
    "norm": _on_each(lambda x: torch.linalg.vector_norm(x, dim=-1), FLOATS, DOUBLES, SCALAR),
    "norms": _on_each(
        lambda x: tuple(torch.linalg.vector_norm(x, order, dim=1) for order in (0, 1, 2, _INF, -_INF)),
        FLOATS,
        NANS,
    ),
    "normalize": _on_each(lambda x: F.normalize(x, dim=-1), FLOATS),
}

EXTREMES: dict[str, Case] = {
    "amax": _on_each(lambda x: torch.amax(x, (0, -1)), FLOATS, INTS, BYTES, BOOLS, NANS, DOUBLES),
    "amin": _on_each(lambda x: torch.amin(x, -1, keepdim=True), FLOATS, INTS, BOOLS, NANS, SCALAR),
    "amax no dims": _on_each(lambda x: torch.amax(x, ()), FLOATS),
    "aminmax": _on_each(lambda x: torch.aminmax(x, dim=1), FLOATS, NANS),
    "max": _on_each(torch.max, FLOATS, INTS, BOOLS, NANS, SCALAR),
    "min": _on_each(torch.min, FLOATS, INTS, BOOLS, NANS, SCALAR),
    "max dim": _on_each(lambda x: torch.max(x, -1), FLOATS, INTS, BOOLS, NANS, DOUBLES, SCALAR),
    "max dim keepdim": _on_each(lambda x: torch.max(x, 0, keepdim=True), FLOATS, NANS, SCALAR),
    "min dim": _on_each(lambda x: torch.min(x, 1), FLOATS, INTS, BOOLS, NANS, BYTES),
    "max dim values": _on_each(lambda x: torch.max(x, 1).values, FLOATS),
    "argmax": _on_each(lambda x: torch.argmax(x, -1), FLOATS, INTS, NANS, SCALAR),
    "argmax flat": _on_each(torch.argmax, FLOATS, INTS, NANS, SCALAR),
    "argmax keepdim": _on_each(lambda x: torch.argmax(x, 0, keepdim=True), FLOATS, NANS),
    "argmax flat keepdim": _on_each(lambda x: torch.argmax(x, keepdim=True), FLOATS),
    "argmin": _on_each(lambda x: torch.argmin(x, 1), FLOATS, INTS, NANS, BYTES),
    "argmin flat": _on_each(torch.argmin, FLOATS, INTS, NANS),
    "any": _on_each(torch.any, BOOLS, FLOATS, BYTES, NANS, SCALAR),
    "any dim": _on_each(lambda x: torch.any(x, -1), BOOLS, INTS, BYTES, NANS, SCALAR),
    "any dims": _on_each(lambda x: torch.any(x, (0, 1), keepdim=True), BOOLS, FLOATS),
    "any no dims": _on_each(lambda x: torch.any(x, ()), BOOLS, INTS),
    "all": _on_each(torch.all, BOOLS, FLOATS, BYTES, NANS, SCALAR),
    "all dim": _on_each(lambda x: torch.all(x, 1, keepdim=True), BOOLS, INTS, BYTES),
    "all dims": _on_each(lambda x: torch.all(x, (0, -1)), BOOLS, FLOATS),
}

SORTS: dict[str, Case] = {
    "topk": _on_each(lambda x: torch.topk(x, 2), FLOATS),
    "topk smallest": _on_each(lambda x: torch.topk(x, 2, dim=1, largest=False), FLOATS),
    "topk scalar": _on_each(lambda x: torch.topk(x, 1), SCALAR),
    "sort": _on_each(torch.sort, FLOATS, SCALAR),
    "sort stable": _on_each(lambda x: torch.sort(x, dim=1, descending=True, stable=True), FLOATS, INTS),
    "sort bool": _on_each(lambda x: torch.sort(x, stable=True), BOOLS),
    "sort nan": _on_each(lambda x: torch.sort(x[::2], stable=True), NANS),
    "sort nan and inf": _on_each(
        lambda x: torch.sort(x, stable=True),
        torch.tensor([math.nan, 1.0, math.inf, math.nan, 3.4e38, -math.inf]),
    ),
    "topk nan": _on_each(lambda x: torch.topk(x[::2], 2)[0], NANS),
    "argsort": _on_each(lambda x: torch.argsort(x, 0), FLOATS),
}

SOFTMAX: dict[str, Case] = {
    "softmax": _on_each(lambda x: F.softmax(x, -1), FLOATS, DOUBLES, INFINITE, SCALAR, 100 * FLOATS),
    "softmax inner": _on_each(lambda x: F.softmax(x, 1), FLOATS),
    "softmax dtype": _on_each(lambda x: F.softmax(x, 0, dtype=torch.float64), FLOATS, INTS),
    "safe softmax": _on_each(lambda x: _aten._safe_softmax(x, -1), FLOATS, INFINITE[:2]),
    "log_softmax": _on_each(lambda x: F.log_softmax(x, -1), FLOATS, DOUBLES, INFINITE, SCALAR, 100 * FLOATS),
    "logsumexp": _on_each(lambda x: torch.logsumexp(x, (0, -1)), FLOATS, DOUBLES, INFINITE[:1]),
}

_WEIGHT, _BIAS = _randn(4), _randn(4) + 1


def _instance_norm(x: Tensor) -> Tensor:
    return _aten._native_batch_norm_legit.no_stats(x, None, None, True, 0.1, 1e-5)[0]


NORMS: dict[str, Case] = {
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (4,), w, b, 1e-3), (FLOATS, _WEIGHT, _BIAS)),
    "layer_norm plain": _on_each(lambda x: F.layer_norm(x, x.shape[-1:]), FLOATS, DOUBLES, 10 + FLOATS),
    "layer_norm scaled": (lambda x, w: F.layer_norm(x, (4,), w), (FLOATS, _WEIGHT)),
    "layer_norm moved": (lambda x, b: F.layer_norm(x, (4,), None, b), (FLOATS, _BIAS)),
    "layer_norm 2": (lambda x, w: F.layer_norm(x, (3, 4), w, w), (FLOATS, _randn(3, 4))),
    "group_norm": (lambda x, w, b: F.group_norm(x, 2, w, b), (IMAGES, _WEIGHT, _BIAS)),
    "group_norm plain": _on_each(lambda x: F.group_norm(x, 2), IMAGES, _randn(3, 4), _randn(2, 4, 5)),
    "batch_norm": (
        lambda x, w, b, m, v: F.batch_norm(x, m, v, w, b),
        (IMAGES, _WEIGHT, _BIAS, _randn(4), _randn(4).abs()),
    ),
    "batch_norm plain": (lambda x, m, v: F.batch_norm(x, m, v), (_randn(3, 4), _randn(4), _randn(4).abs())),
    "no_training": (
        lambda x, w, b, m, v: _aten._native_batch_norm_legit_no_training(x, w, b, m, v, 0.1, 1e-3)[0],
        (_randn(2, 4, 5), _WEIGHT, _BIAS, _randn(4), _randn(4).abs()),
    ),
    "no_update": (
        lambda x, w, b, m, v: _aten._batch_norm_no_update(x, w, b, m, v, 0.1, 1e-3)[0],
        (IMAGES, _WEIGHT, _BIAS, _randn(4), _randn(4).abs()),
    ),
    "instance_norm": (lambda x, w, b: F.instance_norm(x, None, None, w, b), (IMAGES, _WEIGHT, _BIAS)),
    "no_stats": (_instance_norm, (IMAGES,)),
    "rms_norm": (lambda x, w: x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * w, (FLOATS, _WEIGHT)),
}

POOLS: dict[str, Case] = {
    "max 2d": (lambda x: F.max_pool2d(x, 2), (IMAGES,)),
    "max 2d padded": (lambda x: F.max_pool2d(x, 3, 2, 1), (IMAGES,)),
    "max 2d ceil": (lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), (IMAGES,)),
    "max 2d oblong": (lambda x: F.max_pool2d(x, (3, 2), (1, 2), (1, 0)), (IMAGES,)),
    "max 2d no batch": (lambda x: F.max_pool2d(x, 2), (IMAGES[0],)),
    "max 1d": (lambda x: F.max_pool1d(x, 2, 1), (FLOATS,)),
    "max 3d": (lambda x: F.max_pool3d(x, 2, 2, 1), (_randn(1, 2, 4, 4, 4),)),
    "average 2d": (lambda x: F.avg_pool2d(x, 2), (IMAGES,)),
    "average 2d padded": (lambda x: F.avg_pool2d(x, 3, 2, 1), (IMAGES,)),
    "average 2d inside": (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), (IMAGES,)),
    "average 2d ceil inside": (
        lambda x: F.avg_pool2d(x, 4, 3, 1, ceil_mode=True, count_include_pad=False),
        (IMAGES,),
    ),
    "average 1d": (lambda x: F.avg_pool1d(x, 3, 1, 1), (FLOATS,)),
    "average 3d": (lambda x: F.avg_pool3d(x, 2), (_randn(1, 2, 4, 4, 4),)),
    "adaptive average 1": _on_each(lambda x: F.adaptive_avg_pool2d(x, 1), IMAGES, IMAGES[0]),
    "adaptive average": (lambda x: F.adaptive_avg_pool2d(x, (3, 2)), (IMAGES,)),
    "adaptive average same": (lambda x: F.adaptive_avg_pool2d(x, 6), (IMAGES,)),
    "adaptive average 1d": (lambda x: F.adaptive_avg_pool1d(x, 2), (FLOATS,)),
    "adaptive average 3d": (lambda x: F.adaptive_avg_pool3d(x, 2), (_randn(1, 2, 4, 4, 4),)),
    "adaptive max": (lambda x: F.adaptive_max_pool2d(x, 3), (IMAGES,)),
    "adaptive max 1": (lambda x: F.adaptive_max_pool2d(x, 1), (IMAGES,)),
    "adaptive max 3d": (lambda x: F.adaptive_max_pool3d(x, 2), (_randn(1, 2, 4, 4, 4),)),
}

HALF: dict[str, Case] = {
    name: _on_each(function, 300 * FLOATS.half(), FLOATS.half())
    for name, function in {
        "mean": lambda x: x.mean(-1),
        "var_mean": lambda x: torch.var_mean(x / 16, -1),
        "std": lambda x: x.std(-1),
        "norm": lambda x: torch.linalg.vector_norm(x, dim=-1),
        "softmax": lambda x: F.softmax(x, -1),
        "half to float": lambda x: F.softmax(x, -1, dtype=torch.float32),
        "log_softmax": lambda x: F.log_softmax(x, -1),
        "layer_norm": lambda x: F.layer_norm(x, (4,)),
    }.items()
}

CASES = SUMS | EXTREMES | SORTS | SOFTMAX | NORMS | POOLS

DYNAMIC = [
    "sum dims",
    "mean",
    "mean keepdim",
    "cumsum",
    "var",
    "var correction",
    "std_mean",
    "normalize",
    "amin",
    "max dim",
    "argmax flat",
    "argmax flat keepdim",
    "any no dims",
    "topk",
    "softmax",
    "log_softmax",
    "safe softmax",
    "layer_norm",
    "layer_norm plain",
    "group_norm",
    "group_norm plain",
    "batch_norm",
    "instance_norm",
    "max 2d padded",
    "max 2d ceil",
    "max 2d no batch",
    "max 1d",
    "average 2d inside",
    "adaptive average 1",
    "adaptive max 1",
]
"""The cases that run with symbolic sizes too: one for each way in which a rule handles shapes."""


@pytest.mark.parametrize("name", CASES)
def test_agrees(name: str) -> None:
    function, inputs = CASES[name]
    check(function, *inputs)


@pytest.mark.parametrize("name", DYNAMIC)
def test_agrees_with_symbolic_sizes(name: str) -> None:
    function, inputs = CASES[name]
    check(function, *inputs, dynamic=True)


@pytest.mark.parametrize("name", HALF)
def test_half_agrees(name: str) -> None:
    function, inputs = HALF[name]
    check(function, *inputs, rtol=3e-3, atol=2e-3)


def test_every_rule_has_a_case() -> None:
    assert set(RULES) <= overloads(CASES.values())


REFUSED: dict[str, tuple[Case, ReasonKind]] = {
    "product of integers": ((torch.prod, (INTS,)), ReasonKind.DTYPE),
    "sort of integers": ((torch.sort, (INTS,)), ReasonKind.UNSUPPORTED),
    "topk of integers": ((lambda x: torch.topk(x, 1), (INTS,)), ReasonKind.UNSUPPORTED),
    "sort of doubles": ((torch.sort, (DOUBLES,)), ReasonKind.DTYPE),
    "order": ((lambda x: torch.linalg.vector_norm(x, 3), (FLOATS,)), ReasonKind.UNSUPPORTED),
    "dilation": ((lambda x: F.max_pool2d(x, 2, dilation=2), (IMAGES,)), ReasonKind.UNSUPPORTED),
    "indices": (
        (lambda x: F.max_pool2d(x, 2, return_indices=True)[1] + 1, (IMAGES,)),
        ReasonKind.UNSUPPORTED,
    ),
    "divisor": ((lambda x: F.avg_pool2d(x, 2, divisor_override=3), (IMAGES,)), ReasonKind.UNSUPPORTED),
    "average ceil": (
        (lambda x: F.avg_pool2d(x, 4, 3, 1, ceil_mode=True), (IMAGES,)),
        ReasonKind.UNSUPPORTED,  # by ONNX Runtime
    ),
    "uneven": ((lambda x: F.adaptive_avg_pool2d(x, 4), (IMAGES,)), ReasonKind.UNSUPPORTED),
    "integers": ((lambda x: F.max_pool2d(x, 2), (IMAGES.int(),)), ReasonKind.DTYPE),
    "statistics": (
        (lambda x: _aten.native_layer_norm(x, [4], None, None, 0.1)[1] + 1, (FLOATS,)),
        ReasonKind.UNSUPPORTED,
    ),
    "training": (
        (
            lambda x, m, v: _aten.native_batch_norm(x, None, None, m, v, True, 0.1, 1e-3)[0],
            (IMAGES, _randn(4), _randn(4).abs()),
        ),
        ReasonKind.UNSUPPORTED,
    ),
    "median": ((lambda x: torch.median(x), (FLOATS,)), ReasonKind.NO_RULE),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    (function, inputs), kind = REFUSED[name]
    assert refusal(function, *inputs).kind is kind


@pytest.mark.parametrize(
    ("function", "x"),
    [
        (torch.sort, FLOATS),
        (lambda x: F.adaptive_avg_pool2d(x, 3), IMAGES),
        (lambda x: F.max_pool2d(x, 2, 2, 1, ceil_mode=True), IMAGES),
    ],
)
def test_refused_with_symbolic_sizes(function: Callable[..., Any], x: Tensor) -> None:
    reason = refusal(lambda x: function(x)[0], x, dynamic=True)
    assert reason.kind is ReasonKind.UNSUPPORTED
    assert "dynamic" in reason.detail


@pytest.mark.parametrize(
    ("op", "name"),
    [
        (Softmax, "softmax inner"),
        (Normalization, "layer_norm"),
        (BatchNorm, "batch_norm"),
        (Pooling, "max 2d padded"),
        (Pooling, "average 2d"),
        (Reduce, "mean keepdim"),
    ],
)
def test_is_one_op(op: type, name: str) -> None:
    function, inputs = CASES[name]
    graph = eliminate_dead(lower(trace(function, inputs, dynamic=False)))
    assert [type(node.op) for node in graph.nodes] == [op]
