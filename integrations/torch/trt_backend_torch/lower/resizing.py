"""Interpolation, and images read at the places of a grid.

Rules:
  SCALE  Places follow the scale that was given, not the ratio of the sizes, unless `recompute_scale_factor` or `align_corners` says so.
  SAME   Where a size stays although the scale is not 1, some of torch's kernels copy, others interpolate: such a call stays native.
"""

from __future__ import annotations

__all__ = ["RULES"]

from collections.abc import Sequence

import numpy as np
import torch

from trt_backend.errors import ReasonKind, UnsupportedError
from trt_backend.ir.dims import Dim, DimLike
from trt_backend.ir.graph import Value
from trt_backend.ir.ops.layout import (
    GridSample,
    GridSamplePadding,
    InterpolationMode,
    Resize,
    ResizeCoordinates,
)
from trt_backend_torch.interpolation import INTERPOLATION
from trt_backend_torch.lower.context import Lowering
from trt_backend_torch.lower.rules import RuleTable

RULES = RuleTable()

_aten = torch.ops.aten

_MODES = {
    "linear": InterpolationMode.LINEAR,
    "bilinear": InterpolationMode.LINEAR,
    "trilinear": InterpolationMode.LINEAR,
    "bicubic": InterpolationMode.CUBIC,
}


@RULES.rule(INTERPOLATION)
def _interpolate(
    b: Lowering,
    input: Value,
    scale_factor: Sequence[float] | None,
    mode: str,
    align_corners: bool | None,
    recompute_scale_factor: bool | None,
    size: Sequence[DimLike] | None,
    channels_last: bool,
) -> Value:
    """Interpolation between neighbours, or the nearest one; the result's size and its order in memory are those promised."""
    before, after = input.shape[2:], b.result.shape[2:]
    scales = () if recompute_scale_factor or align_corners else tuple(scale_factor or ())
    scales = () if all(map(_is_ratio, before, after, scales)) else tuple(map(float, scales))
    if mode not in _MODES:
        return _nearest(b, input, after, exact=mode == "nearest-exact", scaled=bool(scales))
    if not input.dtype.is_float:
        raise UnsupportedError(f"no engine op interpolates {input.dtype.value}", ReasonKind.DTYPE)
    for dim, new, scale in zip(before, after, scales, strict=False):
        if scale != 1 and (dim == new or (1 < scale < 1.5 and isinstance(dim, Dim))):  # SAME
            raise UnsupportedError(f"the scale {scale} may keep the size {dim}")
    coordinates = ResizeCoordinates.ALIGN_CORNERS if align_corners else ResizeCoordinates.HALF_PIXEL
    return b.add(Resize(_MODES[mode], coordinates, after, scales), input)


def _is_ratio(before: DimLike, after: DimLike, scale: float) -> bool:
    """Whether the scale is after / before."""
    times, parts = float(scale).as_integer_ratio()
    return after * parts == before * times


def _nearest(b: Lowering, x: Value, sizes: Sequence[DimLike], *, exact: bool, scaled: bool) -> Value:
    """Return the nearest elements, as a resize by whole factors or to dynamic sizes; torch's kernel is faster than gathers."""
    if scaled:
        raise UnsupportedError("the nearest elements of a scale that is not the ratio of the sizes")
    if not x.dtype.is_float:
        raise UnsupportedError(f"no engine op resizes {x.dtype.value}", ReasonKind.DTYPE)
    moves = not exact and any(isinstance(dim, Dim) for dim in (*x.shape[2:], *sizes))
    if not moves and not all(map(_repeats, x.shape[2:], sizes)):
        raise UnsupportedError(
            "the nearest elements by no whole factor: gathers take 8 times as long as PyTorch's kernel"
        )
    return b.add(Resize(InterpolationMode.NEAREST, ResizeCoordinates.ASYMMETRIC, tuple(sizes)), x)


def _repeats(before: DimLike, after: DimLike) -> bool:
    """Whether each element is repeated so often, in torch's float32 too: its `i * (1 / times)` must not fall short of `i / times`."""
    times = after // before
    return (
        isinstance(times, int) and after == before * times and bool(float(np.float32(1 / times)) * times >= 1)
    )


_GRID_MODES = (InterpolationMode.LINEAR, InterpolationMode.NEAREST, InterpolationMode.CUBIC)
_GRID_PADDINGS = (GridSamplePadding.ZEROS, GridSamplePadding.BORDER, GridSamplePadding.REFLECTION)


@RULES.rule(_aten.grid_sampler_2d.default)
def _grid_sampler_2d(
    b: Lowering, input: Value, grid: Value, interpolation_mode: int, padding_mode: int, align_corners: bool
) -> Value:
    """Images read at the places of a grid; the modes count as in `torch/nn/functional.py`."""
    op = GridSample(_GRID_MODES[interpolation_mode], _GRID_PADDINGS[padding_mode], align_corners)
    return b.add(op, input, grid)
