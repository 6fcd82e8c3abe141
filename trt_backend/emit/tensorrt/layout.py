"""Emission of ops that move or make elements."""

from __future__ import annotations

__all__: list[str] = []

from collections.abc import Sequence

from trt_backend.emit.tensorrt.network import Handle, NetworkWriter, Tensor
from trt_backend.emit.tensorrt.rules import ALL, FLOATS, INTEGERS, RULES
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
    GridSamplePadding,
    Identity,
    InterpolationMode,
    Pad,
    PadMode,
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

_PAD_MODES = {PadMode.CONSTANT: "FILL", PadMode.REFLECT: "REFLECT", PadMode.EDGE: "CLAMP"}
_SAMPLE_MODES = {
    GridSamplePadding.ZEROS: "FILL",
    GridSamplePadding.BORDER: "CLAMP",
    GridSamplePadding.REFLECTION: "REFLECT",
}


@RULES.rule(Identity, ALL)
def _identity(m: NetworkWriter, op: Identity, x: Tensor) -> Handle:
    return x.handle


@RULES.rule(Transpose, ALL)
def _transpose(m: NetworkWriter, op: Transpose, x: Tensor) -> Handle:
    layer = m.network.add_shuffle(x.handle)
    layer.first_transpose = op.permutation
    return m.add(layer, x.dtype)


@RULES.rule(Reshape, ALL)
def _reshape(m: NetworkWriter, op: Reshape, x: Tensor) -> Handle:
    """Emit a shape of integers where it can be said so: 0 keeps the input's dimension, and one may be -1."""
    shape = [0 if _is_kept(x.shape, i, dim) else dim for i, dim in enumerate(op.shape)]
    unsaid = [i for i, dim in enumerate(shape) if isinstance(dim, Dim)]
    layer = m.network.add_shuffle(x.handle)
    if len(unsaid) > 1:
        layer.set_input(1, m.dims(op.shape))
        layer.zero_is_placeholder = False
    else:
        layer.reshape_dims = tuple(-1 if isinstance(dim, Dim) else dim for dim in shape)
    return m.add(layer, x.dtype)


def _is_kept(shape: Shape, i: int, dim: DimLike) -> bool:
    return isinstance(dim, Dim) and i < len(shape) and shape[i] == dim


@RULES.rule(Expand, ALL)
def _expand(m: NetworkWriter, op: Expand, x: Tensor) -> Handle:
    strides = [
        0 if before == 1 and after != 1 else 1 for before, after in zip(x.shape, op.shape, strict=True)
    ]
    return _slice_layer(m, x, (0,) * x.type.rank, op.shape, strides)


@RULES.rule(Slice, ALL)
def _slice(m: NetworkWriter, op: Slice, x: Tensor) -> Handle:
    return _slice_layer(m, x, op.start, op.size, op.stride)


def _slice_layer(
    m: NetworkWriter,
    x: Tensor,
    start: Sequence[DimLike],
    size: Sequence[DimLike],
    stride: Sequence[int],
    mode: str = "STRICT_BOUNDS",
    fill: Handle | None = None,
) -> Handle:
    """Add a slice; a start or size that is symbolic is computed in the network."""
    begin, shape = ([0 if isinstance(dim, Dim) else dim for dim in dims] for dims in (start, size))
    layer = m.network.add_slice(x.handle, tuple(begin), tuple(shape), tuple(stride))
    layer.mode = getattr(m.trt.SampleMode, mode)
    for i, dims in ((1, start), (2, size)):
        if not is_static(tuple(dims)):
            layer.set_input(i, m.dims(dims))
    if fill is not None:
        layer.set_input(4, fill)
    return m.add(layer, x.dtype)


@RULES.rule(Pad, ALL - {DType.BOOL})
def _pad(m: NetworkWriter, op: Pad, x: Tensor, fill: Tensor | None = None) -> Handle:
    start = [-before for before in op.before]
    (result,) = op.infer(x.type, *([fill.type] if fill else []))
    stride = (1,) * x.type.rank
    return _slice_layer(m, x, start, result.shape, stride, _PAD_MODES[op.mode], fill.handle if fill else None)


@RULES.rule(Concatenation, ALL)
def _concatenation(m: NetworkWriter, op: Concatenation, *operands: Tensor) -> Handle:
    layer = m.network.add_concatenation([operand.handle for operand in operands])
    layer.axis = op.axis
    return m.add(layer, operands[0].dtype)


@RULES.rule(Gather, ALL)
def _gather(m: NetworkWriter, op: Gather, x: Tensor, indices: Tensor) -> Handle:
    return _gather_layer(m, "DEFAULT", x, indices, op.axis)


