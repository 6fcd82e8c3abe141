"""Reading FX nodes: what they compute, where the user wrote it, what they promise."""

from __future__ import annotations

__all__ = [
    "NUMBER",
    "compute_ops",
    "is_compute",
    "is_random",
    "is_size",
    "is_view",
    "op_name",
    "source_line",
    "tensors_of",
]

import operator
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

_aten = torch.ops.aten
_FRAME = re.compile(r'File "([^"]+)", line (\d+)')
_DEFAULT_DEVICE = (
    "torch/utils/_device.py"  # stands between the user and an op under `torch.set_default_device`
)
_COPIES = frozenset({_aten.clone.default, _aten.lift_fresh_copy.default, _aten._to_copy.default})

_FUSED: Mapping[Any, int] = {
    _aten._native_multi_head_attention.default: 3,  # a product, attention, a product
    _aten._transformer_encoder_layer_fwd.default: 10,  # and two sums and normalizations, two products, an activation
}

NUMBER = "trt_number"
"""The key in the `meta` of a 0-d tensor that follows from sizes and constants alone, as a size does."""


def is_size(node: fx.Node) -> bool:
    """Whether the node is a symbolic integer (or float, or bool), not a tensor."""
    return isinstance(node.meta.get("val"), (torch.SymInt, torch.SymFloat, torch.SymBool, int, float, bool))


def is_view(node: fx.Node) -> bool:
    """Whether the node's result shares its input's memory in torch."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(result.alias_info is not None for result in schema.returns)


def is_compute(node: fx.Node) -> bool:
    """Whether the node computes: views, copies, sizes, numbers that follow from them and the unpacking of tuples do not."""
    if node.op != "call_function" or node.target is operator.getitem:
        return False
    return not (is_size(node) or is_view(node) or node.target in _COPIES or NUMBER in node.meta)


def compute_ops(node: fx.Node) -> int:
    """Return how many ops the node computes: several where torch has fused them."""
    return _FUSED.get(node.target, 1) if is_compute(node) else 0


def is_random(node: fx.Node) -> bool:
    """Whether the node draws random numbers; a dropout that is switched off does not."""
    target = node.target
    if not isinstance(target, OpOverload) or torch.Tag.nondeterministic_seeded not in target.tags:
        return False
    declared = target._schema.arguments
    given = {argument.name: argument.default_value for argument in declared}
    given |= {argument.name: value for argument, value in zip(declared, node.args, strict=False)}
    given |= node.kwargs
    return given.get("dropout_p") != 0 and given.get("train") is not False


def op_name(node: fx.Node) -> str:
    """Return the name that reports show, as "aten.add.Tensor"."""
    return (
        str(node.target)
        if isinstance(node.target, OpOverload)
        else getattr(node.target, "__name__", str(node.target))
    )


def source_line(node: fx.Node) -> str:
    """Return the user's line that led to the node as "file:line", or "" where torch does not know it."""
    frames = _FRAME.findall(node.meta.get("stack_trace") or "")
    users = [frame for frame in frames if not frame[0].endswith(_DEFAULT_DEVICE)]
    return f"{users[-1][0]}:{users[-1][1]}" if users else ""


def tensors_of(node: fx.Node) -> tuple[torch.Tensor | None, ...]:
    """Return the fake tensors that the node promises, one for each output (None where it is no tensor)."""
    value = node.meta.get("val")
    values = value if isinstance(value, (tuple, list)) else (value,)
    return tuple(item if isinstance(item, torch.Tensor) else None for item in values)
