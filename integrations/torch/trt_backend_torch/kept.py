"""Functions kept whole: AOTAutograd would take them apart, so that ops of ours stand in their place in dynamo's graph."""

from __future__ import annotations

__all__ = ["LIBRARY", "is_plain", "keep", "seen"]

from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

LIBRARY = torch.library.Library("trt_backend", "FRAGMENT")
"""Where the ops are defined."""


def keep(
    gm: fx.GraphModule,
    function: Callable[..., Any],
    op: OpOverload,
    arguments: Callable[[fx.Node], dict[str, Any] | None],
) -> None:
    """Put `op` in the place of a function in a graph of dynamo's; calls inside its subgraphs stay.

    Args:
        gm: the graph.
        function: as dynamo calls it.
        op: of ours.
        arguments: of the op for a call of the function; None leaves the call as it is.
    """
    calls = gm.graph.find_nodes(op="call_function", target=function)
    if not calls or any(map(_is_context, gm.graph.nodes)):
        return
    for node in calls:
        given = arguments(node)
        if given is None:
            continue
        with gm.graph.inserting_before(node):
            kept = gm.graph.call_function(op, kwargs=given)
        kept.meta.update(node.meta)
        node.replace_all_uses_with(kept)
        gm.graph.erase_node(node)
    gm.recompile()


def is_plain(result: Any, *operands: Any) -> bool:
    """Whether an op of ours may make this result: no gradients are recorded, no autocast chooses types, all are plain tensors."""
    return (
        all(isinstance(x, torch.Tensor) and not is_traceable_wrapper_subclass(x) for x in (result, *operands))
        and not result.requires_grad
        and not torch.is_autocast_enabled(result.device.type)
    )


def seen(argument: Any) -> Any:
    """Return what dynamo saw for an argument: a fake tensor, a symbolic number, or the constant itself."""
    return argument.meta.get("example_value") if isinstance(argument, fx.Node) else argument


def _is_context(node: fx.Node) -> bool:
    """Whether the graph enters autocast, or a transform such as vmap, here."""
    module = str(getattr(node.target, "__module__", ""))
    return node.op == "call_function" and (
        node.target is torch.amp.autocast_mode._enter_autocast or "functorch" in module
    )
