"""Elementwise aten ops of two tensors and more: arithmetic, powers, comparisons, logic, choices; casts and copies.

Rules:
  PROMOTE  arithmetic is computed in the dtype that torch promises for the result; comparisons in the promoted one.
  BOOL     sums and maxima of booleans are OR, products and minima AND, as in torch.
  ZERO     ONNX Runtime's Where makes 0 of a -0 in its first branch, but not in the second: where the sign counts, zeros are there.
  WHOLE    whole quotients and remainders of integers are lowered by a divisor that is known: by 0 torch raises, and the least
           integer divided by -1 overflows. The quotient of two floats is rounded before it can be rounded down, and a
           remainder is off by more than itself where the quotient is large: but not by 1, 2, 4, up to 1024.
"""

from __future__ import annotations

__all__ = [
    "RULES",
    "arithmetic",
    "compare",
    "inverted",
    "no_narrower",
    "reciprocal_root",
    "squared",
    "times",
    "truncated",
]

import math
from collections.abc import Callable
from typing import Literal

import torch

from trt_backend.errors import ReasonKind, UnsupportedError
from trt_backend.ir.dims import Dim
from trt_backend.ir.graph import Value
from trt_backend.ir.ops.elementwise import ElementwiseKind, UnaryKind
from trt_backend.ir.types import DType
from trt_backend_torch.lower.context import Lowering, Number, Operand
from trt_backend_torch.lower.rules import RuleTable

RULES = RuleTable()

_aten = torch.ops.aten

_SUM, _SUB, _PROD, _DIV = ElementwiseKind.SUM, ElementwiseKind.SUB, ElementwiseKind.PROD, ElementwiseKind.DIV
_MAX, _MIN, _POW = ElementwiseKind.MAX, ElementwiseKind.MIN, ElementwiseKind.POW
_EQUAL, _GREATER, _LESS = ElementwiseKind.EQUAL, ElementwiseKind.GREATER, ElementwiseKind.LESS
_AND, _OR, _XOR = ElementwiseKind.AND, ElementwiseKind.OR, ElementwiseKind.XOR

_OF_BOOLS = {_SUM: _OR, _PROD: _AND, _MAX: _OR, _MIN: _AND}

_LARGEST_DIVISOR = 2**10

RoundingMode = Literal["floor", "trunc", None]


# Arithmetic


def arithmetic(kind: ElementwiseKind, b: Lowering, x: Operand, other: Operand) -> Value:
    """Return a binary op in the promised dtype (PROMOTE, BOOL)."""
    dtype = b.result.dtype
    if dtype is DType.BOOL:
        if kind not in _OF_BOOLS:
            raise UnsupportedError(f"{kind.value} of booleans", ReasonKind.DTYPE)
        kind = _OF_BOOLS[kind]
    return b.elementwise(kind, x, other, dtype)


RULES.rules(
    arithmetic,
    {
        _aten.mul.Tensor: _PROD,
        _aten.mul.Scalar: _PROD,
        _aten.maximum.default: _MAX,
        _aten.minimum.default: _MIN,
    },
)


@RULES.rule(_aten.add.Tensor, _aten.add.Scalar)
def _add(b: Lowering, x: Operand, other: Operand, alpha: Number) -> Value:
    """`x + alpha * other`."""
    return arithmetic(_SUM, b, x, times(b, other, alpha))


@RULES.rule(_aten.sub.Tensor, _aten.sub.Scalar)
def _sub(b: Lowering, x: Operand, other: Operand, alpha: Number) -> Value:
    """`x - alpha * other`."""
    return arithmetic(_SUB, b, x, times(b, other, alpha))


@RULES.rule(_aten.rsub.Tensor, _aten.rsub.Scalar)
def _rsub(b: Lowering, x: Operand, other: Operand, alpha: Number) -> Value:
    """`other - alpha * x`."""
    return arithmetic(_SUB, b, other, times(b, x, alpha))


@RULES.rule(_aten.addcmul.default)
def _addcmul(b: Lowering, x: Value, tensor1: Value, tensor2: Value, value: Number) -> Value:
    """`x + value * tensor1 * tensor2`."""
    return arithmetic(_SUM, b, x, arithmetic(_PROD, b, times(b, tensor1, value), tensor2))


