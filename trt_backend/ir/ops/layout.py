"""Ops that move elements: reshape, transpose, slice, gather, scatter, pad, resize, sample; and those that make them."""

from __future__ import annotations

__all__ = [
    "Concatenation",
    "Expand",
    "Extent",
    "Gather",
    "GatherElements",
    "GatherND",
    "GridSample",
    "GridSamplePadding",
    "Identity",
    "InterpolationMode",
    "Pad",
    "PadMode",
    "Range",
    "Reshape",
    "Resize",
    "ResizeCoordinates",
    "ScatterElements",
    "ScatterND",
    "Slice",
    "Transpose",
]

from dataclasses import dataclass
from enum import Enum

from trt_backend.ir.dims import Dim, DimLike
from trt_backend.ir.ops.base import Op, Types, may_agree, normalized_axis, require, same_dtype
from trt_backend.ir.types import DType, TensorType, volume

_INDEX = frozenset({DType.INT32, DType.INT64})


@dataclass(frozen=True)
class Identity(Op):
    """IIdentityLayer: the same elements under a new name."""

    def infer(self, *inputs: TensorType) -> Types:
        """Return the input's type."""
        (x,) = inputs
        return (x,)


@dataclass(frozen=True)
class Transpose(Op):
    """IShuffleLayer with a permutation: output dimension i is input dimension `permutation[i]`."""

    permutation: tuple[int, ...]

    def infer(self, *inputs: TensorType) -> Types:
        """Return the permuted shape."""
        (x,) = inputs
        require(sorted(self.permutation) == list(range(x.rank)), f"{self.permutation} does not permute {x}")
        return (x.with_shape(x.shape[i] for i in self.permutation),)


@dataclass(frozen=True)
class Reshape(Op):
    """IShuffleLayer with a reshape: the same elements, in row-major order, in another shape."""

    shape: tuple[DimLike, ...]

    def infer(self, *inputs: TensorType) -> Types:
        """Return the new shape."""
        (x,) = inputs
        before, after = volume(x.shape), volume(self.shape)
        static = isinstance(before, int) and isinstance(after, int)
        require(before == after or not static, f"{x} has not the elements of {list(self.shape)}")
        return (x.with_shape(self.shape),)


@dataclass(frozen=True)
class Expand(Op):
    """ISliceLayer with stride 0: dimensions of size 1 are repeated; the rank stays."""

    shape: tuple[DimLike, ...]

    def infer(self, *inputs: TensorType) -> Types:
        """Return the new shape."""
        (x,) = inputs
        require(x.rank == len(self.shape), f"{x} has not the rank of {list(self.shape)}")
        for old, new in zip(x.shape, self.shape, strict=True):
            static = isinstance(old, int) and isinstance(new, int)
            require(old in (1, new) or not static, f"{x} does not expand to {list(self.shape)}")
        return (x.with_shape(self.shape),)


@dataclass(frozen=True)
class Slice(Op):
    """ISliceLayer: `size` elements from `start` on, every `stride`-th, for each dimension; strides may be negative."""

    start: tuple[DimLike, ...]
    size: tuple[DimLike, ...]
    stride: tuple[int, ...]

    def infer(self, *inputs: TensorType) -> Types:
        """Return the sizes as the shape."""
        (x,) = inputs
        require(len(self.start) == len(self.size) == len(self.stride) == x.rank, f"does not slice {x}")
        for i, (dim, start, size) in enumerate(zip(x.shape, self.start, self.size, strict=True)):
            if isinstance(dim, int) and isinstance(start, int) and isinstance(size, int) and size > 0:
                last = start + (size - 1) * self.stride[i]
                require(
                    min(start, last) >= 0 and max(start, last) < dim, f"reads outside of {x} in dimension {i}"
                )
        return (x.with_shape(self.size),)


class PadMode(Enum):
    """The fill of a padded border: TensorRT's SampleMode of a slice that reads outside."""

    CONSTANT = "constant"
    REFLECT = "reflect"
    EDGE = "edge"


