"""Ops that look along axes, in other ops: normalization, cumulative sums, pooling of one dimension."""

from __future__ import annotations

__all__ = ["EXPANSIONS"]

import dataclasses

from trt_backend.ir.builder import Builder
from trt_backend.ir.graph import Value
from trt_backend.ir.ops.base import Op
from trt_backend.ir.ops.elementwise import ElementwiseKind
from trt_backend.ir.ops.layout import Pad, PadMode, Slice
from trt_backend.ir.ops.reduction import (
    CumulativeSum,
    Normalization,
    Pooling,
    PoolingKind,
    Reduce,
    ReduceKind,
)
from trt_backend.passes.expansions.base import Expansion, binary, deviation, reshape


def normalization(b: Builder, op: Normalization, x: Value, *affine: Value) -> Value:
    """Center, divide by the deviation, then scale and shift."""
    average = Reduce(ReduceKind.AVG, tuple(range(op.axis, x.type.rank)), keep_dims=True)
    centered = binary(b, ElementwiseKind.SUB, x, b.add(average, x))
    variance = b.add(average, binary(b, ElementwiseKind.PROD, centered, centered))
    y = binary(b, ElementwiseKind.DIV, centered, deviation(b, variance, op.epsilon))
    for kind, vector in zip((ElementwiseKind.PROD, ElementwiseKind.SUM), affine, strict=False):
        y = binary(b, kind, y, reshape(b, vector, *(1,) * op.axis, *vector.shape))
    return y


def cumulative_sum(b: Builder, op: CumulativeSum, x: Value) -> Value | None:
    """Add shifted copies, the shift doubling each time: log2(n) steps (Hillis and Steele 1986), exact for integers.

    A product with a triangular matrix would be one step, but turns one infinity into NaN everywhere.
    """
    size = x.shape[op.axis]
    if not isinstance(size, int):
        return None
    y = _shifted(b, x, op, 1) if op.exclusive and size > 0 else x
    shift = 1
    while shift < size:
        y = binary(b, ElementwiseKind.SUM, y, _shifted(b, y, op, shift))
        shift *= 2
    return y


def pooling(b: Builder, op: Pooling, x: Value) -> Value | None:
    """One window over all as a reduction; one spatial dimension as two, of which the first has size 1."""
    if _covers_all(op, x):
        kind = ReduceKind.MAX if op.kind is PoolingKind.MAX else ReduceKind.AVG
        return b.add(Reduce(kind, tuple(range(2, x.type.rank)), keep_dims=True), x)
    if x.type.rank != 3:
        return None
    lifted = dataclasses.replace(
        op,
        window=(1, *op.window),
        stride=(1, *op.stride),
        pre_padding=(0, *op.pre_padding),
        post_padding=(0, *op.post_padding),
    )
    y = b.add(lifted, reshape(b, x, *x.shape[:2], 1, x.shape[2]))
    return reshape(b, y, *y.shape[:2], y.shape[3])


def _covers_all(op: Pooling, x: Value) -> bool:
    (result,) = op.infer(x.type)
    inside = (
        isinstance(size, int) and size <= window for size, window in zip(x.shape[2:], op.window, strict=True)
    )
    one = all(size == 1 for size in result.shape[2:])
    return one and all(inside) and not any((*op.pre_padding, *op.post_padding))


def _shifted(b: Builder, x: Value, op: CumulativeSum, shift: int) -> Value:
    """Return x moved by `shift` along the axis in the direction of the sum, zeros moving in."""

    def along_axis(value: int) -> tuple[int, ...]:
        return tuple(value if i == op.axis else 0 for i in range(x.type.rank))

    size = x.shape[op.axis]
    assert isinstance(size, int), "the caller has checked it"
    start = along_axis(shift if op.reverse else 0)
    kept = tuple(size - shift if i == op.axis else dim for i, dim in enumerate(x.shape))
    part = b.add(Slice(start, kept, (1,) * x.type.rank), x)
    before, after = (0, shift) if op.reverse else (shift, 0)
    zero = b.constant(0, x.dtype)
    return b.add(Pad(PadMode.CONSTANT, along_axis(before), along_axis(after)), part, zero)


EXPANSIONS: dict[type[Op], Expansion] = {
    CumulativeSum: cumulative_sum,
    Normalization: normalization,
    Pooling: pooling,
}
