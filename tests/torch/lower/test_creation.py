"""Ranges, fills and triangles: torch, the reference and ONNX Runtime agree."""

from __future__ import annotations

import math

import pytest
import torch
from harness import Case, Function, check, each, operations, overloads, randn, refusal
from torch import Tensor

from trt_backend.ir.ops.layout import Range
from trt_backend_torch.lower.creation import RULES

_aten = torch.ops.aten

_X = randn(2, 4, 6, 5)
_MASK = _X > 0
_K = torch.tensor([[1, 0], [3, 2]])


def _uninitialized(x: Tensor) -> list[Tensor]:
    return [
        torch.empty(x.shape[0], 2),
        torch.empty_like(x),
        torch.empty_strided((x.shape[0], 2), (2, 1)),
        torch.empty_permuted((x.shape[0], 2), (1, 0)),
        x.new_empty(x.shape[1]),
        x.new_empty_strided((x.shape[1], 2), (2, 1)),
    ]


CASES: dict[str, Case] = {
    "arange": (lambda x: torch.arange(x.shape[1]), (_X,)),
    "arange float": (lambda x: torch.arange(x.shape[1], dtype=torch.float32) * 0.5, (_X,)),
    "arange int32": (lambda x: torch.arange(1, x.shape[1] + 2, dtype=torch.int32), (_X,)),
    "arange from size": (lambda x: torch.arange(x.shape[0], x.shape[2]), (_X,)),
    "arange step": (lambda x: torch.arange(x.shape[1] + 3, 0, -2), (_X,)),
    "arange by fractions": (lambda x: torch.arange(0.5, 3.0, 0.3), (_X,)),
    "arange cut": (lambda x: torch.arange(1.5, 5.0, dtype=torch.int64), (_X,)),
    "full": (lambda x: torch.full((x.shape[0], 3), math.inf), (_X,)),
    "full of size": (lambda x: torch.full((2,), x.shape[1]), (_X,)),
    "full bool": (lambda x: torch.full((x.shape[0],), True), (_X,)),
    "full_like": (lambda x: torch.full_like(x, 2.5, dtype=torch.float64), (_X,)),
    "new_full": (lambda x: x.new_full((x.shape[1], 2), 3), (_X,)),
    "zeros": (lambda x: (torch.zeros(x.shape[0], 2), torch.zeros_like(x), x.new_zeros(x.shape[0])), (_X,)),
    "ones": (
        lambda x: (torch.ones(x.shape[0], 2), torch.ones_like(x), x.new_ones((), dtype=torch.bool)),
        (_X,),
    ),
    "empty": (lambda x: [torch.zeros_like(made) for made in _uninitialized(x)], (_X,)),
    "scalar_tensor": (lambda x: (_aten.scalar_tensor(1.5), _aten.scalar_tensor(x.shape[1])), (_X,)),
    "tril": (lambda x: (x.tril(), x.tril(-1), x.tril(2)), (_X,)),
    "triu bool": (lambda x: x.triu(1), (_MASK,)),
    "triu int": (lambda x: x.triu(-1), (_K,)),
}

STATIC: dict[str, Case] = {
    "arange of size by fractions": (lambda x: torch.arange(0, x.shape[1], 0.5), (_X,)),
}


@each(CASES | STATIC, dynamic=CASES)
def test_agrees(function: Function, inputs: tuple[Tensor, ...], dynamic: bool) -> None:
    check(function, *inputs, dynamic=dynamic)


def test_every_rule_has_a_case() -> None:
    assert set(RULES) <= overloads([*CASES.values(), *STATIC.values()])


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.float64, torch.int64, torch.int32, torch.bool], ids=str
)
def test_a_triangle_of_every_dtype(dtype: torch.dtype) -> None:
    check(torch.tril, _MASK[0, 0].to(dtype))


def test_a_range_is_one_op() -> None:
    assert operations(lambda x: torch.arange(x.shape[0]), _X) == [Range]


def test_refuses_what_symbols_cannot_say() -> None:
    reason = refusal(lambda x: torch.arange(0, x.shape[1], 0.5), _X, dynamic=True)
    assert "computed in floats" in reason.detail
