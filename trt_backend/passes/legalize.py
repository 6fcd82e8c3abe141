"""Legalization: ops that the target refuses are said in ops that it takes.

Inputs and outputs are tensors of the target, too. Where it does not take a Reshape of one, it has no such tensors: a graph
without ops can be illegal by that alone, such as a float64 tensor that is only passed on.
"""

from __future__ import annotations

__all__ = ["Support", "legalize"]

import functools
from collections.abc import Callable, Sequence

from trt_backend.errors import Reason, UnsupportedError
from trt_backend.ir.builder import Builder, rebuild
from trt_backend.ir.graph import Graph, Node, Value
from trt_backend.ir.ops.base import Op
from trt_backend.ir.ops.layout import Reshape
from trt_backend.ir.types import TensorType
from trt_backend.passes.expansions import EXPANSIONS

Support = Callable[[Op, tuple[TensorType, ...]], Reason | None]
"""A target's answer for an op on operands of these types: None, or why it refuses."""

_MAX_ROUNDS = 8
"""Expansions of expansions of ...: the deepest is 3; more means that two expand into each other."""


def legalize(graph: Graph, support: Support) -> Graph:
    """Expand the ops that `support` refuses until it takes all; returns `graph` itself where it takes all already.

    Raises:
        UnsupportedError: an op is refused and has no expansion, or expands in a circle, or the target has no tensors of the
            type of an input or output; names it, why, and where.
    """
    for _ in range(_MAX_ROUNDS):
        if all(_refusal(support, node, node.inputs) is None for node in graph.nodes):
            _check_border(graph, support)
            return graph
        graph = rebuild(graph, functools.partial(_expand, support))
    for node in graph.nodes:
        if (reason := _refusal(support, node, node.inputs)) is not None:
            detail = f"{reason.op}: {reason.detail}; its expansions lead back to it: {node}"
            raise UnsupportedError(detail, reason.kind, node.source)
    return graph


def _check_border(graph: Graph, support: Support) -> None:
    known: set[TensorType] = set()
    for role, values in (("input", graph.inputs), ("output", graph.outputs)):
        for value in values:
            if value.type in known:
                continue
            known.add(value.type)
            if (reason := support(Reshape(value.shape), (value.type,))) is not None:
                raise UnsupportedError(f"the {role} {value}: {reason.detail}", reason.kind)


def _expand(support: Support, b: Builder, node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    reason = _refusal(support, node, inputs)
    if reason is None:
        return None
    expansion = EXPANSIONS.get(type(node.op))
    result = None if expansion is None else expansion(b, node.op, *inputs)
    if result is None:
        raise UnsupportedError(f"{reason.op}: {reason.detail}", reason.kind, node.source)
    wanted = node.outputs[0].type
    # Two symbolic dimensions that must agree may change places; the shape that was promised is kept.
    return [result if result.type == wanted else b.add(Reshape(wanted.shape), result)]


def _refusal(support: Support, node: Node, inputs: tuple[Value, ...]) -> Reason | None:
    return support(node.op, tuple(value.type for value in inputs))
