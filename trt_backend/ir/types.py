"""Element types and tensor types."""

from __future__ import annotations

__all__ = ["DType", "Shape", "TensorType", "is_static", "volume"]

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import ml_dtypes
import numpy as np

from trt_backend.ir.dims import Dim, DimLike

Shape = tuple[DimLike, ...]


class DType(Enum):
    """An element type; the value is its name in the text form."""

    BOOL = "bool"
    INT8 = "i8"
    UINT8 = "u8"
    INT32 = "i32"
    INT64 = "i64"
    FLOAT16 = "f16"
    BFLOAT16 = "bf16"
    FLOAT32 = "f32"
    FLOAT64 = "f64"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy element type."""
        return _NUMPY[self]

    @property
    def is_float(self) -> bool:
        """Whether this is a floating-point type."""
        return self in _FLOATS

    @property
    def is_integer(self) -> bool:
        """Whether this is an integer type (bool is none)."""
        return self in (DType.INT8, DType.UINT8, DType.INT32, DType.INT64)

    @staticmethod
    def from_numpy(dtype: np.dtype[Any]) -> DType:
        """Return the element type of a NumPy dtype (KeyError where there is none)."""
        return _FROM_NUMPY[np.dtype(dtype)]


_FLOATS = frozenset({DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32, DType.FLOAT64})
_NUMPY: dict[DType, np.dtype[Any]] = {
    DType.BOOL: np.dtype(np.bool_),
    DType.INT8: np.dtype(np.int8),
    DType.UINT8: np.dtype(np.uint8),
    DType.INT32: np.dtype(np.int32),
    DType.INT64: np.dtype(np.int64),
    DType.FLOAT16: np.dtype(np.float16),
    DType.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
    DType.FLOAT32: np.dtype(np.float32),
    DType.FLOAT64: np.dtype(np.float64),
}
_FROM_NUMPY = {numpy: dtype for dtype, numpy in _NUMPY.items()}


@dataclass(frozen=True)
class TensorType:
    """A dtype and a shape whose entries are integers or symbolic dimensions."""

    dtype: DType
    shape: Shape

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def byte_count(self) -> int:
        """The size in bytes of a dense tensor of static shape (ValueError where a dimension is symbolic)."""
        count = volume(self.shape)
        if not isinstance(count, int):
            raise ValueError(f"{self} has no static size")  # noqa: TRY004
        return count * self.dtype.numpy.itemsize

    def with_shape(self, shape: Iterable[DimLike]) -> TensorType:
        """Return this type with another shape."""
        return TensorType(self.dtype, tuple(shape))

    def with_dtype(self, dtype: DType) -> TensorType:
        """Return this type with another dtype."""
        return TensorType(dtype, self.shape)

    def __str__(self) -> str:
        return f"{self.dtype.value}[{', '.join(map(str, self.shape))}]"


def is_static(shape: Shape) -> bool:
    """Whether every dimension is an integer."""
    return not any(isinstance(dim, Dim) for dim in shape)


def volume(shape: Shape) -> DimLike:
    """Return the number of elements."""
    total: DimLike = 1
    for dim in shape:
        total = total * dim
    return total
