"""Emission of ops that move or make elements."""

from __future__ import annotations

__all__: list[str] = []

import numpy as np

from trt_backend.emit.onnx.model import ONNX_DTYPE, ModelWriter, Tensor
from trt_backend.emit.onnx.rules import ALL, FLOATS, RULES, SINGLE, WIDE_INTEGERS
from trt_backend.ir.dims import Dim, DimLike
from trt_backend.ir.ops.base import Types
from trt_backend.ir.ops.layout import (
    Concatenation,
    Expand,
    Extent,
    Gather,
    GatherElements,
    GatherND,
    GridSample,
    Identity,
    InterpolationMode,
    Pad,
    Range,
    Reshape,
    Resize,
    ResizeCoordinates,
    ScatterElements,
    ScatterND,
    Slice,
    Transpose,
)
from trt_backend.ir.types import DType, Shape, is_static

_BFLOAT16 = frozenset({DType.BFLOAT16})
_TO_THE_END = 2**63 - 1


@RULES.rule(Identity, ALL)
def _identity(m: ModelWriter, op: Identity, x: Tensor) -> str:
    return m.node("Identity", x.name)


@RULES.rule(Transpose, ALL)
def _transpose(m: ModelWriter, op: Transpose, x: Tensor) -> str:
    if not op.permutation:  # ONNX cannot write an empty list
        return x.name
    return m.node("Transpose", x.name, perm=op.permutation)


@RULES.rule(Reshape, ALL)
def _reshape(m: ModelWriter, op: Reshape, x: Tensor) -> str:
    """Emit a constant shape where one can say it: 0 keeps the input's dimension, and one dimension may be -1."""
    kept = [_is_kept(x.shape, i, dim) for i, dim in enumerate(op.shape)]
    shape = [0 if keep else dim for keep, dim in zip(kept, op.shape, strict=True)]
    unsaid = [i for i, dim in enumerate(shape) if isinstance(dim, Dim)]
    if len(unsaid) == 1 and not any(_may_be_zero(dim) for i, dim in enumerate(op.shape) if i != unsaid[0]):
        shape[unsaid[0]] = -1
    if is_static(tuple(shape)) and 0 not in op.shape:
        return m.node("Reshape", x.name, m.dims(shape))
    return m.node("Reshape", x.name, m.dims(op.shape), allowzero=1)


def _is_kept(shape: Shape, i: int, dim: DimLike) -> bool:
    return isinstance(dim, Dim) and i < len(shape) and shape[i] == dim


def _may_be_zero(dim: DimLike) -> bool:
    return dim == 0 if isinstance(dim, int) else dim.symbol is None or dim.symbol.min < 1


@RULES.rule(Expand, ALL - _BFLOAT16)
def _expand(m: ModelWriter, op: Expand, x: Tensor) -> str:
    """Emit 1 for symbolic dimensions that stay, as ONNX broadcasts both ways."""
    shape = [1 if _is_kept(x.shape, i, dim) else dim for i, dim in enumerate(op.shape)]
    return m.node("Expand", x.name, m.dims(shape))


@RULES.rule(Slice, ALL)
def _slice(m: ModelWriter, op: Slice, x: Tensor) -> str:
    parts = list(zip(x.shape, op.start, op.size, op.stride, strict=True))
    axes = [i for i, (dim, start, size, stride) in enumerate(parts) if (start, size, stride) != (0, dim, 1)]
    if not axes:
        return x.name
    starts = [_from_the_back(x.shape[i], op.start[i]) for i in axes]
    ends = [_end(*parts[i]) for i in axes]
    strides = m.constant([op.stride[i] for i in axes], DType.INT64)
    return m.node("Slice", x.name, m.dims(starts), m.dims(ends), m.constant(axes, DType.INT64), strides)


def _end(dim: DimLike, start: DimLike, size: DimLike, stride: int) -> DimLike:
    """Return ONNX's end of a slice; backwards it counts from the back, as it may lie before the first element."""
    if stride > 0:
        end = start + size * stride
        return _TO_THE_END if end == dim else _from_the_back(dim, end)
    return start if size == 0 else start + (size - 1) * stride - 1 - dim


def _from_the_back(dim: DimLike, position: DimLike) -> DimLike:
    """Return a symbolic position as a negative constant where it is one counted from the back."""
    back = position - dim
    return back if isinstance(position, Dim) and isinstance(back, int) and back < 0 else position


@RULES.rule(Pad, ALL - _BFLOAT16)
def _pad(m: ModelWriter, op: Pad, x: Tensor, fill: Tensor | None = None) -> str:
    borders = m.constant((*op.before, *op.after), DType.INT64)
    return m.node("Pad", x.name, borders, *([fill.name] if fill else []), mode=op.mode.value)


@RULES.rule(Concatenation, ALL)
def _concatenation(m: ModelWriter, op: Concatenation, *operands: Tensor) -> str:
    return m.node("Concat", *(operand.name for operand in operands), axis=op.axis)


@RULES.rule(Gather, ALL)
def _gather(m: ModelWriter, op: Gather, x: Tensor, indices: Tensor) -> str:
    return m.node("Gather", x.name, _not_negative(m, indices), axis=op.axis)


