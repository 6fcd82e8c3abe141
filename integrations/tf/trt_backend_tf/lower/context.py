"""`Lowering`: the IR builder with what TensorFlow's semantics need; `Known`: integers that are known without a call."""

from __future__ import annotations

__all__ = ["Known", "Lowering", "Number", "Operand"]

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from trt_backend.errors import UnsupportedError
from trt_backend.ir.dims import Dim, DimLike
from trt_backend.ir.graph import Value
from trt_backend.ir.layers import LayerBuilder
from trt_backend.ir.ops.elementwise import (
    Elementwise,
    ElementwiseKind,
    Select,
)
from trt_backend.ir.ops.layout import Concatenation, Extent
from trt_backend.ir.types import DType

Number: TypeAlias = int | float | bool


@dataclass(frozen=True, eq=False)
class Known:
    """A tensor whose elements are known when the graph is lowered: integers, or sizes of the graph's inputs.

    What TensorFlow computes shapes with. `array` has the elements as objects (`int | Dim`).
    """

    array: np.ndarray[Any, Any]
    dtype: DType

    @classmethod
    def of(cls, elements: Any, dtype: DType) -> Known:
        """Return what nested sequences of `int | Dim` hold."""
        return cls(np.array(elements, dtype=object), dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the tensor itself."""
        return self.array.shape

    def dims(self) -> tuple[DimLike, ...]:
        """Return the elements in row-major order."""
        return tuple(e if isinstance(e, Dim) else int(e) for e in self.array.reshape(-1).tolist())

    def static(self, what: str) -> tuple[int, ...]:
        """Return the elements as integers (UnsupportedError, naming `what`, where one is symbolic)."""
        dims = self.dims()
        dynamic = [dim for dim in dims if isinstance(dim, Dim)]
        if dynamic:
            raise UnsupportedError(f"{what} is dynamic ({dynamic[0]})")
        return tuple(dim for dim in dims if isinstance(dim, int))


Operand: TypeAlias = Value | Known


class Lowering(LayerBuilder):
    """A builder that lowering rules write to.

    Attributes:
        limits: numbers that are negative in calls that the graph does not compute as TensorFlow would.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.limits: list[DimLike] = []

    # Calls that TensorFlow refuses

    def agree(self, sizes: Sequence[DimLike], others: Sequence[DimLike]) -> None:
        """Note sizes that must be equal, where TensorFlow does not broadcast (UnsupportedError where they never are)."""
        for size, other in zip(sizes, others, strict=True):
            difference = size - other
            if isinstance(difference, int) and difference:
                raise UnsupportedError(f"the sizes {size} and {other}, which must be equal")
            self.limits += [difference, -difference]

    # Values

    def value(self, x: Operand) -> Value:
        """Return an operand as a value."""
        if isinstance(x, Value):
            return x
        dims = x.dims()
        if not any(isinstance(dim, Dim) for dim in dims):
            return self.constant(np.array(dims, x.dtype.numpy).reshape(x.shape))
        parts = [self.reshape(self.size(dim, DType.INT64), (1,)) for dim in dims]
        joined = self.add(Concatenation(0), *parts) if len(parts) > 1 else parts[0]
        return self.cast(self.reshape(joined, x.shape), x.dtype)

    def known(self, x: Operand) -> Known | None:
        """Return the elements of an operand that are integers known now, or None."""
        if isinstance(x, Known):
            return x
        constant = self.constant_of(x)
        if constant is None or x.dtype.is_float:
            return None
        return Known(constant.array.astype(object), x.dtype)

    def size(self, dim: DimLike, dtype: DType) -> Value:
        """Return a dimension as a scalar."""
        return self.cast(self.add(Extent(dim)), dtype) if isinstance(dim, Dim) else self.full((), dim, dtype)

    def filled(self, shape: Sequence[DimLike], number: Number, dtype: DType) -> Value:
        """Return one number in a shape that may be symbolic."""
        return self.expand(self.full((1,) * len(shape), number, dtype), shape)

    # Elementwise

    def elementwise(self, kind: ElementwiseKind, x: Value, y: Value | Number) -> Value:
        """Return a binary op on broadcast operands of one dtype; a number is one in the dtype of x."""
        if not isinstance(y, Value):
            y = self.full((1,) * x.type.rank, y, x.dtype)
        rank = max(x.type.rank, y.type.rank)
        return self.add(Elementwise(kind), self.with_rank(x, rank), self.with_rank(y, rank))

    def select(self, condition: Value, x: Value | Number, y: Value | Number, dtype: DType) -> Value:
        """Return `condition ? x : y` on broadcast operands."""
        branches = [v if isinstance(v, Value) else self.full((), v, dtype) for v in (x, y)]
        rank = max(v.type.rank for v in (condition, *branches))
        return self.add(Select(), *(self.with_rank(v, rank) for v in (condition, *branches)))

    # Layout

    def channels_first(self, x: Value) -> Value:
        """Return [N, *spatial, C] as [N, C, *spatial]."""
        rank = x.type.rank
        return self.transpose(x, (0, rank - 1, *range(1, rank - 1)))

    def channels_last(self, x: Value) -> Value:
        """Return [N, C, *spatial] as [N, *spatial, C]."""
        return self.transpose(x, (0, *range(2, x.type.rank), 1))

    # Arguments

    def axis(self, axis: int, rank: int) -> int:
        """Return a possibly negative axis in [0, rank)."""
        return axis + rank if axis < 0 else axis
