"""How far an engine's results are off native's."""

from __future__ import annotations

__all__ = ["differences"]

from collections.abc import Sequence
from typing import Any

import torch

from trt_backend.runtime.answers import Difference


def differences(results: Sequence[Any], native: Sequence[Any]) -> list[Difference]:
    """Return how far each floating-point tensor is off, each of the same shape and dtype as native's."""
    return [
        _difference(ours, other)
        for ours, other in zip(results, native, strict=True)
        if isinstance(other, torch.Tensor) and other.is_floating_point() and other.numel()
    ]


def _difference(ours: torch.Tensor, native: torch.Tensor) -> Difference:
    finite, exact = native.isfinite(), torch.promote_types(native.dtype, torch.float32)
    wanted = torch.where(finite, native, 0).to(exact)
    off = torch.where(finite, ours, 0).to(exact) - wanted
    return off.abs().max().item(), wanted.abs().max().item()
