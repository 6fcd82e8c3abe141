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

from trt_backend_torch.kept import LIBRARY, is_plain, keep, seen

_NAME = "scaled_dot_product_attention"
LIBRARY.define(
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


LIBRARY.impl(_NAME, _natively, "CompositeExplicitAutograd")
torch.library.register_fake(f"trt_backend::{_NAME}", _natively, lib=LIBRARY)

ATTENTION: OpOverload = torch.ops.trt_backend.scaled_dot_product_attention.default
"""`torch.nn.functional.scaled_dot_product_attention` of rank 4 without dropout."""


def keep_attention(gm: fx.GraphModule) -> None:
    """Put `ATTENTION` in the place of torch's function in a graph of dynamo's; those inside its subgraphs stay.

    Not where gradients are recorded, where autocast chooses the types, or where tensors are not plain: none of these
    know the op. What follows relies on the layout that dynamo saw, so that the op promises the same.
    """
    keep(gm, F.scaled_dot_product_attention, ATTENTION, _arguments)


def _arguments(node: fx.Node) -> dict[str, Any] | None:
    arguments, result = _bound(*node.args, **node.kwargs), seen(node)
    operands = [seen(arguments[name]) for name in ("query", "key", "value")]
    mask = seen(arguments["attn_mask"])
    if not (
        arguments.pop("dropout_p") == 0
        and isinstance(arguments["is_causal"], bool)
        and is_plain(result, *operands, *([] if mask is None else [mask]))
        and all(x.dim() == 4 for x in (result, *operands))
        and (mask is None or mask.dtype in (torch.bool, operands[0].dtype))
        and (result.is_contiguous() or result.transpose(1, 2).is_contiguous())
    ):
        return None
    return {**arguments, "heads_first": result.is_contiguous()}


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
