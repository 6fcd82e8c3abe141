"""Ops on known integers: how TensorFlow computes shapes from shapes.

Every function takes and returns arrays of objects, `int | Dim`.
"""

from __future__ import annotations

__all__ = ["FOLDS", "order_of_formats"]

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from trt_backend.errors import UnsupportedError
from trt_backend.ir.dims import Dim, DimLike, dim_max, dim_min
from trt_backend_tf.lower.rules import FoldTable

FOLDS = FoldTable()

_LARGE = 1 << 15  # a size times more than this may wrap: no computation of shapes, but one that hashes them

Array = np.ndarray[Any, Any]


def _binary(function: Callable[[Any, Any], Any], x: Array, y: Array) -> Array | None:
    """Return an elementwise function of two arrays; None where that of a size may wrap."""
    elements = [*x.reshape(-1), *y.reshape(-1)]
    if any(isinstance(e, Dim) for e in elements) and any(
        isinstance(e, int) and abs(e) > _LARGE for e in elements
    ):
        return None
    return np.asarray(np.frompyfunc(function, 2, 1)(x, y), dtype=object)


FOLDS.folds(
    _binary,
    {
        "Add": operator.add,
        "AddV2": operator.add,
        "Sub": operator.sub,
        "Mul": operator.mul,
        "FloorDiv": lambda x, y: operator.floordiv(x, _divisor(y)),
        "FloorMod": lambda x, y: operator.mod(x, _divisor(y)),
        "Maximum": lambda x, y: _extreme(max, dim_max, x, y),
        "Minimum": lambda x, y: _extreme(min, dim_min, x, y),
    },
)


def _divisor(y: DimLike) -> DimLike:
    if y == 0:
        raise UnsupportedError("TensorFlow raises where an integer is divided by 0")
    return y


def _extreme(
    of_integers: Callable[..., int], of_dims: Callable[..., DimLike], x: DimLike, y: DimLike
) -> DimLike:
    return of_dims(x, y) if isinstance(x, Dim) or isinstance(y, Dim) else of_integers(x, y)


@FOLDS.fold("Identity", "StopGradient", "Snapshot", "PreventGradient")
def _same(x: Array) -> Array:
    return x


@FOLDS.fold("Neg")
def _neg(x: Array) -> Array:
    return np.asarray(np.frompyfunc(operator.neg, 1, 1)(x), dtype=object)


@FOLDS.fold("Cast")
def _cast(x: Array, *, SrcT: tf.DType, DstT: tf.DType) -> Array | None:
    """Between the two types of sizes nothing changes."""
    sizes = (tf.int32, tf.int64)
    return x if SrcT in sizes and DstT in sizes else None


def _reduction(function: Callable[[Any, Any], Any], x: Array, axes: Array, *, keep_dims: bool) -> Array:
    """Return a reduction over axes."""
    over = tuple(int(axis) % max(x.ndim, 1) for axis in axes.reshape(-1)) if x.ndim else ()
    order = [i for i in range(x.ndim) if i not in over]
    kept = x.transpose([*order, *over]).reshape([*(x.shape[i] for i in order), -1])
    initial = {operator.mul: [1], operator.add: [0]}.get(function, [])
    rows = [functools.reduce(function, row, *initial) for row in kept.reshape(-1, kept.shape[-1])]
    shape = [1 if i in over else n for i, n in enumerate(x.shape) if keep_dims or i not in over]
    return np.array(rows, dtype=object).reshape(shape)


FOLDS.folds(
    _reduction,
    {
        "Prod": operator.mul,
        "Sum": operator.add,
        "Max": lambda x, y: _extreme(max, dim_max, x, y),
        "Min": lambda x, y: _extreme(min, dim_min, x, y),
    },
)


@FOLDS.fold("ConcatV2")
def _concat(*values_and_axis: Array) -> Array:
    *values, axis = values_and_axis
    return np.concatenate(values, axis=int(axis))


