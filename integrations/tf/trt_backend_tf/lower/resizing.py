"""Resizing of images.

Rules:
  CORNERS  The ends of both grids coincide (`align_corners`), or the corners of their pixels do (`half_pixel_centers`),
           or, in neither case, the first points.
  FLOAT32  The linear one gives float32, whatever it is given.
"""

from __future__ import annotations

__all__ = ["RULES"]

from trt_backend.errors import ReasonKind, UnsupportedError
from trt_backend.ir.graph import Value
from trt_backend.ir.ops.layout import InterpolationMode, Resize, ResizeCoordinates
from trt_backend.ir.types import DType
from trt_backend_tf.lower.context import Known, Lowering
from trt_backend_tf.lower.rules import RuleTable

RULES = RuleTable()

_FLOAT32_HOLDS = frozenset({DType.INT8, DType.UINT8})


@RULES.rule("ResizeBilinear")
def _bilinear(
    b: Lowering, images: Value, size: Known, *, align_corners: bool, half_pixel_centers: bool
) -> Value:
    """Mix the four nearest elements of [N, H, W, C] (FLOAT32)."""
    coordinates = _coordinates(align_corners, half_pixel_centers)
    return _resized(b, InterpolationMode.LINEAR, coordinates, b.cast(images, DType.FLOAT32), size)


@RULES.rule("ResizeNearestNeighbor")
def _nearest(
    b: Lowering, images: Value, size: Known, *, align_corners: bool, half_pixel_centers: bool
) -> Value:
    """Take the nearest element of [N, H, W, C]."""
    dtype = images.dtype
    if not dtype.is_float and dtype not in _FLOAT32_HOLDS:
        raise UnsupportedError(
            f"engines resize floats, which do not hold all {dtype.value}", ReasonKind.DTYPE
        )
    wide = images if dtype.is_float else b.cast(images, DType.FLOAT32)
    coordinates = _coordinates(align_corners, half_pixel_centers)
    return b.cast(_resized(b, InterpolationMode.NEAREST, coordinates, wide, size), dtype)


def _coordinates(align_corners: bool, half_pixel_centers: bool) -> ResizeCoordinates:
    """Return how places in the result become places in the image (CORNERS)."""
    if align_corners and half_pixel_centers:
        raise UnsupportedError("align_corners and half_pixel_centers exclude each other")
    if align_corners:
        return ResizeCoordinates.ALIGN_CORNERS
    return ResizeCoordinates.HALF_PIXEL if half_pixel_centers else ResizeCoordinates.ASYMMETRIC


def _resized(
    b: Lowering, mode: InterpolationMode, coordinates: ResizeCoordinates, x: Value, size: Known
) -> Value:
    return b.channels_last(b.add(Resize(mode, coordinates, size.dims()), b.channels_first(x)))
