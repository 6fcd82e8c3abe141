"""Aten ops that move or make elements.

Rules:
  PROMISED  a result has the shape that torch promises for it, so `-1`, broadcast sizes and clamped ends need no rule here.
  WRAP      only `index` and `index_put` take negative indices; they are wrapped unless they cannot be negative.
  BOUNDS    an index outside of its dimension raises in eager. ONNX Runtime then fails the call (negative ones too: they
            are made too large), which runs natively and raises; TensorRT reads an unspecified element.
"""

from __future__ import annotations

__all__ = ["RULES"]

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from trt_backend.errors import UnsupportedError
from trt_backend.ir.dims import Dim, DimLike, dim_max
from trt_backend.ir.graph import Value
from trt_backend.ir.ops.elementwise import (
    Activation,
    ActivationKind,
    Cast,
    Elementwise,
    ElementwiseKind,
    Select,
)
from trt_backend.ir.ops.layout import (
    Concatenation,
    Expand,
    Extent,
    Gather,
    GatherElements,
    GatherND,
    Identity,
    Pad,
    PadMode,
    Range,
    Reshape,
    ScatterElements,
    ScatterND,
    Slice,
    Transpose,
)
from trt_backend.ir.types import DType, volume
from trt_backend_torch.lower.context import Lowering, Number
from trt_backend_torch.lower.rules import RuleTable

RULES = RuleTable()

_aten = torch.ops.aten

Dims = Sequence[DimLike]
Indices = Sequence[Value | None]

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
    """Join along a dimension; torch leaves out what has the shape [0], whatever the rank of the others."""
    parts = [b.cast(x, b.result.dtype) for x in tensors if x.shape != (0,)]
    return b.add(Concatenation(b.axis(dim, b.result.rank)), *parts)


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
    return b.reshape(b.slice(x, axis, _position(index, x.shape[axis]), 1), b.result.shape)


@RULES.rule(_aten.slice.Tensor)
def _slice(
    b: Lowering, x: Value, dim: int, start: DimLike | None, end: DimLike | None, step: DimLike
) -> Value:
    """Every step-th element from `start` on, as many as torch promises."""
    axis = b.axis(dim, x.type.rank)
    (stride,) = b.static("the step of a slice", step)
    return b.slice(x, axis, _start(start, x.shape[axis]), b.result.shape[axis], stride)


@RULES.rule(
    _aten.split.Tensor,
    _aten.split_with_sizes.default,
    _aten.unsafe_split.Tensor,
    _aten.unsafe_split_with_sizes.default,
)
def _split(
    b: Lowering, x: Value, dim: int, split_size: DimLike = 0, split_sizes: Dims = ()
) -> tuple[Value, ...]:
    """Parts of the promised sizes."""
    axis = b.axis(dim, x.type.rank)
    parts: list[Value] = []
    start: DimLike = 0
    for result in b.results:
        assert result is not None, "the parts of a split are tensors"
        parts.append(b.slice(x, axis, start, result.shape[axis]))
        start = start + result.shape[axis]
    return tuple(parts)


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


def _position(index: DimLike, size: DimLike) -> DimLike:
    """Return an index that may be negative in [0, size)."""
    if isinstance(index, int):
        return index if index >= 0 else size + index
    signs = {coefficient >= 0 for _, coefficient in index.terms}  # a symbol is never negative
    if signs == {True}:
        return index
    return size + index if signs == {False} else index % size


def _start(start: DimLike | None, size: DimLike) -> DimLike:
    """Return where a slice starts, in [0, size]; one that starts behind the end is empty wherever that is."""
    position = 0 if start is None else _position(start, size)
    if isinstance(position, int) and isinstance(size, int):
        return min(max(position, 0), size)
    return dim_max(position, 0) if isinstance(start, int) and start < 0 else position


# Padding


@RULES.rule(_aten.constant_pad_nd.default)
def _constant_pad(b: Lowering, x: Value, pad: Dims, value: Number) -> Value:
    """A border of one number; where it is negative, the edge is cut off."""
    before, after = _borders(b, x, pad)
    for axis, (left, right) in enumerate(zip(before, after, strict=True)):
        if left < 0 or right < 0:
            start = max(-left, 0)
            x = b.slice(x, axis, start, x.shape[axis] - start - max(-right, 0))
    return _padded(b, PadMode.CONSTANT, x, [max(n, 0) for n in before], [max(n, 0) for n in after], value)


