"""What torch promises of a result and does not give.

Rules:
  TYPES    torch 2.9 promises integers for a true division of integers with dynamic sizes, and gives floats: an engine that
           follows would take their memory for integers. Such a division, and all that follows from it, is native.
  STRIDES  A few kernels keep channels_last where row-major is promised, on which AOTAutograd then builds views that fail.
           They get a copy that keeps the promise. And `native_group_norm` refuses what is not contiguous, in the format that
           strides suggest: where a size is 1, `reshape` gives others than it promises, so it gets a copy, too.
"""

from __future__ import annotations

__all__ = ["MISTYPED", "keep_strides", "mark_mistyped"]

import torch
from torch import fx

from trt_backend_torch.fx import tensors_of
from trt_backend_torch.types import physical_order

MISTYPED = "trt_mistyped"
"""The key in the `meta` of a node whose promised type is wrong, or follows from a wrong one."""

_KEEP_CHANNELS_LAST = (
    torch.ops.aten.channel_shuffle.default,
    torch.ops.aten.native_channel_shuffle.default,
    torch.ops.aten.roll.default,
)
_GROUP_NORM = torch.ops.aten.native_group_norm.default
_CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
_CLONE = torch.ops.aten.clone.default
_TRUE_DIVISIONS = frozenset({torch.ops.aten.div.Tensor, torch.ops.aten.true_divide.Tensor})


def mark_mistyped(gm: fx.GraphModule) -> None:
    """Mark true divisions that are promised to give integers, and what follows from them."""
    for node in gm.graph.nodes:
        divides = node.target in _TRUE_DIVISIONS and not all(map(_is_inexact, tensors_of(node)))
        if divides or any(MISTYPED in source.meta for source in node.all_input_nodes):
            node.meta[MISTYPED] = True


def keep_strides(gm: fx.GraphModule) -> None:
    """Have native kernels give the strides that torch promises of them (rule STRIDES)."""
    calls = [
        node
        for target in _KEEP_CHANNELS_LAST
        for node in gm.graph.find_nodes(op="call_function", target=target)
    ]
    formats = {node: torch.contiguous_format for node in calls if not _is_row_major(node.args[0].meta["val"])}
    for group_norm in gm.graph.find_nodes(op="call_function", target=_GROUP_NORM):
        if _is_doubtful(x := group_norm.args[0]):
            formats[x] = _CHANNELS_LAST[x.meta["val"].dim()]
    for node, memory_format in formats.items():
        with gm.graph.inserting_after(node):
            copy = gm.graph.call_function(_CLONE, (node,), {"memory_format": memory_format})
        copy.meta = dict(node.meta)
        node.replace_all_uses_with(copy, delete_user_cb=lambda user, copy=copy: user is not copy)
    if formats:
        gm.recompile()


def _is_doubtful(node: fx.Node) -> bool:
    """Whether a result's strides are channels_last's in the promise, and others perhaps in fact."""
    result = node.meta["val"]
    alone = any(isinstance(size, int) and size == 1 for size in result.shape)
    return node.op != "placeholder" and alone and result.dim() in _CHANNELS_LAST and not _is_row_major(result)


def _is_row_major(tensor: torch.Tensor) -> bool:
    return physical_order(tensor.shape, tensor.stride()) == tuple(range(tensor.dim()))


def _is_inexact(tensor: torch.Tensor | None) -> bool:
    return tensor is None or tensor.is_floating_point() or tensor.is_complex()
