"""Attention kept whole: an op that AOTAutograd does not take apart.

AOTAutograd turns `scaled_dot_product_attention` into the kernel that torch would choose. With some masks, on some devices,
that is none, but a dozen ops that compute in float32: no engine recognises them as attention, and where engines build with
two precisions they cost more than the rest of the model.
"""

from __future__ import annotations

__all__ = ["ATTENTION", "keep_attention"]

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx
from torch._ops import OpOverload
from torch.utils._python_dispatch import is_traceable_wrapper_subclass

_NAME = "scaled_dot_product_attention"
_library = torch.library.Library("trt_backend", "FRAGMENT")
_library.define(
    f"{_NAME}(Tensor query, Tensor key, Tensor value, Tensor? attn_mask=None, bool is_causal=False, "
    "float? scale=None, bool enable_gqa=False, bool heads_first=False) -> Tensor"
)


def _natively(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
    heads_first: bool = False,
) -> torch.Tensor:
    """Compute it with the kernel that torch chooses.

    In memory the result is [batch, heads, sequence, size] where `heads_first`, else [batch, sequence, heads, size].
    """
    result = F.scaled_dot_product_attention(
        query, key, value, attn_mask, 0.0, is_causal, scale=scale, enable_gqa=enable_gqa
    )
    return result.contiguous() if heads_first else result.transpose(1, 2).contiguous().transpose(1, 2)


_library.impl(_NAME, _natively, "CompositeExplicitAutograd")
torch.library.register_fake(f"trt_backend::{_NAME}", _natively, lib=_library)

ATTENTION: OpOverload = torch.ops.trt_backend.scaled_dot_product_attention.default
"""`torch.nn.functional.scaled_dot_product_attention` of rank 4 without dropout."""


def keep_attention(gm: fx.GraphModule) -> None:
    """Put `ATTENTION` in the place of torch's function in a graph of dynamo's; those inside its subgraphs stay.

    Not where gradients are recorded, where autocast chooses the types, or where tensors are not plain: none of these
    know the op. What follows relies on the layout that dynamo saw, so that the op promises the same.
    """
    attentions = gm.graph.find_nodes(op="call_function", target=F.scaled_dot_product_attention)
    if not attentions or any(map(_is_context, gm.graph.nodes)):
        return
    for node in attentions:
        arguments = _bound(*node.args, **node.kwargs)
        if not _is_plain(node, arguments):
            continue
        del arguments["dropout_p"]
        arguments["heads_first"] = node.meta["example_value"].is_contiguous()
        with gm.graph.inserting_before(node):
            kept = gm.graph.call_function(ATTENTION, kwargs=arguments)
        kept.meta.update(node.meta)
        node.replace_all_uses_with(kept)
        gm.graph.erase_node(node)
    gm.recompile()


def _bound(*args: Any, **kwargs: Any) -> dict[str, Any]:
    """Bind a call's arguments to their names, which a built-in function does not tell."""
    bound = inspect.signature(_torchs).bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def _torchs(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: Any = 0.0,
    is_causal: Any = False,
    scale: Any = None,
    enable_gqa: Any = False,
) -> None: ...


def _is_plain(node: fx.Node, arguments: dict[str, Any]) -> bool:
    result = _value(node)
    operands = [_value(arguments[name]) for name in ("query", "key", "value")]
    mask = _value(arguments["attn_mask"])
    return (
        arguments["dropout_p"] == 0
        and isinstance(arguments["is_causal"], bool)
        and all(isinstance(x, torch.Tensor) and x.dim() == 4 for x in (result, *operands))
        and not any(is_traceable_wrapper_subclass(x) for x in (result, *operands, mask))
        and (mask is None or mask.dtype in (torch.bool, operands[0].dtype))
        and not result.requires_grad
        and not torch.is_autocast_enabled(result.device.type)
        and (result.is_contiguous() or result.transpose(1, 2).is_contiguous())
    )


def _value(argument: Any) -> Any:
    return argument.meta.get("example_value") if isinstance(argument, fx.Node) else argument


def _is_context(node: fx.Node) -> bool:
    """Whether the graph enters autocast, or a transform such as vmap, here."""
    module = str(getattr(node.target, "__module__", ""))
    return node.op == "call_function" and (
        node.target is torch.amp.autocast_mode._enter_autocast or "functorch" in module
    )
