"""Padding and sliding windows over the spatial dimensions of [N, C, *spatial]."""

from __future__ import annotations

__all__ = ["pad_spatial", "windows"]

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def pad_spatial(x: Array, before: Sequence[int], after: Sequence[int], fill: float) -> Array:
    """Pad the spatial dimensions with `fill`; a negative border is cut off."""
    borders = [(0, 0), (0, 0), *((max(b, 0), max(a, 0)) for b, a in zip(before, after, strict=True))]
    padded = np.pad(x, borders, constant_values=fill)
    cuts = (slice(max(-b, 0), -max(-a, 0) or None) for b, a in zip(before, after, strict=True))
    return padded[(slice(None), slice(None), *cuts)]


def windows(x: Array, size: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Array:
    """Return every window that fits, as a view [N, C, *positions, *size]."""
    reach = [d * (s - 1) + 1 for s, d in zip(size, dilation, strict=True)]
    spatial = tuple(range(2, x.ndim))
    view = np.lib.stride_tricks.sliding_window_view(x, reach, axis=spatial)
    steps = (slice(None, None, s) for s in (*stride, *dilation))
    return view[(slice(None), slice(None), *steps)]
