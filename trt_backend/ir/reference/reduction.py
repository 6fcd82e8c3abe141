"""The meaning of ops that look along axes."""

from __future__ import annotations

__all__ = ["REFERENCE"]

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from trt_backend.ir.ops.base import Op
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
from trt_backend.ir.reference.windows import pad_spatial, windows
from trt_backend.ir.types import DType, TensorType

Array = npt.NDArray[Any]


def _reduce(op: Reduce, x: Array) -> Array:
    if op.kind in (ReduceKind.SUM, ReduceKind.PROD):  # NumPy would widen small integers
        return _REDUCE[op.kind](x, axis=op.axes, keepdims=op.keep_dims, dtype=x.dtype)
    return _REDUCE[op.kind](x, axis=op.axes, keepdims=op.keep_dims)


def _softmax(op: Softmax, x: Array) -> Array:
    weights = np.exp(x - np.max(x, axis=op.axis, keepdims=True, initial=-math.inf))
    return weights / np.sum(weights, axis=op.axis, keepdims=True)


def _normalization(
    op: Normalization, x: Array, scale: Array | None = None, bias: Array | None = None
) -> Array:
    axes = tuple(range(op.axis, x.ndim))
    centred = x - np.mean(x, axis=axes, keepdims=True)
    variance = np.mean(np.square(centred), axis=axes, keepdims=True)
    result = centred / np.sqrt(variance + x.dtype.type(op.epsilon))
    result = result if scale is None else result * scale
    return result if bias is None else result + bias


def _top_k(op: TopK, x: Array) -> tuple[Array, Array]:
    """Sort stably; for the largest, from the back, so that equal elements keep the order of their index."""
    if op.kind is TopKKind.MIN:
        order: Array = np.argsort(x, axis=op.axis, kind="stable")
    else:
        backwards: Array = np.argsort(np.flip(x, op.axis), axis=op.axis, kind="stable")
        order = x.shape[op.axis] - 1 - np.flip(backwards, op.axis)
    indices: Array = np.take(order, np.arange(op.k), axis=op.axis)
    return np.take_along_axis(x, indices, op.axis), indices


def _cumulative_sum(op: CumulativeSum, x: Array) -> Array:
    if op.reverse:
        return np.flip(_cumulative_sum(CumulativeSum(op.axis, op.exclusive), np.flip(x, op.axis)), op.axis)
    total: Array = np.cumsum(x, axis=op.axis, dtype=x.dtype)
    if not op.exclusive:
        return total
    along = [slice(None)] * op.axis
    shifted = np.zeros_like(x)
    shifted[(*along, slice(1, None))] = total[(*along, slice(-1))]
    return shifted


def _pooling(op: Pooling, x: Array) -> Array:
    axes = tuple(range(x.ndim, 2 * x.ndim - 2))
    if op.kind is PoolingKind.MAX:
        return np.max(_pooling_windows(op, x, border=-math.inf), axis=axes)
    counted = _pooling_windows(op, np.ones_like(x), border=float(op.count_padding))
    return np.sum(_pooling_windows(op, x, border=0), axis=axes) / np.sum(counted, axis=axes)


def _pooling_windows(op: Pooling, x: Array, border: float) -> Array:
    """Return the windows [N, C, *output, *window] of x in its padding (`border`) and what lies behind it.

    Behind the padding, where ROUND_UP windows end, a maximum sees -inf, and an average neither adds nor counts.
    """
    (result,) = op.infer(TensorType(DType.from_numpy(x.dtype), x.shape))
    spatial = x.ndim - 2
    beyond = -math.inf if op.kind is PoolingKind.MAX else 0
    padded = pad_spatial(x, op.pre_padding, op.post_padding, fill=border)
    padded = pad_spatial(padded, (0,) * spatial, op.stride, fill=beyond)
    fitting = windows(padded, op.window, op.stride, (1,) * spatial)
    return fitting[tuple(slice(size) for size in result.shape)]  # type: ignore[misc]


_REDUCE: dict[ReduceKind, Callable[..., Array]] = {
    ReduceKind.SUM: np.sum,
    ReduceKind.PROD: np.prod,
    ReduceKind.MAX: np.max,
    ReduceKind.MIN: np.min,
    ReduceKind.AVG: np.mean,
}

REFERENCE: dict[type[Op], Callable[..., Array | tuple[Array, ...]]] = {
    Reduce: _reduce,
    Softmax: _softmax,
    Normalization: _normalization,
    TopK: _top_k,
    CumulativeSum: _cumulative_sum,
    Pooling: _pooling,
}
"""The function of each op of the family."""
