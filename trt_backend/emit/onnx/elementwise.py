"""Emission of elementwise ops."""

from __future__ import annotations

__all__: list[str] = []

from typing import Any

import numpy as np

from trt_backend.emit.onnx.model import ONNX_DTYPE, ONNXRUNTIME, ModelWriter, Tensor
from trt_backend.emit.onnx.rules import ALL, FLOATS, INTEGERS, RULES, SINGLE, WIDE_INTEGERS
from trt_backend.ir.ops.elementwise import (
    Activation,
    ActivationKind,
    BatchNorm,
    Cast,
    Elementwise,
    ElementwiseKind,
    QuantizeDequantize,
    Select,
    Unary,
    UnaryKind,
)
from trt_backend.ir.types import DType

BOOL = frozenset({DType.BOOL})
NUMBERS = FLOATS | INTEGERS
WIDE = FLOATS | WIDE_INTEGERS

_UNARY = {
    UnaryKind.ABS: ("Abs", NUMBERS),
    UnaryKind.ACOS: ("Acos", SINGLE),
    UnaryKind.ACOSH: ("Acosh", SINGLE),
    UnaryKind.ASIN: ("Asin", SINGLE),
    UnaryKind.ASINH: ("Asinh", SINGLE),
    UnaryKind.ATAN: ("Atan", SINGLE),
    UnaryKind.ATANH: ("Atanh", SINGLE),
    UnaryKind.CEIL: ("Ceil", FLOATS),
    UnaryKind.COS: ("Cos", SINGLE),
    UnaryKind.COSH: ("Cosh", SINGLE),
    UnaryKind.ERF: ("Erf", SINGLE),
    UnaryKind.EXP: ("Exp", FLOATS),
    UnaryKind.FLOOR: ("Floor", FLOATS),
    UnaryKind.ISINF: ("IsInf", FLOATS | {DType.BFLOAT16}),
    UnaryKind.ISNAN: ("IsNaN", FLOATS | {DType.BFLOAT16}),
    UnaryKind.LOG: ("Log", FLOATS),
    UnaryKind.NEG: ("Neg", NUMBERS - {DType.UINT8}),
    UnaryKind.NOT: ("Not", BOOL),
    UnaryKind.RECIP: ("Reciprocal", FLOATS),
    UnaryKind.ROUND: ("Round", FLOATS),
    UnaryKind.SIGN: ("Sign", NUMBERS | {DType.BFLOAT16}),
    UnaryKind.SIN: ("Sin", FLOATS),
    UnaryKind.SINH: ("Sinh", SINGLE),
    UnaryKind.SQRT: ("Sqrt", FLOATS),
    UnaryKind.TAN: ("Tan", SINGLE),
}

_ELEMENTWISE = {
    ElementwiseKind.SUM: ("Add", NUMBERS),
    ElementwiseKind.SUB: ("Sub", NUMBERS),
    ElementwiseKind.PROD: ("Mul", NUMBERS),
    ElementwiseKind.DIV: ("Div", WIDE),
    ElementwiseKind.FLOOR_DIV: ("Div", FLOATS),  # of integers it is expanded
    ElementwiseKind.MAX: ("Max", WIDE),
    ElementwiseKind.MIN: ("Min", WIDE),
    ElementwiseKind.POW: ("Pow", FLOATS),  # of integers it saturates
    ElementwiseKind.EQUAL: ("Equal", NUMBERS | BOOL),
    ElementwiseKind.GREATER: ("Greater", NUMBERS),
    ElementwiseKind.LESS: ("Less", NUMBERS),
    ElementwiseKind.AND: ("And", BOOL),
    ElementwiseKind.OR: ("Or", BOOL),
    ElementwiseKind.XOR: ("Xor", BOOL),
}

_ACTIVATION = {
    ActivationKind.RELU: ("Relu", WIDE),
    ActivationKind.SIGMOID: ("Sigmoid", FLOATS),
    ActivationKind.TANH: ("Tanh", FLOATS),
    ActivationKind.LEAKY_RELU: ("LeakyRelu", SINGLE),
    ActivationKind.ELU: ("Elu", SINGLE),
    ActivationKind.SELU: ("Selu", SINGLE),
    ActivationKind.SOFTSIGN: ("Softsign", SINGLE),
    ActivationKind.SOFTPLUS: ("Softplus", SINGLE),
    ActivationKind.CLIP: ("Clip", NUMBERS),
    ActivationKind.HARD_SIGMOID: ("HardSigmoid", SINGLE),
    ActivationKind.GELU_ERF: ("Gelu", SINGLE),
    ActivationKind.GELU_TANH: ("Gelu", SINGLE),
}


_NO_CLIP = (DType.INT64, DType.FLOAT64)
"""For int64, see `_extreme`; a Clip of float64 behind a Relu does not build: ONNX Runtime cannot fuse the two (1.31)."""


@RULES.rule(Unary, {kind: dtypes for kind, (_, dtypes) in _UNARY.items()})
def _unary(m: ModelWriter, op: Unary, x: Tensor) -> str:
    if op.kind is UnaryKind.SIGN and x.dtype is DType.INT64:  # see `_extreme`
        zero = m.constant(0, x.dtype)
        above, below = (
            m.node("Cast", m.node(name, x.name, zero), to=ONNX_DTYPE[x.dtype]) for name in ("Greater", "Less")
        )
        return m.node("Sub", above, below)
    return m.node(_UNARY[op.kind][0], x.name)


