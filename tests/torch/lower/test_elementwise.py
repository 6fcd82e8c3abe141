"""Elementwise ops: torch, the reference and ONNX Runtime agree, on special values and mixed dtypes too."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from harness import check, overloads, refusal
from torch import Tensor

from trt_backend.errors import ReasonKind
from trt_backend.ir.graph import Graph
from trt_backend_torch.lower.elementwise import RULES

_aten = torch.ops.aten

Case = tuple[Callable[..., Any], tuple[Tensor, ...]]
Function = Callable[..., Tensor]

_NAN, _INF = math.nan, math.inf


def _randn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


FLOATS = _randn(2, 3)
DOUBLES = _randn(2, 3, dtype=torch.float64)
INTS = torch.tensor([[-7, 2, 5], [7, -2, 1]])
BOOLS = torch.tensor([[True, False, True], [False, False, True]])
BYTES = torch.tensor([0, 3, 200], dtype=torch.uint8)
HALVES = torch.tensor([-2.5, -1.5, -0.5, -0.0, 0.0, 0.5, 1.5, 2.5, 3.0])
SPECIAL = torch.tensor([_NAN, _INF, -_INF, -0.0, 0.0, 1.0, -1.0, 0.3, -2.5, 30.0, -30.0, 1e-6])
FINITE = torch.tensor(
    [_NAN, -0.0, 0.0, 1.0, -1.0, 0.3, -2.5, 30.0, -30.0, 1e-6]
)  # gelu of inf varies by kernel
UNIT = torch.tensor([-1.0, -0.9, -1e-4, 0.0, 0.5, 1.0, 1.5, _NAN])
SCALAR, INT_SCALAR = torch.tensor(1.5), torch.tensor(3)
OTHER_SPECIAL = torch.tensor([1.0, _NAN, -_INF, 0.0, -0.0, 1.0, 2.0, 0.3, _INF, _NAN, -30.0, 0.0])

PAIRS = {
    "float": (FLOATS, _randn(3)),
    "ranks": (_randn(2, 1, 3), FLOATS),
    "int": (INTS, torch.tensor([3, -3, 2])),
    "float int": (FLOATS, INTS),
    "int float": (INTS, _randn(1, 3)),
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


def _on_each(function: Function, operands: list[tuple[Tensor, ...]]) -> Case:
    """One graph that applies `function` to each tuple of operands."""

    def apply(*flat: Tensor) -> tuple[Tensor, ...]:
        rest = iter(flat)
        return tuple(function(*(next(rest) for _ in group)) for group in operands)

    return apply, tuple(operand for group in operands for operand in group)


def _pairs(function: Function, *without: str) -> Case:
    return _on_each(function, [pair for name, pair in PAIRS.items() if name not in without])


def _unary(function: Function, *inputs: Tensor) -> Case:
    return _on_each(function, [(x,) for x in inputs])


BINARY: dict[str, Case] = {
    "add": _pairs(torch.add),
    "add alpha": _pairs(lambda x, y: torch.add(x, y, alpha=3)),
    "add bool": (torch.add, (BOOLS, BOOLS[:1])),
    "add.Scalar": _unary(lambda x: _aten.add.Scalar(x, 2, 3), FLOATS, INTS),
    "add number": _unary(lambda x: x + 0.1, FLOATS, INTS, BOOLS, DOUBLES, SCALAR, INT_SCALAR),
    "sub": _pairs(torch.sub, "bool int", "bool float"),
    "sub alpha": (lambda x, y: torch.sub(x, y, alpha=0.5), (FLOATS, FLOATS[:1])),
    "sub.Scalar": _unary(lambda x: _aten.sub.Scalar(x, 2), FLOATS, INTS),
    "rsub": _unary(lambda x: 1 - x, FLOATS, INTS),
    "rsub.Scalar": _unary(lambda x: _aten.rsub.Scalar(x, 3, 2), FLOATS, INTS),
    "rsub.Tensor": (lambda x, y: _aten.rsub.Tensor(x, y, alpha=2), (FLOATS, INTS)),
    "mul": _pairs(torch.mul),
    "mul bool": (torch.mul, (BOOLS, BOOLS[:1])),
    "mul.Scalar": _unary(lambda x: _aten.mul.Scalar(x, 0.5), FLOATS, INTS),
    "mul wraps": _unary(lambda x: x * -1, BYTES, INTS.to(torch.int32)),
    "div": _pairs(torch.div),
    "div.Scalar": _unary(lambda x: _aten.div.Scalar(x, 3), FLOATS, INTS),
    "div of number": _unary(lambda x: 2 / x, FLOATS, INTS),
    "div trunc": _pairs(
        lambda x, y: torch.div(x, y, rounding_mode="trunc"), "int", "int32 int64", "bool int"
    ),
    "div trunc number": _unary(lambda x: _aten.div.Scalar_mode(x, 2, rounding_mode="trunc"), HALVES, INTS),
    "div floor number": _unary(lambda x: torch.div(x, -3, rounding_mode="floor"), INTS),
    "div.Scalar_mode": _unary(lambda x: _aten.div.Scalar_mode(x, 2, rounding_mode="floor"), INTS),
    "floor_divide": _unary(lambda x: _aten.floor_divide.Scalar(x, 2), INTS),
    "floor_divide constant": _unary(lambda x: x // 3, INTS, INTS.int()),
    "remainder": _unary(lambda x: _aten.remainder.Scalar(x, 3), INTS),
    "remainder negative": _unary(lambda x: _aten.remainder.Scalar(x, -3), INTS),
    "fmod": _unary(lambda x: torch.fmod(x, -3), INTS),
    "maximum": _pairs(torch.maximum),
    "maximum bool": (torch.maximum, (BOOLS, BOOLS[:1])),
    "minimum": _pairs(torch.minimum),
    "minimum bool": (torch.minimum, (BOOLS, BOOLS[:1])),
    "pow": (torch.pow, (FLOATS.abs(), _randn(3))),
    "pow mixed": (torch.pow, (FLOATS, INTS)),
    "pow int": (torch.pow, (INTS.int(), INTS.int().abs())),
    "pow of number": _unary(lambda x: torch.pow(2.5, x), FLOATS, INTS, SPECIAL),
    "addcmul": (lambda x, y, z: torch.addcmul(x, y, z, value=2), (FLOATS, _randn(1, 3), _randn(2, 1))),
    "addcdiv": (lambda x, y, z: torch.addcdiv(x, y, z, value=0.5), (FLOATS, _randn(1, 3), _randn(2, 1))),
    "lerp": (lambda x, y: torch.lerp(x, y, 0.7), (FLOATS, _randn(3))),
    "lerp tensor": (torch.lerp, (FLOATS, _randn(3), _randn(2, 1))),
}


def _bitwise(packet: Any, x: Tensor, y: Tensor) -> Tensor:
    return packet.Scalar(packet.Scalar_Tensor(False, packet.Tensor(x, y)), True)


COMPARISONS: dict[str, Case] = {
    f"{function.__name__}": _pairs(function)
    for function in (torch.eq, torch.ne, torch.lt, torch.le, torch.gt, torch.ge)
}
COMPARISONS |= {
    f"{function.__name__} number": _on_each(
        function, [(x, number) for x in (FLOATS, INTS, BOOLS, SPECIAL) for number in (SCALAR, INT_SCALAR)]
    )
    for function in (torch.eq, torch.ne, torch.lt, torch.le, torch.gt, torch.ge)
}
COMPARISONS |= {
    f"{overload}": _unary(lambda x, overload=overload: overload(x, 1), FLOATS, INTS, BOOLS, BYTES, SPECIAL)
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
    "int with float": _unary(lambda x: (x > 1.5, x == 2.0)[0], INTS),
    "int in float32": _unary(lambda x: x == 16777216.0, torch.tensor([16777217, 16777216])),
    "uint8 wraps": _unary(lambda x: x > -1, BYTES),
    "lt bool": (torch.lt, (BOOLS, BOOLS[:1])),
    "le bool": (torch.le, (BOOLS, BOOLS[:1])),
    "logical_and": _pairs(torch.logical_and),
    "logical_or": _pairs(torch.logical_or),
    "logical_xor": _pairs(torch.logical_xor),
    "logical_not": _unary(torch.logical_not, FLOATS, INTS, BOOLS, SPECIAL),
    "bitwise_not": _unary(torch.bitwise_not, BOOLS),
    "isnan": _unary(torch.isnan, SPECIAL, INTS, BOOLS),
    "isinf": _unary(torch.isinf, SPECIAL, INTS),
    "isfinite": _unary(torch.isfinite, SPECIAL),
}
COMPARISONS |= {
    f"{packet}": _on_each(partial(_bitwise, packet), [(BOOLS, BOOLS[:1])])
    for packet in (_aten.bitwise_and, _aten.bitwise_or, _aten.bitwise_xor)
}


UNARY: dict[str, Case] = {
    name: _unary(function, FLOATS, SPECIAL, INTS, BOOLS, SCALAR)
    for name, function in {
        "asinh": torch.asinh,
        "atan": torch.atan,
        "cosh": lambda x: torch.cosh(x.clamp(-5, 5)),
        "erf": torch.erf,
        "exp": torch.exp,
        "exp2": torch.exp2,
        "expm1": torch.expm1,
        "log": torch.log,
        "log10": torch.log10,
        "log1p": torch.log1p,
        "log2": torch.log2,
        "reciprocal": torch.reciprocal,
        "rsqrt": torch.rsqrt,
        "sigmoid": torch.sigmoid,
        "sin": torch.sin,
        "cos": torch.cos,
        "sinh": lambda x: torch.sinh(x.clamp(-5, 5)),
        "sqrt": torch.sqrt,
        "tan": torch.tan,
        "tanh": torch.tanh,
    }.items()
}
UNARY |= {
    name: _unary(function, UNIT, BOOLS, INTS)
    for name, function in {
        "acos": torch.acos,
        "acosh": torch.acosh,
        "asin": torch.asin,
        "atanh": torch.atanh,
    }.items()
}
UNARY |= {
    name: _unary(function, FLOATS, DOUBLES, HALVES, SPECIAL, INTS, BYTES)
    for name, function in {
        "abs": torch.abs,
        "ceil": torch.ceil,
        "floor": torch.floor,
        "round": torch.round,
        "sign": lambda x: torch.sign(x) if x.dtype.is_floating_point else torch.sign(x.long()),
        "trunc": torch.trunc,
        "neg": lambda x: torch.neg(x.long()) if x.dtype is torch.uint8 else torch.neg(x),
    }.items()
}
UNARY |= {
    f"pow {exponent}": _unary(lambda x, exponent=exponent: x**exponent, FLOATS, SPECIAL, DOUBLES)
    for exponent in (0, 1, 2, 3, 0.5, -0.5, -1, -2, 1.7)
}
UNARY |= {
    "pow int": _unary(lambda x: x**2, INTS),
    "pow int 0": _unary(lambda x: x**0, INTS),
    "pow int 13": _unary(lambda x: x**13, INTS, BYTES),
    "pow int float": _unary(lambda x: x**0.5, INTS),
    "sign bool": _unary(torch.sign, BOOLS),
    "tiny": _unary(lambda x: torch.expm1(x) / x + torch.log1p(x) / x, torch.tensor([1e-7, -1e-5, 1e-3])),
}

ACTIVATIONS: dict[str, Case] = {
    name: _unary(function, FLOATS, SPECIAL, SCALAR, 10 * FLOATS)
    for name, function in {
        "celu": lambda x: F.celu(x, alpha=0.7),
        "elu": lambda x: F.elu(x, alpha=0.7),
        "elu general": lambda x: _aten.elu(x, 0.7, 1.3, 0.4),
        "glu": lambda x: F.glu(torch.stack([x, x], -1)),
        "hardshrink": F.hardshrink,
        "hardsigmoid": F.hardsigmoid,
        "hardswish": F.hardswish,
        "hardtanh": lambda x: F.hardtanh(x, -0.5, 0.7),
        "leaky_relu": F.leaky_relu,
        "logit": lambda x: torch.logit(x, eps=1e-3),
        "logsigmoid": F.logsigmoid,
        "mish": F.mish,
        "nan_to_num": lambda x: torch.nan_to_num(x, nan=2.0),
        "prelu": lambda x: F.prelu(x, torch.full((1,), 0.2)),
        "relu": F.relu,
        "relu6": F.relu6,
        "selu": F.selu,
        "silu": F.silu,
        "softplus": F.softplus,
        "softplus beta": lambda x: F.softplus(x, beta=2.0, threshold=3.0),
        "softshrink": F.softshrink,
        "softsign": F.softsign,
        "tanhshrink": F.tanhshrink,
        "threshold": lambda x: F.threshold(x, 0.1, 20.0),
    }.items()
}
ACTIVATIONS |= {
    "relu int": _unary(F.relu, INTS, INTS.int()),
    "hardtanh int": _unary(lambda x: F.hardtanh(x, -2, 3), INTS),
    "softplus double": _unary(F.softplus, 30 * DOUBLES),
    "gelu": _unary(F.gelu, FLOATS, FINITE, SCALAR, 10 * FLOATS),
    "gelu tanh": _unary(lambda x: F.gelu(x, approximate="tanh"), FLOATS, FINITE, SCALAR, 10 * FLOATS),
    "silu double": _unary(F.silu, DOUBLES),
}

CHOICES: dict[str, Case] = {
    "where": (torch.where, (BOOLS, FLOATS, _randn(3))),
    "where mixed": (torch.where, (BOOLS, FLOATS, INT_SCALAR)),
    "where numbers": _unary(lambda x: torch.where(x, 1.0, -_INF), BOOLS),
    "where int": _unary(lambda x: torch.where(x > 0, x, 0), INTS),
    "where bool": (torch.where, (BOOLS, BOOLS, ~BOOLS[:1])),
    "masked_fill": (lambda x, mask: x.masked_fill(mask, -_INF), (FLOATS, BOOLS[:1])),
    "masked_fill least": (lambda x, m: x.masked_fill(m, torch.finfo(x.dtype).min), (FLOATS, BOOLS)),
    "masked_fill int": (lambda x, mask: x.masked_fill(mask, 3), (INTS, BOOLS)),
    "masked_fill tensor": (torch.masked_fill, (FLOATS, BOOLS, SCALAR)),
    "clamp": _unary(lambda x: torch.clamp(x, -0.5, 1), FLOATS, SPECIAL, DOUBLES, INTS),
    "clamp int": _unary(lambda x: torch.clamp(x, -2, 3), INTS, INTS.int()),
    "clamp crossed": _unary(lambda x: torch.clamp(x, 2, -1), FLOATS, INTS),
    "clamp half open": _unary(lambda x: (torch.clamp(x, min=0.1), torch.clamp(x, max=0.1))[1], SPECIAL),
    "clamp least": _unary(lambda x: torch.clamp(x, torch.finfo(x.dtype).min), FLOATS, SPECIAL),
    "clamp tensors": (torch.clamp, (FLOATS, _randn(3), _randn(2, 1))),
    "clamp int tensor": (lambda x, y: torch.clamp(x, max=y), (INTS, SCALAR)),
    "clamp_min": _unary(lambda x: _aten.clamp_min(x, 1), FLOATS, SPECIAL, INTS),
    "clamp_max": _unary(lambda x: _aten.clamp_max(x, 1), FLOATS, SPECIAL, INTS),
    "clamp_min tensor": (torch.clamp_min, (FLOATS, _randn(3))),
    "clamp_max tensor": (torch.clamp_max, (FLOATS, INTS)),
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
    f"to {dtype}": _unary(lambda x, dtype=dtype: x.to(dtype), *inputs) for dtype, inputs in _TO.items()
}
COPIES |= {
    "to channels_last": (
        lambda x: x.to(torch.float64, memory_format=torch.channels_last),
        (_randn(2, 3, 4, 4),),
    ),
    "convert_element_type": _unary(
        lambda x: torch.ops.prims.convert_element_type(x, torch.float64), FLOATS, INTS
    ),
    "clone": (lambda x: x.clone(memory_format=torch.channels_last), (_randn(2, 3, 4, 4),)),
    "detach": (lambda x: _aten.detach(x), (FLOATS,)),
    "alias": (lambda x: _aten.alias(x), (FLOATS,)),
    "lift_fresh_copy": (lambda x: _aten.lift_fresh_copy(x), (FLOATS,)),
    "copy": (lambda x, y: _aten.copy(x, y), (FLOATS, torch.tensor([1, 2, 3]))),
    "fill": _unary(lambda x: _aten.fill.Scalar(x, 2), FLOATS, INTS, BOOLS),
    "fill tensor": (lambda x, y: _aten.fill.Tensor(x, y), (INTS, SCALAR)),
}

HALF: dict[str, Case] = {
    name: _unary(function, FLOATS.half(), SCALAR.half())
    for name, function in {
        "add": lambda x: x + 0.5,
        "overflow": lambda x: x + 1e6,
        "gelu": F.gelu,
        "silu": F.silu,
        "clamp": lambda x: x.clamp(-0.5, 0.5),
        "compare": lambda x: x > 0.1,
    }.items()
}

CASES = BINARY | COMPARISONS | UNARY | ACTIVATIONS | CHOICES | COPIES
ALL_CASES = {**CASES, **{f"half {name}": case for name, case in HALF.items()}}


DYNAMIC = [
    "add",
    "addcmul",
    "clamp",
    "copy",
    "div",
    "fill",
    "ge",
    "isnan",
    "lerp",
    "log1p",
    "logical_and",
    "mish",
    "mul",
    "nan_to_num",
    "pow",
    "softplus",
    "sub",
    "trunc",
    "where",
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
    check(function, *inputs, rtol=2e-3, atol=2e-3)


def test_every_rule_has_a_case() -> None:
    refused = [
        case for name, (case, _) in REFUSED.items() if name != "divided by 0"
    ]  # some only refuse tensors
    assert set(RULES) <= overloads([*ALL_CASES.values(), *refused])


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
    "divided by 0": ((lambda x: x // 0, (INTS,)), ReasonKind.UNSUPPORTED),
    "divided by -1": ((lambda x: x // -1, (INTS,)), ReasonKind.UNSUPPORTED),
    "complex": ((lambda x: x + 1j, (FLOATS,)), ReasonKind.DTYPE),
    "bfloat16": ((torch.sin, (FLOATS.bfloat16(),)), ReasonKind.DTYPE),
    "gelu double": ((F.gelu, (DOUBLES,)), ReasonKind.DTYPE),
    "random": ((torch.rand_like, (FLOATS,)), ReasonKind.RANDOM),
    "unknown": ((torch.lgamma, (FLOATS,)), ReasonKind.NO_RULE),
    "used buffer": ((lambda x: _aten.log_sigmoid_forward(x)[1] + 1, (FLOATS,)), ReasonKind.UNSUPPORTED),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    (function, inputs), kind = REFUSED[name]
    assert refusal(function, *inputs).kind is kind


def _ops(graph: Graph) -> list[str]:
    return [str(getattr(node.op, "kind", type(node.op).__name__)) for node in graph.nodes]


@pytest.mark.parametrize("function", [F.gelu, F.hardswish, F.relu6, F.selu, F.softplus, torch.rsqrt])
def test_is_lowered_to_few_ops(function: Function) -> None:
    graph = check(lambda x: function(x), FLOATS.abs())
    assert len(graph.nodes) <= 2, _ops(graph)


def test_symbolic_operand() -> None:
    check(lambda x: (x * x.shape[0], x / x.shape[1], x > x.shape[0]), FLOATS, dynamic=True)
