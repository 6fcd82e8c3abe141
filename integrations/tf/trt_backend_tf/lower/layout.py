"""Ops that move elements: views, joins, parts, paddings."""

from __future__ import annotations

__all__ = ["RULES"]

import math
from collections.abc import Sequence
from typing import NamedTuple

from trt_backend.errors import UnsupportedError
from trt_backend.ir.dims import Dim, DimLike, dim_max, dim_min
from trt_backend.ir.graph import Value
from trt_backend.ir.intervals import interval
from trt_backend.ir.ops.elementwise import ElementwiseKind
from trt_backend.ir.ops.layout import Concatenation, Pad, PadMode, Range
from trt_backend.ir.types import DType, volume
from trt_backend_tf.lower.context import Known, Lowering
from trt_backend_tf.lower.rules import RuleTable

RULES = RuleTable()


# Views


@RULES.rule("Reshape")
def _reshape(b: Lowering, x: Value, shape: Known) -> Value:
    """Another shape, of which one size may be -1: as many as are left."""
    sizes = list(shape.dims())
    if -1 in sizes:
        rest = volume(tuple(size for size in sizes if size != -1))
        sizes[sizes.index(-1)] = volume(x.shape) // rest
    return b.reshape(x, sizes)


@RULES.rule("ExpandDims")
def _expand_dims(b: Lowering, x: Value, axis: Known) -> Value:
    """A new dimension of size 1."""
    (place,) = axis.static("an axis")
    place = b.axis(place, x.type.rank + 1)
    return b.reshape(x, (*x.shape[:place], 1, *x.shape[place:]))


@RULES.rule("Squeeze")
def _squeeze(b: Lowering, x: Value, *, squeeze_dims: list[int]) -> Value:
    """Without the given dimensions, or all, of size 1."""
    gone = {b.axis(axis, x.type.rank) for axis in squeeze_dims}
    if not gone:
        b.static("which dimensions have the size 1", *x.shape)
        gone = {i for i, size in enumerate(x.shape) if size == 1}
    b.agree([x.shape[i] for i in gone], [1] * len(gone))
    return b.reshape(x, [size for i, size in enumerate(x.shape) if i not in gone])


@RULES.rule("Transpose")
def _transpose(b: Lowering, x: Value, permutation: Known) -> Value:
    """Reorder the dimensions."""
    return b.transpose(x, [b.axis(axis, x.type.rank) for axis in permutation.static("a permutation")])


@RULES.rule("BroadcastTo")
def _broadcast_to(b: Lowering, x: Value, shape: Known) -> Value:
    """Repeat dimensions of size 1."""
    sizes = shape.dims()
    kept = [
        (a, z) for a, z in zip(x.shape, sizes[len(sizes) - x.type.rank :], strict=True) if a not in (1, z)
    ]
    b.agree([a for a, _ in kept], [z for _, z in kept])
    return b.expand(x, sizes)


@RULES.rule("Tile")
def _tile(b: Lowering, x: Value, multiples: Known) -> Value:
    """Each repeated dimension gets a neighbour in front, which is expanded and folded in."""
    before: list[DimLike] = []
    after: list[DimLike] = []
    counts = multiples.dims()
    for size, count in zip(x.shape, counts, strict=True):
        before += [size] if count == 1 else [1, size]
        after += [size] if count == 1 else [count, size]
    target = [size * count for size, count in zip(x.shape, counts, strict=True)]
    return b.reshape(b.expand(b.reshape(x, before), after), target)


