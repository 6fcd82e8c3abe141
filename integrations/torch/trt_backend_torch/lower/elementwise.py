"""Elementwise aten ops: arithmetic, comparisons, activations, casts.

Rules:
  PROMOTE  arithmetic is computed in the dtype that torch promises for the result; comparisons in the promoted one.
  BOOL     sums and maxima of booleans are OR, products and minima AND, as in torch.
  WHOLE    whole quotients and remainders are lowered for integers only, and by a divisor that is known: by 0 torch
           raises, and the least integer divided by -1 overflows. The quotient of two floats is rounded before it can
           be rounded down, and a remainder is off by more than itself where the quotient is large.
"""

from __future__ import annotations

__all__ = ["RULES"]

import math
from collections.abc import Callable
from typing import Literal

import torch

from trt_backend.errors import ReasonKind, UnsupportedError
from trt_backend.ir.dims import Dim
from trt_backend.ir.graph import Value
from trt_backend.ir.ops.elementwise import ActivationKind, ElementwiseKind, UnaryKind
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

RoundingMode = Literal["floor", "trunc", None]


# Arithmetic


def _arithmetic(kind: ElementwiseKind, b: Lowering, x: Operand, other: Operand) -> Value:
    """Return a binary op in the promised dtype (PROMOTE, BOOL)."""
    dtype = b.result.dtype
    if dtype is DType.BOOL:
        if kind not in _OF_BOOLS:
            raise UnsupportedError(f"{kind.value} of booleans", ReasonKind.DTYPE)
        kind = _OF_BOOLS[kind]
    return b.elementwise(kind, x, other, dtype)


