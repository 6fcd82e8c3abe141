"""Aten ops that move elements: views, joins, parts, paddings.

Rules:
  PROMISED  a result has the shape that torch promises for it, so `-1`, broadcast sizes and clamped ends need no rule here.
"""

from __future__ import annotations

__all__ = ["RULES", "Dims", "left_out", "position", "start_of"]

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import fx

from trt_backend.errors import UnsupportedError
from trt_backend.ir.dims import DimLike, dim_max
from trt_backend.ir.graph import Value
from trt_backend.ir.ops.elementwise import ElementwiseKind
from trt_backend.ir.ops.layout import Concatenation, Gather, Pad, PadMode, Range
from trt_backend.ir.types import DType, Shape, volume
from trt_backend_torch.lower.context import Lowering, Number
from trt_backend_torch.lower.rules import RuleTable

RULES = RuleTable()

_aten = torch.ops.aten

Dims = Sequence[DimLike]


# Views


@RULES.rule(
    _aten.view.default,
    _aten._unsafe_view.default,
    _aten._reshape_alias.default,
    _aten.squeeze.default,
    _aten.squeeze.dim,
    _aten.squeeze.dims,
    _aten.unsqueeze.default,
)
def _reshape(
    b: Lowering, x: Value, size: Dims = (), stride: Dims = (), dim: int | Sequence[int] = 0
) -> Value:
    """The same elements in the promised shape (PROMISED)."""
    return b.reshape(x, b.result.shape)


@RULES.rule(_aten.expand.default)
def _expand(b: Lowering, x: Value, size: Dims, implicit: bool) -> Value:
    """Broadcast to the promised shape."""
    return b.expand(x, b.result.shape)


@RULES.rule(_aten.t.default)
def _t(b: Lowering, x: Value) -> Value:
    """Transpose a matrix; vectors and scalars stay."""
    return b.transpose(x, reversed(range(x.type.rank)))


@RULES.rule(_aten.transpose.int)
def _transpose(b: Lowering, x: Value, dim0: int, dim1: int) -> Value:
    """Swap two dimensions."""
    rank = max(x.type.rank, 1)
    order = list(range(rank))
    i, j = b.axis(dim0, rank), b.axis(dim1, rank)
    order[i], order[j] = j, i
    return b.transpose(x, order)


@RULES.rule(_aten.permute.default)
def _permute(b: Lowering, x: Value, dims: Sequence[int]) -> Value:
    """Reorder the dimensions."""
    return b.transpose(x, [b.axis(dim, x.type.rank) for dim in dims])


@RULES.rule(_aten.diagonal.default)
def _diagonal(b: Lowering, x: Value, offset: int, dim1: int, dim2: int) -> Value:
    """The diagonal of two dimensions as the last one: every (columns + 1)-th of their elements in one row."""
    rank = x.type.rank
    rows, columns = b.axis(dim1, rank), b.axis(dim2, rank)
    others = [i for i in range(rank) if i not in (rows, columns)]
    matrices = b.transpose(x, [*others, rows, columns])
    (width,) = b.static("the width of a matrix with a diagonal", matrices.shape[-1])
    flat = b.reshape(matrices, (*matrices.shape[:-2], matrices.shape[-2] * width))
    start = offset if offset >= 0 else -offset * width
    return b.slice(flat, len(others), start, b.result.shape[-1], width + 1)


@RULES.rule(_aten.unfold.default)
def _unfold(b: Lowering, x: Value, dimension: int, size: int, step: int) -> Value:
    """Windows of one dimension, as the last one."""
    x = b.with_rank(x, 1)
    axis = b.axis(dimension, x.type.rank)
    count = (x.shape[axis] - size) // step + 1
    first = b.reshape(b.add(Range(count, 0, step, DType.INT64)), (count, 1))
    positions = b.elementwise(ElementwiseKind.SUM, first, b.constant(np.arange(size)[None]), DType.INT64)
    windows = b.add(Gather(axis), x, positions)
    order = [i for i in range(windows.type.rank) if i != axis + 1]
    return b.reshape(b.transpose(windows, [*order, axis + 1]), b.result.shape)


