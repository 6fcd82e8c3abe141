"""Emission of elementwise ops."""

from __future__ import annotations

__all__: list[str] = []

import numpy as np

from trt_backend.emit.tensorrt.network import Array, Handle, NetworkWriter, Tensor
from trt_backend.emit.tensorrt.rules import ALL, FLOATS, NUMBERS, RULES
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

_UNARY = dict.fromkeys(UnaryKind, FLOATS) | {
    UnaryKind.ABS: NUMBERS,
    UnaryKind.SIGN: NUMBERS,
    UnaryKind.NOT: BOOL,
}
_ELEMENTWISE = dict.fromkeys(ElementwiseKind, NUMBERS) | {
    ElementwiseKind.POW: FLOATS,
    ElementwiseKind.EQUAL: ALL,
    ElementwiseKind.AND: BOOL,
    ElementwiseKind.OR: BOOL,
    ElementwiseKind.XOR: BOOL,
}
_TO_BOOL = frozenset({ElementwiseKind.EQUAL, ElementwiseKind.GREATER, ElementwiseKind.LESS})


@RULES.rule(Unary, _UNARY)
def _unary(m: NetworkWriter, op: Unary, x: Tensor) -> Handle:
    """Emit by the kind's name, which is TensorRT's."""
    (result,) = op.infer(x.type)
    layer = m.network.add_unary(x.handle, getattr(m.trt.UnaryOperation, op.kind.name))
    return m.add(layer, result.dtype, reads=x.dtype)


@RULES.rule(Elementwise, _ELEMENTWISE)
def _elementwise(m: NetworkWriter, op: Elementwise, left: Tensor, right: Tensor) -> Handle:
    if op.kind is ElementwiseKind.EQUAL and left.dtype is DType.BOOL:
        differ = m.binary("XOR", left.handle, right.handle, DType.BOOL)
        return _not(m, differ)
    result = DType.BOOL if op.kind in _TO_BOOL else left.dtype
    a = m.handle_where(left, lambda: _always(m, right))
    b = m.handle_where(right, lambda: _always(m, left))
    return m.binary(op.kind.name, a, b, result, reads=left.dtype)


def _always(m: NetworkWriter, x: Tensor) -> Handle:
    """Return what holds at every element: that it is no less than itself."""
    return _not(m, m.binary("LESS", x.handle, x.handle, DType.BOOL, reads=x.dtype))


def _not(m: NetworkWriter, x: Handle) -> Handle:
    return m.add(m.network.add_unary(x, m.trt.UnaryOperation.NOT), DType.BOOL)


@RULES.rule(Activation, dict.fromkeys(ActivationKind, FLOATS))
def _activation(m: NetworkWriter, op: Activation, x: Tensor) -> Handle:
    layer = m.network.add_activation(x.handle, getattr(m.trt.ActivationType, op.kind.name))
    handle = m.add(layer, x.dtype)
    layer.alpha, layer.beta = op.alpha, op.beta
    return handle


@RULES.rule(Select, ALL)
def _select(m: NetworkWriter, op: Select, condition: Tensor, x: Tensor, y: Tensor) -> Handle:
    if x.dtype is DType.BOOL:
        chosen = m.binary("AND", condition.handle, x.handle, DType.BOOL)
        other = _not(m, condition.handle)
        return m.binary("OR", chosen, m.binary("AND", other, y.handle, DType.BOOL), DType.BOOL)
    a = m.handle_where(x, lambda: condition.handle)
    b = m.handle_where(y, lambda: _not(m, condition.handle))
    return m.add(m.network.add_select(condition.handle, a, b), x.dtype)


@RULES.rule(Cast, ALL)
def _cast(m: NetworkWriter, op: Cast, x: Tensor) -> Handle:
    if m.dtype(op.dtype) == m.dtype(x.dtype):
        return x.handle
    # A cast to float16 rounds once, whatever it computes in.
    return m.cast(x.handle, op.dtype, reads=None if op.dtype is DType.FLOAT16 else x.dtype)


@RULES.rule(BatchNorm, FLOATS)
def _batch_norm(m: NetworkWriter, op: BatchNorm, x: Tensor, *vectors: Tensor) -> Handle:
    """Emit a scale layer, which TensorRT folds into a convolution, where the statistics are known."""
    arrays = [vector.array for vector in vectors if vector.array is not None]
    if len(arrays) < len(vectors):
        return _live_batch_norm(m, op, x, *vectors)
    factor, shift = _folded(op, *arrays)
    factor, shift = factor.astype(x.dtype.numpy), shift.astype(x.dtype.numpy)
    if x.type.rank < 4:
        shape = (1, -1, *(1,) * (x.type.rank - 2))
        scaled = m.binary("PROD", x.handle, m.constant(factor.reshape(shape), x.dtype), x.dtype)
        return m.binary("SUM", scaled, m.constant(shift.reshape(shape), x.dtype), x.dtype)
    power = m.weights(None, x.dtype)
    layer = m.network.add_scale_nd(
        x.handle, m.trt.ScaleMode.CHANNEL, m.weights(shift, x.dtype), m.weights(factor, x.dtype), power, 1
    )
    return m.add(layer, x.dtype)


def _folded(op: BatchNorm, scale: Array, bias: Array, mean: Array, variance: Array) -> tuple[Array, Array]:
    """Return factor and shift, in float64 so that a large mean does not cancel what is left of the bias."""
    scale, bias, mean, variance = (array.astype(np.float64) for array in (scale, bias, mean, variance))
    factor = scale / np.sqrt(variance + op.epsilon)
    return factor, bias - mean * factor


def _live_batch_norm(
    m: NetworkWriter, op: BatchNorm, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Handle:
    shape = (1, -1, *(1,) * (x.type.rank - 2))
    s, b, mu, v = (m.reshape(vector.handle, shape, x.dtype) for vector in (scale, bias, mean, variance))
    deviation = m.binary("SUM", v, m.filled(op.epsilon, x), x.dtype)
    deviation = m.add(m.network.add_unary(deviation, m.trt.UnaryOperation.SQRT), x.dtype)
    centered = m.binary("SUB", x.handle, mu, x.dtype)
    scaled = m.binary("PROD", centered, m.binary("DIV", s, deviation, x.dtype), x.dtype)
    return m.binary("SUM", scaled, b, x.dtype)


@RULES.rule(QuantizeDequantize, FLOATS)
def _quantize_dequantize(m: NetworkWriter, op: QuantizeDequantize, x: Tensor) -> Handle:
    return m.quantize_dequantize(x.handle, m.constant(op.scale(x.dtype), x.dtype), op.axis, x.dtype)
