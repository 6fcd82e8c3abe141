"""Making graphs: the builder, and the one walk that every rewrite uses."""

from __future__ import annotations

__all__ = ["Builder", "Rule", "rebuild"]

import dataclasses
import re
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from trt_backend.errors import InvalidGraphError
from trt_backend.ir.graph import Constant, Graph, Node, Value
from trt_backend.ir.ops.base import Op
from trt_backend.ir.types import DType, TensorType

_UNREADABLE = re.compile(r"[^\w./:$@-]")


class Builder:
    """Collects inputs, constants and nodes; every node is typed when it is added."""

    def __init__(self, name: str = "main") -> None:
        self.name = _UNREADABLE.sub("_", name) or "_"
        self.source = ""
        self._inputs: list[Value] = []
        self._weights: set[Value] = set()
        self._constants: dict[Value, Constant] = {}
        self._nodes: list[Node] = []
        self._producers: dict[Value, Node] = {}
        self._names: set[str] = set()

    def input(self, name: str, type: TensorType, *, weight: bool = False) -> Value:
        """Add an input; a taken name gets a number, and characters that the text form needs become `_`."""
        value = self._value(_UNREADABLE.sub("_", name) or "_", type)
        self._inputs.append(value)
        if weight:
            self._weights.add(value)
        return value

    def constant(self, array: npt.ArrayLike, dtype: DType | None = None) -> Value:
        """Add a constant from an array (or anything that NumPy makes one of), read at once."""
        data = np.asarray(array, dtype=dtype.numpy if dtype else None)
        return self.lazy_constant(TensorType(DType.from_numpy(data.dtype), data.shape), lambda: data)

    def lazy_constant(self, type: TensorType, read: Callable[[], npt.NDArray[Any]]) -> Value:
        """Add a constant whose array is read when somebody needs it."""
        return self._keep(Constant(self._fresh("c", type), read))

    def adopt(self, constant: Constant) -> Value:
        """Add a constant of another graph, under its own name where that is free."""
        source, value = constant, self._value(constant.value.name, constant.value.type)
        if value != constant.value:
            constant = dataclasses.replace(constant, value=value, read=lambda: source.array)
        return self._keep(constant)

    def emit(self, op: Op, *inputs: Value) -> tuple[Value, ...]:
        """Add a node and return its outputs.

        Raises:
            InvalidGraphError: the op does not take these inputs.
        """
        try:
            types = op.infer(*(value.type for value in inputs))
        except ValueError as error:
            given = ", ".join(str(value.type) for value in inputs)
            raise InvalidGraphError(f"{op} on ({given}): {error}") from error
        outputs = tuple(self._fresh("v", type) for type in types)
        node = Node(op, inputs, outputs, self.source)
        self._nodes.append(node)
        self._producers.update(dict.fromkeys(outputs, node))
        return outputs

    def add(self, op: Op, *inputs: Value) -> Value:
        """Add a node of one output and return it."""
        (output,) = self.emit(op, *inputs)
        return output

    @contextmanager
    def at(self, source: str) -> Generator[None]:
        """Give the nodes added inside the user's source line."""
        before, self.source = self.source, source
        try:
            yield
        finally:
            self.source = before

    def producer(self, value: Value) -> Node | None:
        """Return the node that made `value`; None for inputs and constants."""
        return self._producers.get(value)

    def constant_of(self, value: Value) -> Constant | None:
        """Return the constant that `value` is, or None."""
        return self._constants.get(value)

    def build(self, outputs: Sequence[Value]) -> Graph:
        """Return the graph that was collected."""
        return Graph(
            self.name,
            tuple(self._inputs),
            tuple(self._constants.values()),
            tuple(self._nodes),
            tuple(outputs),
            frozenset(self._weights),
        )

    def _keep(self, constant: Constant) -> Value:
        self._constants[constant.value] = constant
        return constant.value

    def _value(self, name: str, type: TensorType) -> Value:
        """Return a value of that name, or of a numbered one where it is taken."""
        if name in self._names:
            return self._fresh(name.rstrip("0123456789") or "v", type)
        self._names.add(name)
        return Value(name, type)

    def _fresh(self, stem: str, type: TensorType) -> Value:
        number = len(self._names)
        while (name := f"{stem}{number}") in self._names:
            number += 1
        self._names.add(name)
        return Value(name, type)


Rule = Callable[[Builder, Node, tuple[Value, ...]], Sequence[Value] | None]


def rebuild(graph: Graph, rule: Rule) -> Graph:
    """Return the graph with each node replaced by what `rule` returns, or kept where that is None.

    The rule gets the builder, the old node, and the node's inputs in the new graph, and returns as many values, of the
    same types, as the node has outputs. Where no rule matches, the result is `graph` itself.
    """
    builder = Builder(graph.name)
    renamed: dict[Value, Value] = {}
    changed = False
    for value in graph.inputs:
        renamed[value] = builder.input(value.name, value.type, weight=value in graph.weights)
    for constant in graph.constants:
        renamed[constant.value] = builder.adopt(constant)
    for node in graph.nodes:
        inputs = tuple(renamed[value] for value in node.inputs)
        with builder.at(node.source):
            replaced = rule(builder, node, inputs)
            outputs = builder.emit(node.op, *inputs) if replaced is None else replaced
        changed |= replaced is not None
        if [value.type for value in outputs] != [value.type for value in node.outputs]:
            raise InvalidGraphError(f"a rewrite made {', '.join(str(v.type) for v in outputs)} of: {node}")
        renamed.update(zip(node.outputs, outputs, strict=True))
    return builder.build([renamed[value] for value in graph.outputs]) if changed else graph
