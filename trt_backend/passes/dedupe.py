"""Common subexpressions and equal constants, each kept once."""

from __future__ import annotations

__all__ = ["dedupe"]

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

from trt_backend.ir.graph import Constant, Graph, Node, Value
from trt_backend.ir.ops.base import Op
from trt_backend.ir.types import TensorType
from trt_backend.passes.fuel import Fuel


def dedupe(graph: Graph, fuel: Fuel | None = None) -> Graph:
    """Keep one of the nodes with the same op and inputs, and one of the constants with the same contents.

    A constant is read only where another has its type. Returns `graph` itself where all are different.
    """
    fuel = fuel or Fuel()
    kept: dict[Any, tuple[Value, ...]] = {}
    renamed: dict[Value, Value] = {}
    shared = Counter(constant.value.type for constant in graph.constants)

    def is_new(key: Any, outputs: tuple[Value, ...]) -> bool:
        first = kept.setdefault(key, outputs)
        if first is outputs or fuel.empty:
            return True
        fuel.burn()
        renamed.update(zip(outputs, first, strict=True))
        return False

    constants = [c for c in graph.constants if is_new(_constant_key(c, shared), (c.value,))]
    nodes: list[Node] = []
    for node in graph.nodes:
        inputs = _renamed(renamed, node.inputs)
        if is_new((_exact(node.op), inputs), node.outputs):
            nodes.append(node if inputs == node.inputs else dataclasses.replace(node, inputs=inputs))
    if not renamed:
        return graph
    outputs = _renamed(renamed, graph.outputs)
    return dataclasses.replace(graph, constants=tuple(constants), nodes=tuple(nodes), outputs=outputs)


def _constant_key(constant: Constant, shared: Counter[TensorType]) -> tuple[Any, ...]:
    value = constant.value
    return (value.type, constant.digest if shared[value.type] > 1 else value.name)


def _exact(op: Op) -> tuple[Op, tuple[str, ...]]:
    """Return a key that tells 0.0 from -0.0, which `==` does not."""
    return op, tuple(repr(value) for value in op.attributes().values() if isinstance(value, float))


def _renamed(renamed: dict[Value, Value], values: Sequence[Value]) -> tuple[Value, ...]:
    return tuple(renamed.get(value, value) for value in values)
