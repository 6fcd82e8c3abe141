"""Computing only what a slice keeps: slices move up, in front of the ops whose results they would throw most of away.

A classifier that reads one token of a transformer's last layer needs that token's row alone of all that follows its last
attention, and of the queries of that.

Rules:
  SHRINKS  A slice moves that keeps at most half along an axis.
  ALONE    It moves in front of an op whose result nobody else reads: nothing is computed twice. `dedupe` makes one of
           equal slices; where they were all that read a value, the next round moves on.
  ROWWISE  Each rule says which parts of an op's operands make a part of its result; elements are computed from the same
           numbers as before, if by another kernel.
"""

from __future__ import annotations

__all__ = ["sink_slices"]

import functools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from trt_backend.ir.builder import Builder, rebuild
from trt_backend.ir.dims import DimLike
from trt_backend.ir.graph import Graph, Node, Value
from trt_backend.ir.ops.base import Op, broadcast
from trt_backend.ir.ops.contraction import Attention, MatrixMultiply
from trt_backend.ir.ops.elementwise import Activation, Cast, Elementwise, Select, Unary
from trt_backend.ir.ops.layout import Expand, Reshape, Slice, Transpose
from trt_backend.ir.ops.reduction import Normalization, Softmax
from trt_backend.ir.types import Shape, volume
from trt_backend.passes.fuel import Fuel

_MOST = 100  # ops in a row that one slice passes in a round