@RULES.rule(Elementwise, {kind: dtypes for kind, (_, dtypes) in _ELEMENTWISE.items()})
def _elementwise(m: ModelWriter, op: Elementwise, left: Tensor, right: Tensor) -> str:
    if op.kind is ElementwiseKind.FLOOR_DIV:
        return m.node("Floor", m.node("Div", left.name, right.name))
    if op.kind is ElementwiseKind.DIV:
        return m.node("Div", left.name, _divisor(m, right))
    if op.kind in (ElementwiseKind.MAX, ElementwiseKind.MIN):
        return _extreme(m, _ELEMENTWISE[op.kind][0], left.name, right.name, left.dtype)
    return m.node(_ELEMENTWISE[op.kind][0], left.name, right.name)


def _extreme(m: ModelWriter, name: str, x: str, y: str, dtype: DType) -> str:
    """Return the Max or Min of both.

    For int64, ONNX Runtime 1.31.1 goes by the low words alone there, and in Clip and Sign; 1.32.0 does not.
    """
    if dtype is not DType.INT64:
        return m.node(name, x, y)
    found = (y, x) if name == "Max" else (x, y)
    return m.node("Where", m.node("Less", x, y), *found)


def _divisor(m: ModelWriter, x: Tensor) -> str:
    """Return a divisor that is never an integer 0, by which ONNX Runtime 1.23 kills the process (SIGFPE)."""
    known = m.known(x)
    if x.dtype.is_float or (known is not None and bool(known.all())):
        return x.name
    zero, one = m.constant(0, x.dtype), m.constant(1, x.dtype)
    return m.node("Where", m.node("Equal", x.name, zero), one, x.name)


@RULES.rule(Activation, {kind: dtypes for kind, (_, dtypes) in _ACTIVATION.items()})
def _activation(m: ModelWriter, op: Activation, x: Tensor) -> str:
    name = _ACTIVATION[op.kind][0]
    if op.kind is ActivationKind.CLIP:
        low, high = (m.constant(bound, x.dtype) for bound in op.bounds(x.dtype))
        if x.dtype not in _NO_CLIP:
            return m.node("Clip", x.name, low, high)
        return _extreme(m, "Min", _extreme(m, "Max", x.name, low, x.dtype), high, x.dtype)
    if op.kind is ActivationKind.RELU and x.dtype.is_integer:  # no kernel for int64
        return _extreme(m, "Max", x.name, m.constant(0, x.dtype), x.dtype)
    if op.kind is ActivationKind.SOFTPLUS:
        scaled = _scaled(m, x.name, op.beta, x.dtype)
        return _scaled(m, m.node(name, scaled), op.alpha, x.dtype)
    return m.node(name, x.name, **_activation_attributes(op))


def _activation_attributes(op: Activation) -> dict[str, Any]:
    if op.kind in (ActivationKind.LEAKY_RELU, ActivationKind.ELU):
        return {"alpha": op.alpha}
    if op.kind is ActivationKind.SELU:
        return {"alpha": op.alpha, "gamma": op.beta}
    if op.kind is ActivationKind.HARD_SIGMOID:
        return {"alpha": op.alpha, "beta": op.beta}
    if op.kind is ActivationKind.GELU_ERF:
        return {"approximate": "none"}
    return {"approximate": "tanh"} if op.kind is ActivationKind.GELU_TANH else {}


def _scaled(m: ModelWriter, x: str, factor: float, dtype: DType) -> str:
    return x if factor == 1 else m.node("Mul", x, m.constant(factor, dtype))


@RULES.rule(Select, (NUMBERS | BOOL) - {DType.INT8})
def _select(m: ModelWriter, op: Select, condition: Tensor, x: Tensor, y: Tensor) -> str:
    if x.dtype is not DType.BOOL:
        return m.node("Where", condition.name, x.name, y.name)
    chosen = m.node("And", condition.name, x.name)  # no kernel for bool
    return m.node("Or", chosen, m.node("And", m.node("Not", condition.name), y.name))


@RULES.rule(Cast, ALL)
def _cast(m: ModelWriter, op: Cast, x: Tensor) -> str:
    return m.node("Cast", x.name, to=ONNX_DTYPE[op.dtype])


@RULES.rule(BatchNorm, FLOATS)
def _batch_norm(
    m: ModelWriter, op: BatchNorm, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> str:
    operands = (operand.name for operand in (x, scale, bias, mean, variance))
    return m.node("BatchNormalization", *operands, epsilon=op.epsilon)


@RULES.rule(QuantizeDequantize, SINGLE)
def _quantize_dequantize(m: ModelWriter, op: QuantizeDequantize, x: Tensor) -> str:
    """Emit a pair, of which a constant is quantized here: ONNX Runtime takes int8 weights as initializers only.

    The operators are its own: 1.23 has kernels of ONNX's in earlier opsets only, and its own take float16, too. Its int8
    products take a scale for each column of matrices, but not of stacks of them: those stay in floating point.
    """
    scale = op.scale(x.dtype)
    scales, zeros = m.constant(scale, x.dtype), m.constant(np.zeros(scale.shape), DType.INT8)
    known = m.known(x)
    if known is None:
        quantized = m.node("QuantizeLinear", x.name, scales, zeros, domain=ONNXRUNTIME, axis=op.axis)
    else:
        broadcast = op.broadcast_scale(known.ndim, x.dtype)
        steps = np.clip(np.rint(known / broadcast), -128, 127)
        if known.ndim > 2 and op.axis > 0:
            return m.constant(steps * broadcast, x.dtype)
        quantized = m.constant(steps, DType.INT8)
    return m.node("DequantizeLinear", quantized, scales, zeros, domain=ONNXRUNTIME, axis=op.axis)
