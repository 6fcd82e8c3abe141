"""Emission of ops that look along axes."""

from __future__ import annotations

__all__: list[str] = []

from typing import Any

import numpy as np

from trt_backend.emit.onnx.model import ONNX_DTYPE, ModelWriter, Tensor
from trt_backend.emit.onnx.rules import FLOATS, INTEGERS, RULES, SINGLE, WIDE_INTEGERS
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
    TopKKind,
)
from trt_backend.ir.types import DType, is_static

WIDE = FLOATS | WIDE_INTEGERS

_REDUCE = {
    ReduceKind.SUM: ("ReduceSum", WIDE),
    ReduceKind.PROD: ("ReduceProd", FLOATS),
    ReduceKind.MAX: ("ReduceMax", FLOATS | INTEGERS),
    ReduceKind.MIN: ("ReduceMin", FLOATS | INTEGERS),
    ReduceKind.AVG: ("ReduceMean", FLOATS),
}


@RULES.rule(Reduce, {kind: dtypes for kind, (_, dtypes) in _REDUCE.items()})
def _reduce(m: ModelWriter, op: Reduce, x: Tensor) -> str:
    axes, keep = m.constant(op.axes, DType.INT64), int(op.keep_dims)
    if x.dtype.is_integer and op.kind is ReduceKind.SUM:
        wide = m.node("Cast", x.name, to=ONNX_DTYPE[DType.INT64]) if x.dtype is DType.INT32 else x.name
        total = _integer_sum(m, wide, axes, keep)
        return m.node("Cast", total, to=ONNX_DTYPE[DType.INT32]) if x.dtype is DType.INT32 else total
    result = m.node(_REDUCE[op.kind][0], x.name, axes, keepdims=keep)
    if op.kind not in (ReduceKind.MAX, ReduceKind.MIN) or not x.dtype.is_float:
        return result
    ordered = m.node("ReduceMin", m.node("Equal", x.name, x.name), axes, keepdims=keep)
    return m.node("Where", ordered, result, m.constant(np.nan, x.dtype))  # ONNX Runtime's kernels lose NaN


def _integer_sum(m: ModelWriter, x: str, axes: str, keep: int) -> str:
    """Return a sum that is exact and wraps: ONNX Runtime 1.23 sums int64 in float64, so halves of 32 bits are summed."""
    half = m.constant(2**32, DType.INT64)
    high = m.node("Div", x, half)
    low = m.node("Sub", x, m.node("Mul", high, half))
    total = m.node("Mul", m.node("ReduceSum", high, axes, keepdims=keep), half)
    return m.node("Add", total, m.node("ReduceSum", low, axes, keepdims=keep))


@RULES.rule(Softmax, FLOATS)
def _softmax(m: ModelWriter, op: Softmax, x: Tensor) -> str:
    return m.node("Softmax", x.name, axis=op.axis)


@RULES.rule(Normalization, FLOATS)
def _normalization(
    m: ModelWriter, op: Normalization, x: Tensor, scale: Tensor | None = None, bias: Tensor | None = None
) -> str:
    operands = [x.name, scale.name if scale else _ones(m, op, x), *([bias.name] if bias else [])]
    return m.node("LayerNormalization", *operands, axis=op.axis, epsilon=op.epsilon)


def _ones(m: ModelWriter, op: Normalization, x: Tensor) -> str:
    shape = x.shape[op.axis :]
    if is_static(shape):
        return m.constant(np.ones(shape), x.dtype)  # type: ignore[arg-type]
    return m.node("Expand", m.constant(1, x.dtype), m.dims(shape))


@RULES.rule(TopK, WIDE)
def _top_k(m: ModelWriter, op: TopK, x: Tensor) -> tuple[str, str]:
    k, largest = m.constant([op.k], DType.INT64), int(op.kind is TopKKind.MAX)
    values, indices = m.nodes("TopK", x.name, k, outputs=2, axis=op.axis, largest=largest, sorted=1)
    return values, m.node("Cast", indices, to=ONNX_DTYPE[DType.INT32])


@RULES.rule(CumulativeSum, WIDE)
def _cumulative_sum(m: ModelWriter, op: CumulativeSum, x: Tensor) -> str:
    axis = m.constant(op.axis, DType.INT64)
    return m.node("CumSum", x.name, axis, exclusive=int(op.exclusive), reverse=int(op.reverse))


def _refuse_pooling(op: Pooling, types: Types) -> str | None:
    counts = op.kind is PoolingKind.AVERAGE and op.count_padding and op.round_up
    if counts and any((*op.pre_padding, *op.post_padding)):
        return "ONNX Runtime 1.23 divides wrongly where an average counts its padding and rounds up"
    return None


@RULES.rule(Pooling, {PoolingKind.MAX: FLOATS, PoolingKind.AVERAGE: SINGLE}, _refuse_pooling)
def _pooling(m: ModelWriter, op: Pooling, x: Tensor) -> str:
    attributes: dict[str, Any] = {
        "kernel_shape": op.window,
        "strides": op.stride,
        "pads": [*op.pre_padding, *op.post_padding],
        "ceil_mode": int(op.round_up),
    }
    if op.kind is PoolingKind.MAX:
        return m.node("MaxPool", x.name, **attributes)
    return m.node(
        "AveragePool", x.name, count_include_pad=int(op.count_padding and not op.round_up), **attributes
    )