RULES.rules(
    _arithmetic,
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
    return _arithmetic(_SUM, b, x, _times(b, other, alpha))


@RULES.rule(_aten.sub.Tensor, _aten.sub.Scalar)
def _sub(b: Lowering, x: Operand, other: Operand, alpha: Number) -> Value:
    """`x - alpha * other`."""
    return _arithmetic(_SUB, b, x, _times(b, other, alpha))


@RULES.rule(_aten.rsub.Tensor, _aten.rsub.Scalar)
def _rsub(b: Lowering, x: Operand, other: Operand, alpha: Number) -> Value:
    """`other - alpha * x`."""
    return _arithmetic(_SUB, b, other, _times(b, x, alpha))


@RULES.rule(_aten.addcmul.default)
def _addcmul(b: Lowering, x: Value, tensor1: Value, tensor2: Value, value: Number) -> Value:
    """`x + value * tensor1 * tensor2`."""
    return _arithmetic(_SUM, b, x, _arithmetic(_PROD, b, _times(b, tensor1, value), tensor2))


@RULES.rule(_aten.addcdiv.default)
def _addcdiv(b: Lowering, x: Value, tensor1: Value, tensor2: Value, value: Number) -> Value:
    """`x + value * tensor1 / tensor2`."""
    return _arithmetic(_SUM, b, x, _arithmetic(_DIV, b, _times(b, tensor1, value), tensor2))


@RULES.rule(_aten.div.Tensor, _aten.div.Scalar, _aten.div.Tensor_mode, _aten.div.Scalar_mode)
def _div(b: Lowering, x: Operand, other: Operand, rounding_mode: RoundingMode = None) -> Value:
    """`x / other`, true (integers give floats), rounded down, or rounded towards zero."""
    if rounding_mode == "floor":
        return _floor_divide(b, x, other)
    if b.result.dtype.is_float:
        quotient = _arithmetic(_DIV, b, x, other)
        return _truncated(b, quotient) if rounding_mode == "trunc" else quotient
    return _whole_quotient(_DIV, b, x, other)


@RULES.rule(_aten.floor_divide.default, _aten.floor_divide.Scalar)
def _floor_divide(b: Lowering, x: Operand, other: Operand) -> Value:
    """`x // other` of integers (WHOLE)."""
    return _whole_quotient(ElementwiseKind.FLOOR_DIV, b, x, other)


def _rest(division: ElementwiseKind, b: Lowering, x: Operand, other: Operand) -> Value:
    """`x - other * quotient` of integers (WHOLE): the sign is that of `other` for FLOOR_DIV, and of x for DIV."""
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
    if dtype.is_float:
        raise UnsupportedError(
            "a quotient of floats rounds, and its whole part may be off by one", ReasonKind.DTYPE
        )
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


def _times(b: Lowering, x: Operand, factor: Number) -> Operand:
    return x if factor == 1 else _arithmetic(_PROD, b, x, factor)


def _truncated(b: Lowering, x: Value) -> Value:
    """Return x rounded towards zero; NaN takes the second branch and stays NaN."""
    return b.select(
        _compare(_LESS, b, x, 0), b.unary(UnaryKind.CEIL, x), b.unary(UnaryKind.FLOOR, x), x.dtype
    )


# Powers


@RULES.rule(_aten.pow.Tensor_Scalar)
def _pow_scalar(b: Lowering, x: Value, exponent: Number | Dim) -> Value:
    """A power with a known exponent; the ones that torch computes without `pow` have rules of their own."""
    dtype = b.result.dtype
    if dtype.is_integer and isinstance(exponent, int):
        return _integer_power(b, b.value(x, dtype), exponent)
    shortcut = None if isinstance(exponent, Dim) else _POWERS.get(exponent)
    return shortcut(b, b.value(x, dtype)) if shortcut else _arithmetic(_POW, b, x, exponent)


@RULES.rule(_aten.pow.Tensor_Tensor, _aten.pow.Scalar)
def _pow(b: Lowering, x: Operand, exponent: Operand) -> Value:
    """A power with an exponent that only the call knows."""
    return _arithmetic(_POW, b, x, exponent)


def _integer_power(b: Lowering, x: Value, exponent: int) -> Value:
    """Return a power by repeated squaring, which wraps as torch's does; torch itself refuses negative exponents."""
    if exponent < 2:
        return x if exponent else b.expand(b.full((), 1, x.dtype), x.shape)
    root = _squared(b, _integer_power(b, x, exponent // 2))
    return b.elementwise(_PROD, root, x, x.dtype) if exponent % 2 else root


def _squared(b: Lowering, x: Value) -> Value:
    return b.elementwise(_PROD, x, x, x.dtype)


def _cubed(b: Lowering, x: Value) -> Value:
    return b.elementwise(_PROD, _squared(b, x), x, x.dtype)


def _reciprocal(b: Lowering, x: Value) -> Value:
    return b.unary(UnaryKind.RECIP, x)


def _root(b: Lowering, x: Value) -> Value:
    return b.unary(UnaryKind.SQRT, x)


def _reciprocal_root(b: Lowering, x: Value) -> Value:
    return _reciprocal(b, _root(b, x))


_POWERS: dict[Number, Callable[[Lowering, Value], Value]] = {
    1: lambda b, x: x,
    2: _squared,
    3: _cubed,
    0.5: _root,
    -0.5: _reciprocal_root,
    -1: _reciprocal,
    -2: lambda b, x: _reciprocal(b, _squared(b, x)),
}


# Functions of one tensor


def _float_unary(kind: UnaryKind, b: Lowering, x: Value) -> Value:
    """Return a function of floats; integers become floats first (PROMOTE)."""
    return b.unary(kind, b.value(x, b.result.dtype))


RULES.rules(
    _float_unary,
    {
        _aten.acos.default: UnaryKind.ACOS,
        _aten.acosh.default: UnaryKind.ACOSH,
        _aten.asin.default: UnaryKind.ASIN,
        _aten.asinh.default: UnaryKind.ASINH,
        _aten.atan.default: UnaryKind.ATAN,
        _aten.atanh.default: UnaryKind.ATANH,
        _aten.cos.default: UnaryKind.COS,
        _aten.cosh.default: UnaryKind.COSH,
        _aten.erf.default: UnaryKind.ERF,
        _aten.exp.default: UnaryKind.EXP,
        _aten.log.default: UnaryKind.LOG,
        _aten.reciprocal.default: UnaryKind.RECIP,
        _aten.sin.default: UnaryKind.SIN,
        _aten.sinh.default: UnaryKind.SINH,
        _aten.sqrt.default: UnaryKind.SQRT,
        _aten.tan.default: UnaryKind.TAN,
    },
)


def _composed(function: Callable[[Lowering, Value], Value], b: Lowering, x: Value) -> Value:
    """Return a function of floats that is made of several ops; integers become floats first (PROMOTE)."""
    return function(b, b.value(x, b.result.dtype))


def _expm1(b: Lowering, x: Value) -> Value:
    """Near zero `2t / (1 - t)` with `t = tanh(x / 2)`, which does not cancel."""
    dtype = x.dtype
    t = b.activation(ActivationKind.TANH, b.elementwise(_PROD, x, 0.5, dtype))
    near = b.elementwise(_DIV, b.elementwise(_SUM, t, t, dtype), b.elementwise(_SUB, 1, t, dtype), dtype)
    far = b.elementwise(_SUB, b.unary(UnaryKind.EXP, x), 1, dtype)
    return b.select(_compare(_LESS, b, b.unary(UnaryKind.ABS, x), 1), near, far, dtype)


def _log1p(b: Lowering, x: Value) -> Value:
    """Kahan's `log(u) * x / (u - 1)` with `u = 1 + x`; x where u is 1, and `log(u)` where u is exact."""
    dtype = x.dtype
    u = b.elementwise(_SUM, x, 1, dtype)
    rounded, log = b.elementwise(_SUB, u, 1, dtype), b.unary(UnaryKind.LOG, u)
    corrected = b.elementwise(_PROD, log, b.elementwise(_DIV, x, rounded, dtype), dtype)
    far = b.select(_compare(_EQUAL, b, rounded, x), log, corrected, dtype)
    return b.select(_compare(_EQUAL, b, rounded, 0), x, far, dtype)


def _logarithm(base: float, b: Lowering, x: Value) -> Value:
    """Return the logarithm to a base."""
    log = _float_unary(UnaryKind.LOG, b, x)
    return b.elementwise(_PROD, log, 1 / math.log(base), log.dtype)


def _exp2(b: Lowering, x: Value) -> Value:
    return b.elementwise(_POW, 2, x, x.dtype)


def _silu(b: Lowering, x: Value) -> Value:
    return b.elementwise(_PROD, x, b.activation(ActivationKind.SIGMOID, x), x.dtype)


def _mish(b: Lowering, x: Value) -> Value:
    return b.elementwise(_PROD, x, b.activation(ActivationKind.TANH, _softplus_of(b, x)), x.dtype)


def _hardsigmoid(b: Lowering, x: Value) -> Value:
    return b.activation(ActivationKind.HARD_SIGMOID, x, 1 / 6, 0.5)


def _hardswish(b: Lowering, x: Value) -> Value:
    return b.elementwise(_PROD, x, _hardsigmoid(b, x), x.dtype)


RULES.rules(
    _composed,
    {
        _aten.exp2.default: _exp2,
        _aten.expm1.default: _expm1,
        _aten.hardsigmoid.default: _hardsigmoid,
        _aten.hardswish.default: _hardswish,
        _aten.log1p.default: _log1p,
        _aten.mish.default: _mish,
        _aten.rsqrt.default: _reciprocal_root,
        _aten.silu.default: _silu,
    },
)
RULES.rules(_logarithm, {_aten.log2.default: 2.0, _aten.log10.default: 10.0})


def _number_unary(kind: UnaryKind, b: Lowering, x: Value) -> Value:
    """Return a function of integers or floats; it leaves booleans, where torch takes them, as they are."""
    return x if x.dtype is DType.BOOL else b.unary(kind, x)


RULES.rules(_number_unary, {_aten.abs.default: UnaryKind.ABS, _aten.neg.default: UnaryKind.NEG})


@RULES.rule(_aten.sign.default)
def _sign(b: Lowering, x: Value) -> Value:
    """-1, 0 or 1; in torch the sign of NaN is 0."""
    sign = _number_unary(UnaryKind.SIGN, b, x)
    return b.select(b.unary(UnaryKind.ISNAN, x), 0, sign, x.dtype) if x.dtype.is_float else sign


def _rounding(kind: UnaryKind, b: Lowering, x: Value) -> Value:
    """Return x rounded; integers are whole."""
    return b.unary(kind, x) if x.dtype.is_float else x


RULES.rules(
    _rounding,
    {
        _aten.ceil.default: UnaryKind.CEIL,
        _aten.floor.default: UnaryKind.FLOOR,
        _aten.round.default: UnaryKind.ROUND,
    },
)


@RULES.rule(_aten.trunc.default)
def _trunc(b: Lowering, x: Value) -> Value:
    """Round towards zero."""
    return _truncated(b, x) if x.dtype.is_float else x


def _classified(kind: UnaryKind, b: Lowering, x: Value) -> Value:
    """Return which elements are NaN, or infinite: no integer is."""
    return b.unary(kind, x) if x.dtype.is_float else _inverted(b, _compare(_EQUAL, b, x, x))


RULES.rules(_classified, {_aten.isinf.default: UnaryKind.ISINF, _aten.isnan.default: UnaryKind.ISNAN})


# Comparisons and logic


def _compare(kind: ElementwiseKind, b: Lowering, x: Operand, other: Operand) -> Value:
    """Return a comparison in the promoted dtype (PROMOTE); booleans are ordered as integers are."""
    dtype = b.promoted(x, other)
    if dtype is DType.BOOL and kind is not _EQUAL:
        dtype = DType.INT32
    return b.elementwise(kind, x, other, dtype)


RULES.rules(
    _compare,
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
        return b.elementwise(_OR, _compare(kind, b, x, other), _compare(_EQUAL, b, x, other), DType.BOOL)
    return _inverted(b, _compare(_LESS if kind is _GREATER else _GREATER, b, x, other))


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
    return _inverted(b, _compare(_EQUAL, b, x, other))


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
    return _inverted(b, x)


@RULES.rule(_aten.logical_not.default)
def _logical_not(b: Lowering, x: Value) -> Value:
    """Return which elements are zero."""
    return _inverted(b, b.cast(x, DType.BOOL))


def _check_bool(b: Lowering) -> None:
    if b.result.dtype is not DType.BOOL:
        raise UnsupportedError("no engine op works on the bits of integers", ReasonKind.DTYPE)


def _inverted(b: Lowering, x: Value) -> Value:
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


@RULES.rule(
    _aten.clamp.default,
    _aten.clamp.Tensor,
    _aten.clamp_max.default,
    _aten.clamp_max.Tensor,
    _aten.clamp_min.default,
    _aten.clamp_min.Tensor,
)
def _clamp(b: Lowering, x: Value, min: Operand | None = None, max: Operand | None = None) -> Value:
    """The smaller of `max` and the larger of `min` and x."""
    if b.result.dtype.is_float and not isinstance(min, (Value, Dim)) and not isinstance(max, (Value, Dim)):
        low, high = (-math.inf if min is None else min), (math.inf if max is None else max)
        return _clipped(b, x, low, high)
    x = b.value(x, b.result.dtype)
    x = x if min is None else _arithmetic(_MAX, b, x, min)
    return x if max is None else _arithmetic(_MIN, b, x, max)


@RULES.rule(_aten.hardtanh.default)
def _hardtanh(b: Lowering, x: Value, min_val: Number, max_val: Number) -> Value:
    """Clip to an interval (relu6 is one)."""
    return _clamp(b, x, min_val, max_val)


def _clipped(b: Lowering, x: Value, low: Number, high: Number) -> Value:
    return b.activation(ActivationKind.CLIP, b.value(x, b.result.dtype), float(low), float(high))


# Activations


@RULES.rule(_aten.relu.default)
def _relu(b: Lowering, x: Value) -> Value:
    """`max(x, 0)`."""
    return b.activation(ActivationKind.RELU, x)


def _float_activation(kind: ActivationKind, b: Lowering, x: Value) -> Value:
    """Return an activation of floats; integers become floats first (PROMOTE)."""
    return b.activation(kind, b.value(x, b.result.dtype))


RULES.rules(
    _float_activation,
    {_aten.sigmoid.default: ActivationKind.SIGMOID, _aten.tanh.default: ActivationKind.TANH},
)


@RULES.rule(_aten.leaky_relu.default)
def _leaky_relu(b: Lowering, x: Value, negative_slope: Number) -> Value:
    """`x < 0 ? negative_slope * x : x`."""
    return b.activation(ActivationKind.LEAKY_RELU, x, float(negative_slope))


@RULES.rule(_aten._prelu_kernel.default)
def _prelu(b: Lowering, x: Value, weight: Value) -> Value:
    """`x > 0 ? x : weight * x`."""
    return b.select(_compare(_GREATER, b, x, 0), x, b.elementwise(_PROD, weight, x, x.dtype), x.dtype)


@RULES.rule(_aten.elu.default)
def _elu(b: Lowering, x: Value, alpha: Number, scale: Number, input_scale: Number) -> Value:
    """`scale * (x > 0 ? x : alpha * (exp(input_scale * x) - 1))`: elu, selu and celu."""
    if input_scale != 1:
        negative = b.activation(ActivationKind.ELU, b.elementwise(_PROD, x, input_scale, x.dtype), 1.0)
        positive = _times(b, x, scale)
        return b.select(_compare(_GREATER, b, x, 0), positive, _times(b, negative, alpha * scale), x.dtype)
    if scale != 1:
        return b.activation(ActivationKind.SELU, x, float(alpha), float(scale))
    return b.activation(ActivationKind.ELU, x, float(alpha))


@RULES.rule(_aten.celu.default)
def _celu(b: Lowering, x: Value, alpha: Number) -> Value:
    """An elu whose slope is continuous."""
    return _elu(b, x, alpha, 1, 1 / alpha)


@RULES.rule(_aten.gelu.default)
def _gelu(b: Lowering, x: Value, approximate: Literal["none", "tanh"]) -> Value:
    """Gelu, exact or with the tanh approximation."""
    return b.activation(ActivationKind.GELU_TANH if approximate == "tanh" else ActivationKind.GELU_ERF, x)


@RULES.rule(_aten.softplus.default)
def _softplus(b: Lowering, x: Value, beta: Number, threshold: Number) -> Value:
    """`log(1 + exp(beta * x)) / beta`, or x where `beta * x > threshold`: from 20 on, only float64 sees a difference."""
    smooth = _softplus_of(b, x, float(beta))
    if threshold >= 20 and x.dtype is not DType.FLOAT64:
        return smooth
    large = _compare(_GREATER, b, b.elementwise(_PROD, x, beta, x.dtype), threshold)
    return b.select(large, x, smooth, x.dtype)


@RULES.rule(_aten.log_sigmoid_forward.default)
def _log_sigmoid(b: Lowering, x: Value) -> tuple[Value | None, ...]:
    """`-softplus(-x)`; the buffer serves the backward pass only."""
    return b.unary(UnaryKind.NEG, _softplus_of(b, b.unary(UnaryKind.NEG, x))), None


def _softplus_of(b: Lowering, x: Value, beta: float = 1.0) -> Value:
    return b.activation(ActivationKind.SOFTPLUS, x, 1 / beta, beta)


# Casts and copies


@RULES.rule(_aten._to_copy.default)
def _to_copy(b: Lowering, x: Value, dtype: DType | None) -> Value:
    """Cast; where a tensor lies is not the IR's."""
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