def sink_slices(graph: Graph, fuel: Fuel | None = None) -> Graph:
    """Move slices towards the inputs; returns `graph` itself where none moves."""
    fuel = fuel or Fuel()
    uses = Counter(value for node in graph.nodes for value in node.inputs)
    uses.update(graph.outputs)
    makers = {value: node for node in graph.nodes for value in node.outputs}

    def part(b: Builder, old: Value, new: Value, axes: Axes, passed: int = 0) -> Value:
        """Return a part of a value, of which `old` is the name in the graph as it was."""
        if axes == _all(new.shape):
            return new
        maker, made = makers.get(old), b.producer(new)
        found = None
        if maker and made and uses[old] == 1 and passed < _MOST and not fuel.empty:
            found = _parts(maker, axes)
        if not maker or not made or found is None:
            return b.add(_slice(axes), new)
        fuel.burn()
        op, parts = found
        operands = [
            part(b, was, x, of, passed + 1)
            for was, x, of in zip(maker.inputs, made.inputs, parts, strict=True)
        ]
        with b.at(maker.source):
            return b.add(op, *operands)

    def rule(b: Builder, node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
        if not isinstance(node.op, Slice) or not _shrinks(node.op, inputs[0].shape):
            return None
        spent = fuel.spent
        made = part(
            b, node.inputs[0], inputs[0], tuple(map(Axis, node.op.start, node.op.size, node.op.stride))
        )
        return [made] if fuel.spent > spent else None

    return rebuild(graph, rule)


@dataclass(frozen=True)
class Axis:
    """What a slice keeps along an axis: `size` elements from `start` on, every `stride`-th."""

    start: DimLike
    size: DimLike
    stride: int = 1


Axes = tuple[Axis, ...]
Parts = tuple[Op, list[Axes]]
"""An op, and the part that it reads of each of its operands."""


def _slice(axes: Axes) -> Slice:
    return Slice(*zip(*((axis.start, axis.size, axis.stride) for axis in axes), strict=True))


def _shrinks(op: Slice, shape: Shape) -> bool:
    return 0 not in op.size and any(
        size != dim and _times(dim, size) >= 2 for size, dim in zip(op.size, shape, strict=True)
    )


def _times(dim: DimLike, size: DimLike) -> int:
    """Return how often a size fits into a dimension; a symbol may be of any size, but is hardly 1."""
    if size == 1 and not isinstance(dim, int):
        return 2
    times = dim // size
    return times if isinstance(times, int) else 1


def _whole(dim: DimLike) -> Axis:
    return Axis(0, dim)


def _all(shape: Shape) -> Axes:
    return tuple(map(_whole, shape))


def _parts(node: Node, axes: Axes) -> Parts | None:
    """Return what makes a part of a node's result; None where no rule knows."""
    rule = _RULES.get(type(node.op))
    return None if rule is None else rule(node.op, axes, *(value.shape for value in node.inputs))


def _broadcast(axes: Axes, result: Shape, operands: Sequence[Shape]) -> list[Axes] | None:
    """Return the operands' parts where their dimensions of size 1 broadcast; None where two symbols are taken to agree."""
    if any(size not in (1, dim) for operand in operands for size, dim in zip(operand, result, strict=True)):
        return None
    return [
        tuple(
            axis if size == dim else _whole(1) for axis, size, dim in zip(axes, operand, result, strict=True)
        )
        for operand in operands
    ]


def _elementwise(op: Op, axes: Axes, *operands: Shape) -> Parts | None:
    parts = _broadcast(axes, functools.reduce(broadcast, operands), operands)
    return None if parts is None else (op, parts)


def _normalization(op: Normalization, axes: Axes, x: Shape, *affine: Shape) -> Parts | None:
    return (op, [axes, *map(_all, affine)]) if axes[op.axis :] == _all(x[op.axis :]) else None


def _softmax(op: Softmax, axes: Axes, x: Shape) -> Parts | None:
    return (op, [axes]) if axes[op.axis] == _whole(x[op.axis]) else None


def _matrix_multiply(op: MatrixMultiply, axes: Axes, a: Shape, b: Shape) -> Parts | None:
    *batch, rows, columns = axes
    batches = _broadcast(tuple(batch), broadcast(a[:-2], b[:-2]), (a[:-2], b[:-2]))
    if batches is None:
        return None
    left = (_whole(a[-2]), rows) if op.transpose_a else (rows, _whole(a[-1]))
    right = (columns, _whole(b[-1])) if op.transpose_b else (_whole(b[-2]), columns)
    return op, [(*batches[0], *left), (*batches[1], *right)]


def _attention(op: Attention, axes: Axes, q: Shape, k: Shape, v: Shape, *mask: Shape) -> Parts | None:
    query, columns = axes[2:]
    if not (q[:2] == k[:2] == v[:2]) or (op.causal and query != _whole(q[2])):
        return None
    if columns != _whole(v[3]):  # TensorRT's attention takes values as wide as keys
        return None
    hidden = _broadcast((*axes[:2], query, _whole(k[2])), (*q[:3], k[2]), mask)
    if hidden is None:
        return None
    of_keys = (*axes[:2], _whole(k[2]))
    return op, [(*axes[:3], _whole(q[3])), (*of_keys, _whole(k[3])), (*of_keys, columns), *hidden]


def _transpose(op: Transpose, axes: Axes, x: Shape) -> Parts:
    return op, [tuple(axes[op.permutation.index(i)] for i in range(len(x)))]


def _expand(op: Expand, axes: Axes, x: Shape) -> Parts | None:
    parts = _broadcast(axes, op.shape, (x,))
    return None if parts is None else (Expand(tuple(axis.size for axis in axes)), parts)


def _reshape(op: Reshape, axes: Axes, x: Shape) -> Parts | None:
    """Dimensions that are split or merged, and others beside them, in groups of the same number of elements."""
    if 0 in (*x, *op.shape):
        return None
    part: list[Axis] = []
    for old, new in _groups(x, op.shape):
        kept = axes[new]
        if kept == _all(op.shape[new]):
            part += _all(x[old])
            continue
        flat = _merged(kept, op.shape[new])
        split = None if flat is None else _split(flat, x[old])
        if split is None:
            return None
        part += split
    return Reshape(tuple(axis.size for axis in axes)), [tuple(part)]


def _groups(old: Shape, new: Shape) -> list[tuple[slice, slice]]:
    """Return the smallest runs of dimensions, one run of each shape at a time, that hold as many elements."""
    found: list[tuple[slice, slice]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        ends = ((a, b) for a in range(i, len(old) + 1) for b in range(j, len(new) + 1) if a > i or b > j)
        a, b = min(
            ((a, b) for a, b in ends if volume(old[i:a]) == volume(new[j:b])),
            key=sum,
            default=(len(old), len(new)),
        )
        found.append((slice(i, a), slice(j, b)))
        i, j = a, b
    return found


def _merged(axes: Sequence[Axis], shape: Shape) -> Axis | None:
    """Return what a part of some dimensions is along the one that they merge to, where that is a slice of it."""
    merged = Axis(0, 1)
    inner: DimLike = 1  # elements of the dimensions merged so far
    for axis, dim in zip(reversed(axes), reversed(shape), strict=True):
        if axis.size == 1:
            merged = Axis(axis.start * inner + merged.start, merged.size, merged.stride)
        elif merged.size == 1 and isinstance(inner, int):
            merged = Axis(axis.start * inner + merged.start, axis.size, axis.stride * inner)
        elif merged == _whole(inner) and axis.stride == 1:
            merged = Axis(axis.start * inner, axis.size * inner)
        else:
            return None
        inner = dim * inner
    return merged


def _split(axis: Axis, shape: Shape) -> list[Axis] | None:
    """Return what a slice of the dimension that some merge to is along each of them, where it is a slice of each."""
    parts: list[Axis] = []
    for i in range(len(shape)):
        inner = volume(shape[i + 1 :])
        if inner == 1:
            parts.append(axis)
            axis = _whole(1)
            continue
        if not isinstance(inner, int) or not isinstance(axis.start, int):
            return None
        row, column = divmod(axis.start, inner)
        if axis.size == 1:
            parts.append(Axis(row, 1))
            axis = Axis(column, 1)
        elif axis.stride % inner == 0:
            parts.append(Axis(row, axis.size, axis.stride // inner))
            axis = Axis(column, 1)
        elif isinstance(axis.size, int) and axis.stride == 1 and column == axis.size % inner == 0:
            parts.append(Axis(row, axis.size // inner))
            axis = _whole(inner)
        elif isinstance(axis.size, int) and 0 <= column + (axis.size - 1) * axis.stride < inner:
            parts.append(Axis(row, 1))
            axis = Axis(column, axis.size, axis.stride)
        else:
            return None
    return parts


_RULES: dict[type[Op], Callable[..., Parts | None]] = {
    Activation: _elementwise,
    Attention: _attention,
    Cast: _elementwise,
    Elementwise: _elementwise,
    Expand: _expand,
    MatrixMultiply: _matrix_multiply,
    Normalization: _normalization,
    Reshape: _reshape,
    Select: _elementwise,
    Softmax: _softmax,
    Transpose: _transpose,
    Unary: _elementwise,
}
