"""Where a call of a region finds the values of its symbols."""

from __future__ import annotations

__all__ = ["hinted", "missing_sizes", "sources_of", "value_of"]

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import fx

from trt_backend.errors import UnsupportedError
from trt_backend.ir.dims import Dim, DimLike, symbols_of
from trt_backend.ir.symbols import SymbolSource, symbol_sources
from trt_backend_torch.fx import is_size, tensors_of
from trt_backend_torch.types import dim_of


def sources_of(places: Sequence[fx.Node]) -> dict[str, SymbolSource]:
    """Return the first source of each symbol among a graph's placeholders: sizes, or tensors with sizes."""
    return symbol_sources(
        (position, axis, dim_of(size) if isinstance(size, torch.SymInt) else size)
        for position, place in enumerate(places)
        for axis, size in (
            [(None, place.meta["val"])] if is_size(place) else enumerate(place.meta["val"].shape)
        )
    )


def value_of(source: SymbolSource, arguments: Sequence[Any]) -> int:
    """Return a symbol's value in a call."""
    argument = arguments[source.position]
    return source.symbol(argument if source.axis is None else argument.shape[source.axis])


def hinted(value: Any) -> Any:
    """Return a stand-in for an argument: a size, or a tensor without memory, of the sizes that dynamo saw."""
    if isinstance(value, torch.SymInt):
        return value.node.hint
    if isinstance(value, torch.Tensor):
        return torch.empty([hinted(size) for size in value.shape], dtype=value.dtype, device="meta")
    return value


def missing_sizes(
    inputs: Sequence[fx.Node], nodes: Iterable[fx.Node], places: Iterable[fx.Node]
) -> list[fx.Node]:
    """Return the sizes that a region needs beside its inputs, for symbols that these do not tell: only `s // 2`, and not `s`.

    Args:
        inputs: of the region.
        nodes: the region's own.
        places: the placeholders of the graph around it, among which the sizes are.
    """
    try:
        dims = [dim for node in (*inputs, *nodes) for dim in _dims(node)]
        missing = {symbol.name for symbol in symbols_of(dims)} - set(sources_of(inputs))
    except UnsupportedError:  # lowering says why
        return []
    added: list[fx.Node] = []
    for place in places if missing else ():
        size = place.meta["val"]
        symbol = _symbol(size) if isinstance(size, torch.SymInt) else None
        if symbol in missing:
            missing.remove(symbol)
            added.append(place)
    return added


def _dims(node: fx.Node) -> list[DimLike]:
    value = node.meta.get("val")
    if isinstance(value, torch.SymInt):
        return [dim_of(value)]
    return [dim_of(size) for tensor in tensors_of(node) if tensor is not None for size in tensor.shape]


def _symbol(size: torch.SymInt) -> str | None:
    dim = dim_of(size)
    return dim.symbol.name if isinstance(dim, Dim) and dim.symbol is not None else None
