"""Arithmetic, comparisons, logic, choices and copies: torch, the reference and ONNX Runtime agree, on mixed dtypes too."""

from __future__ import annotations

import math
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from harness import Case, Function, check, each, on_each, overloads, randn, refusal
from operands import BOOLS, BYTES, DOUBLES, FLOATS, HALVES, INT_SCALAR, INTS, SCALAR, SPECIAL
from torch import Tensor
from torch_checks import BEFORE_TORCH_2_10

from trt_backend.errors import ReasonKind
from trt_backend_torch.lower.elementwise import RULES

_aten = torch.ops.aten

_NAN, _INF = math.nan, math.inf
WIDE = torch.tensor([-(2**31), -2_000_000_000, -1_500_000_000, -1, 2**31 - 1], dtype=torch.int32)

OTHER_SPECIAL = torch.tensor([1.0, _NAN, -_INF, 0.0, -0.0, 1.0, 2.0, 0.3, _INF, _NAN, -30.0, 0.0])

EDGES = torch.tensor([0.0, -0.0, 1.0, -1.0, _INF, -_INF, _NAN, 3e38, -3e38, 1e-30, -1e-30, 0.3])
CORNERS = tuple(t.flatten() for t in torch.meshgrid(EDGES, EDGES, indexing="ij"))
"""Every pair of numbers that is special to an angle or a length."""
WHOLE = torch.tensor([-7.5, -2.0, -0.5, -0.0, 0.0, 0.5, 1.0, 3.5, 4.0, 1e30, -1e30, _INF, -_INF, _NAN])

PAIRS = {
    "float": (FLOATS, randn(3)),
    "ranks": (randn(2, 1, 3), FLOATS),
    "int": (INTS, torch.tensor([3, -3, 2])),
    "float int": (FLOATS, INTS),
    "int float": (INTS, randn(1, 3)),
    "int float0d": (INTS, SCALAR),
    "float int0d": (FLOATS, INT_SCALAR),
    "float double0d": (FLOATS, torch.tensor(0.1, dtype=torch.float64)),
    "int32 int64": (INTS.int(), INTS),
    "bool int": (BOOLS, INTS),
    "bool float": (BOOLS, FLOATS),
    "double float": (DOUBLES, FLOATS),
    "special": (SPECIAL, OTHER_SPECIAL),
}
"""Operands that promote and broadcast in every way."""


def _pairs(function: Function, *without: str) -> Case:
    return on_each(function, *(pair for name, pair in PAIRS.items() if name not in without))