@RULES.rule(_aten.pixel_shuffle.default)
def _pixel_shuffle(b: Lowering, x: Value, upscale_factor: int) -> Value:
    """[..., C*r*r, H, W] to [..., C, H*r, W*r]."""
    r, lead = upscale_factor, len(x.shape) - 3
    *batch, channels, height, width = x.shape
    blocks = b.reshape(x, (*batch, channels // (r * r), r, r, height, width))
    order = [*range(lead), *(lead + i for i in (0, 3, 1, 4, 2))]
    return b.reshape(b.transpose(blocks, order), b.result.shape)


@RULES.rule(_aten.pixel_unshuffle.default)
def _pixel_unshuffle(b: Lowering, x: Value, downscale_factor: int) -> Value:
    """[..., C, H*r, W*r] to [..., C*r*r, H, W]."""
    r, lead = downscale_factor, len(x.shape) - 3
    *batch, channels, height, width = x.shape
    blocks = b.reshape(x, (*batch, channels, height // r, r, width // r, r))
    order = [*range(lead), *(lead + i for i in (0, 2, 4, 1, 3))]
    return b.reshape(b.transpose(blocks, order), b.result.shape)


# Joining and repeating


@RULES.rule(_aten.cat.default)
def _cat(b: Lowering, tensors: Sequence[Value], dim: int) -> Value:
    """Join along a dimension."""
    axis = b.axis(dim, b.result.rank)
    parts = [b.cast(x, b.result.dtype) for x in tensors if not _adds_nothing(x.shape, axis)]
    return b.add(Concatenation(axis), *parts)


def left_out(node: fx.Node, shape: Shape) -> bool:
    """Whether a node is a concatenation, and an operand of this shape adds nothing to it: a cache before the first token."""
    if node.target is not _aten.cat.default:
        return False
    axis = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim", 0)
    return isinstance(axis, int) and _adds_nothing(shape, axis)


def _adds_nothing(shape: Shape, axis: int) -> bool:
    """Whether it has no elements along the axis; torch takes the shape [0] beside any other, too."""
    return shape == (0,) or shape[axis] == 0


@RULES.rule(_aten.stack.default)
def _stack(b: Lowering, tensors: Sequence[Value], dim: int) -> Value:
    """Join along a new dimension."""
    axis = b.axis(dim, b.result.rank)
    rows = [b.reshape(b.cast(x, b.result.dtype), (*x.shape[:axis], 1, *x.shape[axis:])) for x in tensors]
    return b.add(Concatenation(axis), *rows)


@RULES.rule(_aten.repeat.default)
def _repeat(b: Lowering, x: Value, repeats: Dims) -> Value:
    """Tile: each repeated dimension gets a neighbour in front, which is expanded and folded in."""
    x = b.with_rank(x, len(repeats))
    before: list[DimLike] = []
    after: list[DimLike] = []
    for size, count in zip(x.shape, repeats, strict=True):
        before += [size] if count == 1 else [1, size]
        after += [size] if count == 1 else [count, size]
    return b.reshape(b.expand(b.reshape(x, before), after), b.result.shape)


@RULES.rule(_aten.roll.default)
def _roll(b: Lowering, x: Value, shifts: Dims, dims: Sequence[int]) -> Value:
    """Cut each dimension in two and swap the parts; without dims, the row of all elements."""
    if not dims:
        return b.reshape(_rolled(b, b.reshape(x, (volume(x.shape),)), 0, shifts[0]), x.shape)
    for shift, dim in zip(shifts, dims, strict=True):
        x = _rolled(b, x, b.axis(dim, x.type.rank), shift)
    return x


def _rolled(b: Lowering, x: Value, axis: int, shift: DimLike) -> Value:
    size = x.shape[axis]
    cut = (size - shift) % size
    if cut == 0:
        return x
    back, front = b.slice(x, axis, cut, size - cut), b.slice(x, axis, 0, cut)
    return b.add(Concatenation(axis), back, front)


# Taking apart


@RULES.rule(_aten.select.int)
def _select(b: Lowering, x: Value, dim: int, index: DimLike) -> Value:
    """One element of a dimension, which goes away."""
    axis = b.axis(dim, x.type.rank)
    return b.reshape(b.slice(x, axis, position(index, x.shape[axis]), 1), b.result.shape)


@RULES.rule(_aten.slice.Tensor)
def _slice(
    b: Lowering, x: Value, dim: int, start: DimLike | None, end: DimLike | None, step: DimLike
) -> Value:
    """Every step-th element from `start` on, as many as torch promises."""
    axis = b.axis(dim, x.type.rank)
    (stride,) = b.static("the step of a slice", step)
    return b.slice(x, axis, start_of(start, x.shape[axis]), b.result.shape[axis], stride)


@RULES.rule(
    _aten.split.Tensor,
    _aten.split_with_sizes.default,
    _aten.unsafe_split.Tensor,
    _aten.unsafe_split_with_sizes.default,
)
def _split(
    b: Lowering, x: Value, dim: int, split_size: DimLike = 0, split_sizes: Dims = ()
) -> tuple[Value | None, ...]:
    """Parts of the promised sizes, but for those that nobody takes."""
    axis = b.axis(dim, x.type.rank)
    steps = split_sizes or [split_size] * len(b.results)
    starts = itertools.accumulate(steps, initial=0)
    return tuple(
        None if result is None else b.slice(x, axis, start, result.shape[axis])
        for start, result in zip(starts, b.results, strict=False)
    )


@RULES.rule(_aten.unbind.int)
def _unbind(b: Lowering, x: Value, dim: int) -> tuple[Value, ...]:
    """Every element of a dimension, which goes away."""
    axis = b.axis(dim, x.type.rank)
    return tuple(b.reshape(b.slice(x, axis, i, 1), b.result.shape) for i in range(len(b.results)))


@RULES.rule(_aten.flip.default)
def _flip(b: Lowering, x: Value, dims: Sequence[int]) -> Value:
    """Read dimensions backwards."""
    for axis in sorted({b.axis(dim, x.type.rank) for dim in dims}):
        if x.shape:
            x = b.slice(x, axis, x.shape[axis] - 1, x.shape[axis], -1)
    return x


def position(index: DimLike, size: DimLike) -> DimLike:
    """Return an index that may be negative in [0, size)."""
    if isinstance(index, int):
        return index if index >= 0 else size + index
    signs = {coefficient >= 0 for _, coefficient in index.terms}  # a symbol is never negative
    if signs == {True}:
        return index
    return size + index if signs == {False} else index % size


def start_of(start: DimLike | None, size: DimLike) -> DimLike:
    """Return where a slice starts, in [0, size]; one that starts behind the end is empty wherever that is."""
    first = 0 if start is None else position(start, size)
    if isinstance(first, int) and isinstance(size, int):
        return min(max(first, 0), size)
    return dim_max(first, 0) if isinstance(start, int) and start < 0 else first


# Padding


@RULES.rule(_aten.constant_pad_nd.default)
def _constant_pad(b: Lowering, x: Value, pad: Dims, value: Number) -> Value:
    """A border of one number; where it is negative, the edge is cut off."""
    before, after = _borders(x, pad)
    for axis, (left, right) in enumerate(zip(before, after, strict=True)):
        cut, rest = _cut(left), _cut(right)
        if cut or rest:
            x = b.slice(x, axis, cut, x.shape[axis] - cut - rest)
    return b.pad(x, _grown(before), _grown(after), b.full((), value, x.dtype))


def _cut(size: DimLike) -> int:
    """Return how much a padding cuts off."""
    return max(-size, 0) if isinstance(size, int) else 0


def _grown(sizes: Sequence[DimLike]) -> list[DimLike]:
    """Return the paddings that add something."""
    return [max(size, 0) if isinstance(size, int) else size for size in sizes]


def _pad(mode: PadMode, b: Lowering, x: Value, padding: Dims) -> Value:
    """A border of mirrored or repeated elements."""
    before, after = (b.static("the padding", *side) for side in _borders(x, padding))
    if min((*before, *after)) < 0:
        raise UnsupportedError(f"a negative {mode.value} padding")
    return b.add(Pad(mode, before, after), x) if any((*before, *after)) else x


RULES.rules(
    _pad,
    {
        _aten.reflection_pad1d.default: PadMode.REFLECT,
        _aten.reflection_pad2d.default: PadMode.REFLECT,
        _aten.reflection_pad3d.default: PadMode.REFLECT,
        _aten.replication_pad1d.default: PadMode.EDGE,
        _aten.replication_pad2d.default: PadMode.EDGE,
        _aten.replication_pad3d.default: PadMode.EDGE,
    },
)


def _borders(x: Value, pad: Dims) -> tuple[list[DimLike], list[DimLike]]:
    """Return the borders before and after each dimension; torch lists them from the last dimension on."""
    missing = [0] * (x.type.rank - len(pad) // 2)
    return [*missing, *pad[-2::-2]], [*missing, *pad[::-2]]
