"""Emission of ops that move or make elements."""

from __future__ import annotations

__all__: list[str] = []

from trt_backend.emit.onnx.model import ONNX_DTYPE, ModelWriter, Tensor
from trt_backend.emit.onnx.rules import ALL, RULES, SINGLE
from trt_backend.ir.dims import DimLike
from trt_backend.ir.ops.layout import (
    Concatenation,
    Expand,
    Extent,
    Gather,
    GatherElements,
    GatherND,
    Identity,
    Pad,
    Range,
    Reshape,
    Resize,
    ResizeCoordinates,
    ResizeMode,
    ScatterElements,
    ScatterND,
    Slice,
    Transpose,
)
from trt_backend.ir.types import DType

_BFLOAT16 = frozenset({DType.BFLOAT16})
_INDEX = frozenset({DType.INT32, DType.INT64})


@RULES.rule(Identity, ALL)
def _identity(m: ModelWriter, op: Identity, x: Tensor) -> str:
    return m.node("Identity", x.name)


@RULES.rule(Transpose, ALL)
def _transpose(m: ModelWriter, op: Transpose, x: Tensor) -> str:
    return m.node("Transpose", x.name, perm=op.permutation)


@RULES.rule(Reshape, ALL)
def _reshape(m: ModelWriter, op: Reshape, x: Tensor) -> str:
    return m.node("Reshape", x.name, m.dims(op.shape), allowzero=int(_may_be_empty(op.shape)))


def _may_be_empty(shape: tuple[DimLike, ...]) -> bool:
    """Whether a dimension may be 0, which ONNX's Reshape otherwise reads as "as in the input"."""
    return any(
        dim == 0 or (not isinstance(dim, int) and any(s.min < 1 for s in dim.symbols)) for dim in shape
    )


@RULES.rule(Expand, ALL - _BFLOAT16)
def _expand(m: ModelWriter, op: Expand, x: Tensor) -> str:
    return m.node("Expand", x.name, m.dims(op.shape))


@RULES.rule(Slice, ALL)
def _slice(m: ModelWriter, op: Slice, x: Tensor) -> str:
    parts = zip(x.shape, op.start, op.size, op.stride, strict=True)
    ends = [_end(dim, start, size, stride) for dim, start, size, stride in parts]
    axes = m.constant(range(len(ends)), DType.INT64)
    return m.node("Slice", x.name, m.dims(op.start), m.dims(ends), axes, m.constant(op.stride, DType.INT64))


def _end(dim: DimLike, start: DimLike, size: DimLike, stride: int) -> DimLike:
    """Return ONNX's end of a slice; backwards it counts from the back, as it may lie before the first element."""
    if stride > 0:
        return start + size * stride
    return start if size == 0 else start + (size - 1) * stride - 1 - dim


@RULES.rule(Pad, ALL - _BFLOAT16)
def _pad(m: ModelWriter, op: Pad, x: Tensor, fill: Tensor | None = None) -> str:
    borders = m.constant((*op.before, *op.after), DType.INT64)
    return m.node("Pad", x.name, borders, *([fill.name] if fill else []), mode=op.mode.value)


@RULES.rule(Concatenation, ALL)
def _concatenation(m: ModelWriter, op: Concatenation, *operands: Tensor) -> str:
    return m.node("Concat", *(operand.name for operand in operands), axis=op.axis)


@RULES.rule(Gather, ALL)
def _gather(m: ModelWriter, op: Gather, x: Tensor, indices: Tensor) -> str:
    return m.node("Gather", x.name, indices.name, axis=op.axis)


@RULES.rule(GatherElements, ALL)
def _gather_elements(m: ModelWriter, op: GatherElements, x: Tensor, indices: Tensor) -> str:
    return m.node("GatherElements", x.name, indices.name, axis=op.axis)


@RULES.rule(GatherND, ALL)
def _gather_nd(m: ModelWriter, op: GatherND, x: Tensor, indices: Tensor) -> str:
    return m.node("GatherND", x.name, _as_int64(m, indices))


@RULES.rule(ScatterElements, ALL)
def _scatter_elements(
    m: ModelWriter, op: ScatterElements, x: Tensor, indices: Tensor, updates: Tensor
) -> str:
    return m.node("ScatterElements", x.name, indices.name, updates.name, axis=op.axis)


@RULES.rule(ScatterND, ALL)
def _scatter_nd(m: ModelWriter, op: ScatterND, x: Tensor, indices: Tensor, updates: Tensor) -> str:
    return m.node("ScatterND", x.name, _as_int64(m, indices), updates.name)


def _as_int64(m: ModelWriter, indices: Tensor) -> str:
    if indices.dtype is DType.INT64:
        return indices.name
    return m.node("Cast", indices.name, to=ONNX_DTYPE[DType.INT64])


@RULES.rule(Resize, SINGLE)
def _resize(m: ModelWriter, op: Resize, x: Tensor) -> str:
    down = op.coordinates is ResizeCoordinates.ASYMMETRIC
    return m.node(
        "Resize",
        x.name,
        "",
        "",
        m.dims((*x.shape[:2], *op.size)),
        mode="nearest" if op.mode is ResizeMode.NEAREST else "linear",
        coordinate_transformation_mode=op.coordinates.value,
        nearest_mode="floor" if down else "round_prefer_ceil",
    )


@RULES.rule(Range, _INDEX)
def _range(m: ModelWriter, op: Range) -> str:
    end = op.start + op.size * op.step
    ends = [m.node("Squeeze", m.dim(dim)) for dim in (op.start, end)]
    indices = m.node("Range", *ends, m.constant(op.step, DType.INT64))
    return indices if op.dtype is DType.INT64 else m.node("Cast", indices, to=ONNX_DTYPE[op.dtype])


@RULES.rule(Extent, frozenset({DType.INT64}))
def _extent(m: ModelWriter, op: Extent) -> str:
    return m.node("Squeeze", m.dim(op.dim))
