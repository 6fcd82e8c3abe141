"""Dead code elimination: nodes and constants that no output needs."""

from __future__ import annotations

__all__ = ["eliminate_dead"]

import dataclasses

from trt_backend.ir.graph import Graph, Node


def eliminate_dead(graph: Graph) -> Graph:
    """Remove the nodes and constants that no output needs; the inputs stay: they are the calling convention.

    Returns `graph` itself where everything is needed. No answer changes, so this takes no fuel.
    """
    needed = set(graph.outputs)
    alive: list[Node] = []
    for node in reversed(graph.nodes):
        if not needed.isdisjoint(node.outputs):
            alive.append(node)
            needed.update(node.inputs)
    constants = tuple(constant for constant in graph.constants if constant.value in needed)
    if len(alive) == len(graph.nodes) and len(constants) == len(graph.constants):
        return graph
    return dataclasses.replace(graph, nodes=tuple(reversed(alive)), constants=constants)
