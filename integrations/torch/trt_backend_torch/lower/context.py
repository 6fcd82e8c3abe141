"""`Lowering`: the IR builder with what aten's semantics need (promotion, broadcasting, negative axes)."""

from __future__ import annotations

__all__ = ["Lowering", "Number", "Operand"]

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import torch

from trt_backend.errors import UnsupportedError
from trt_backend.ir.builder import Builder
from trt_backend.ir.dims import Dim, DimLike
from trt_backend.ir.graph import Value
from trt_backend.ir.ops.elementwise import (
    Activation,
    ActivationKind,
    Cast,
    Elementwise,
    ElementwiseKind,
    Select,
    Unary,
    UnaryKind,
)
from trt_backend.ir.ops.layout import Expand, Extent, Reshape, Slice, Transpose
from trt_backend.ir.ops.reduction import Reduce, ReduceKind
from trt_backend.ir.types import DType, TensorType
from trt_backend_torch.types import DTYPES, TORCH_DTYPES

Number: TypeAlias = int | float | bool
Operand: TypeAlias = Value | Dim | int | float | bool
"""What an elementwise argument may be: a tensor, a symbolic integer or a Python number."""


class Lowering(Builder):
    """A builder that lowering rules write to.

    Attributes:
        results: the types that torch promises for the outputs of the call being lowered (None for an output that is
            no tensor); `result` is the first.
    """

    results: tuple[TensorType | None, ...] = ()

    @property
    def result(self) -> TensorType:
        """The promised type of the first output."""
        first = self.results[0]
        assert first is not None
        return first

    # Values and types

    def value(self, x: Operand, dtype: DType, rank: int = 0) -> Value:
        """Return an operand as a value of `dtype` and at least `rank` dimensions (new ones lead, of size 1)."""
        if isinstance(x, Value):
            return self.with_rank(self.cast(x, dtype), rank)
        if isinstance(x, Dim):
            return self.with_rank(self.cast(self.add(Extent(x)), dtype), rank)
        return self.full((1,) * rank, x, dtype)

    def full(self, shape: Sequence[int], number: Number, dtype: DType) -> Value:
        """Return a constant of one number; as in torch, a float that `dtype` cannot hold is infinite, an integer wraps."""
        with np.errstate(all="ignore"):
            return self.constant(np.full(tuple(shape), np.asarray(number).astype(dtype.numpy)))

    def promoted(self, x: Operand, y: Operand) -> DType:
        """Return the dtype that torch computes a binary op in (scalars and 0-d tensors take part by category)."""
        return DTYPES[torch.result_type(_stand_in(x), _stand_in(y))]

    def cast(self, x: Value, dtype: DType) -> Value:
        """Return x in `dtype`."""
        return x if x.dtype is dtype else self.add(Cast(dtype), x)

    def with_rank(self, x: Value, rank: int) -> Value:
        """Return x with leading dimensions of size 1 up to `rank`."""
        return self.reshape(x, (1,) * (rank - x.type.rank) + x.shape)

    # Elementwise

    def elementwise(self, kind: ElementwiseKind, x: Operand, y: Operand, dtype: DType) -> Value:
        """Return a binary op computed in `dtype` on broadcast operands."""
        rank = max(_rank(x), _rank(y))
        return self.add(Elementwise(kind), self.value(x, dtype, rank), self.value(y, dtype, rank))

    def unary(self, kind: UnaryKind, x: Value) -> Value:
        """Return a unary op."""
        return self.add(Unary(kind), x)

    def activation(self, kind: ActivationKind, x: Value, alpha: float = 0.0, beta: float = 0.0) -> Value:
        """Return an activation."""
        return self.add(Activation(kind, alpha, beta), x)

    def select(self, condition: Value, x: Operand, y: Operand, dtype: DType) -> Value:
        """Return `condition ? x : y` in `dtype` on broadcast operands."""
        rank = max(_rank(condition), _rank(x), _rank(y))
        branches = (self.value(x, dtype, rank), self.value(y, dtype, rank))
        return self.add(Select(), self.with_rank(condition, rank), *branches)

    # Layout

    def reshape(self, x: Value, shape: Iterable[DimLike]) -> Value:
        """Return x in another shape."""
        target = tuple(shape)
        return x if x.shape == target else self.add(Reshape(target), x)

    def transpose(self, x: Value, permutation: Iterable[int]) -> Value:
        """Return x with its dimensions in another order."""
        order = tuple(permutation)
        return x if order == tuple(range(len(order))) else self.add(Transpose(order), x)

    def expand(self, x: Value, shape: Iterable[DimLike]) -> Value:
        """Return x broadcast to `shape`, with new leading dimensions as needed."""
        target = tuple(shape)
        x = self.with_rank(x, len(target))
        return x if x.shape == target else self.add(Expand(target), x)

    def slice(self, x: Value, axis: int, start: DimLike, size: DimLike, stride: int = 1) -> Value:
        """Return `size` elements from `start` on along one axis."""
        rank = x.type.rank
        starts, sizes, strides = [0] * rank, list(x.shape), [1] * rank
        starts[axis], sizes[axis], strides[axis] = start, size, stride  # type: ignore[call-overload]
        return self.add(Slice(tuple(starts), tuple(sizes), tuple(strides)), x)

    # Reductions

    def reduce(self, kind: ReduceKind, x: Value, axes: Sequence[int], *, keep_dims: bool) -> Value:
        """Return a reduction over `axes` (in [0, rank)); none at all changes nothing."""
        return self.add(Reduce(kind, tuple(sorted(axes)), keep_dims), x) if axes else x

    # Arguments

    def axis(self, axis: int, rank: int) -> int:
        """Return a possibly negative axis in [0, rank); scalars count as rank 1."""
        return axis % max(rank, 1)

    def axes(self, axes: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
        """Return sorted axes in [0, rank); None and none at all mean every axis; a scalar has none."""
        if not rank or axes is None or (not isinstance(axes, int) and not axes):
            return tuple(range(rank))
        given = (axes,) if isinstance(axes, int) else axes
        return tuple(sorted({self.axis(axis, rank) for axis in given}))

    def static(self, what: str, *dims: DimLike) -> tuple[int, ...]:
        """Return `dims` as integers (UnsupportedError, naming `what`, where one is symbolic)."""
        for dim in dims:
            if isinstance(dim, Dim):
                raise UnsupportedError(f"{what} is dynamic ({dim})")
        return tuple(int(dim) for dim in dims)  # type: ignore[arg-type]


def _stand_in(x: Operand) -> torch.Tensor | Number:
    """Return what promotes as x does."""
    if isinstance(x, Value):
        return torch.empty((1,) * min(x.type.rank, 1), dtype=TORCH_DTYPES[x.dtype], device="meta")
    return 1 if isinstance(x, Dim) else x


def _rank(x: Operand) -> int:
    return x.type.rank if isinstance(x, Value) else 0