@dataclass(frozen=True)
class Pad(Op):
    """ISliceLayer with a mode: a border of `before` and `after` elements; both must be 0 or more.

    Operands x, and the fill as a scalar of rank 0 where the mode is CONSTANT.
    """

    mode: PadMode
    before: tuple[int, ...]
    after: tuple[int, ...]

    def infer(self, *inputs: TensorType) -> Types:
        """Return the padded shape."""
        x, *fill = inputs
        same_dtype(*inputs)
        require(
            len(fill) == (self.mode is PadMode.CONSTANT), "takes a fill where, and only where, it is constant"
        )
        require(len(self.before) == len(self.after) == x.rank, f"does not pad {x}")
        require(min((*self.before, *self.after), default=0) >= 0, "a border is 0 or more")
        padded = (dim + b + a for dim, b, a in zip(x.shape, self.before, self.after, strict=True))
        return (x.with_shape(padded),)


@dataclass(frozen=True)
class Concatenation(Op):
    """IConcatenationLayer of at least one operand along one axis."""

    axis: int

    def infer(self, *inputs: TensorType) -> Types:
        """Return the joined shape."""
        first = inputs[0]
        dtype = same_dtype(*inputs)
        normalized_axis(self.axis, first.rank)
        total: DimLike = 0
        for operand in inputs:
            require(operand.rank == first.rank, f"{operand} has not the rank of {first}")
            for i, (a, b) in enumerate(zip(operand.shape, first.shape, strict=True)):
                static = isinstance(a, int) and isinstance(b, int)
                require(i == self.axis or a == b or not static, f"{operand} does not join {first}")
            total = total + operand.shape[self.axis]
        return (TensorType(dtype, (*first.shape[: self.axis], total, *first.shape[self.axis + 1 :])),)


@dataclass(frozen=True)
class Gather(Op):
    """IGatherLayer (DEFAULT): whole slices of x along an axis, picked by an index tensor of any rank.

    Indices are in `[0, size)`.
    """

    axis: int

    def infer(self, *inputs: TensorType) -> Types:
        """Return x's shape with the axis replaced by the shape of the indices."""
        x, indices = inputs
        normalized_axis(self.axis, x.rank)
        require(indices.dtype in _INDEX, f"indices are {indices.dtype.value}, not i32 or i64")
        return (x.with_shape((*x.shape[: self.axis], *indices.shape, *x.shape[self.axis + 1 :])),)


@dataclass(frozen=True)
class GatherElements(Op):
    """IGatherLayer (ELEMENT): `out[i][j] = x[indices[i][j]][j]` for axis 0; x and indices have one rank."""

    axis: int

    def infer(self, *inputs: TensorType) -> Types:
        """Return the shape of the indices."""
        x, indices = inputs
        normalized_axis(self.axis, x.rank)
        require(indices.dtype in _INDEX and indices.rank == x.rank, f"{indices} does not index {x}")
        return (x.with_shape(indices.shape),)


@dataclass(frozen=True)
class GatherND(Op):
    """IGatherLayer (ND): the last dimension of the indices addresses the leading dimensions of x."""

    def infer(self, *inputs: TensorType) -> Types:
        """Return the index's leading shape, then what of x it does not address."""
        x, indices = inputs
        require(indices.dtype in _INDEX and indices.rank >= 1, f"{indices} does not index {x}")
        depth = indices.shape[-1]
        assert isinstance(depth, int), "the depth of an index is static"
        require(depth <= x.rank, f"{indices} does not index {x}")
        return (x.with_shape((*indices.shape[:-1], *x.shape[depth:])),)


@dataclass(frozen=True)
class ScatterElements(Op):
    """IScatterLayer (ELEMENT): a copy of x with `x[indices[i][j]][j] = updates[i][j]` for axis 0."""

    axis: int

    def infer(self, *inputs: TensorType) -> Types:
        """Return the type of x."""
        x, indices, updates = inputs
        same_dtype(x, updates)
        normalized_axis(self.axis, x.rank)
        require(
            indices.dtype in _INDEX and indices.rank == x.rank == updates.rank,
            f"{indices} does not index {x}",
        )
        return (x,)


