"""Emission of ops that look along axes."""

from __future__ import annotations

__all__: list[str] = []

import numpy as np

from trt_backend.emit.tensorrt.network import Handle, NetworkWriter, Tensor
from trt_backend.emit.tensorrt.rules import FLOATS, NUMBERS, RULES, axes_mask
from trt_backend.ir.ops.base import Types
from trt_backend.ir.ops.reduction import (
    CumulativeSum,
    Normalization,
    Pooling,
    PoolingKind,
    Reduce,
    ReduceKind,
    Softmax,
    TopK,
)
from trt_backend.ir.types import DType, is_static

_LARGEST_K = 3840


@RULES.rule(Reduce, dict.fromkeys(ReduceKind, NUMBERS) | {ReduceKind.AVG: FLOATS})
def _reduce(m: NetworkWriter, op: Reduce, x: Tensor) -> Handle:
    kind = getattr(m.trt.ReduceOperation, op.kind.name)
    return m.add(m.network.add_reduce(x.handle, kind, axes_mask(op.axes), op.keep_dims), x.dtype)


@RULES.rule(Softmax, FLOATS)
def _softmax(m: NetworkWriter, op: Softmax, x: Tensor) -> Handle:
    """Emit a layer, which takes at least two dimensions: a vector becomes a row."""
    is_vector = x.type.rank == 1
    layer = m.network.add_softmax(m.reshape(x.handle, (1, -1), x.dtype) if is_vector else x.handle)
    layer.axes = axes_mask((1 if is_vector else op.axis,))
    result = m.add(layer, x.dtype)
    return m.reshape(result, (-1,), x.dtype) if is_vector else result


def _refuse_normalization(op: Normalization, types: Types) -> str | None:
    return None if is_static(types[0].shape[op.axis :]) else "normalized dimensions that are symbolic"


@RULES.rule(Normalization, FLOATS, _refuse_normalization)
def _normalization(m: NetworkWriter, op: Normalization, x: Tensor, *affine: Tensor) -> Handle:
    """Emit a layer that always has scale and bias, of the rank of x."""
    normalized = x.shape[op.axis :]
    shape = tuple(size for size in (*(1,) * op.axis, *normalized) if isinstance(size, int))
    handles = [m.reshape(operand.handle, shape, x.dtype) for operand in affine]
    handles += [
        m.constant(np.full(shape, default), x.dtype) for default in (1.0, 0.0)[len(affine) :]
    ]  # scale, bias
    add_layer = getattr(m.network, m.stack.normalization)
    layer = add_layer(x.handle, *handles, axes_mask(range(op.axis, x.type.rank)))
    layer.epsilon = op.epsilon
    return m.add(layer, x.dtype)


def _refuse_top_k(op: TopK, types: Types) -> str | None:
    if types[0].rank < 2:
        return "one dimension"
    return f"k={op.k}, more than {_LARGEST_K}" if op.k > _LARGEST_K else None


@RULES.rule(TopK, FLOATS, _refuse_top_k)
def _top_k(m: NetworkWriter, op: TopK, x: Tensor) -> tuple[Handle, Handle]:
    kind = getattr(m.trt.TopKOperation, op.kind.name)
    layer = m.network.add_topk(x.handle, kind, op.k, axes_mask((op.axis,)))
    return m.add(layer, x.dtype), layer.get_output(1)


@RULES.rule(CumulativeSum, NUMBERS)
def _cumulative_sum(m: NetworkWriter, op: CumulativeSum, x: Tensor) -> Handle:
    axis, kind = m.constant(op.axis, DType.INT32), m.trt.CumulativeOperation.SUM
    return m.add(m.network.add_cumulative(x.handle, axis, kind, op.exclusive, op.reverse), x.dtype)


def _refuse_pooling(op: Pooling, types: Types) -> str | None:
    if types[0].rank == 3:
        return "takes 2 or 3 spatial dimensions"
    if not op.round_up:
        return None
    if op.kind is PoolingKind.AVERAGE and _counts_padding(op):
        return "an average that counts padding and rounds up"  # 8.6 counts what lies beyond the padding, too
    if any(
        isinstance(size, int) and size < window
        for size, window in zip(types[0].shape[2:], op.window, strict=True)
    ):
        return "a window larger than the input"
    parts = zip(op.window, op.stride, op.pre_padding, op.post_padding, strict=True)
    if any(max(before, after) + stride - 1 >= window for window, stride, before, after in parts):
        return "a window that may see padding alone"  # 8.6 gives the lowest number
    return None


@RULES.rule(Pooling, dict.fromkeys(PoolingKind, FLOATS), _refuse_pooling)
def _pooling(m: NetworkWriter, op: Pooling, x: Tensor) -> Handle:
    layer = m.network.add_pooling_nd(x.handle, getattr(m.trt.PoolingType, op.kind.name), op.window)
    rounding = m.trt.PaddingMode.EXPLICIT_ROUND_UP if op.round_up else m.trt.PaddingMode.EXPLICIT_ROUND_DOWN
    layer.stride_nd = op.stride
    layer.pre_padding = op.pre_padding
    layer.post_padding = op.post_padding
    layer.padding_mode = rounding
    if op.kind is PoolingKind.AVERAGE:
        layer.average_count_excludes_padding = not _counts_padding(op)
    return m.add(layer, x.dtype)


def _counts_padding(op: Pooling) -> bool:
    return op.count_padding and any((*op.pre_padding, *op.post_padding))
