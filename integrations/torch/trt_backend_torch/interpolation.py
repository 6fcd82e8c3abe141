"""Interpolation kept whole: an op that AOTAutograd does not take apart.

AOTAutograd turns `interpolate` into 10 to 160 ops that gather each neighbour by itself: far slower than torch's kernel where they run
natively, nothing that an engine knows as a resize, and sizes computed in floats where they are dynamic.
"""

from __future__ import annotations

__all__ = ["INTERPOLATION", "keep_interpolation"]

import inspect
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx
from torch._ops import OpOverload

from trt_backend_torch.kept import LIBRARY, is_plain, keep, seen

_NAME = "interpolate"
_FORMATS = {(False, rank): torch.contiguous_format for rank in (3, 4, 5)} | {
    (True, 4): torch.channels_last,
    (True, 5): torch.channels_last_3d,
}
LIBRARY.define(
    f"{_NAME}(Tensor input, SymInt[]? size, float[]? scale_factor, str mode, bool? align_corners, "
    "bool? recompute_scale_factor, bool channels_last) -> Tensor"
)


def _natively(
    input: torch.Tensor,
    size: list[int] | None,
    scale_factor: list[float] | None,
    mode: str,
    align_corners: bool | None,
    recompute_scale_factor: bool | None,
    channels_last: bool,
) -> torch.Tensor:
    """Compute it with torch's kernel; in memory the result is row-major, or its channels come last."""
    result = F.interpolate(input, size, scale_factor, mode, align_corners, recompute_scale_factor)  # type: ignore[arg-type]
    return result.contiguous(memory_format=_FORMATS[channels_last, input.dim()])


def _promised(
    input: torch.Tensor,
    size: Sequence[int] | None,
    scale_factor: Sequence[float] | None,
    mode: str,
    align_corners: bool | None,
    recompute_scale_factor: bool | None,
    channels_last: bool,
) -> torch.Tensor:
    """Return a tensor of the result's type."""
    if size is None:
        assert scale_factor is not None
        size = [_scaled(dim, factor) for dim, factor in zip(input.shape[2:], scale_factor, strict=True)]
    result = input.new_empty((*input.shape[:2], *size))
    return result.contiguous(memory_format=_FORMATS[channels_last, input.dim()])


def _scaled(dim: int, factor: float) -> Any:
    """Return `floor(dim * factor)`, without floats where a factor such as 1.5 is a ratio of small integers."""
    times, parts = float(factor).as_integer_ratio()
    return dim * times // parts if max(times, parts) < 2**12 else torch.sym_int(dim * factor)


LIBRARY.impl(_NAME, _natively, "CompositeExplicitAutograd")
torch.library.register_fake(f"trt_backend::{_NAME}", _promised, lib=LIBRARY)

INTERPOLATION: OpOverload = torch.ops.trt_backend.interpolate.default
"""`torch.nn.functional.interpolate` but for the modes that smooth: "area", and those with `antialias`."""


def keep_interpolation(gm: fx.GraphModule) -> None:
    """Put `INTERPOLATION` in the place of torch's function in a graph of dynamo's, as `keep` does."""
    keep(gm, F.interpolate, INTERPOLATION, _arguments)


def _arguments(node: fx.Node) -> dict[str, Any] | None:
    bound = inspect.signature(F.interpolate).bind(*node.args, **node.kwargs)
    bound.apply_defaults()
    arguments, result = dict(bound.arguments), seen(node)
    x, factors = seen(arguments["input"]), _each(arguments["scale_factor"], result)
    if not (
        not arguments.pop("antialias")
        and arguments["mode"] != "area"
        and is_plain(result, x)
        and all(isinstance(factor, (int, float)) for factor in factors or ())
        and (formats := _formats(result))
    ):
        return None
    arguments |= {"size": _each(arguments["size"], result), "scale_factor": factors}
    return {**arguments, "channels_last": formats[0]}


def _formats(result: torch.Tensor) -> list[bool]:
    """Return the orders that the memory lies in: row-major (False), channels last (True)."""
    return [
        last
        for (last, rank), memory_format in _FORMATS.items()
        if rank == result.dim() and result.is_contiguous(memory_format=memory_format)
    ]


def _each(values: Any, result: Any) -> Any:
    """Return one entry for each spatial dimension, or what has them (`y.shape[2:]`); None where there are none."""
    if values is None or isinstance(seen(values), (list, tuple)):
        return values
    return [values] * (result.dim() - 2)