@RULES.rule(_aten.addcdiv.default)
def _addcdiv(b: Lowering, x: Value, tensor1: Value, tensor2: Value, value: Number) -> Value:
    """`x + value * tensor1 / tensor2`."""
    return arithmetic(_SUM, b, x, arithmetic(_DIV, b, times(b, tensor1, value), tensor2))


def _extreme_of_numbers(kind: ElementwiseKind, b: Lowering, x: Value, other: Value) -> Value:
    """Return a maximum or minimum; of a number and NaN, the number."""
    dtype = b.result.dtype
    extreme = arithmetic(kind, b, x, other)
    if not dtype.is_float:
        return extreme
    x, other = b.value(x, dtype), b.value(other, dtype)
    known = b.select(b.unary(UnaryKind.ISNAN, other), x, extreme, dtype)
    return b.select(b.unary(UnaryKind.ISNAN, x), other, known, dtype)


RULES.rules(_extreme_of_numbers, {_aten.fmax.default: _MAX, _aten.fmin.default: _MIN})


@RULES.rule(_aten.div.Tensor, _aten.div.Scalar, _aten.div.Tensor_mode, _aten.div.Scalar_mode)
def _div(b: Lowering, x: Operand, other: Operand, rounding_mode: RoundingMode = None) -> Value:
    """`x / other`, true (integers give floats), rounded down, or rounded towards zero."""
    if rounding_mode == "floor":
        return _floor_divide(b, x, other)
    if b.result.dtype.is_float:
        quotient = arithmetic(_DIV, b, x, other)
        return truncated(b, quotient) if rounding_mode == "trunc" else quotient
    return _whole_quotient(_DIV, b, x, other)


@RULES.rule(_aten.floor_divide.default, _aten.floor_divide.Scalar)
def _floor_divide(b: Lowering, x: Operand, other: Operand) -> Value:
    """`x // other` of integers, or floats by a power of two (WHOLE)."""
    if b.result.dtype.is_float:
        x, quotient = _binary_quotient(b, x, other)
        return b.select(b.unary(UnaryKind.ISINF, x), math.nan, b.unary(UnaryKind.FLOOR, quotient), x.dtype)
    return _whole_quotient(ElementwiseKind.FLOOR_DIV, b, x, other)


def _rest(division: ElementwiseKind, b: Lowering, x: Operand, other: Operand) -> Value:
    """`x - other * quotient` (WHOLE): the sign is that of `other` for FLOOR_DIV, and of x for DIV, and of a float's 0."""
    if b.result.dtype.is_float:
        return _binary_rest(division, b, x, other)
    product = b.elementwise(_PROD, _whole_quotient(division, b, x, other), other, b.result.dtype)
    return b.elementwise(_SUB, x, product, b.result.dtype)


RULES.rules(
    _rest,
    {
        _aten.fmod.Scalar: _DIV,
        _aten.fmod.Tensor: _DIV,
        _aten.remainder.Scalar: ElementwiseKind.FLOOR_DIV,
        _aten.remainder.Tensor: ElementwiseKind.FLOOR_DIV,
    },
)


def _whole_quotient(division: ElementwiseKind, b: Lowering, x: Operand, other: Operand) -> Value:
    """Return a quotient of integers by a known divisor (WHOLE)."""
    dtype = b.result.dtype
    if isinstance(other, Value):
        constant = b.constant_of(other)
        divisors = None if constant is None else constant.array
        if divisors is None or ((divisors == 0) | (divisors == -1)).any():
            raise UnsupportedError("torch raises where an integer is divided by 0, which an engine does not")
    elif isinstance(other, Dim):
        if other.symbol is None or other.symbol.min < 1:
            raise UnsupportedError(f"the divisor {other} may be 0, and torch then raises")
    elif int(other) in (0, -1):
        raise UnsupportedError(f"an integer divided by {other} may raise or overflow")
    return b.elementwise(division, x, other, dtype)


