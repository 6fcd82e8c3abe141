"""The fingerprint: the same for the same graph, another for anything that changes an engine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given

from conformance.cases import CASES
from ir_cases import changed_attributes, graphs, renamed
from trt_backend.errors import InvalidGraphError
from trt_backend.ir.builder import Builder
from trt_backend.ir.dims import Dim, Symbol
from trt_backend.ir.fingerprint import Fingerprint, fingerprint
from trt_backend.ir.graph import Graph, Node, Value
from trt_backend.ir.ops.base import Op
from trt_backend.ir.ops.elementwise import Activation, ActivationKind, Elementwise, ElementwiseKind
from trt_backend.ir.ops.reduction import Softmax
from trt_backend.ir.types import DType, TensorType

SQUARE = TensorType(DType.FLOAT32, (4, 4))


def _of(op: Op, *order: int, type: TensorType = SQUARE, weights: int = 0) -> Fingerprint:
    """Fingerprint one op on two inputs taken in that order."""
    b = Builder()
    inputs = [b.input(f"x{i}", type, weight=i < weights) for i in range(2)]
    return fingerprint(b.build([b.add(op, *(inputs[i] for i in order))]))


SUB = Elementwise(ElementwiseKind.SUB)
S = Dim.of(Symbol("s", 1, 8))

DIFFERENT: dict[str, tuple[Fingerprint, Fingerprint]] = {
    "axis": (_of(Softmax(0), 0), _of(Softmax(1), 0)),
    "operand order": (_of(SUB, 0, 1), _of(SUB, 1, 0)),
    "edge": (_of(SUB, 0, 0), _of(SUB, 0, 1)),
    "kind": (_of(SUB, 0, 1), _of(Elementwise(ElementwiseKind.SUM), 0, 1)),
    "shape": (_of(SUB, 0, 1), _of(SUB, 0, 1, type=SQUARE.with_shape((4, 5)))),
    "dtype": (_of(SUB, 0, 1), _of(SUB, 0, 1, type=SQUARE.with_dtype(DType.FLOAT16))),
    "weight or not": (_of(SUB, 0, 1), _of(SUB, 0, 1, weights=1)),
    "symbol or number": (_of(SUB, 0, 1), _of(SUB, 0, 1, type=SQUARE.with_shape((4, S)))),
    "range of a symbol": (
        _of(SUB, 0, 1, type=SQUARE.with_shape((S,))),
        _of(SUB, 0, 1, type=SQUARE.with_shape((Dim.of(Symbol("s", 1, 9)),))),
    ),
    "sign of zero": (
        _of(Activation(ActivationKind.CLIP, 0.0, 1.0), 0),
        _of(Activation(ActivationKind.CLIP, -0.0, 1.0), 0),
    ),
    "last bit of a float": (
        _of(Activation(ActivationKind.ELU, 0.1), 0),
        _of(Activation(ActivationKind.ELU, float(np.nextafter(0.1, 1))), 0),
    ),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_structure_differs_in(what: str) -> None:
    left, right = DIFFERENT[what]
    assert left.structure != right.structure
    assert left.weights == right.weights


@given(graphs())
def test_names_and_sources_do_not_count(graph: Graph) -> None:
    assert fingerprint(renamed(graph)) == fingerprint(graph)


@given(graphs())
def test_any_attribute_counts(graph: Graph) -> None:
    before = fingerprint(graph).structure
    for i, node in enumerate(graph.nodes):
        for op in changed_attributes(node.op):
            nodes = (*graph.nodes[:i], dataclasses.replace(node, op=op), *graph.nodes[i + 1 :])
            assert fingerprint(dataclasses.replace(graph, nodes=nodes)).structure != before


def test_any_attribute_of_every_op_counts() -> None:
    value = Value("x", SQUARE)

    def structure(op: Op) -> str:
        return fingerprint(Graph("main", (value,), (), (Node(op, (value,), ()),), ())).structure

    for case in CASES:
        for op in changed_attributes(case.op):
            assert structure(op) != structure(case.op)


@given(graphs())
def test_any_edge_counts(graph: Graph) -> None:
    before = fingerprint(graph).structure
    values = list(graph.values())
    for i, node in enumerate(graph.nodes):
        for j, old in enumerate(node.inputs):
            new = next((value for value in values if value.type == old.type and value != old), None)
            if new is not None:
                inputs = (*node.inputs[:j], new, *node.inputs[j + 1 :])
                nodes = (*graph.nodes[:i], dataclasses.replace(node, inputs=inputs), *graph.nodes[i + 1 :])
                assert fingerprint(dataclasses.replace(graph, nodes=nodes)).structure != before


def _with_constant(array: np.ndarray) -> Fingerprint:
    b = Builder()
    return fingerprint(b.build([b.add(SUB, b.input("x", SQUARE), b.constant(array))]))


def test_constants_change_only_the_weights() -> None:
    zeros, ones = (_with_constant(make((4, 4), np.float32)) for make in (np.zeros, np.ones))
    assert zeros.structure == ones.structure
    assert zeros.weights != ones.weights
    assert zeros == _with_constant(np.zeros((4, 4), np.float32))


@pytest.mark.parametrize("view", [np.asfortranarray, lambda a: a[::1], lambda a: np.repeat(a, 2, 0)[::2]])
def test_strides_of_constants_do_not_count(view: Callable[[np.ndarray], np.ndarray]) -> None:
    array = np.arange(16, dtype=np.float32).reshape(4, 4)
    assert _with_constant(view(array)) == _with_constant(array)


def test_outputs_count() -> None:
    b = Builder()
    x, y = b.input("x", SQUARE), b.input("y", SQUARE)
    found = {fingerprint(b.build(outputs)).structure for outputs in ([x], [y], [x, y], [y, x], [x, x])}
    assert len(found) == 5


def test_a_constant_that_is_not_what_it_says_is_refused() -> None:
    b = Builder()
    graph = b.build([b.lazy_constant(SQUARE, lambda: np.zeros(3))])
    with pytest.raises((InvalidGraphError, ValueError), match=r"is f32\[4, 4\], not float64\[3\]"):
        fingerprint(graph)