@RULES.rule("DepthToSpace")
def _depth_to_space(b: Lowering, x: Value, *, block_size: int, data_format: str) -> Value:
    """[N, H, W, r*r*C] to [N, H*r, W*r, C]."""
    last = _is_channels_last(data_format)
    image = x if last else b.channels_last(x)
    batch, height, width, depth = image.shape
    r = block_size
    blocks = b.transpose(b.reshape(image, (batch, height, width, r, r, depth // (r * r))), (0, 1, 3, 2, 4, 5))
    y = b.reshape(blocks, (batch, height * r, width * r, depth // (r * r)))
    return y if last else b.channels_first(y)


@RULES.rule("SpaceToDepth")
def _space_to_depth(b: Lowering, x: Value, *, block_size: int, data_format: str) -> Value:
    """[N, H*r, W*r, C] to [N, H, W, r*r*C]."""
    last = _is_channels_last(data_format)
    image = x if last else b.channels_last(x)
    batch, height, width, depth = image.shape
    r = block_size
    blocks = b.reshape(image, (batch, height // r, r, width // r, r, depth))
    y = b.reshape(b.transpose(blocks, (0, 1, 3, 2, 4, 5)), (batch, height // r, width // r, depth * r * r))
    return y if last else b.channels_first(y)


def _is_channels_last(data_format: str) -> bool:
    if data_format == "NCHW_VECT_C":
        raise UnsupportedError(f"data_format={data_format}")
    return data_format == "NHWC"


@RULES.rule("SpaceToBatchND")
def _space_to_batch(b: Lowering, x: Value, block_shape: Known, paddings: Known) -> Value:
    """Each element of a block, of the padded dimensions after the first, to a batch of its own: how kernels are dilated."""
    blocks = block_shape.static("the shape of a block")
    border = [0, 0, *paddings.static("the padding"), *[0, 0] * (x.type.rank - 1 - len(blocks))]
    if any(border):
        x = b.add(Pad(PadMode.CONSTANT, tuple(border[::2]), tuple(border[1::2])), x, b.full((), 0, x.dtype))
    batch, *sizes = x.shape
    apart: list[DimLike] = [batch]
    for size, block in zip(sizes, blocks, strict=False):
        apart += [size // block, block]
    rest = sizes[len(blocks) :]
    inside = range(2, len(apart), 2)
    order = (*inside, 0, *(i - 1 for i in inside), *range(len(apart), len(apart) + len(rest)))
    moved = b.transpose(b.reshape(x, (*apart, *rest)), order)
    return b.reshape(moved, (batch * math.prod(blocks), *apart[1::2], *rest))


@RULES.rule("BatchToSpaceND")
def _batch_to_space(b: Lowering, x: Value, block_shape: Known, crops: Known) -> Value:
    """The inverse of SpaceToBatchND."""
    blocks, count = block_shape.static("the shape of a block"), len(block_shape.dims())
    batch, *sizes = x.shape
    fewer = batch // math.prod(blocks)
    order = [
        count,
        *(i for k in range(count) for i in (count + 1 + k, k)),
        *range(2 * count + 1, x.type.rank + count),
    ]
    together = b.transpose(b.reshape(x, (*blocks, fewer, *sizes)), order)
    whole = [size * block for size, block in zip(sizes, blocks, strict=False)]
    x = b.reshape(together, (fewer, *whole, *sizes[count:]))
    cut = crops.static("the crops")
    for axis, (size, before, after) in enumerate(zip(whole, cut[::2], cut[1::2], strict=True), start=1):
        if before or after:
            x = b.slice(x, axis, before, size - before - after)
    return x


# Joining


@RULES.rule("ConcatV2")
def _concat(b: Lowering, *values_and_axis: Value) -> Value:
    """Join along a dimension."""
    *values, place = values_and_axis
    known = b.known(place)
    if known is None:
        raise UnsupportedError("its axis is known only at run time")
    (axis,) = known.static("an axis")
    axis = b.axis(axis, values[0].type.rank)
    parts = [x for x in values if x.shape[axis] != 0]
    return b.add(Concatenation(axis), *parts) if len(parts) > 1 else parts[0]


@RULES.rule("Pack")
def _pack(b: Lowering, *values: Value, axis: int) -> Value:
    """Join along a new dimension."""
    place = b.axis(axis, values[0].type.rank + 1)
    rows = [b.reshape(x, (*x.shape[:place], 1, *x.shape[place:])) for x in values]
    return b.add(Concatenation(place), *rows) if len(rows) > 1 else rows[0]


# Taking apart


@RULES.rule("Unpack")
def _unpack(b: Lowering, x: Value, *, num: int, axis: int) -> tuple[Value, ...]:
    """Every element of a dimension, which goes away."""
    place = b.axis(axis, x.type.rank)
    b.agree([x.shape[place]], [num])
    shape = (*x.shape[:place], *x.shape[place + 1 :])
    return tuple(b.reshape(b.slice(x, place, i, 1), shape) for i in range(num))


@RULES.rule("Split")
def _split(b: Lowering, axis: Known, x: Value, *, num_split: int) -> tuple[Value, ...]:
    """Equal parts of a dimension."""
    (place,) = axis.static("an axis")
    place = b.axis(place, x.type.rank)
    (total,) = b.static("a size that is split", x.shape[place])
    return _parts(b, x, place, [total // num_split] * num_split)


@RULES.rule("SplitV")
def _split_v(b: Lowering, x: Value, sizes: Known, axis: Known, *, num_split: int) -> tuple[Value, ...]:
    """Parts of given sizes, of which one may be -1: what is left."""
    (place,) = axis.static("an axis")
    place = b.axis(place, x.type.rank)
    given = list(sizes.dims())
    if -1 in given:
        rest = x.shape[place] - sum(size for size in given if size != -1)
        given[given.index(-1)] = rest
    b.agree([x.shape[place]], [sum(given)])
    return _parts(b, x, place, given)


def _parts(b: Lowering, x: Value, axis: int, sizes: Sequence[DimLike]) -> tuple[Value, ...]:
    parts: list[Value] = []
    start: DimLike = 0
    for size in sizes:
        parts.append(b.slice(x, axis, start, size))
        start = start + size
    return tuple(parts)


@RULES.rule("Slice")
def _slice(b: Lowering, x: Value, begin: Known, size: Known) -> Value:
    """`size` elements from `begin` on of each dimension; -1 means all that are left."""
    firsts, counts = begin.dims(), size.dims()
    for axis, (first, count) in enumerate(zip(firsts, counts, strict=True)):
        left = x.shape[axis] - first
        wanted = left if count == -1 else count
        b.limits += [first, wanted, left - wanted]
        if first != 0 or wanted != x.shape[axis]:
            x = b.slice(x, axis, first, wanted)
    return x


class _Part(NamedTuple):
    """What a strided slice takes of one dimension."""

    start: DimLike
    size: DimLike
    stride: int


@RULES.rule("StridedSlice")
def _strided_slice(
    b: Lowering,
    x: Value,
    begin: Known,
    end: Known,
    strides: Known,
    *,
    begin_mask: int,
    end_mask: int,
    ellipsis_mask: int,
    new_axis_mask: int,
    shrink_axis_mask: int,
) -> Value:
    """NumPy's basic indexing; the masks say which entries are open ends, `...`, `newaxis` or one index."""
    firsts, lasts, steps = begin.dims(), end.dims(), strides.static("the step of a slice")
    axis = 0
    shape: list[DimLike] = []
    for i, step in enumerate(steps):
        bit = 1 << i
        if ellipsis_mask & bit:
            later = sum(not new_axis_mask & (1 << j) for j in range(i + 1, len(steps)))
            shape += x.shape[axis : x.type.rank - later]
            axis = x.type.rank - later
        elif new_axis_mask & bit:
            shape.append(1)
        elif shrink_axis_mask & bit:
            position = _position(firsts[i], x.shape[axis])
            b.limits += [position, x.shape[axis] - 1 - position]
            x = b.slice(x, axis, position, 1)
            axis += 1
        else:
            first = None if begin_mask & bit else firsts[i]
            last = None if end_mask & bit else lasts[i]
            part = _part(first, last, step, x.shape[axis])
            if part != _Part(0, x.shape[axis], 1):
                x = b.slice(x, axis, *part)
            shape.append(part.size)
            axis += 1
    return b.reshape(x, [*shape, *x.shape[axis:]])


def _part(first: DimLike | None, last: DimLike | None, step: int, size: DimLike) -> _Part:
    """Return what `[first:last:step]` takes of a dimension (UnsupportedError where only a call can tell)."""
    if step > 0:
        start = 0 if first is None else _clamped(first, size)
        stop = size if last is None else _clamped(last, size)
        count = (stop - start + (step - 1)) // step
    else:
        if (
            (isinstance(size, Dim) and not (first is None and last is None))
            or isinstance(first, Dim)
            or isinstance(last, Dim)
        ):
            raise UnsupportedError(f"a part of the dynamic size {size} backwards")
        if isinstance(size, Dim):
            start, count = size - 1, (size + (-step - 1)) // -step
        else:
            indices = range(size)[slice(first, last, step)]
            start, count = (indices[0], len(indices)) if len(indices) else (0, 0)
    return _Part(start, count if interval(count)[0] >= 0 else dim_max(count, 0), step)


def _position(index: DimLike, size: DimLike) -> DimLike:
    """Return an index that may be negative in [0, size)."""
    low, high = interval(index)
    if low >= 0:
        return index
    if high < 0:
        return size + index
    raise UnsupportedError(f"the index {index} may be negative or not")


def _clamped(bound: DimLike, size: DimLike) -> DimLike:
    """Return one end of a slice in [0, size]."""
    position = _position(bound, size)
    if isinstance(position, int) and isinstance(size, int):
        return min(max(position, 0), size)
    if interval(bound)[1] < 0:
        return dim_max(position, 0)
    if position in (0, size) or interval(size - position)[0] >= 0:
        return position
    return dim_min(position, size)


@RULES.rule("ReverseV2")
def _reverse(b: Lowering, x: Value, axes: Known) -> Value:
    """Read dimensions backwards."""
    for axis in axes.static("an axis"):
        place = b.axis(axis, x.type.rank)
        x = b.slice(x, place, x.shape[place] - 1, x.shape[place], -1)
    return x


@RULES.rule("Roll")
def _roll(b: Lowering, x: Value, shifts: Known, axes: Known) -> Value:
    """Move dimensions on; what leaves at one end comes in at the other."""
    for shift, axis in zip(shifts.static("a shift"), axes.static("an axis"), strict=True):
        place = b.axis(axis, x.type.rank)
        (size,) = b.static("a size that is rolled", x.shape[place])
        if moved := shift % size:
            head, tail = b.slice(x, place, size - moved, moved), b.slice(x, place, 0, size - moved)
            x = b.add(Concatenation(place), head, tail)
    return x


@RULES.rule("MatrixBandPart")
def _matrix_band_part(b: Lowering, x: Value, num_lower: Known, num_upper: Known) -> Value:
    """0 but for a band about the diagonal: Keras' causal masks; a negative number of diagonals means all."""
    height, width = x.shape[-2:]
    rows = b.reshape(b.add(Range(height, 0, 1, DType.INT64)), (height, 1))
    columns = b.reshape(b.add(Range(width, 0, 1, DType.INT64)), (1, width))
    (lower,), (upper,) = num_lower.static("a number of diagonals"), num_upper.static("a number of diagonals")
    for count, high, low, size in ((lower, rows, columns, height), (upper, columns, rows, width)):
        if count >= 0:
            b.limits.append(size - count)
            beyond = b.elementwise(
                ElementwiseKind.GREATER, b.elementwise(ElementwiseKind.SUB, high, low), count
            )
            x = b.select(beyond, 0, x, x.dtype)
    return x


# Padding


@RULES.rule("Pad", "PadV2")
def _pad(b: Lowering, x: Value, paddings: Known, fill: Value | None = None) -> Value:
    """A border of one number."""
    if fill is not None and fill.type.rank:
        fill = b.reshape(fill, ())
    number = b.full((), 0, x.dtype) if fill is None else fill
    return b.pad(x, *_borders(paddings), number)


@RULES.rule("MirrorPad")
def _mirror_pad(b: Lowering, x: Value, paddings: Known, *, mode: str) -> Value:
    """A border of mirrored elements."""
    if mode != "REFLECT":
        raise UnsupportedError(f"mode={mode}")
    before, after = (b.static("the padding", *side) for side in _borders(paddings))
    return b.add(Pad(PadMode.REFLECT, before, after), x) if any((*before, *after)) else x


def _borders(paddings: Known) -> tuple[tuple[DimLike, ...], tuple[DimLike, ...]]:
    """Return the padding before and after each dimension."""
    dims = paddings.dims()
    return dims[::2], dims[1::2]