def _binary_quotient(b: Lowering, x: Operand, divisor: Operand) -> tuple[Value, Value]:
    """Return x, and x divided by a power of two (WHOLE); exact but for x below 1e-35, whose quotient may underflow to 0."""
    if not (isinstance(x, Value) and isinstance(divisor, (int, float)) and _is_binary(divisor)):
        raise UnsupportedError(
            "a quotient of floats rounds, and its whole part may be off by one", ReasonKind.DTYPE
        )
    if b.result.dtype not in (DType.FLOAT32, DType.FLOAT64):
        raise UnsupportedError(f"a quotient of {b.result.dtype.value} may leave its range", ReasonKind.DTYPE)
    x = b.value(x, b.result.dtype)
    return x, b.elementwise(_PROD, x, 1 / divisor, x.dtype)


def _is_binary(number: float) -> bool:
    """Whether this is a power of two, from 1 to 1024."""
    return 1 <= number <= _LARGEST_DIVISOR and math.frexp(number)[0] == 0.5


def _binary_rest(division: ElementwiseKind, b: Lowering, x: Operand, divisor: Operand) -> Value:
    """Return what a power of two leaves of x, or a zero of x's sign (ZERO)."""
    x, quotient = _binary_quotient(b, x, divisor)
    whole = truncated(b, quotient) if division is _DIV else b.unary(UnaryKind.FLOOR, quotient)
    rest = b.elementwise(_SUB, x, b.elementwise(_PROD, whole, divisor, x.dtype), x.dtype)
    signed = b.elementwise(_PROD, x, 0, x.dtype)
    return b.select(compare(_GREATER, b, b.unary(UnaryKind.ABS, rest), 0), rest, signed, x.dtype)


def times(b: Lowering, x: Operand, factor: Number) -> Operand:
    """Return x times a number in the promised dtype."""
    return x if factor == 1 else arithmetic(_PROD, b, x, factor)


def truncated(b: Lowering, x: Value) -> Value:
    """Return x rounded towards zero; NaN takes the second branch and stays NaN."""
    return b.select(compare(_LESS, b, x, 0), b.unary(UnaryKind.CEIL, x), b.unary(UnaryKind.FLOOR, x), x.dtype)


# Angles and lengths


@RULES.rule(_aten.atan2.default)
def _atan2(b: Lowering, x: Value, other: Value) -> Value:
    """The angle of (other, x), from the one in the first quadrant; 1 / -0 tells the sign of a zero (ZERO)."""
    dtype, wide = b.result.dtype, no_narrower(b.result.dtype)

    def is_positive(y: Value) -> Value:
        return b.elementwise(
            _OR, compare(_GREATER, b, y, 0), compare(_GREATER, b, _reciprocal(b, y), 0), DType.BOOL
        )

    x, other = b.value(x, wide), b.value(other, wide)
    above, below = b.unary(UnaryKind.ABS, x), b.unary(UnaryKind.ABS, other)
    same = b.elementwise(_EQUAL, above, below, wide)  # both may be 0, or infinite
    slope = b.select(same, b.unary(UnaryKind.SIGN, above), b.elementwise(_DIV, above, below, wide), wide)
    angle = b.unary(UnaryKind.ATAN, slope)
    angle = b.select(is_positive(other), angle, b.elementwise(_SUB, math.pi, angle, wide), wide)
    return b.cast(b.select(is_positive(x), angle, b.unary(UnaryKind.NEG, angle), wide), dtype)


@RULES.rule(_aten.hypot.default)
def _hypot(b: Lowering, x: Value, other: Value) -> Value:
    """`sqrt(x**2 + other**2)`, by the larger one times a root between 1 and 2, so that no square overflows."""
    dtype, wide = b.result.dtype, no_narrower(b.result.dtype)
    x, other = (b.unary(UnaryKind.ABS, b.value(y, wide)) for y in (x, other))
    large, small = b.elementwise(_MAX, x, other, wide), b.elementwise(_MIN, x, other, wide)
    same = b.elementwise(_EQUAL, large, small, wide)  # both may be 0, or infinite
    ratio = b.select(same, 1, b.elementwise(_DIV, small, large, wide), wide)
    root = _root(b, b.elementwise(_SUM, squared(b, ratio), 1, wide))
    endless = b.elementwise(_OR, b.unary(UnaryKind.ISINF, x), b.unary(UnaryKind.ISINF, other), DType.BOOL)
    return b.cast(b.select(endless, math.inf, b.elementwise(_PROD, large, root, wide), wide), dtype)