@FOLDS.fold("Pack")
def _pack(*values: Array, axis: int) -> Array:
    return np.stack(values, axis=axis)


@FOLDS.fold("Unpack")
def _unpack(value: Array, *, axis: int) -> tuple[Array, ...]:
    return tuple(np.asarray(np.take(value, i, axis=axis), dtype=object) for i in range(value.shape[axis]))


@FOLDS.fold("ExpandDims")
def _expand_dims(x: Array, axis: Array) -> Array:
    return np.expand_dims(x, int(axis))


@FOLDS.fold("Squeeze")
def _squeeze(x: Array, *, squeeze_dims: list[int]) -> Array:
    return np.squeeze(x, axis=tuple(squeeze_dims) or None)


@FOLDS.fold("Reshape")
def _reshape(x: Array, shape: Array) -> Array:
    return x.reshape([int(size) for size in shape])


@FOLDS.fold("GatherV2")
def _gather(x: Array, indices: Array, axis: Array, *, batch_dims: int) -> Array | None:
    size = x.shape[int(axis)]
    if batch_dims or not all(isinstance(i, int) and 0 <= i < size for i in indices.reshape(-1)):
        return None
    return np.asarray(np.take(x, indices.astype(np.int64), axis=int(axis)), dtype=object)


@FOLDS.fold("StridedSlice")
def _strided_slice(
    x: Array,
    begin: Array,
    end: Array,
    strides: Array,
    *,
    begin_mask: int,
    end_mask: int,
    ellipsis_mask: int,
    new_axis_mask: int,
    shrink_axis_mask: int,
) -> Array:
    index: list[Any] = []
    for i in range(begin.size):
        bit = 1 << i
        if ellipsis_mask & bit:
            index.append(Ellipsis)
        elif new_axis_mask & bit:
            index.append(None)
        elif shrink_axis_mask & bit:
            index.append(_integer(begin[i]))
        else:
            first = None if begin_mask & bit else _integer(begin[i])
            last = None if end_mask & bit else _integer(end[i])
            index.append(slice(first, last, _integer(strides[i])))
    return np.asarray(x[tuple(index)], dtype=object)


@FOLDS.fold("DataFormatVecPermute")
def _data_format_vec_permute(x: Array, *, src_format: str, dst_format: str) -> Array:
    return x[order_of_formats(src_format, dst_format, len(x))]


def order_of_formats(source: str, target: str, count: int) -> list[int]:
    """Return where each of `count` entries in one format stands in another; fewer entries than letters are spatial ones."""
    if count != len(source):
        source, target = ("".join(c for c in text if c not in "NC") for text in (source, target))
    return [source.index(letter) for letter in target]


@FOLDS.fold("Slice")
def _slice(x: Array, begin: Array, size: Array) -> Array:
    parts = [
        slice(_integer(first), None if count == -1 else _integer(first) + _integer(count))
        for first, count in zip(begin, size, strict=True)
    ]
    return np.asarray(x[tuple(parts)], dtype=object)


@FOLDS.fold("Range")
def _range(start: Array, limit: Array, delta: Array) -> Array | None:
    bounds = [array.item() for array in (start, limit, delta)]
    if any(isinstance(bound, Dim) for bound in bounds) or math.prod(map(abs, bounds[1:])) > 64:
        return None
    return np.array(range(*bounds), dtype=object)


@FOLDS.fold("Fill")
def _fill(dims: Array, value: Array) -> Array | None:
    if any(isinstance(dim, Dim) for dim in dims):
        return None
    return np.full([int(dim) for dim in dims], value.item(), dtype=object)


@FOLDS.fold("ZerosLike")
def _zeros_like(x: Array) -> Array:
    return np.full(x.shape, 0, dtype=object)


@FOLDS.fold("OnesLike")
def _ones_like(x: Array) -> Array:
    return np.full(x.shape, 1, dtype=object)


def _integer(index: Any) -> int:
    if isinstance(index, Dim):
        raise UnsupportedError(f"a part of a shape from {index} on")
    return int(index)
