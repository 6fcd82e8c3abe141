"""Elementwise aten ops of one tensor: functions of floats, signs, roundings."""

from __future__ import annotations

__all__ = ["RULES"]

import math
from collections.abc import Callable

import torch

from trt_backend.errors import ReasonKind, UnsupportedError
from trt_backend.ir.graph import Value
from trt_backend.ir.ops.elementwise import ActivationKind, ElementwiseKind, UnaryKind
from trt_backend.ir.types import DType
from trt_backend_torch.lower.context import Lowering
from trt_backend_torch.lower.elementwise import compare, inverted, reciprocal_root, truncated
from trt_backend_torch.lower.rules import RuleTable

RULES = RuleTable()

_aten = torch.ops.aten

_SUM, _SUB, _PROD, _DIV = ElementwiseKind.SUM, ElementwiseKind.SUB, ElementwiseKind.PROD, ElementwiseKind.DIV


def _float_unary(kind: UnaryKind, b: Lowering, x: Value) -> Value:
    """Return a function of floats; integers become floats first, as torch promises."""
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
    """Return a function of floats that is made of several ops; integers become floats first."""
    return function(b, b.value(x, b.result.dtype))


def _expm1(b: Lowering, x: Value) -> Value:
    """Near zero `2t / (1 - t)` with `t = tanh(x / 2)`, which does not cancel."""
    dtype = x.dtype
    t = b.activation(ActivationKind.TANH, b.elementwise(_PROD, x, 0.5, dtype))
    near = b.elementwise(_DIV, b.elementwise(_SUM, t, t, dtype), b.elementwise(_SUB, 1, t, dtype), dtype)
    far = b.elementwise(_SUB, b.unary(UnaryKind.EXP, x), 1, dtype)
    return b.select(compare(ElementwiseKind.LESS, b, b.unary(UnaryKind.ABS, x), 1), near, far, dtype)


def _log1p(b: Lowering, x: Value) -> Value:
    """Kahan's `log(u) * x / (u - 1)` with `u = 1 + x`; x where u is 1, and `log(u)` where u is exact."""
    dtype = x.dtype
    u = b.elementwise(_SUM, x, 1, dtype)
    rounded, log = b.elementwise(_SUB, u, 1, dtype), b.unary(UnaryKind.LOG, u)
    corrected = b.elementwise(_PROD, log, b.elementwise(_DIV, x, rounded, dtype), dtype)
    far = b.select(compare(ElementwiseKind.EQUAL, b, rounded, x), log, corrected, dtype)
    return b.select(compare(ElementwiseKind.EQUAL, b, rounded, 0), x, far, dtype)


def _logarithm(base: float, b: Lowering, x: Value) -> Value:
    """Return the logarithm to a base."""
    log = _float_unary(UnaryKind.LOG, b, x)
    return b.elementwise(_PROD, log, 1 / math.log(base), log.dtype)


def _exp2(b: Lowering, x: Value) -> Value:
    return b.elementwise(ElementwiseKind.POW, 2, x, x.dtype)


RULES.rules(
    _composed,
    {
        _aten.exp2.default: _exp2,
        _aten.expm1.default: _expm1,
        _aten.log1p.default: _log1p,
        _aten.rsqrt.default: reciprocal_root,
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


@RULES.rule(_aten.round.decimals)
def _round_decimals(b: Lowering, x: Value, decimals: int) -> Value:
    """Round to a power of ten, by multiplying and dividing; what is narrower than float32 would overflow."""
    if not x.dtype.is_float or not decimals:
        return _rounding(UnaryKind.ROUND, b, x)
    if x.dtype in (DType.FLOAT16, DType.BFLOAT16):
        raise UnsupportedError(f"{x.dtype.value} rounded to decimals", ReasonKind.DTYPE)
    there, back = (_PROD, _DIV) if decimals > 0 else (_DIV, _PROD)
    power = 10.0 ** abs(decimals)
    whole = b.unary(UnaryKind.ROUND, b.elementwise(there, x, power, x.dtype))
    return b.elementwise(back, whole, power, x.dtype)


@RULES.rule(_aten.trunc.default)
def _trunc(b: Lowering, x: Value) -> Value:
    """Round towards zero."""
    return truncated(b, x) if x.dtype.is_float else x


def _classified(kind: UnaryKind, b: Lowering, x: Value) -> Value:
    """Return which elements are NaN, or infinite: no integer is."""
    return b.unary(kind, x) if x.dtype.is_float else inverted(b, compare(ElementwiseKind.EQUAL, b, x, x))


RULES.rules(_classified, {_aten.isinf.default: UnaryKind.ISINF, _aten.isnan.default: UnaryKind.ISNAN})
