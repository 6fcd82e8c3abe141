"""A TensorFlow graph as the partitioner sees it."""

from __future__ import annotations

__all__ = ["TfHostGraph", "ordered", "taken", "waits_for"]

from collections.abc import Iterable, Sequence
from graphlib import TopologicalSorter

import tensorflow as tf

_GIVEN = frozenset({"Const", "Placeholder"})


class TfHostGraph:
    """The ops of a graph but for its placeholders and constants: each segment has constants of its own.

    Args:
        graph: a graph, whose loops are `While` ops, or native.
        outputs: the tensors that it returns.
    """

    def __init__(self, graph: tf.Graph, outputs: Sequence[tf.Tensor]) -> None:
        self.nodes: Sequence[tf.Operation] = [op for op in ordered(graph) if op.type not in _GIVEN]
        self.outputs: Iterable[tf.Operation] = [tensor.op for tensor in outputs]

    def inputs(self, node: tf.Operation) -> Iterable[tf.Operation]:
        """Return the ops whose values `node` takes."""
        return taken(node)

    def after(self, node: tf.Operation) -> Iterable[tf.Operation]:
        """Return the ops that control edges put before `node`."""
        return waits_for(node)

    def is_pure(self, node: tf.Operation) -> bool:
        """Whether the op neither keeps state nor draws random numbers."""
        return not node.op_def.is_stateful


def ordered(graph: tf.Graph) -> list[tf.Operation]:
    """Return a graph's ops, each behind those that it takes values from or waits for."""
    before = {op: [*taken(op), *op.control_inputs] for op in graph.get_operations()}
    return list(TopologicalSorter(before).static_order())


def taken(op: tf.Operation) -> list[tf.Operation]:
    """Return the ops whose values an op takes, but for the edges on which TensorFlow 1's loops go back."""
    return [tensor.op for tensor in op.inputs if tensor.op.type not in ("NextIteration", "RefNextIteration")]


def waits_for(op: tf.Operation) -> list[tf.Operation]:
    """Return the ops that control edges put before an op; where that is a constant, or it takes one, those before that.

    Segments have constants of their own, and Grappler likes to let a constant wait for what its user should wait for.
    """
    found: dict[tf.Operation, None] = {}
    pending = [*op.control_inputs, *(tensor.op for tensor in op.inputs if tensor.op.type == "Const")]
    while pending:
        before = pending.pop()
        if before.type == "Const":
            pending += before.control_inputs
        else:
            found[before] = None
    return list(found)