def _pad(mode: PadMode, b: Lowering, x: Value, padding: Dims) -> Value:
    """A border of mirrored or repeated elements."""
    before, after = _borders(b, x, padding)
    if min((*before, *after)) < 0:
        raise UnsupportedError(f"a negative {mode.value} padding")
    return _padded(b, mode, x, before, after)


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


def _borders(b: Lowering, x: Value, pad: Dims) -> tuple[list[int], list[int]]:
    """Return the borders before and after each dimension; torch lists them from the last dimension on."""
    given = b.static("the padding", *pad)
    missing = [0] * (x.type.rank - len(given) // 2)
    return [*missing, *given[-2::-2]], [*missing, *given[::-2]]


def _padded(
    b: Lowering, mode: PadMode, x: Value, before: Sequence[int], after: Sequence[int], *fill: Number
) -> Value:
    if not any((*before, *after)):
        return x
    return b.add(Pad(mode, tuple(before), tuple(after)), x, *(b.full((), number, x.dtype) for number in fill))


# Making tensors


@RULES.rule(_aten.arange.default, _aten.arange.start, _aten.arange.start_step)
def _arange(
    b: Lowering,
    end: DimLike | float,
    start: DimLike | float = 0,
    step: DimLike | float = 1,
    dtype: DType | None = None,
) -> Value:
    """`start + i * step`: a range of integers, cast, or a constant where start or step is a float."""
    (size,), made = b.result.shape, b.result.dtype
    if not isinstance(start, float) and not isinstance(step, float):
        (stride,) = b.static("the step of a range", step)
        wide = DType.INT32 if made is DType.INT32 else DType.INT64
        return b.cast(b.add(Range(size, start, stride, wide)), made)
    if isinstance(start, Dim) or isinstance(step, Dim):
        raise UnsupportedError("a range of floats from or by a symbolic size")
    (count,) = b.static("the length of a range of floats", size)
    first, by = (start, step) if made.is_float else (int(start), int(step))
    return b.constant((first + by * np.arange(count)).astype(made.numpy))


@RULES.rule(_aten.full.default, _aten.full_like.default, _aten.new_full.default)
def _full(
    b: Lowering, fill_value: Number | Dim, x: Value | None = None, size: Dims = (), dtype: DType | None = None
) -> Value:
    """One number in the promised shape and dtype."""
    return b.expand(b.value(fill_value, b.result.dtype, b.result.rank), b.result.shape)


@RULES.rule(_aten.scalar_tensor.default)
def _scalar_tensor(b: Lowering, s: Number | Dim, dtype: DType | None) -> Value:
    """A number as a tensor."""
    return b.value(s, b.result.dtype)


def _filled(
    number: int,
    b: Lowering,
    x: Value | None = None,
    size: Dims = (),
    dtype: DType | None = None,
    stride: Dims = (),
    physical_layout: Sequence[int] = (),
) -> Value:
    """Zeros or ones; what torch leaves uninitialized is zero too."""
    return _full(b, number)


RULES.rules(
    _filled,
    {
        _aten.empty.memory_format: 0,
        _aten.empty_like.default: 0,
        _aten.empty_permuted.default: 0,
        _aten.empty_strided.default: 0,
        _aten.new_empty.default: 0,
        _aten.new_empty_strided.default: 0,
        _aten.new_ones.default: 1,
        _aten.new_zeros.default: 0,
        _aten.ones.default: 1,
        _aten.ones_like.default: 1,
        _aten.zeros.default: 0,
        _aten.zeros_like.default: 0,
    },
)


def _triangle(hidden: ElementwiseKind, b: Lowering, x: Value, diagonal: DimLike) -> Value:
    """Zero where the column is greater (less) than the row plus `diagonal`."""
    rows, columns = x.shape[-2:]
    row = b.reshape(b.add(Range(rows, diagonal, 1, DType.INT64)), (rows, 1))
    column = b.reshape(b.add(Range(columns, 0, 1, DType.INT64)), (1, columns))
    return b.select(b.elementwise(hidden, column, row, DType.INT64), 0, x, x.dtype)


RULES.rules(
    _triangle, {_aten.tril.default: ElementwiseKind.GREATER, _aten.triu.default: ElementwiseKind.LESS}
)


# Gathering


@RULES.rule(_aten.embedding.default)
def _embedding(
    b: Lowering, weight: Value, indices: Value, padding_idx: int, scale_grad_by_freq: bool, sparse: bool
) -> Value:
    """Rows of a table (the options are about gradients; BOUNDS)."""
    return b.add(Gather(0), weight, indices)


@RULES.rule(_aten.index_select.default)
def _index_select(b: Lowering, x: Value, dim: int, index: Value) -> Value:
    """Slices of a dimension (BOUNDS)."""
    x, index = b.with_rank(x, 1), b.with_rank(index, 1)
    return b.reshape(b.add(Gather(b.axis(dim, x.type.rank)), x, index), b.result.shape)


@RULES.rule(_aten.gather.default)
def _gather(b: Lowering, x: Value, dim: int, index: Value, sparse_grad: bool) -> Value:
    """Elements along a dimension (BOUNDS)."""
    x, index = b.with_rank(x, 1), b.with_rank(index, 1)
    return b.reshape(b.add(GatherElements(b.axis(dim, x.type.rank)), x, index), b.result.shape)


@RULES.rule(_aten.index.Tensor, _aten._unsafe_index.Tensor)
def _index(b: Lowering, x: Value, indices: Indices) -> Value:
    """Advanced indexing by integers (WRAP, BOUNDS).

    The indices broadcast. What they select takes their place where they are neighbours, else it comes first.
    """
    if _mask_of(indices) is not None:
        raise UnsupportedError("how many elements a mask selects is known only at run time")
    axes, parts = _integer_indices(b, x, indices)
    adjacent = axes == list(range(axes[0], axes[0] + len(axes)))
    if adjacent and _is_outer(parts):
        for axis, part in reversed(list(zip(axes, parts, strict=True))):
            x = b.add(Gather(axis), x, b.reshape(part, (size for size in part.shape if size != 1)))
        return b.reshape(x, b.result.shape)
    rank, lead = max(part.type.rank for part in parts), axes[0] if adjacent else 0
    joined = _stacked(b, parts, b.result.shape[lead : lead + rank])
    picked = b.add(GatherND(), b.transpose(x, _leading(axes, x.type.rank)), joined)
    order = [*range(rank, rank + lead), *range(rank), *range(rank + lead, picked.type.rank)]
    return b.transpose(picked, order)


def _is_outer(parts: Sequence[Value]) -> bool:
    """Whether the indices vary in dimensions of their own, in order: then each may gather by itself."""
    rank = max(part.type.rank for part in parts)
    ends = [0]
    for part in parts:
        offset = rank - part.type.rank
        varying = [offset + i for i, size in enumerate(part.shape) if size != 1]
        if varying and varying[0] < ends[-1]:
            return False
        ends.append(varying[-1] + 1 if varying else ends[-1])
    return True


def _integer_indices(b: Lowering, x: Value, indices: Indices) -> tuple[list[int], list[Value]]:
    """Return the dimensions that are indexed, and their indices in [0, size) and of one dtype."""
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    dtype = DType.INT32 if all(index.dtype is DType.INT32 for _, index in given) else DType.INT64
    parts = [_wrapped(b, b.cast(index, dtype), x.shape[axis]) for axis, index in given]
    return [axis for axis, _ in given], parts


def _mask_of(indices: Indices) -> tuple[int, Value] | None:
    """Return the first index that is a mask, with its position."""
    given = [(place, index) for place, index in enumerate(indices) if index is not None]
    if any(index.dtype is DType.UINT8 for _, index in given):
        raise UnsupportedError("torch takes an index of uint8 for a mask, and deprecates that")
    return next((pair for pair in given if pair[1].dtype is DType.BOOL), None)


def _stacked(b: Lowering, parts: Sequence[Value], shape: Dims) -> Value:
    """Return the indices [*shape, number of indices] of a GatherND or ScatterND."""
    columns = [b.reshape(b.expand(part, shape), (*shape, 1)) for part in parts]
    return b.add(Concatenation(len(shape)), *columns)


def _leading(axes: Sequence[int], rank: int) -> list[int]:
    """Return the permutation that puts `axes` first."""
    return [*axes, *(i for i in range(rank) if i not in axes)]


def _wrapped(b: Lowering, index: Value, size: DimLike) -> Value:
    """Return an index with negative elements counted from the end (WRAP)."""
    if _never_negative(b, index):
        return index
    negative = b.elementwise(ElementwiseKind.LESS, index, 0, index.dtype)
    from_end = b.elementwise(ElementwiseKind.SUM, index, size, index.dtype)
    return b.select(negative, from_end, index, index.dtype)


_KEEP_SIGN = (Cast, Concatenation, Expand, Identity, Reshape, Select, Slice, Transpose)
_KEEP_SIGN_OF_BOTH = frozenset(
    {
        ElementwiseKind.SUM,
        ElementwiseKind.PROD,
        ElementwiseKind.DIV,
        ElementwiseKind.FLOOR_DIV,
        ElementwiseKind.MAX,
        ElementwiseKind.MIN,
    }
)


def _never_negative(b: Lowering, value: Value) -> bool:
    """Whether no element can be negative, as far as the ops that made the value tell."""
    pending, seen = [value], {value}
    while pending:
        value = pending.pop()
        constant, node = b.constant_of(value), b.producer(value)
        if value.dtype is DType.BOOL:
            continue
        if constant is not None:
            if (constant.array < 0).any():
                return False
            continue
        if node is None:
            return False
        if isinstance(node.op, Range):
            if not isinstance(node.op.start, int) or node.op.start < 0 or node.op.step < 0:
                return False
        elif isinstance(node.op, Extent):
            if any(coefficient < 0 for _, coefficient in node.op.dim.terms):
                return False
        elif isinstance(node.op, _KEEP_SIGN) or (
            isinstance(node.op, Elementwise) and node.op.kind in _KEEP_SIGN_OF_BOTH
        ):
            pending += [operand for operand in node.inputs if operand not in seen]
            seen.update(node.inputs)
        elif not (
            isinstance(node.op, Activation) and node.op.kind is ActivationKind.CLIP and node.op.alpha >= 0
        ):
            return False
    return True


# Scattering


@RULES.rule(_aten.scatter.src)
def _scatter(b: Lowering, x: Value, dim: int, index: Value, src: Value) -> Value:
    """Elements of `src`, as many as there are indices, put along a dimension (BOUNDS)."""
    src, index = b.with_rank(src, 1), b.with_rank(index, 1)
    if src.shape != index.shape:
        rank = index.type.rank
        src = b.add(Slice((0,) * rank, index.shape, (1,) * rank), src)
    return _scattered(b, x, dim, index, src)


@RULES.rule(_aten.scatter.value)
def _scatter_value(b: Lowering, x: Value, dim: int, index: Value, value: Number) -> Value:
    """One number put along a dimension (BOUNDS)."""
    index = b.with_rank(index, 1)
    return _scattered(b, x, dim, index, b.expand(b.value(value, x.dtype, index.type.rank), index.shape))


def _scattered(b: Lowering, x: Value, dim: int, index: Value, updates: Value) -> Value:
    target = b.with_rank(x, 1)
    op = ScatterElements(b.axis(dim, target.type.rank))
    return b.reshape(b.add(op, target, index, updates), x.shape)


@RULES.rule(_aten.index_copy.default)
def _index_copy(b: Lowering, x: Value, dim: int, index: Value, source: Value) -> Value:
    """Slices of `source` put along a dimension (BOUNDS)."""
    target = b.with_rank(x, 1)
    return b.reshape(_put_slices(b, target, b.axis(dim, target.type.rank), index, source), x.shape)


@RULES.rule(_aten.index_put.default, _aten._unsafe_index_put.default)
def _index_put(b: Lowering, x: Value, indices: Indices, values: Value, accumulate: bool) -> Value:
    """Advanced indexing as a target (WRAP, BOUNDS): by integers, or by one mask where it takes one value each."""
    if accumulate:
        raise UnsupportedError("it adds up where an index repeats, which no engine's scatter does")
    masked = _mask_of(indices)
    if masked is not None:
        return _put_masked(b, x, indices, *masked, values)
    axes, parts = _integer_indices(b, x, indices)
    adjacent = axes == list(range(axes[0], axes[0] + len(axes)))
    lead = axes[0] if adjacent else 0
    picked = _broadcast(part.shape for part in parts)
    rest = [size for axis, size in enumerate(x.shape) if axis not in axes]
    updates = b.expand(values, (*rest[:lead], *picked, *rest[lead:]))
    if len(axes) == 1:
        return _put_slices(b, x, lead, parts[0], updates)
    rank, order = len(picked), _leading(axes, x.type.rank)
    first = [*range(lead, lead + rank), *range(lead), *range(lead + rank, updates.type.rank)]
    target, joined = b.transpose(x, order), _stacked(b, parts, picked)
    result = b.add(ScatterND(), target, joined, b.transpose(updates, first))
    return b.transpose(result, [order.index(i) for i in range(len(order))])


def _put_slices(b: Lowering, x: Value, axis: int, index: Value, updates: Value) -> Value:
    """Return x with slices of one dimension replaced; the updates have the index's elements there, in any shape."""
    count = volume(index.shape)
    shape = (*x.shape[:axis], count, *x.shape[axis + 1 :])
    row = b.reshape(index, (count if i == axis else 1 for i in range(x.type.rank)))
    return b.add(ScatterElements(axis), x, b.expand(row, shape), b.reshape(updates, shape))


def _put_masked(b: Lowering, x: Value, indices: Indices, axis: int, mask: Value, values: Value) -> Value:
    """Return x with what a mask selects from `axis` on replaced by values that are the same for each."""
    behind = x.type.rank - axis - mask.type.rank
    own = values.type.rank - behind - 1  # the position of the selected elements in the values
    if sum(index is not None for index in indices) > 1:
        raise UnsupportedError("how many elements a mask selects is known only at run time")
    if own >= 0 and values.shape[own] != 1:
        raise UnsupportedError("each element that the mask selects gets its own value")
    if own >= 0:
        values = b.reshape(values, (*values.shape[:own], *(1,) * mask.type.rank, *values.shape[own + 1 :]))
    condition = b.reshape(mask, (*mask.shape, *(1,) * behind))
    return b.select(condition, values, x, x.dtype)


def _broadcast(shapes: Iterable[Sequence[DimLike]]) -> tuple[DimLike, ...]:
    """Return the shape that indices broadcast to."""
    given = list(shapes)
    rank = max(map(len, given))
    columns = zip(*((*(1,) * (rank - len(shape)), *shape) for shape in given), strict=True)
    return tuple(next((size for size in column if size != 1), 1) for column in columns)


@RULES.rule(_aten.slice_scatter.default)
def _slice_scatter(
    b: Lowering, x: Value, src: Value, dim: int, start: DimLike | None, end: DimLike | None, step: DimLike
) -> Value:
    """A slice replaced by `src`."""
    axis = b.axis(dim, x.type.rank)
    (stride,) = b.static("the step of a slice", step)
    first = _start(start, x.shape[axis])
    if stride == 1:
        return _replaced(b, x, axis, first, src)
    return _put_slices(b, x, axis, b.add(Range(src.shape[axis], first, stride, DType.INT64)), src)


@RULES.rule(_aten.select_scatter.default)
def _select_scatter(b: Lowering, x: Value, src: Value, dim: int, index: DimLike) -> Value:
    """One element of a dimension replaced by `src`."""
    axis = b.axis(dim, x.type.rank)
    row = b.reshape(src, (*x.shape[:axis], 1, *x.shape[axis + 1 :]))
    return _replaced(b, x, axis, _position(index, x.shape[axis]), row)


def _replaced(b: Lowering, x: Value, axis: int, start: DimLike, part: Value) -> Value:
    """Return x with `part` in the place of as many elements from `start` on."""
    behind = start + part.shape[axis]
    rest = x.shape[axis] - behind
    pieces = [b.slice(x, axis, 0, start)] if start != 0 else []
    pieces += [part]
    pieces += [b.slice(x, axis, behind, rest)] if rest != 0 else []
    return b.add(Concatenation(axis), *pieces)
