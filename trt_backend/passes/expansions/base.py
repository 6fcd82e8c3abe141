"""What expansions are written with: ops applied to values and to Python numbers."""

from __future__ import annotations

__all__ = ["Expansion", "binary", "deviation", "filled", "per_axis", "reshape", "select", "unary"]

from collections.abc import Callable

import numpy as np

from trt_backend.ir.builder import Builder
from trt_backend.ir.dims import DimLike
from trt_backend.ir.graph import Value
from trt_backend.ir.ops.elementwise import Elementwise, ElementwiseKind, Select, Unary, UnaryKind
from trt_backend.ir.ops.layout import Reshape
from trt_backend.ir.types import DType

Expansion = Callable[..., Value | None]
"""`(builder, op, *inputs)` to the one output of the op, or None where this expansion does not apply.

All stay in the operands' dtype: float16 and bfloat16 are not widened behind the user's back.
"""


def filled(b: Builder, value: float, rank: int, dtype: DType) -> Value:
    """Return a constant of one element that broadcasts to any shape of that rank."""
    return b.constant(np.full((1,) * rank, value).astype(dtype.numpy))


def unary(b: Builder, kind: UnaryKind, x: Value) -> Value:
    """Apply one unary operation."""
    return b.add(Unary(kind), x)


def binary(b: Builder, kind: ElementwiseKind, left: Value | float, right: Value | float) -> Value:
    """Apply one binary operation to two values, or to a value and a number."""
    like = left if isinstance(left, Value) else right
    assert isinstance(like, Value), "one of the two is a value"
    operands = (
        side if isinstance(side, Value) else filled(b, side, like.type.rank, like.dtype)
        for side in (left, right)
    )
    return b.add(Elementwise(kind), *operands)


def select(b: Builder, condition: Value, x: Value | float, y: Value | float) -> Value:
    """Return x where the condition holds and y elsewhere; one of the two may be a number."""
    like = x if isinstance(x, Value) else y
    assert isinstance(like, Value), "one of the two is a value"
    branches = (
        side if isinstance(side, Value) else filled(b, side, like.type.rank, like.dtype) for side in (x, y)
    )
    return b.add(Select(), condition, *branches)


def deviation(b: Builder, variance: Value, epsilon: float) -> Value:
    """Return `sqrt(variance + epsilon)`, where no epsilon vanishes: float16 would make 0 of 1e-12, and NaN of a row."""
    if variance.dtype is DType.FLOAT16 and epsilon > 0:
        epsilon = max(epsilon, float(np.finfo(np.float16).smallest_subnormal))
    return unary(b, UnaryKind.SQRT, binary(b, ElementwiseKind.SUM, variance, epsilon))


def reshape(b: Builder, x: Value, *shape: DimLike) -> Value:
    """Reshape."""
    return b.add(Reshape(shape), x)


def per_axis(b: Builder, vector: Value, axis: int, rank: int) -> Value:
    """Reshape a vector so that it broadcasts along `axis` of a tensor of that rank."""
    return reshape(b, vector, *(vector.shape[0] if i == axis else 1 for i in range(rank)))