@dataclass(frozen=True)
class ScatterND(Op):
    """IScatterLayer (ND): a copy of x where the slices that the indices address are the updates."""

    def infer(self, *inputs: TensorType) -> Types:
        """Return the type of x."""
        x, indices, updates = inputs
        same_dtype(x, updates)
        require(indices.dtype in _INDEX and indices.rank >= 1, f"{indices} does not index {x}")
        return (x,)


class InterpolationMode(Enum):
    """TensorRT's InterpolationMode; cubic convolution has the coefficient -0.75."""

    NEAREST = "nearest"
    LINEAR = "linear"
    CUBIC = "cubic"


class ResizeCoordinates(Enum):
    """TensorRT's ResizeCoordinateTransformation; nearest rounds down with ASYMMETRIC, and halves up otherwise."""

    ALIGN_CORNERS = "align_corners"
    ASYMMETRIC = "asymmetric"
    HALF_PIXEL = "half_pixel"


@dataclass(frozen=True)
class Resize(Op):
    """IResizeLayer of [N, C, *spatial] to `size` (spatial); CUBIC has two spatial dimensions.

    The source step is input size / output size, or 1 / scale where `scales` (spatial) are given: not for ALIGN_CORNERS.
    """

    mode: InterpolationMode
    coordinates: ResizeCoordinates
    size: tuple[DimLike, ...]
    scales: tuple[float, ...] = ()

    def infer(self, *inputs: TensorType) -> Types:
        """Return [N, C, *size]."""
        (x,) = inputs
        spatial = len(self.size)
        require(x.dtype.is_float and spatial == x.rank - 2 >= 1, f"does not resize {x} to {list(self.size)}")
        require(self.mode is not InterpolationMode.CUBIC or spatial == 2, f"cubic interpolation of {x}")
        free = self.coordinates is not ResizeCoordinates.ALIGN_CORNERS
        require(len(self.scales) in ({0, spatial} if free else {0}), f"does not scale {x} by {self.scales}")
        return (x.with_shape((*x.shape[:2], *self.size)),)


class GridSamplePadding(Enum):
    """What lies beyond the border: TensorRT's SampleMode FILL, CLAMP or REFLECT."""

    ZEROS = "zeros"
    BORDER = "border"
    REFLECTION = "reflection"


@dataclass(frozen=True)
class GridSample(Op):
    """IGridSampleLayer: x [N, C, H, W] read at the places of a grid [N, H', W', 2] of its type, (x, y) each.

    -1 and 1 are the centres of the outermost elements (`align_corners`), or their outer edges. Nearest rounds halves to even.
    """

    mode: InterpolationMode
    padding: GridSamplePadding
    align_corners: bool

    def infer(self, *inputs: TensorType) -> Types:
        """Return [N, C, H', W']."""
        x, grid = inputs
        require(same_dtype(x, grid).is_float, f"does not sample {x}")
        places = x.rank == grid.rank == 4 and grid.shape[-1] == 2 and may_agree(x.shape[0], grid.shape[0])
        require(places, f"{grid} has no places in {x}")
        return (x.with_shape((*x.shape[:2], *grid.shape[1:3])),)


@dataclass(frozen=True)
class Range(Op):
    """IFillLayer (LINSPACE) of rank 1: `start + i * step` for i in [0, size)."""

    size: DimLike
    start: DimLike
    step: int
    dtype: DType

    def infer(self, *inputs: TensorType) -> Types:
        """Return a vector of `size`."""
        require(not inputs, "takes no operand")
        require(self.dtype in _INDEX, f"makes i32 or i64, not {self.dtype.value}")
        return (TensorType(self.dtype, (self.size,)),)


@dataclass(frozen=True)
class Extent(Op):
    """A symbolic dimension as an int64 scalar (IShapeLayer and arithmetic on its elements)."""

    dim: Dim

    def infer(self, *inputs: TensorType) -> Types:
        """Return an int64 scalar."""
        require(not inputs, "takes no operand")
        return (TensorType(DType.INT64, ()),)
