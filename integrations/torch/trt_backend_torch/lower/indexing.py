"""Aten ops that read or write elements by index: gathers and scatters.

Rules:
  WRAP    only `index` and `index_put` take negative indices; they are wrapped unless they cannot be negative.
  BOUNDS  an index outside of its dimension raises in eager. ONNX Runtime then fails the call (negative ones too: they
          are made too large), which runs natively and raises; TensorRT reads an unspecified element.
"""

from __future__ import annotations

__all__ = ["RULES"]

from collections.abc import Iterable, Sequence

import torch

from trt_backend.errors import UnsupportedError
from trt_backend.ir.dims import DimLike
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
    Range,
    Reshape,
    ScatterElements,
    ScatterND,
    Slice,
    Transpose,
)
from trt_backend.ir.types import DType, volume
from trt_backend_torch.lower.context import Lowering, Number
from trt_backend_torch.lower.layout import Dims, position, start_of
from trt_backend_torch.lower.rules import RuleTable

RULES = RuleTable()

_aten = torch.ops.aten

Indices = Sequence[Value | None]


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
    first = start_of(start, x.shape[axis])
    if stride == 1:
        return _replaced(b, x, axis, first, src)
    return _put_slices(b, x, axis, b.add(Range(src.shape[axis], first, stride, DType.INT64)), src)


@RULES.rule(_aten.select_scatter.default)
def _select_scatter(b: Lowering, x: Value, src: Value, dim: int, index: DimLike) -> Value:
    """One element of a dimension replaced by `src`."""
    axis = b.axis(dim, x.type.rank)
    row = b.reshape(src, (*x.shape[:axis], 1, *x.shape[axis + 1 :]))
    return _replaced(b, x, axis, position(index, x.shape[axis]), row)


def _replaced(b: Lowering, x: Value, axis: int, start: DimLike, part: Value) -> Value:
    """Return x with `part` in the place of as many elements from `start` on."""
    behind = start + part.shape[axis]
    rest = x.shape[axis] - behind
    pieces = [b.slice(x, axis, 0, start)] if start != 0 else []
    pieces += [part]
    pieces += [b.slice(x, axis, behind, rest)] if rest != 0 else []
    return b.add(Concatenation(axis), *pieces)
