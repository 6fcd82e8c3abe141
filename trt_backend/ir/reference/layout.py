"""The meaning of ops that move or make elements."""

from __future__ import annotations

__all__ = ["REFERENCE"]

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from trt_backend.ir.ops.base import Op
from trt_backend.ir.ops.layout import (
    Concatenation,
    Expand,
    Extent,
    Gather,
    GatherElements,
    GatherND,
    GridSample,
    GridSamplePadding,
    Identity,
    InterpolationMode,
    Pad,
    PadMode,
    Range,
    Reshape,
    Resize,
    ResizeCoordinates,
    ScatterElements,
    ScatterND,
    Slice,
    Transpose,
)

Array = npt.NDArray[Any]


def _identity(op: Identity, x: Array) -> Array:
    return x


def _transpose(op: Transpose, x: Array) -> Array:
    return np.transpose(x, op.permutation)


def _reshape(op: Reshape, x: Array) -> Array:
    return np.reshape(x, _ints(op.shape))


def _expand(op: Expand, x: Array) -> Array:
    return np.broadcast_to(x, _ints(op.shape))


def _slice(op: Slice, x: Array) -> Array:
    for axis, (start, size, stride) in enumerate(
        zip(_ints(op.start), _ints(op.size), op.stride, strict=True)
    ):
        x = np.take(x, start + stride * np.arange(size), axis=axis)
    return x


def _pad(op: Pad, x: Array, fill: Array | None = None) -> Array:
    borders = list(zip(op.before, op.after, strict=True))
    if op.mode is PadMode.CONSTANT:
        return np.pad(x, borders, constant_values=fill)  # type: ignore[arg-type]
    return np.pad(x, borders, mode="reflect" if op.mode is PadMode.REFLECT else "edge")


def _concatenation(op: Concatenation, *operands: Array) -> Array:
    return np.concatenate(operands, axis=op.axis)


def _gather(op: Gather, x: Array, indices: Array) -> Array:
    return np.take(x, indices, axis=op.axis)


def _gather_elements(op: GatherElements, x: Array, indices: Array) -> Array:
    cut = tuple(slice(None if i == op.axis else size) for i, size in enumerate(indices.shape))
    return np.take_along_axis(x[cut], indices, axis=op.axis)


def _gather_nd(op: GatherND, x: Array, indices: Array) -> Array:
    return x[tuple(np.moveaxis(indices, -1, 0))]


def _scatter_elements(op: ScatterElements, x: Array, indices: Array, updates: Array) -> Array:
    result = x.copy()
    cut = tuple(slice(None if i == op.axis else size) for i, size in enumerate(indices.shape))
    np.put_along_axis(result[cut], indices, updates, axis=op.axis)
    return result


def _scatter_nd(op: ScatterND, x: Array, indices: Array, updates: Array) -> Array:
    result = x.copy()
    result[tuple(np.moveaxis(indices, -1, 0))] = updates
    return result


def _resize(op: Resize, x: Array) -> Array:
    for axis, size in enumerate(_ints(op.size), start=2):
        x = _resize_axis(op, x, axis, size)
    return x


def _resize_axis(op: Resize, x: Array, axis: int, size: int) -> Array:
    scale = op.scales[axis - 2] if op.scales else None
    if op.mode is InterpolationMode.NEAREST:
        return np.take(x, _nearest_indices(op.coordinates, x.shape[axis], size, scale), axis=axis)
    last = x.shape[axis] - 1
    position = _positions(op.coordinates, x.shape[axis], size, scale)
    if op.mode is InterpolationMode.LINEAR:
        position = np.clip(position, 0, last)
    low = np.floor(position).astype(int)
    part = (position - low).astype(x.dtype).reshape(-1, *[1] * (x.ndim - 1 - axis))
    taps = [(0, 1 - part), (1, part)] if op.mode is InterpolationMode.LINEAR else _cubic_taps(part)
    terms = [
        np.take(x, np.clip(low + offset, 0, last), axis=axis) * weight.astype(x.dtype)
        for offset, weight in taps
    ]
    return np.sum(terms, axis=0, dtype=x.dtype)


def _cubic_taps(part: Array) -> list[tuple[int, Array]]:
    """Return the four elements around a place, relative to the one before it, and their weights (Keys, a = -0.75)."""
    a = -0.75

    def near(d: Array) -> Array:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Array) -> Array:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return [(-1, far(part + 1)), (0, near(part)), (1, near(1 - part)), (2, far(2 - part))]


