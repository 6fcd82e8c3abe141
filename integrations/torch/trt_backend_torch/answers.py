"""How far an engine's results are off native's, and arguments that are shaken."""

from __future__ import annotations

__all__ = ["differences", "shaken"]

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from trt_backend.runtime.answers import Difference


def differences(pairs: Iterable[tuple[Any, Any]]) -> list[Difference]:
    """Return how far each floating-point tensor is off: the first of a pair, of the same shape and dtype as the second."""
    return [
        _difference(ours, other)
        for ours, other in pairs
        if isinstance(other, torch.Tensor) and other.is_floating_point() and other.numel()
    ]


def _difference(ours: torch.Tensor, native: torch.Tensor) -> Difference:
    finite, exact = native.isfinite(), torch.promote_types(native.dtype, torch.float32)
    wanted = torch.where(finite, native, 0).to(exact)
    off = torch.where(finite, ours, 0).to(exact) - wanted
    return off.abs().max().item(), wanted.abs().max().item()


def shaken(arguments: Sequence[Any], noise: float) -> list[Any]:
    """Return the arguments, with each element of a floating-point tensor moved by up to `noise` of its largest one."""
    return [_shake(x, noise) if isinstance(x, torch.Tensor) else x for x in arguments]


def _shake(x: torch.Tensor, noise: float) -> torch.Tensor:
    if not x.is_floating_point() or not x.numel():
        return x
    largest = x.abs().max().item() or 1.0
    if not math.isfinite(largest):
        return x
    generator = torch.Generator(x.device).manual_seed(x.numel())  # not the user's
    return x + torch.empty_like(x).uniform_(-1, 1, generator=generator) * (noise * largest)