BINARY: dict[str, Case] = {
    "add": _pairs(torch.add),
    "add alpha": _pairs(lambda x, y: torch.add(x, y, alpha=3)),
    "add bool": (torch.add, (BOOLS, BOOLS[:1])),
    "add.Scalar": on_each(lambda x: _aten.add.Scalar(x, 2, 3), FLOATS, INTS),
    "add number": on_each(lambda x: x + 0.1, FLOATS, INTS, BOOLS, DOUBLES, SCALAR, INT_SCALAR),
    "sub": _pairs(torch.sub, "bool int", "bool float"),
    "sub alpha": (lambda x, y: torch.sub(x, y, alpha=0.5), (FLOATS, FLOATS[:1])),
    "sub.Scalar": on_each(lambda x: _aten.sub.Scalar(x, 2), FLOATS, INTS),
    "rsub": on_each(lambda x: 1 - x, FLOATS, INTS),
    "rsub.Scalar": on_each(lambda x: _aten.rsub.Scalar(x, 3, 2), FLOATS, INTS),
    "rsub.Tensor": (lambda x, y: _aten.rsub.Tensor(x, y, alpha=2), (FLOATS, INTS)),
    "mul": _pairs(torch.mul),
    "mul bool": (torch.mul, (BOOLS, BOOLS[:1])),
    "mul.Scalar": on_each(lambda x: _aten.mul.Scalar(x, 0.5), FLOATS, INTS),
    "mul wraps": on_each(lambda x: x * -1, BYTES, INTS.to(torch.int32)),
    "div": _pairs(torch.div),
    "div.Scalar": on_each(lambda x: _aten.div.Scalar(x, 3), FLOATS, INTS),
    "div of number": on_each(lambda x: 2 / x, FLOATS, INTS),
    "div trunc": _pairs(
        lambda x, y: torch.div(x, y, rounding_mode="trunc"), "int", "int32 int64", "bool int"
    ),
    "div trunc number": on_each(lambda x: _aten.div.Scalar_mode(x, 2, rounding_mode="trunc"), HALVES, INTS),
    "div floor number": on_each(lambda x: torch.div(x, -3, rounding_mode="floor"), INTS),
    "div.Scalar_mode": on_each(lambda x: _aten.div.Scalar_mode(x, 2, rounding_mode="floor"), INTS),
    "floor_divide": on_each(lambda x: _aten.floor_divide.Scalar(x, 2), INTS),
    "floor_divide constant": on_each(lambda x: x // 3, INTS, INTS.int()),
    "remainder": on_each(lambda x: _aten.remainder.Scalar(x, 3), INTS),
    "remainder negative": on_each(lambda x: _aten.remainder.Scalar(x, -3), INTS),
    "floor_divide wide": on_each(lambda x: x // 1_500_000_000, WIDE, WIDE.long()),
    "floor_divide wide negative": on_each(lambda x: x // -(7 << 60), WIDE.long() << 32),
    "remainder wide": on_each(lambda x: _aten.remainder.Scalar(x, 1_500_000_000), WIDE, WIDE.long()),
    "fmod": on_each(lambda x: torch.fmod(x, -3), INTS),
    "maximum": _pairs(torch.maximum),
    "maximum bool": (torch.maximum, (BOOLS, BOOLS[:1])),
    "minimum": _pairs(torch.minimum),
    "minimum bool": (torch.minimum, (BOOLS, BOOLS[:1])),
    "pow": (torch.pow, (FLOATS.abs(), randn(3))),
    "pow mixed": (torch.pow, (FLOATS, INTS)),
    "pow of number": on_each(lambda x: torch.pow(2.5, x), FLOATS, INTS, SPECIAL),
    "addcmul": (lambda x, y, z: torch.addcmul(x, y, z, value=2), (FLOATS, randn(1, 3), randn(2, 1))),
    "addcdiv": (lambda x, y, z: torch.addcdiv(x, y, z, value=0.5), (FLOATS, randn(1, 3), randn(2, 1))),
    "lerp": (lambda x, y: torch.lerp(x, y, 0.7), (FLOATS, randn(3))),
    "lerp tensor": (torch.lerp, (FLOATS, randn(3), randn(2, 1))),
}

POWERS: dict[str, Case] = {
    f"pow {exponent}": on_each(lambda x, exponent=exponent: x**exponent, FLOATS, SPECIAL, DOUBLES)
    for exponent in (0, 1, 2, 3, 0.5, -0.5, -1, -2, 1.7)
}
POWERS |= {
    "pow int": on_each(lambda x: x**2, INTS),
    "pow int 0": on_each(lambda x: x**0, INTS),
    "pow int 13": on_each(lambda x: x**13, INTS, BYTES),
    "pow int float": on_each(lambda x: x**0.5, INTS),
}


def _bitwise(packet: Any, x: Tensor, y: Tensor) -> Tensor:
    return packet.Scalar(packet.Scalar_Tensor(False, packet.Tensor(x, y)), True)


COMPARISONS: dict[str, Case] = {
    f"{function.__name__}": _pairs(function)
    for function in (torch.eq, torch.ne, torch.lt, torch.le, torch.gt, torch.ge)
}
COMPARISONS |= {
    f"{function.__name__} number": on_each(
        function, *product((FLOATS, INTS, BOOLS, SPECIAL), (SCALAR, INT_SCALAR))
    )
    for function in (torch.eq, torch.ne, torch.lt, torch.le, torch.gt, torch.ge)
}
COMPARISONS |= {
    f"{overload}": on_each(lambda x, overload=overload: overload(x, 1), FLOATS, INTS, BOOLS, BYTES, SPECIAL)
    for overload in (
        _aten.eq.Scalar,
        _aten.ne.Scalar,
        _aten.lt.Scalar,
        _aten.le.Scalar,
        _aten.gt.Scalar,
        _aten.ge.Scalar,
    )
}
COMPARISONS |= {
    "int with float": on_each(lambda x: (x > 1.5, x == 2.0), INTS),
    "int in float32": on_each(lambda x: x == 16777216.0, torch.tensor([16777217, 16777216])),
    "uint8 wraps": on_each(lambda x: x > -1, BYTES),
    "lt bool": (torch.lt, (BOOLS, BOOLS[:1])),
    "le bool": (torch.le, (BOOLS, BOOLS[:1])),
    "logical_and": _pairs(torch.logical_and),
    "logical_or": _pairs(torch.logical_or),
    "logical_xor": _pairs(torch.logical_xor),
    "logical_not": on_each(torch.logical_not, FLOATS, INTS, BOOLS, SPECIAL),
    "bitwise_not": on_each(torch.bitwise_not, BOOLS),
}
COMPARISONS |= {
    f"{packet}": on_each(partial(_bitwise, packet), (BOOLS, BOOLS[:1]))
    for packet in (_aten.bitwise_and, _aten.bitwise_or, _aten.bitwise_xor)
}

CHOICES: dict[str, Case] = {
    "where": (torch.where, (BOOLS, FLOATS, randn(3))),
    "where mixed": (torch.where, (BOOLS, FLOATS, INT_SCALAR)),
    "where numbers": on_each(lambda x: torch.where(x, 1.0, -_INF), BOOLS),
    "where int": on_each(lambda x: torch.where(x > 0, x, 0), INTS),
    "where bool": (torch.where, (BOOLS, BOOLS, ~BOOLS[:1])),
    "masked_fill": (lambda x, mask: x.masked_fill(mask, -_INF), (FLOATS, BOOLS[:1])),
    "masked_fill least": (lambda x, m: x.masked_fill(m, torch.finfo(x.dtype).min), (FLOATS, BOOLS)),
    "masked_fill int": (lambda x, mask: x.masked_fill(mask, 3), (INTS, BOOLS)),
    "masked_fill tensor": (torch.masked_fill, (FLOATS, BOOLS, SCALAR)),
}

_TO = {
    torch.float32: (INTS, BOOLS, DOUBLES, BYTES, SCALAR),
    torch.float64: (INTS, BOOLS, FLOATS),
    torch.float16: (INTS, FLOATS),
    torch.int64: (HALVES, BOOLS, DOUBLES, BYTES, SCALAR),
    torch.int32: (HALVES, INTS, BOOLS),
    torch.uint8: (INTS.abs(), BOOLS, FLOATS.abs()),
    torch.bool: (HALVES, INTS, SPECIAL, BYTES),
}
COPIES: dict[str, Case] = {
    f"to {dtype}": on_each(lambda x, dtype=dtype: x.to(dtype), *inputs) for dtype, inputs in _TO.items()
}
COPIES |= {
    "to channels_last": (
        lambda x: x.to(torch.float64, memory_format=torch.channels_last),
        (randn(2, 3, 4, 4),),
    ),
    "convert_element_type": on_each(
        lambda x: torch.ops.prims.convert_element_type(x, torch.float64), FLOATS, INTS
    ),
    "clone": (lambda x: x.clone(memory_format=torch.channels_last), (randn(2, 3, 4, 4),)),
    "detach": (lambda x: _aten.detach(x), (FLOATS,)),
    "alias": (lambda x: _aten.alias(x), (FLOATS,)),
    "lift_fresh_copy": (lambda x: _aten.lift_fresh_copy(x), (FLOATS,)),
    "copy": (lambda x, y: _aten.copy(x, y), (FLOATS, torch.tensor([1, 2, 3]))),
    "fill": on_each(lambda x: _aten.fill.Scalar(x, 2), FLOATS, INTS, BOOLS),
    "fill tensor": (lambda x, y: _aten.fill.Tensor(x, y), (INTS, SCALAR)),
}


HALF: dict[str, Case] = {
    name: on_each(function, FLOATS.half(), SCALAR.half())
    for name, function in {
        "add": lambda x: x + 0.5,
        "overflow": lambda x: x + 1e6,
        "compare": lambda x: x > 0.1,
    }.items()
}

ANGLES: dict[str, Case] = {
    "atan2": on_each(torch.atan2, CORNERS, (FLOATS, randn(3)), (INTS, FLOATS), (FLOATS.half(), HALVES[:3])),
    "atan2, signs": (lambda x, y: 1 / torch.atan2(x, y), CORNERS),
    "hypot": on_each(torch.hypot, CORNERS, (FLOATS, randn(3)), (FLOATS.half(), HALVES[:3])),
    "fmax": on_each(torch.fmax, CORNERS, (INTS, FLOATS), (BOOLS, BOOLS[:1])),
    "fmin": on_each(torch.fmin, CORNERS, (INTS, FLOATS), (INTS, INTS[:1])),
}


def _quotients(function: Function, divisor: float) -> Case:
    """Return a case of float32 and float64; a reciprocal tells the sign of a zero."""

    def divided(x: Tensor, double: Tensor) -> list[Tensor]:
        return [function(x, divisor), 1 / function(x, divisor), function(double, divisor)]

    return divided, (WHOLE, WHOLE.double())


BINARY_QUOTIENTS: dict[str, Case] = {
    f"{name} by {divisor}": _quotients(function, divisor)
    for name, function in {
        "floor_divide": torch.floor_divide,
        "div floor": partial(torch.div, rounding_mode="floor"),
        "remainder": torch.remainder,
        "fmod": torch.fmod,
    }.items()
    for divisor in (1, 2.0, 1024)
}

CASES = ANGLES | BINARY | POWERS | COMPARISONS | CHOICES | COPIES

DYNAMIC = [
    "add",
    "atan2",
    "addcmul",
    "copy",
    "fill",
    "ge",
    "lerp",
    "logical_and",
    "mul",
    "pow",
    "sub",
    "where",
]
if not BEFORE_TORCH_2_10:  # which promises a wrong type for quotients of integers
    DYNAMIC.append("div")
"""The cases that run with symbolic sizes too: one for each way in which a rule handles shapes."""

REFUSED: dict[str, tuple[Case, ReasonKind]] = {
    "bits": ((torch.bitwise_and, (INTS, INTS)), ReasonKind.DTYPE),
    "inverted bits": ((torch.bitwise_not, (INTS,)), ReasonKind.DTYPE),
    "remainder of floats": ((lambda x: x % 0.1, (FLOATS,)), ReasonKind.DTYPE),
    "fmod of floats": ((torch.fmod, (FLOATS, FLOATS)), ReasonKind.DTYPE),
    "whole quotient of floats": ((torch.floor_divide, (FLOATS, FLOATS)), ReasonKind.DTYPE),
    "unknown divisor": ((torch.floor_divide, (INTS, INTS)), ReasonKind.UNSUPPORTED),
    "remainder of unknown divisor": ((torch.remainder, (INTS, INTS)), ReasonKind.UNSUPPORTED),
    "truncated unknown divisor": (
        (lambda x, y: torch.div(x, y, rounding_mode="trunc"), (INTS, INTS)),
        ReasonKind.UNSUPPORTED,
    ),
    "whole part of a third": ((lambda x: x // 3.0, (FLOATS,)), ReasonKind.DTYPE),
    "remainder of a half": ((lambda x: x % 0.5, (FLOATS,)), ReasonKind.DTYPE),
    "remainder of 2048": ((lambda x: x % 2048, (FLOATS,)), ReasonKind.DTYPE),
    "whole part of half precision": ((lambda x: x // 2, (FLOATS.half(),)), ReasonKind.DTYPE),
    "fmod of bfloat16": ((lambda x: x.fmod(2), (FLOATS.bfloat16(),)), ReasonKind.DTYPE),
    "divided by 0": ((lambda x: x // 0, (INTS,)), ReasonKind.UNSUPPORTED),
    "divided by -1": ((lambda x: x // -1, (INTS,)), ReasonKind.UNSUPPORTED),
    "power of integers": ((torch.pow, (INTS.int(), INTS.int().abs())), ReasonKind.DTYPE),
    "negative power of integers": ((lambda x: x**-1, (INTS,)), ReasonKind.UNSUPPORTED),
    "complex": ((lambda x: x + 1j, (FLOATS,)), ReasonKind.DTYPE),
}


@each(BINARY_QUOTIENTS)
def test_quotients_by_powers_of_two_agree(
    function: Function, inputs: tuple[Tensor, ...], dynamic: bool
) -> None:
    check(function, *inputs, dynamic=dynamic, rtol=0, atol=0)


@each(CASES, dynamic=DYNAMIC)
def test_agrees(function: Function, inputs: tuple[Tensor, ...], dynamic: bool) -> None:
    check(function, *inputs, dynamic=dynamic)


@each(HALF)
def test_half_agrees(function: Function, inputs: tuple[Tensor, ...], dynamic: bool) -> None:
    check(function, *inputs, dynamic=dynamic, rtol=2e-3, atol=2e-3)


def test_every_rule_has_a_case() -> None:
    # Of some rules, those of tensors, every case is refused; some cases raise.
    raising = ("divided by 0", "negative power of integers")
    refused = [case for name, (case, _) in REFUSED.items() if name not in raising]
    assert set(RULES) <= overloads([*CASES.values(), *refused])


@pytest.mark.parametrize(("case", "kind"), REFUSED.values(), ids=REFUSED)
def test_refused(case: Case, kind: ReasonKind) -> None:
    function, inputs = case
    assert refusal(function, *inputs).kind is kind


def test_symbolic_operand() -> None:
    check(lambda x: (x * x.shape[0], x / x.shape[1], x > x.shape[0]), FLOATS, dynamic=True)
