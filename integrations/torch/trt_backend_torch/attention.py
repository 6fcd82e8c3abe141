"""Attention kept whole: an op that AOTAutograd does not take apart.

AOTAutograd turns `scaled_dot_product_attention` into the kernel that torch would choose. With some masks, on some devices,
that is none, but a dozen ops that compute in float32: no engine recognises them as attention, and where engines build with
two precisions they cost more than the rest of the model.
"""

from __future__ import annotations

__all__ = ["ATTENTION", "keep_attention"]

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx
from torch._ops import OpOverload
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

_NAME = "scaled_dot_product_attention"
_library = torch.library.Library("trt_backend", "DEF")
_library.define(
    f"{_NAME}(Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None, bool is_causal=False, *, "
    "float? scale=None, bool enable_gqa=False) -> Tensor"
)


def _natively(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """Compute it with the kernel that torch chooses; [batch, sequence, heads, size] in memory, as most kernels write it."""
    result = F.scaled_dot_product_attention(
        query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
    )
    return result.transpose(1, 2).contiguous().transpose(1, 2)


_library.impl(_NAME, _natively, "CompositeExplicitAutograd")
torch.library.register_fake(f"trt_backend::{_NAME}", _natively, lib=_library)

ATTENTION: OpOverload = torch.ops.trt_backend.scaled_dot_product_attention.default
"""`torch.nn.functional.scaled_dot_product_attention` of rank 4 without dropout."""


def keep_attention(gm: fx.GraphModule, example_inputs: Sequence[Any]) -> None:
    """Put `ATTENTION` in the place of torch's function in a graph of dynamo's.

    Not where gradients are recorded, where autocast chooses the types, or where tensors are not plain: none of these
    know the op.
    """
    attentions = [
        node
        for node in gm.graph.find_nodes(op="call_function", target=F.scaled_dot_product_attention)
        if _is_plain(node)
    ]
    if not attentions or not _knows_the_op(gm, example_inputs):
        return
    for node in attentions:
        arguments = _arguments(*node.args, **node.kwargs)
        del arguments["dropout_p"]
        with gm.graph.inserting_before(node):
            kept = gm.graph.call_function(ATTENTION, kwargs=arguments)
        kept.meta.update(node.meta)
        node.replace_all_uses_with(kept)
        gm.graph.erase_node(node)
    gm.recompile()


def _arguments(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: Any = 0.0,
    is_causal: Any = False,
    scale: Any = None,
    enable_gqa: Any = False,
) -> dict[str, Any]:
    """Bind a call's arguments to their names."""
    return dict(locals())


def _is_plain(node: fx.Node) -> bool:
    arguments = _arguments(*node.args, **node.kwargs)
    operands = [_value(arguments[name]) for name in ("query", "key", "value")]
    return (
        arguments["dropout_p"] == 0
        and isinstance(arguments["is_causal"], bool)
        and all(isinstance(x, torch.Tensor) and x.dim() == 4 for x in operands)
    )


def _value(argument: Any) -> Any:
    return argument.meta.get("example_value") if isinstance(argument, fx.Node) else argument


def _knows_the_op(gm: fx.GraphModule, example_inputs: Sequence[Any]) -> bool:
    tensors = [x for x in (*example_inputs, *gm.parameters()) if isinstance(x, torch.Tensor)]
    records = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    casts = any(torch.is_autocast_enabled(device) for device in {x.device.type for x in tensors})
    enters = any(_is_context(node) for node in gm.graph.nodes)
    return not (records or casts or enters or any(map(is_traceable_wrapper_subclass, tensors)))


def _is_context(node: fx.Node) -> bool:
    """Whether the graph enters autocast, or a transform such as vmap, here."""
    module = str(getattr(node.target, "__module__", ""))
    return node.op == "call_function" and (
        node.target is torch.amp.autocast_mode._enter_autocast or "functorch" in module
    )