# Powers


@RULES.rule(_aten.pow.Tensor_Scalar)
def _pow_scalar(b: Lowering, x: Value, exponent: Number | Dim) -> Value:
    """A power with a known exponent; the ones that torch computes without `pow` have rules of their own."""
    dtype = b.result.dtype
    if dtype.is_integer and isinstance(exponent, int):
        if exponent < 0:
            raise UnsupportedError("torch refuses negative powers of integers")
        return _integer_power(b, b.value(x, dtype), exponent)
    shortcut = None if isinstance(exponent, Dim) else _POWERS.get(exponent)
    return shortcut(b, b.value(x, dtype)) if shortcut else arithmetic(_POW, b, x, exponent)


@RULES.rule(_aten.pow.Tensor_Tensor, _aten.pow.Scalar)
def _pow(b: Lowering, x: Operand, exponent: Operand) -> Value:
    """A power with an exponent that only the call knows."""
    return arithmetic(_POW, b, x, exponent)


def _integer_power(b: Lowering, x: Value, exponent: int) -> Value:
    """Return a power by repeated squaring, which wraps as torch's does."""
    if exponent < 2:
        return x if exponent else b.expand(b.full((), 1, x.dtype), x.shape)
    root = squared(b, _integer_power(b, x, exponent // 2))
    return b.elementwise(_PROD, root, x, x.dtype) if exponent % 2 else root


def no_narrower(dtype: DType) -> DType:
    """Return float32 for a narrower float."""
    return DType.FLOAT32 if dtype in (DType.FLOAT16, DType.BFLOAT16) else dtype


def squared(b: Lowering, x: Value) -> Value:
    """Return `x * x`."""
    return b.elementwise(_PROD, x, x, x.dtype)


def _cubed(b: Lowering, x: Value) -> Value:
    return b.elementwise(_PROD, squared(b, x), x, x.dtype)


def _reciprocal(b: Lowering, x: Value) -> Value:
    return b.unary(UnaryKind.RECIP, x)


def _root(b: Lowering, x: Value) -> Value:
    return b.unary(UnaryKind.SQRT, x)


def reciprocal_root(b: Lowering, x: Value) -> Value:
    """Return `1 / sqrt(x)`."""
    return _reciprocal(b, _root(b, x))


_POWERS: dict[Number, Callable[[Lowering, Value], Value]] = {
    1: lambda b, x: x,
    2: squared,
    3: _cubed,
    0.5: _root,
    -0.5: reciprocal_root,
    -1: _reciprocal,
    -2: lambda b, x: _reciprocal(b, squared(b, x)),
}


# Comparisons and logic


def compare(kind: ElementwiseKind, b: Lowering, x: Operand, other: Operand) -> Value:
    """Return a comparison in the promoted dtype (PROMOTE); booleans are ordered as integers are."""
    dtype = b.promoted(x, other)
    if dtype is DType.BOOL and kind is not _EQUAL:
        dtype = DType.INT32
    return b.elementwise(kind, x, other, dtype)


RULES.rules(
    compare,
    {
        _aten.eq.Scalar: _EQUAL,
        _aten.eq.Tensor: _EQUAL,
        _aten.gt.Scalar: _GREATER,
        _aten.gt.Tensor: _GREATER,
        _aten.lt.Scalar: _LESS,
        _aten.lt.Tensor: _LESS,
    },
)


def _compare_or_equal(kind: ElementwiseKind, b: Lowering, x: Operand, other: Operand) -> Value:
    """Return `x >= other` or `x <= other`: for floats not the inverse of the opposite, which is true for NaN."""
    if b.promoted(x, other).is_float:
        return b.elementwise(_OR, compare(kind, b, x, other), compare(_EQUAL, b, x, other), DType.BOOL)
    return inverted(b, compare(_LESS if kind is _GREATER else _GREATER, b, x, other))


RULES.rules(
    _compare_or_equal,
    {
        _aten.ge.Scalar: _GREATER,
        _aten.ge.Tensor: _GREATER,
        _aten.le.Scalar: _LESS,
        _aten.le.Tensor: _LESS,
    },
)


@RULES.rule(_aten.ne.Scalar, _aten.ne.Tensor)
def _ne(b: Lowering, x: Operand, other: Operand) -> Value:
    """`x != other`, true for NaN."""
    return inverted(b, compare(_EQUAL, b, x, other))


def _logical(kind: ElementwiseKind, b: Lowering, x: Operand, other: Operand) -> Value:
    """Return a logical op; anything but zero is true."""
    return b.elementwise(kind, x, other, DType.BOOL)


RULES.rules(
    _logical,
    {_aten.logical_and.default: _AND, _aten.logical_or.default: _OR, _aten.logical_xor.default: _XOR},
)


def _bitwise(kind: ElementwiseKind, b: Lowering, x: Operand, other: Operand) -> Value:
    """Return a bitwise op on booleans."""
    _check_bool(b)
    return b.elementwise(kind, x, other, DType.BOOL)


RULES.rules(
    _bitwise,
    {
        _aten.bitwise_and.Scalar: _AND,
        _aten.bitwise_and.Scalar_Tensor: _AND,
        _aten.bitwise_and.Tensor: _AND,
        _aten.bitwise_or.Scalar: _OR,
        _aten.bitwise_or.Scalar_Tensor: _OR,
        _aten.bitwise_or.Tensor: _OR,
        _aten.bitwise_xor.Scalar: _XOR,
        _aten.bitwise_xor.Scalar_Tensor: _XOR,
        _aten.bitwise_xor.Tensor: _XOR,
    },
)


@RULES.rule(_aten.bitwise_not.default)
def _bitwise_not(b: Lowering, x: Value) -> Value:
    """Invert booleans."""
    _check_bool(b)
    return inverted(b, x)


@RULES.rule(_aten.logical_not.default)
def _logical_not(b: Lowering, x: Value) -> Value:
    """Return which elements are zero."""
    return inverted(b, b.cast(x, DType.BOOL))


def _check_bool(b: Lowering) -> None:
    if b.result.dtype is not DType.BOOL:
        raise UnsupportedError("no engine op works on the bits of integers", ReasonKind.DTYPE)


def inverted(b: Lowering, x: Value) -> Value:
    """Return the inverse of booleans."""
    return b.unary(UnaryKind.NOT, x)


# Choosing


@RULES.rule(_aten.where.self)
def _where(b: Lowering, condition: Value, x: Operand, other: Operand) -> Value:
    """`condition ? x : other`."""
    return b.select(b.cast(condition, DType.BOOL), x, other, b.result.dtype)


@RULES.rule(_aten.masked_fill.Scalar, _aten.masked_fill.Tensor)
def _masked_fill(b: Lowering, x: Value, mask: Value, value: Operand) -> Value:
    """`mask ? value : x`, in the dtype of x."""
    return b.select(b.cast(mask, DType.BOOL), value, x, x.dtype)


# Casts and copies


@RULES.rule(_aten._to_copy.default)
def _to_copy(b: Lowering, x: Value, dtype: DType | None) -> Value:
    """Cast; where a tensor lies is not the IR's."""
    if not isinstance(x, Value):  # as `torch.vmap` writes numbers
        raise UnsupportedError("a number, not a tensor")
    return b.cast(x, dtype or x.dtype)


@RULES.rule(torch.ops.prims.convert_element_type.default)
def _convert_element_type(b: Lowering, a: Value, dtype: DType) -> Value:
    """Cast, as torch's decompositions write it."""
    return b.cast(a, dtype)


@RULES.rule(
    _aten.alias.default,
    _aten.clone.default,
    _aten.detach.default,
    _aten.lift_fresh_copy.default,
)
def _same(b: Lowering, x: Value) -> Value:
    """The same elements: values are immutable."""
    return x


@RULES.rule(_aten.copy.default)
def _copy(b: Lowering, x: Value, src: Value) -> Value:
    """`src` in the dtype and shape of x."""
    return b.expand(b.cast(src, x.dtype), x.shape)


@RULES.rule(_aten.fill.Scalar, _aten.fill.Tensor)
def _fill(b: Lowering, x: Value, value: Operand) -> Value:
    """One number in the dtype and shape of x."""
    return b.expand(b.value(value, x.dtype), x.shape)