def _nearest_indices(
    coordinates: ResizeCoordinates, before: int, after: int, scale: float | None = None
) -> Array:
    """Return the indices of the elements that a NEAREST resize of an axis from `before` to `after` elements takes."""
    position = _positions(coordinates, before, after, scale)
    down = coordinates is ResizeCoordinates.ASYMMETRIC
    nearest = np.floor(position if down else position + np.float32(0.5))
    return np.clip(nearest.astype(np.int64), 0, before - 1)


def _positions(coordinates: ResizeCoordinates, before: int, after: int, scale: float | None) -> Array:
    """Return where in the input each output element lies, computed in float32 as the frameworks do."""
    index = np.arange(after, dtype=np.float32)
    if coordinates is ResizeCoordinates.ALIGN_CORNERS:
        return index * np.float32((before - 1) / (after - 1) if after > 1 else 0)
    step = np.float32(1 / scale if scale else before / max(after, 1))
    if coordinates is ResizeCoordinates.ASYMMETRIC:
        return index * step
    return (index + np.float32(0.5)) * step - np.float32(0.5)


def _grid_sample(op: GridSample, x: Array, grid: Array) -> Array:
    taps = [_taps(op, size, grid[..., 1 - i].astype(np.float64)) for i, size in enumerate(x.shape[2:])]
    batch = np.arange(x.shape[0], dtype=np.int64).reshape(-1, 1, 1)
    total = np.zeros((*grid.shape[:3], x.shape[1]))
    for row, high in taps[0]:
        for column, wide in taps[1]:
            inside = (row >= 0) & (row < x.shape[2]) & (column >= 0) & (column < x.shape[3])
            read = x[batch, :, np.where(inside, row, 0), np.where(inside, column, 0)]
            total += np.where(inside, high * wide, 0)[..., None] * read
    return np.moveaxis(total, -1, 1).astype(x.dtype)


def _taps(op: GridSample, size: int, place: Array) -> list[tuple[Array, Array]]:
    """Return the indices along an axis that a sample is made of, and their weights; outside are those that count as 0."""
    at = (place + 1) / 2 * (size - 1) if op.align_corners else ((place + 1) * size - 1) / 2
    if op.mode is InterpolationMode.CUBIC:
        low = np.floor(at)
        return [(_kept(op, size, low + i).astype(int), w) for i, w in _cubic_taps(at - low)]
    at = _kept(op, size, at)
    if op.mode is InterpolationMode.NEAREST:
        return [(np.rint(at).astype(int), np.ones_like(at))]
    low = np.floor(at)
    return [(low.astype(int), 1 - (at - low)), (low.astype(int) + 1, at - low)]


def _kept(op: GridSample, size: int, at: Array) -> Array:
    """Return places beyond the border where the padding has them."""
    if op.padding is GridSamplePadding.ZEROS:
        return at
    if op.padding is GridSamplePadding.REFLECTION:
        first, last = (0, size - 1) if op.align_corners else (-0.5, size - 0.5)
        span = max(last - first, 1)
        around = np.abs(at - first) % (2 * span)
        at = first + np.minimum(around, 2 * span - around)
    return np.clip(at, 0, size - 1)


def _range(op: Range) -> Array:
    start, size = _ints((op.start, op.size))
    return start + op.step * np.arange(size, dtype=np.int64)


def _extent(op: Extent) -> Array:
    (extent,) = _ints((op.dim,))
    return np.array(extent)


def _ints(dims: tuple[Any, ...]) -> tuple[int, ...]:
    """Return dimensions as the integers that they are by now (rule BOUND)."""
    assert all(isinstance(dim, int) for dim in dims)
    return dims


REFERENCE: dict[type[Op], Callable[..., Array]] = {
    Identity: _identity,
    Transpose: _transpose,
    Reshape: _reshape,
    Expand: _expand,
    Slice: _slice,
    Pad: _pad,
    Concatenation: _concatenation,
    Gather: _gather,
    GatherElements: _gather_elements,
    GatherND: _gather_nd,
    ScatterElements: _scatter_elements,
    ScatterND: _scatter_nd,
    Resize: _resize,
    GridSample: _grid_sample,
    Range: _range,
    Extent: _extent,
}
"""The function of each op of the family."""
