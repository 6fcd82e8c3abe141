"""Activations: aten ops of one tensor that bend it, clamps included."""

from __future__ import annotations

__all__ = ["RULES"]

import math
from typing import Literal

import torch

from trt_backend.errors import UnsupportedError
from trt_backend.ir.dims import Dim
from trt_backend.ir.graph import Value
from trt_backend.ir.ops.elementwise import ActivationKind, ElementwiseKind, UnaryKind
from trt_backend.ir.types import DType
from trt_backend_torch.lower.context import Lowering, Number, Operand
from trt_backend_torch.lower.elementwise import arithmetic, compare, times
from trt_backend_torch.lower.rules import RuleTable

RULES = RuleTable()

_aten = torch.ops.aten

_PROD, _MAX, _MIN = ElementwiseKind.PROD, ElementwiseKind.MAX, ElementwiseKind.MIN
_GREATER = ElementwiseKind.GREATER


# Clamps


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
        if math.isnan(low) or math.isnan(high):
            raise UnsupportedError("a bound is NaN, which versions of torch take differently")
        return _clipped(b, x, low, high)
    x = b.value(x, b.result.dtype)
    x = x if min is None else arithmetic(_MAX, b, x, min)
    return x if max is None else arithmetic(_MIN, b, x, max)


@RULES.rule(_aten.hardtanh.default)
def _hardtanh(b: Lowering, x: Value, min_val: Number, max_val: Number) -> Value:
    """Clip to an interval (relu6 is one)."""
    return _clamp(b, x, min_val, max_val)


def _clipped(b: Lowering, x: Value, low: Number, high: Number) -> Value:
    return b.activation(ActivationKind.CLIP, b.value(x, b.result.dtype), float(low), float(high))


# Activations


@RULES.rule(_aten.silu.default)
def _silu(b: Lowering, x: Value) -> Value:
    """`x * sigmoid(x)`."""
    return b.elementwise(_PROD, x, b.activation(ActivationKind.SIGMOID, x), x.dtype)


@RULES.rule(_aten.mish.default)
def _mish(b: Lowering, x: Value) -> Value:
    """`x * tanh(softplus(x))`."""
    return b.elementwise(_PROD, x, b.activation(ActivationKind.TANH, _softplus_of(b, x)), x.dtype)


@RULES.rule(_aten.hardsigmoid.default)
def _hardsigmoid(b: Lowering, x: Value) -> Value:
    """`x / 6 + 1 / 2`, clipped to [0, 1]."""
    return b.activation(ActivationKind.HARD_SIGMOID, x, 1 / 6, 0.5)


@RULES.rule(_aten.hardswish.default)
def _hardswish(b: Lowering, x: Value) -> Value:
    """`x * hardsigmoid(x)`."""
    return b.elementwise(_PROD, x, _hardsigmoid(b, x), x.dtype)


@RULES.rule(_aten.relu.default)
def _relu(b: Lowering, x: Value) -> Value:
    """`max(x, 0)`."""
    return b.activation(ActivationKind.RELU, x)


def _float_activation(kind: ActivationKind, b: Lowering, x: Value) -> Value:
    """Return an activation of floats; integers become floats first, as torch promises."""
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
    return b.select(compare(_GREATER, b, x, 0), x, b.elementwise(_PROD, weight, x, x.dtype), x.dtype)


@RULES.rule(_aten.elu.default)
def _elu(b: Lowering, x: Value, alpha: Number, scale: Number, input_scale: Number) -> Value:
    """`scale * (x > 0 ? x : alpha * (exp(input_scale * x) - 1))`: elu, selu and celu."""
    if input_scale != 1:
        negative = b.activation(ActivationKind.ELU, b.elementwise(_PROD, x, input_scale, x.dtype), 1.0)
        positive = times(b, x, scale)
        return b.select(compare(_GREATER, b, x, 0), positive, times(b, negative, alpha * scale), x.dtype)
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
    large = compare(_GREATER, b, b.elementwise(_PROD, x, beta, x.dtype), threshold)
    return b.select(large, x, smooth, x.dtype)


@RULES.rule(_aten.log_sigmoid_forward.default)
def _log_sigmoid(b: Lowering, x: Value) -> tuple[Value | None, ...]:
    """`-softplus(-x)`; the buffer serves the backward pass only."""
    return b.unary(UnaryKind.NEG, _softplus_of(b, b.unary(UnaryKind.NEG, x))), None


def _softplus_of(b: Lowering, x: Value, beta: float = 1.0) -> Value:
    return b.activation(ActivationKind.SOFTPLUS, x, 1 / beta, beta)