@RULES.rule(GatherElements, ALL)
def _gather_elements(m: NetworkWriter, op: GatherElements, x: Tensor, indices: Tensor) -> Handle:
    return _gather_layer(m, "ELEMENT", x, indices, op.axis)


@RULES.rule(GatherND, ALL)
def _gather_nd(m: NetworkWriter, op: GatherND, x: Tensor, indices: Tensor) -> Handle:
    return _gather_layer(m, "ND", x, indices, 0)


def _gather_layer(m: NetworkWriter, mode: str, x: Tensor, indices: Tensor, axis: int) -> Handle:
    layer = m.network.add_gather_v2(x.handle, indices.handle, getattr(m.trt.GatherMode, mode))
    layer.axis = axis
    return m.add(layer, x.dtype)


@RULES.rule(ScatterElements, ALL)
def _scatter_elements(
    m: NetworkWriter, op: ScatterElements, x: Tensor, indices: Tensor, updates: Tensor
) -> Handle:
    mode = m.trt.ScatterMode.ELEMENT
    layer = m.network.add_scatter(x.handle, indices.handle, updates.handle, mode)
    layer.axis = op.axis
    return m.add(layer, x.dtype)


@RULES.rule(ScatterND, ALL)
def _scatter_nd(m: NetworkWriter, op: ScatterND, x: Tensor, indices: Tensor, updates: Tensor) -> Handle:
    layer = m.network.add_scatter(x.handle, indices.handle, updates.handle, m.trt.ScatterMode.ND)
    return m.add(layer, x.dtype)


def _refuse_resize(op: Resize, types: Types) -> str | None:
    if op.scales:
        return "steps by the ratio of the sizes, not by a scale that is another one"
    return "resizes at most 3 dimensions" if types[0].rank > 5 else None


@RULES.rule(Resize, FLOATS, _refuse_resize)
def _resize(m: NetworkWriter, op: Resize, x: Tensor) -> Handle:
    layer = m.network.add_resize(x.handle)
    size = (*x.shape[:2], *op.size)
    if is_static(size):
        layer.shape = size
    else:
        layer.set_input(1, m.dims(size))
    layer.resize_mode = getattr(m.trt.InterpolationMode, op.mode.name)
    layer.coordinate_transformation = getattr(m.trt.ResizeCoordinateTransformation, op.coordinates.name)
    if op.mode is InterpolationMode.NEAREST:
        down = op.coordinates is ResizeCoordinates.ASYMMETRIC
        rounding = m.trt.ResizeRoundMode.FLOOR if down else m.trt.ResizeRoundMode.HALF_UP
        layer.nearest_rounding = rounding
    return m.add(layer, x.dtype)


def _refuse_grid_sample(op: GridSample, types: Types) -> str | None:
    """Refuse what turns ties another way than torch and ONNX once they are reflected (8.6.0 on an H200)."""
    reflected = op.padding is GridSamplePadding.REFLECTION and not op.align_corners
    return "nearest elements, reflected" if reflected and op.mode is InterpolationMode.NEAREST else None


@RULES.rule(GridSample, FLOATS, _refuse_grid_sample)
def _grid_sample(m: NetworkWriter, op: GridSample, x: Tensor, grid: Tensor) -> Handle:
    layer = m.network.add_grid_sample(x.handle, grid.handle)
    layer.interpolation_mode = getattr(m.trt.InterpolationMode, op.mode.name)
    layer.sample_mode = getattr(m.trt.SampleMode, _SAMPLE_MODES[op.padding])
    layer.align_corners = op.align_corners
    return m.add(layer, x.dtype)


@RULES.rule(Range, INTEGERS)
def _range(m: NetworkWriter, op: Range) -> Handle:
    """Emit a fill in the element type of shape tensors, which start, step and size have."""
    fill = m.network.add_fill(
        (1,), m.trt.FillOperation.LINSPACE, *([m.dtype(m.index)] if m.stack.int64 else [])
    )
    fill.set_input(0, m.dims([op.size]))
    fill.set_input(1, m.reshape(m.dim(op.start), ()))
    fill.set_input(2, m.constant([op.step], m.index))
    result = m.add(fill, m.index)
    return result if m.dtype(op.dtype) == m.dtype(m.index) else m.cast(result, op.dtype)


@RULES.rule(Extent, frozenset({DType.INT64}))
def _extent(m: NetworkWriter, op: Extent) -> Handle:
    return m.reshape(m.dim(op.dim), ())
