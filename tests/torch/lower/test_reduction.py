"""Sums, variances, extremes, sorting and softmax: torch, the reference and ONNX Runtime agree."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from harness import Case, Function, check, each, on_each, operations, overloads, randn, refusal
from operands import SPECIAL
from torch import Tensor

from trt_backend.errors import ReasonKind
from trt_backend.ir.ops.reduction import Reduce, Softmax
from trt_backend_torch.lower.reduction import RULES

_aten = torch.ops.aten

_NAN, _INF = math.nan, math.inf

FLOATS = randn(2, 3, 4)
DOUBLES = randn(2, 3, 4, dtype=torch.float64)
INTS = torch.tensor([[-7, 2, 5, 5], [7, -2, 1, 7]])
BYTES = torch.tensor([[100, 200, 0], [3, 0, 3]], dtype=torch.uint8)
BOOLS = torch.tensor([[True, False, True], [False, False, True], [True, True, True]])
SCALAR, INT_SCALAR = torch.tensor(-1.5), torch.tensor(3)
NANS = torch.tensor([[1.0, _NAN, 3.0, _NAN], [_INF, 2.0, -_INF, 2.0], [2.0, 5.0, 5.0, -0.0]])
INFINITE = torch.tensor([[0.0, -_INF, 1.0], [-_INF, -_INF, -_INF], [_INF, 0.0, 1.0]])
IMAGES = randn(2, 4, 6, 6)

SUMS: dict[str, Case] = {
    "sum": on_each(torch.sum, FLOATS, INTS, BOOLS, BYTES, DOUBLES, SCALAR),
    "sum dim": on_each(lambda x: x.sum(-1), FLOATS, INTS, BOOLS, INTS.int(), SCALAR),
    "sum dims": (lambda x: x.sum((0, -1), keepdim=True), (FLOATS,)),
    "sum no dims": on_each(lambda x: x.sum(()), FLOATS, INTS),
    "sum dtype": on_each(lambda x: x.sum(0, dtype=torch.float64), FLOATS, INTS),
    "sum of nan": on_each(lambda x: x.sum(1), NANS),
    "mean": on_each(torch.mean, FLOATS, DOUBLES, SCALAR),
    "mean dims": on_each(lambda x: x.mean((-1, 1)), FLOATS, DOUBLES),
    "mean keepdim": (lambda x: x.mean((2, 3), keepdim=True), (IMAGES,)),
    "mean dtype": on_each(lambda x: x.mean(-1, dtype=torch.float32), INTS, BOOLS),
    "sum wraps": on_each(torch.sum, torch.tensor([2**60 + 1, 5, 7]), torch.tensor([2**62] * 3)),
    "prod": on_each(torch.prod, FLOATS, SCALAR),
    "prod dim": on_each(lambda x: x.prod(-1, keepdim=True), FLOATS),
    "cumsum": on_each(lambda x: x.cumsum(-1), FLOATS, INTS, BOOLS, NANS, SCALAR),
    "cumsum dtype": on_each(lambda x: x.cumsum(0, dtype=torch.float32), INTS),
    "var": on_each(lambda x: x.var(-1), FLOATS, DOUBLES),
    "var all": on_each(lambda x: x.var(correction=0), FLOATS, SCALAR),
    "var of one": on_each(lambda x: x.var(0), 100 + FLOATS),
    "var correction": on_each(lambda x: x.var((0, 2), correction=3, keepdim=True), FLOATS),
    "std": on_each(lambda x: x.std((0, -1)), FLOATS, DOUBLES),
    "var_mean": on_each(lambda x: torch.var_mean(x, (1,)), FLOATS),
    "std_mean": on_each(lambda x: torch.std_mean(x, 1, keepdim=True), FLOATS),
    "norm": on_each(lambda x: torch.linalg.vector_norm(x, dim=-1), FLOATS, DOUBLES, SCALAR),
    "norms": on_each(
        lambda x: tuple(torch.linalg.vector_norm(x, order, dim=1) for order in (0, 1, 2, _INF, -_INF)),
        FLOATS,
        NANS,
    ),
    "normalize": on_each(lambda x: F.normalize(x, dim=-1), FLOATS),
}

EXTREMES: dict[str, Case] = {
    "amax": on_each(lambda x: torch.amax(x, (0, -1)), FLOATS, INTS, BYTES, BOOLS, NANS, DOUBLES),
    "amin": on_each(lambda x: torch.amin(x, -1, keepdim=True), FLOATS, INTS, BOOLS, NANS, SCALAR),
    "amax no dims": on_each(lambda x: torch.amax(x, ()), FLOATS),
    "aminmax": on_each(lambda x: torch.aminmax(x, dim=1), FLOATS, NANS),
    "max": on_each(torch.max, FLOATS, INTS, BOOLS, NANS, SCALAR),
    "min": on_each(torch.min, FLOATS, INTS, BOOLS, NANS, SCALAR),
    "max dim": on_each(lambda x: torch.max(x, -1), FLOATS, INTS, BOOLS, NANS, DOUBLES, SCALAR),
    "max dim keepdim": on_each(lambda x: torch.max(x, 0, keepdim=True), FLOATS, NANS, SCALAR),
    "min dim": on_each(lambda x: torch.min(x, 1), FLOATS, INTS, BOOLS, NANS, BYTES),
    "max dim values": on_each(lambda x: torch.max(x, 1).values, FLOATS),
    "argmax": on_each(lambda x: torch.argmax(x, -1), FLOATS, INTS, NANS, SCALAR),
    "argmax flat": on_each(torch.argmax, FLOATS, INTS, NANS, SCALAR),
    "argmax keepdim": on_each(lambda x: torch.argmax(x, 0, keepdim=True), FLOATS, NANS),
    "argmax flat keepdim": on_each(lambda x: torch.argmax(x, keepdim=True), FLOATS),
    "argmin": on_each(lambda x: torch.argmin(x, 1), FLOATS, INTS, NANS, BYTES),
    "argmin flat": on_each(torch.argmin, FLOATS, INTS, NANS),
    "any": on_each(torch.any, BOOLS, FLOATS, BYTES, NANS, SCALAR),
    "any dim": on_each(lambda x: torch.any(x, -1), BOOLS, INTS, BYTES, NANS, SCALAR),
    "any dims": on_each(lambda x: torch.any(x, (0, 1), keepdim=True), BOOLS, FLOATS),
    "any no dims": on_each(lambda x: torch.any(x, ()), BOOLS, INTS),
    "all": on_each(torch.all, BOOLS, FLOATS, BYTES, NANS, SCALAR),
    "all dim": on_each(lambda x: torch.all(x, 1, keepdim=True), BOOLS, INTS, BYTES),
    "all dims": on_each(lambda x: torch.all(x, (0, -1)), BOOLS, FLOATS),
}

SORTS: dict[str, Case] = {
    "topk": on_each(lambda x: torch.topk(x, 2), FLOATS),
    "topk smallest": on_each(lambda x: torch.topk(x, 2, dim=1, largest=False), FLOATS),
    "topk scalar": on_each(lambda x: torch.topk(x, 1), SCALAR),
    "sort": on_each(torch.sort, FLOATS, SCALAR),
    "sort stable": on_each(lambda x: torch.sort(x, dim=1, descending=True, stable=True), FLOATS, INTS),
    "sort bool": on_each(lambda x: torch.sort(x, stable=True), BOOLS),
    "sort nan": on_each(lambda x: torch.sort(x[::2], stable=True), NANS),
    "sort nan and inf": on_each(
        lambda x: torch.sort(x, stable=True),
        torch.tensor([math.nan, 1.0, math.inf, math.nan, 3.4e38, -math.inf]),
    ),
    "topk nan": on_each(lambda x: torch.topk(x[::2], 2)[0], NANS),
    "argsort": on_each(lambda x: torch.argsort(x, 0), FLOATS),
}

SOFTMAX: dict[str, Case] = {
    "softmax": on_each(lambda x: F.softmax(x, -1), FLOATS, DOUBLES, INFINITE, SCALAR, 100 * FLOATS),
    "softmax inner": on_each(lambda x: F.softmax(x, 1), FLOATS),
    "softmax dtype": on_each(lambda x: F.softmax(x, 0, dtype=torch.float64), FLOATS, INTS),
    "safe softmax": on_each(lambda x: _aten._safe_softmax(x, -1), FLOATS, INFINITE[:2]),
    "log_softmax": on_each(lambda x: F.log_softmax(x, -1), FLOATS, DOUBLES, INFINITE, SCALAR, 100 * FLOATS),
    "logsumexp": on_each(lambda x: torch.logsumexp(x, (0, -1)), FLOATS, DOUBLES, INFINITE[:1]),
}

HALF: dict[str, Case] = {
    name: on_each(function, 300 * FLOATS.half(), FLOATS.half())
    for name, function in {
        "mean": lambda x: x.mean(-1),
        "var_mean": lambda x: torch.var_mean(x / 16, -1),
        "std": lambda x: x.std(-1),
        "norm": lambda x: torch.linalg.vector_norm(x, dim=-1),
        "softmax": lambda x: F.softmax(x, -1),
        "half to float": lambda x: F.softmax(x, -1, dtype=torch.float32),
        "log_softmax": lambda x: F.log_softmax(x, -1),
    }.items()
}

SUMS |= {
    f"norm {order}": on_each(
        lambda x, order=order: torch.linalg.vector_norm(x, order), FLOATS, SPECIAL, DOUBLES
    )
    for order in (3, 0.5, -2)
}

CASES = SUMS | EXTREMES | SORTS | SOFTMAX

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
]
"""The cases that run with symbolic sizes too: one for each way in which a rule handles shapes."""

REFUSED: dict[str, tuple[Case, ReasonKind]] = {
    "product of integers": ((torch.prod, (INTS,)), ReasonKind.DTYPE),
    "sort of integers": ((torch.sort, (INTS,)), ReasonKind.UNSUPPORTED),
    "topk of integers": ((lambda x: torch.topk(x, 1), (INTS,)), ReasonKind.UNSUPPORTED),
    "sort of doubles": ((torch.sort, (DOUBLES,)), ReasonKind.DTYPE),
    "median": ((lambda x: torch.median(x), (FLOATS,)), ReasonKind.NO_RULE),
}


@each(CASES, dynamic=DYNAMIC)
def test_agrees(function: Function, inputs: tuple[Tensor, ...], dynamic: bool) -> None:
    check(function, *inputs, dynamic=dynamic)


@each(HALF)
def test_half_agrees(function: Function, inputs: tuple[Tensor, ...], dynamic: bool) -> None:
    check(function, *inputs, dynamic=dynamic, rtol=3e-3, atol=2e-3)


def test_every_rule_has_a_case() -> None:
    assert set(RULES) <= overloads(CASES.values())


@pytest.mark.parametrize(("case", "kind"), REFUSED.values(), ids=REFUSED)
def test_refused(case: Case, kind: ReasonKind) -> None:
    function, inputs = case
    assert refusal(function, *inputs).kind is kind


def test_refused_with_symbolic_sizes() -> None:
    reason = refusal(torch.sort, FLOATS, dynamic=True)
    assert reason.kind is ReasonKind.UNSUPPORTED
    assert "dynamic" in reason.detail


@pytest.mark.parametrize(
    ("op", "name"),
    [(Softmax, "softmax inner"), (Reduce, "mean keepdim")],
)
def test_is_one_op(op: type, name: str) -> None:
    function, inputs = CASES[name]
    assert operations(function, *inputs) == [op]