def _not_negative(m: ModelWriter, indices: Tensor) -> str:
    """Return the indices so that a negative one fails: ONNX counts it from the end, the IR has none such."""
    known = m.known(indices)
    if known is not None and (known >= 0).all():
        return indices.name
    highest = m.constant(np.iinfo(indices.dtype.numpy).max, indices.dtype)
    return m.node("Where", m.node("Less", indices.name, m.constant(0, indices.dtype)), highest, indices.name)


@RULES.rule(GatherElements, ALL)
def _gather_elements(m: ModelWriter, op: GatherElements, x: Tensor, indices: Tensor) -> str:
    return m.node("GatherElements", x.name, _not_negative(m, indices), axis=op.axis)


@RULES.rule(GatherND, ALL)
def _gather_nd(m: ModelWriter, op: GatherND, x: Tensor, indices: Tensor) -> str:
    return m.node("GatherND", x.name, _as_int64(m, indices, _not_negative(m, indices)))


@RULES.rule(ScatterElements, ALL)
def _scatter_elements(
    m: ModelWriter, op: ScatterElements, x: Tensor, indices: Tensor, updates: Tensor
) -> str:
    return m.node("ScatterElements", x.name, _not_negative(m, indices), updates.name, axis=op.axis)


@RULES.rule(ScatterND, ALL)
def _scatter_nd(m: ModelWriter, op: ScatterND, x: Tensor, indices: Tensor, updates: Tensor) -> str:
    return m.node("ScatterND", x.name, _as_int64(m, indices, _not_negative(m, indices)), updates.name)


def _as_int64(m: ModelWriter, indices: Tensor, name: str) -> str:
    if indices.dtype is DType.INT64:
        return name
    return m.node("Cast", name, to=ONNX_DTYPE[DType.INT64])


def _refuse_resize(op: Resize, types: Types) -> str | None:
    """Refuse the slow, a scale that gives another size in ONNX Runtime, and nearest elements that may be other ones."""
    x = types[0]
    if op.mode is InterpolationMode.CUBIC:
        return "its kernel for cubic interpolation takes 18 times as long as PyTorch's"
    if op.mode is InterpolationMode.NEAREST and x.rank > 4:
        return "its kernel for the nearest elements of volumes takes 12 times as long as PyTorch's"
    if op.mode is InterpolationMode.NEAREST and not all(map(_is_multiple, op.size, x.shape[2:])):
        return "may round to other elements than the nearest, and gathers take 8 times as long as PyTorch's kernel"
    for dim, size, scale in zip(x.shape[2:], op.size, op.scales, strict=False):
        if op.mode is InterpolationMode.NEAREST or _scaled(dim, scale) != size:
            return f"does not scale {dim} by {scale} to {size}"
    return None


def _scaled(dim: DimLike, scale: float) -> DimLike | None:
    """Return the size that ONNX Runtime, which computes in float32, scales to; None where it may depend on rounding."""
    if isinstance(dim, int):
        return int(np.float32(dim) * np.float32(scale))
    times, parts = scale.as_integer_ratio()
    return dim * times // parts if max(times, parts) < 2**12 else None


@RULES.rule(Resize, SINGLE, _refuse_resize)
def _resize(m: ModelWriter, op: Resize, x: Tensor) -> str:
    # The kernel for vectors takes twice as long as that for images.
    flat = op.mode is InterpolationMode.LINEAR and x.type.rank == 3
    height, axis = ((1,) if flat else ()), m.constant([2], DType.INT64)
    scales = [m.constant((1.0, 1.0, *height, *op.scales), DType.FLOAT32)] if op.scales else []
    result = m.node(
        "Resize",
        m.node("Unsqueeze", x.name, axis) if flat else x.name,
        "",
        *(scales or ["", m.dims((*x.shape[:2], *height, *op.size))]),
        mode=op.mode.value,
        coordinate_transformation_mode=op.coordinates.value,
        nearest_mode="floor" if op.coordinates is ResizeCoordinates.ASYMMETRIC else "round_prefer_ceil",
        cubic_coeff_a=-0.75,
    )
    return m.node("Squeeze", result, axis) if flat else result


def _is_multiple(size: DimLike, dim: DimLike) -> bool:
    return (isinstance(dim, Dim) and isinstance(size // dim, int)) or (
        isinstance(dim, int) and size % dim == 0
    )


def _refuse_grid_sample(op: GridSample, types: Types) -> str | None:
    return "its kernel takes 7 to 27 times as long as PyTorch's"


@RULES.rule(GridSample, FLOATS, _refuse_grid_sample)
def _grid_sample(m: ModelWriter, op: GridSample, x: Tensor, grid: Tensor) -> str:
    modes = {"mode": op.mode.value, "padding_mode": op.padding.value}
    return m.node("GridSample", x.name, grid.name, **modes, align_corners=int(op.align_corners))


@RULES.rule(Range, WIDE_INTEGERS)
def _range(m: ModelWriter, op: Range) -> str:
    end = op.start + op.size * op.step
    ends = [m.node("Squeeze", m.dim(dim)) for dim in (op.start, end)]
    indices = m.node("Range", *ends, m.constant(op.step, DType.INT64))
    return indices if op.dtype is DType.INT64 else m.node("Cast", indices, to=ONNX_DTYPE[op.dtype])


@RULES.rule(Extent, frozenset({DType.INT64}))
def _extent(m: ModelWriter, op: Extent) -> str:
    return m.node("Squeeze", m.dim(op.dim))
