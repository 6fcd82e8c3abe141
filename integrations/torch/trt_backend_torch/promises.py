"""Types that torch promises and does not give.

torch 2.9 promises integers for a true division of integers with dynamic sizes, and gives floats: an engine that follows
would take their memory for integers. Such a division, and all that follows from it, is native.
"""

from __future__ import annotations

__all__ = ["MISTYPED", "mark_mistyped"]

import torch
from torch import fx

from trt_backend_torch.fx import tensors_of

MISTYPED = "trt_mistyped"
"""The key in the `meta` of a node whose promised type is wrong, or follows from a wrong one."""

_TRUE_DIVISIONS = frozenset({torch.ops.aten.div.Tensor, torch.ops.aten.true_divide.Tensor})


def mark_mistyped(gm: fx.GraphModule) -> None:
    """Mark true divisions that are promised to give integers, and what follows from them."""
    for node in gm.graph.nodes:
        divides = node.target in _TRUE_DIVISIONS and not all(map(_is_inexact, tensors_of(node)))
        if divides or any(MISTYPED in source.meta for source in node.all_input_nodes):
            node.meta[MISTYPED] = True


def _is_inexact(tensor: torch.Tensor | None) -> bool:
    return tensor is None or tensor.is_floating_point() or tensor.is_complex()
