"""Ops that move elements, in other ops: padding from slices, gathers by one index, and what a target moves as float32 only."""

from __future__ import annotations

__all__ = ["EXPANSIONS"]

from collections.abc import Iterable

from trt_backend.ir.builder import Builder
from trt_backend.ir.dims import DimLike
from trt_backend.ir.graph import Value
from trt_backend.ir.ops.base import Op
from trt_backend.ir.ops.elementwise import Cast
from trt_backend.ir.ops.layout import Concatenation, Expand, Gather, GatherND, Identity, Pad, PadMode, Slice
from trt_backend.ir.types import DType
from trt_backend.passes.expansions.base import Expansion, reshape


def identity(b: Builder, op: Identity, x: Value) -> Value:
    """The operand itself."""
    return x


def expand(b: Builder, op: Expand, x: Value) -> Value | None:
    """bfloat16 in float32, which has all its values."""
    if x.dtype is not DType.BFLOAT16:
        return None
    return b.add(Cast(DType.BFLOAT16), b.add(op, b.add(Cast(DType.FLOAT32), x)))


def gather_nd(b: Builder, op: GatherND, x: Value, indices: Value) -> Value | None:
    """An index of depth 1 picks slices along the first axis."""
    if indices.shape[-1] != 1:
        return None
    return b.add(Gather(0), x, reshape(b, indices, *indices.shape[:-1]))


def pad(b: Builder, op: Pad, x: Value, *fill: Value) -> Value:
    """Join borders and operand, axis by axis."""
    for axis, (before, after) in enumerate(zip(op.before, op.after, strict=True)):
        parts = [x]
        if before:
            parts.insert(0, _border(b, op.mode, x, fill, axis, before, at_end=False))
        if after:
            parts.append(_border(b, op.mode, x, fill, axis, after, at_end=True))
        x = b.add(Concatenation(axis), *parts)
    return x


def _border(
    b: Builder, mode: PadMode, x: Value, fill: tuple[Value, ...], axis: int, width: int, *, at_end: bool
) -> Value:
    def at_axis(value: DimLike, elsewhere: Iterable[DimLike]) -> tuple[DimLike, ...]:
        return tuple(value if i == axis else other for i, other in enumerate(elsewhere))

    rank, size = x.type.rank, x.shape[axis]
    border = at_axis(width, x.shape)
    if mode is PadMode.CONSTANT:
        return b.add(Expand(border), reshape(b, fill[0], *(1,) * rank))
    if mode is PadMode.EDGE:
        edge = Slice(at_axis(size - 1 if at_end else 0, (0,) * rank), at_axis(1, x.shape), (1,) * rank)
        return b.add(Expand(border), b.add(edge, x))
    start = at_axis(size - 2 if at_end else width, (0,) * rank)
    return b.add(Slice(start, border, tuple(-1 if i == axis else 1 for i in range(rank))), x)


EXPANSIONS: dict[type[Op], Expansion] = {
    Expand: expand,
    GatherND: gather_nd,
    Identity: identity,
    Pad: pad,
}
