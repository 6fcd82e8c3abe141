"""Ops that look along axes: reductions, softmax, normalization, top-k, cumulative sums, pooling."""

from __future__ import annotations

__all__ = [
    "CumulativeSum",
    "Normalization",
    "Pooling",
    "PoolingKind",
    "Reduce",
    "ReduceKind",
    "Softmax",
    "TopK",
    "TopKKind",
]

from dataclasses import dataclass
from enum import Enum

from trt_backend.ir.dims import DimLike
from trt_backend.ir.ops.base import Op, Types, normalized_axis, require, same_dtype
from trt_backend.ir.types import DType, TensorType


class ReduceKind(Enum):
    """TensorRT's ReduceOperation."""

    SUM = "sum"
    PROD = "prod"
    MAX = "max"
    MIN = "min"
    AVG = "avg"


@dataclass(frozen=True)
class Reduce(Op):
    """IReduceLayer over at least one axis; AVG takes floats; MAX and MIN propagate NaN."""

    kind: ReduceKind
    axes: tuple[int, ...]
    keep_dims: bool

    def infer(self, *inputs: TensorType) -> Types:
        """Return the shape without the axes, or with size 1 there."""
        (x,) = inputs
        require(
            bool(self.axes) and len(set(self.axes)) == len(self.axes), f"axes {self.axes} are not distinct"
        )
        for axis in self.axes:
            normalized_axis(axis, x.rank)
        require(x.dtype is not DType.BOOL, "takes numbers, not bool")
        require(self.kind is not ReduceKind.AVG or x.dtype.is_float, f"avg takes floats, not {x.dtype.value}")
        kept = (
            1 if i in self.axes else dim
            for i, dim in enumerate(x.shape)
            if self.keep_dims or i not in self.axes
        )
        return (x.with_shape(kept),)


@dataclass(frozen=True)
class Softmax(Op):
    """ISoftMaxLayer along one axis."""

    axis: int

    def infer(self, *inputs: TensorType) -> Types:
        """Return the input's type."""
        (x,) = inputs
        normalized_axis(self.axis, x.rank)
        require(x.dtype.is_float, f"takes floats, not {x.dtype.value}")
        return (x,)


@dataclass(frozen=True)
class Normalization(Op):
    """INormalizationLayer over the dimensions from `axis` on (layer normalization; others are reshaped to it).

    Operands x, and optionally scale, and then bias, of the shape of the normalized dimensions.
    """

    axis: int
    epsilon: float

    def infer(self, *inputs: TensorType) -> Types:
        """Return the type of x."""
        x, *affine = inputs
        normalized_axis(self.axis, x.rank)
        require(same_dtype(*inputs).is_float, f"takes floats, not {x.dtype.value}")
        require(len(affine) <= 2, "takes x and at most scale and bias")
        for operand in affine:
            require(
                operand.rank == x.rank - self.axis, f"{operand} does not fit {x} from axis {self.axis} on"
            )
        return (x,)


class TopKKind(Enum):
    """TensorRT's TopKOperation."""

    MAX = "max"
    MIN = "min"


@dataclass(frozen=True)
class TopK(Op):
    """ITopKLayer: the k largest (or smallest) along an axis, sorted; equal elements in the order of their index."""

    kind: TopKKind
    k: int
    axis: int

    def infer(self, *inputs: TensorType) -> Types:
        """Return values and their int32 indices."""
        (x,) = inputs
        normalized_axis(self.axis, x.rank)
        size = x.shape[self.axis]
        require(x.dtype is not DType.BOOL, "takes numbers, not bool")
        require(
            self.k >= 1 and not (isinstance(size, int) and self.k > size), f"k={self.k} is not in [1, {size}]"
        )
        shape = (self.k if i == self.axis else dim for i, dim in enumerate(x.shape))
        values = x.with_shape(shape)
        return values, values.with_dtype(DType.INT32)


@dataclass(frozen=True)
class CumulativeSum(Op):
    """ICumulativeLayer with SUM along one axis."""

    axis: int
    exclusive: bool = False
    reverse: bool = False

    def infer(self, *inputs: TensorType) -> Types:
        """Return the input's type."""
        (x,) = inputs
        normalized_axis(self.axis, x.rank)
        require(x.dtype is not DType.BOOL, "takes numbers, not bool")
        return (x,)


class PoolingKind(Enum):
    """TensorRT's PoolingType."""

    MAX = "max"
    AVERAGE = "average"


@dataclass(frozen=True)
class Pooling(Op):
    """IPoolingLayer over 1 to 3 spatial dimensions of [N, C, *spatial].

    Attributes:
        count_padding: whether AVERAGE divides by the whole window where it overlaps the padding.
        round_up: whether a window that starts inside the input or its leading padding, but ends outside, counts
            (EXPLICIT_ROUND_UP); AVERAGE never counts what lies beyond the padding.
    """

    kind: PoolingKind
    window: tuple[int, ...]
    stride: tuple[int, ...]
    pre_padding: tuple[int, ...]
    post_padding: tuple[int, ...]
    count_padding: bool = False
    round_up: bool = False

    def infer(self, *inputs: TensorType) -> Types:
        """Return [N, C, *output spatial]."""
        (x,) = inputs
        spatial = x.rank - 2
        require(x.dtype.is_float and 1 <= spatial <= 3, f"takes floats of rank 3 to 5, not {x}")
        for name in ("window", "stride", "pre_padding", "post_padding"):
            require(len(getattr(self, name)) == spatial, f"{name} has not {spatial} entries")
        return (
            x.with_shape((*x.shape[:2], *(self._output_size(x.shape[2 + i], i) for i in range(spatial)))),
        )

    def _output_size(self, size: DimLike, i: int) -> DimLike:
        stride = self.stride[i]
        span = size + self.pre_padding[i] + self.post_padding[i] - self.window[i]
        if not self.round_up:
            return span // stride + 1
        count = (span + (stride - 1)) // stride + 1
        if (
            isinstance(count, int)
            and isinstance(size, int)
            and (count - 1) * stride >= size + self.pre_padding[i]
        ):
            return count - 1
        return count
