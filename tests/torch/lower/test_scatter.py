"""Scatters that combine, and masks that take from another tensor: torch, the reference and ONNX Runtime agree."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from harness import Case, Function, check, each, overloads, randn, refusal
from torch import Tensor

from trt_backend_torch.lower.scatter import RULES

pytestmark = pytest.mark.filterwarnings("ignore:index_reduce", "ignore:The reduce argument of torch.scatter")

_aten = torch.ops.aten

_X = randn(4, 6)
_S = randn(4, 6) * 2 - 1
_I = torch.tensor([[0, 2, 1, 2, 2, 0], [1, 2, 3, 3, 2, 0]])
_J = torch.tensor([2, 0, 2])
_SPECIAL = torch.tensor([1.0, math.nan, math.inf, -math.inf, -0.0, 0.0])
_MASK = _X > 0

CASES: dict[str, Case] = {
    "scatter_add": (lambda x, i, s: x.scatter_add(0, i, s), (_X, _I, _S)),
    "scatter_add, inner": (lambda x, i, s: x.scatter_add(-1, i, s), (_X, _I, _S)),
    "scatter_add into scalar": (
        lambda x, i, s: x.scatter_add(0, i, s),
        (torch.tensor(2.0), torch.tensor(0), torch.tensor(1.5)),
    ),
    "scatter, added": (lambda x, i, s: _aten.scatter(x, 0, i, s, reduce="add"), (_X, _I, _S)),
    "scatter, multiplied": (lambda x, i, s: _aten.scatter(x, 0, i, s, reduce="multiply"), (_X, _I, _S)),
    "scatter number": (lambda x, i: _aten.scatter(x, 0, i, 1.5, reduce="multiply"), (_X, _I)),
    "index_add": (lambda x, j, s: x.index_add(1, j, s[:, :3], alpha=2), (_X, _J, _S)),
    "index_add into scalar": (
        lambda x, i, s: x.index_add(0, i, s),
        (torch.tensor(2.0), torch.tensor([0]), torch.tensor(1.5)),
    ),
    "put one": (lambda x, j, s: x.index_put((j,), s[:3], accumulate=True), (_X, _J, _S)),
    "put one, inner": (
        lambda x, j, s: _aten.index_put(x, [None, j - 1], s[:, :1], accumulate=True),
        (_X, _J, _S),
    ),
    "put two": (lambda x, i, j: x.index_put((j, j - 2), x[0, :3], accumulate=True), (_X, _I, _J)),
    "put two neighbours": (
        lambda x, j, s: _aten.index_put(x, [None, j, j[:, None]], s, accumulate=True),
        (randn(2, 4, 5), _J, randn(2, 3, 3)),
    ),
    "put two apart": (
        lambda x, j, s: _aten.index_put(x, [j - 2, None, j], s, accumulate=True),
        (randn(2, 4, 5), _J, randn(3, 4)),
    ),
    "put mask": (lambda x, m, v: x.index_put((m,), v, accumulate=True), (_X, _MASK, torch.tensor(1.5))),
    "masked_scatter": (lambda x, m, s: x.masked_scatter(m, s), (_X, _MASK, _S)),
    "masked_scatter, rows": (lambda x, m, s: x.masked_scatter(m, s), (_X, _MASK[:, :1], _S)),
    "masked_scatter, none": (lambda x, m, s: x.masked_scatter(m, s), (_X, _MASK & False, _S[0])),
}
REDUCTIONS = [(reduce, own) for reduce in ("sum", "prod", "mean", "amax", "amin") for own in (True, False)]


def _elements(reduce: str, own: bool) -> Function:
    return lambda x, i, s: x.scatter_reduce(0, i, s, reduce, include_self=own)


def _slices(reduce: str, own: bool) -> Function:
    return lambda x, j, s: x.index_reduce(0, j, s[:3], reduce, include_self=own)


CASES |= {f"{reduce} {own}": (_elements(reduce, own), (_X, _I, _S)) for reduce, own in REDUCTIONS}
CASES |= {
    f"slices, {reduce} {own}": (_slices(reduce, own), (_X, _J, _S))
    for reduce, own in REDUCTIONS
    if reduce != "sum"
}

STATIC: dict[str, Case] = {
    "fold": (
        lambda x: F.fold(x, (6, 5), (3, 2), dilation=(1, 2), padding=1, stride=(2, 1)),
        (randn(2, 12, 15),),
    ),
}


@each(CASES | STATIC, dynamic=CASES)
def test_agrees(function: Function, inputs: tuple[Tensor, ...], dynamic: bool) -> None:
    check(function, *inputs, dynamic=dynamic)


def test_every_rule_has_a_case() -> None:
    assert set(RULES) <= overloads(CASES.values())


@pytest.mark.parametrize(("reduce", "own"), REDUCTIONS)
def test_what_is_no_number(reduce: str, own: bool) -> None:
    check(_elements(reduce, own), _SPECIAL, torch.arange(36) // 6, _SPECIAL.repeat(6))


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.int32], ids=str)
def test_reduces_every_dtype(dtype: torch.dtype) -> None:
    def reduced(x: Tensor, i: Tensor, s: Tensor) -> list[Tensor]:
        return [_elements(reduce, own)(x, i, s) for reduce, own in REDUCTIONS]

    check(reduced, (_X * 9).to(dtype), _I, (_S * 9).to(dtype))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bool], ids=str)
def test_refuses(dtype: torch.dtype) -> None:
    reason = refusal(lambda x, i, s: x.scatter_add(0, i, s), _MASK.to(dtype), _I, _MASK.to(dtype))
    assert reason.kind.value == "unsupported dtype"
