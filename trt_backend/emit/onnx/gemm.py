"""Finding what one Gemm computes: a matrix product of rank 2 with its transposes and its bias.

Weights are inputs of the model, so a Transpose or a Reshape of one would run in every call. Later versions of ONNX
Runtime fuse most of them, 1.23 does not.

Rules:
  PRODUCT  every float MatrixMultiply of rank 2 is one Gemm, emitted in place of the last node that it covers.
  BIAS     it covers a SUM that is the only user of the product and does not broadcast it.
  SOURCE   it reads the source of a Transpose of its operands and of a Reshape of its bias from [N] to [1, N]; those
           nodes are left out where nobody else needs them.
"""

from __future__ import annotations

__all__ = ["Gemm", "Gemms", "find_gemms"]

from collections import Counter
from dataclasses import dataclass

from trt_backend.ir.graph import Graph, Node, Value
from trt_backend.ir.ops.contraction import MatrixMultiply
from trt_backend.ir.ops.elementwise import Elementwise, ElementwiseKind
from trt_backend.ir.ops.layout import Reshape, Transpose


@dataclass(frozen=True)
class Gemm:
    """`a b + bias`, with a and b transposed as the flags say."""

    a: Value
    b: Value
    bias: Value | None
    transpose_a: bool
    transpose_b: bool


@dataclass(frozen=True)
class Gemms:
    """The Gemms of a graph by the value that each gives, and the values that they make superfluous."""

    by_result: dict[Value, Gemm]
    covered: frozenset[Value]


def find_gemms(graph: Graph) -> Gemms:
    """Return the Gemms of a graph."""
    search = _Search(graph)
    for node in graph.nodes:
        if isinstance(node.op, MatrixMultiply) and _is_gemm(node):
            search.add(node, node.op)
    return Gemms(search.gemms, frozenset(search.covered))


def _is_gemm(node: Node) -> bool:
    return all(value.dtype.is_float and len(value.shape) == 2 for value in node.inputs)


class _Search:
    """What has been found, and how many uses of each value are left outside of it."""

    def __init__(self, graph: Graph) -> None:
        self.gemms: dict[Value, Gemm] = {}
        self.covered: set[Value] = set()
        self._producers = {value: node for node in graph.nodes for value in node.outputs}
        self._users = {value: node for node in graph.nodes for value in node.inputs}
        self._uses = Counter([*graph.outputs, *(value for node in graph.nodes for value in node.inputs)])

    def add(self, node: Node, op: MatrixMultiply) -> None:
        """Make a Gemm of a product."""
        (result,) = node.outputs
        a, b = map(self._before_transpose, node.inputs)
        flags = op.transpose_a != (a != node.inputs[0]), op.transpose_b != (b != node.inputs[1])
        total, addend = self._sum(result)
        if total is None or addend is None:
            self.gemms[result] = Gemm(a, b, None, *flags)
            return
        self._uses[result] = 0
        self.covered.add(result)
        self.gemms[total] = Gemm(a, b, self._before_reshape(addend), *flags)

    def _sum(self, result: Value) -> tuple[Value | None, Value | None]:
        """Return the sum that the product may cover, and what it adds (rule BIAS)."""
        user = self._users.get(result)
        if user is None or self._uses[result] != 1 or user.op != Elementwise(ElementwiseKind.SUM):
            return None, None
        (total,) = user.outputs
        (addend,) = (value for value in user.inputs if value != result)
        if total in self.gemms:  # the other operand is a product, too, and has taken it
            return None, None
        fits = total.shape == result.shape and addend.shape in (result.shape, (1, result.shape[1]))
        return (total, addend) if fits else (None, None)

    def _before_transpose(self, value: Value) -> Value:
        node = self._producers.get(value)
        return (
            self._read_source(node)
            if node and isinstance(node.op, Transpose) and node.op.permutation == (1, 0)
            else value
        )

    def _before_reshape(self, value: Value) -> Value:
        node = self._producers.get(value)
        if node and isinstance(node.op, Reshape) and value.shape == (1, *node.inputs[0].shape):
            return self._read_source(node)
        return value

    def _read_source(self, node: Node) -> Value:
        """Return the source of a node, which is covered once nobody else reads its result (rule SOURCE)."""
        (result,), (source,) = node.outputs, node.inputs
        self._uses[result] -= 1
        if not self._uses[result]:
            self.covered.add(result)
        return source
