"""`Lowering`: the IR builder with what aten's semantics need (promotion, broadcasting, negative axes)."""

from __future__ import annotations

__all__ = ["Lowering", "Number", "Operand"]

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch

from trt_backend.ir.dims import Dim
from trt_backend.ir.graph import Value
from trt_backend.ir.layers import LayerBuilder
from trt_backend.ir.ops.elementwise import (
    Elementwise,
    ElementwiseKind,
    Select,
)
from trt_backend.ir.ops.layout import Extent
from trt_backend.ir.types import DType, TensorType
from trt_backend_torch.types import DTYPES, TORCH_DTYPES

Number: TypeAlias = int | float | bool
Operand: TypeAlias = Value | Dim | int | float | bool
"""What an elementwise argument may be: a tensor, a symbolic integer or a Python number."""


class Lowering(LayerBuilder):
    """A builder that lowering rules write to.

    Attributes:
        results: the types that torch promises for the outputs of the call being lowered (None for an output that is
            no tensor); `result` is the first.
    """

    results: tuple[TensorType | None, ...] = ()

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._stand_ins: dict[Value, Value] = {}

    @property
    def result(self) -> TensorType:
        """The promised type of the first output."""
        first = self.results[0]
        assert first is not None
        return first

    # Values and types

    def widened(self, stand_in: Value, dtype: DType) -> Value:
        """Return an input as a value of `dtype`, for which it stands at the border of the engine."""
        value = self.cast(stand_in, dtype)
        self._stand_ins[value] = stand_in
        return value

    def from_words(self, words: Value) -> Value:
        """Return 64-bit integers as int32, those out of its range as its nearest.

        Args:
            words: int32 [..., 2]: the halves of each number, the low one first, as they lie in memory.
        """
        *shape, _ = words.shape
        low, high = (self.reshape(self.slice(words, len(shape), i, 1), shape) for i in range(2))
        least, most = np.iinfo(np.int32).min, np.iinfo(np.int32).max

        def if_negative(x: Value, yes: int, no: int) -> Value:
            return self.select(
                self.elementwise(ElementwiseKind.LESS, x, 0, DType.INT32), yes, no, DType.INT32
            )

        fits = self.elementwise(ElementwiseKind.EQUAL, high, if_negative(low, -1, 0), DType.INT32)
        return self.select(fits, low, if_negative(high, least, most), DType.INT32)

    def cast(self, x: Value, dtype: DType) -> Value:
        """Return x in `dtype`: the stand-in itself in its own; floats are rounded to it as a cast would, integers are cut off."""
        stand_in = self._stand_ins.get(x)
        return stand_in if stand_in is not None and stand_in.dtype is dtype else super().cast(x, dtype)

    def value(self, x: Operand, dtype: DType, rank: int = 0) -> Value:
        """Return an operand as a value of `dtype` and at least `rank` dimensions (new ones lead, of size 1)."""
        if isinstance(x, Value):
            return self.with_rank(self.cast(x, dtype), rank)
        if isinstance(x, Dim):
            return self.with_rank(self.cast(self.add(Extent(x)), dtype), rank)
        return self.full((1,) * rank, x, dtype)

    def promoted(self, x: Operand, y: Operand) -> DType:
        """Return the dtype that torch computes a binary op in (scalars and 0-d tensors take part by category)."""
        return DTYPES[torch.result_type(_stand_in(x), _stand_in(y))]

    # Elementwise

    def elementwise(self, kind: ElementwiseKind, x: Operand, y: Operand, dtype: DType) -> Value:
        """Return a binary op computed in `dtype` on broadcast operands."""
        rank = max(_rank(x), _rank(y))
        return self.add(Elementwise(kind), self.value(x, dtype, rank), self.value(y, dtype, rank))

    def select(self, condition: Value, x: Operand, y: Operand, dtype: DType) -> Value:
        """Return `condition ? x : y` in `dtype` on broadcast operands."""
        rank = max(_rank(condition), _rank(x), _rank(y))
        branches = (self.value(x, dtype, rank), self.value(y, dtype, rank))
        return self.add(Select(), self.with_rank(condition, rank), *branches)

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


def _stand_in(x: Operand) -> torch.Tensor | Number:
    """Return what promotes as x does."""
    if isinstance(x, Value):
        return torch.empty((1,) * min(x.type.rank, 1), dtype=TORCH_DTYPES[x.dtype], device="meta")
    return 1 if isinstance(x, Dim) else x


def _rank(x: Operand) -> int:
    return x.type.rank if isinstance(x, Value) else 0
