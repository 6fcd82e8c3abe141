"""The verifier: what the builder makes passes, and each rule has a graph that breaks it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given

from ir_cases import graphs, renamed
from trt_backend.errors import InvalidGraphError
from trt_backend.ir.builder import Builder
from trt_backend.ir.dims import Dim, Symbol
from trt_backend.ir.graph import Constant, Graph, Node, Value
from trt_backend.ir.ops.elementwise import Unary, UnaryKind
from trt_backend.ir.ops.layout import Transpose
from trt_backend.ir.types import DType, TensorType
from trt_backend.ir.verify import verify

MATRIX = TensorType(DType.FLOAT32, (2, 3))
X, Y, Z = (Value(name, MATRIX) for name in "xyz")
NEG = Unary(UnaryKind.NEG)
GOOD = Graph("main", (X,), (), (Node(NEG, (X,), (Y,)), Node(NEG, (Y,), (Z,))), (Z, X))


def _input(*dims: int | Dim, name: str = "x") -> Graph:
    value = Value(name, TensorType(DType.FLOAT32, dims))
    return Graph("main", (value,), (), (), (value,))


def _constant(shape: tuple[int | Dim, ...]) -> Graph:
    value = Value("c", TensorType(DType.FLOAT32, shape))
    return Graph("main", (), (Constant(value, lambda: np.zeros(1, np.float32)),), (), (value,))


def _with(*nodes: Node) -> Graph:
    return dataclasses.replace(GOOD, nodes=nodes, outputs=(X,))


@given(graphs())
def test_accepts_what_the_builder_makes(graph: Graph) -> None:
    verify(graph)
    verify(renamed(graph))


def test_accepts_good() -> None:
    verify(GOOD)


BROKEN = {
    "NAMED: the name 'a b'": _input(2, name="a b"),
    "NAMED: the name ''": _input(2, name=""),
    "NAMED: the graph's name 'a,b'": dataclasses.replace(GOOD, name="a,b"),
    "NAMED: the symbol's name 'in'": _input(Dim.of(Symbol("in"))),
    "NAMED: the symbol's name 'max'": _input(Dim.of(Symbol("max"))),
    "NAMED: the symbol's name 's-1'": _input(Dim.of(Symbol("s-1"))),
    "SYMBOLS: s has two ranges": _input(Dim.of(Symbol("s", 1)), Dim.of(Symbol("s", 2))),
    r"SYMBOLS: the range of s is empty: \[4, 3\]": _input(Dim.of(Symbol("s", 4, 3))),
    "WEIGHTS": dataclasses.replace(GOOD, weights=frozenset({Y})),
    "STATIC: the constant %c": _constant((Dim.of(Symbol("s")),)),
    "UNIQUE: %x is defined twice, again in: main": dataclasses.replace(GOOD, inputs=(X, X)),
    "UNIQUE: %y is defined twice": _with(Node(NEG, (X,), (Y,)), Node(NEG, (X,), (Y,))),
    "DEFINED: %y is used before it is defined": _with(Node(NEG, (Y,), (Z,)), Node(NEG, (X,), (Y,))),
    "DEFINED: %y is used before it is defined, in: return": dataclasses.replace(GOOD, nodes=(), outputs=(Y,)),
    r"DEFINED: %x is f32\[2, 3\], not i32\[1\]": _with(
        Node(NEG, (Value("x", TensorType(DType.INT32, (1,))),), (Y,))
    ),
    "FROZEN: unhashable type: 'list'": _with(Node(Transpose([0, 1]), (X,), (Y,))),  # type: ignore[arg-type]
    r"TYPED: f32\[3, 2\] inferred": _with(Node(Transpose((1, 0)), (X,), (Y,))),
    "TYPED: not takes bool, not f32": _with(Node(Unary(UnaryKind.NOT), (X,), (Y,))),
    "TYPED: too many values": _with(Node(NEG, (X, X), (Y,))),
}


@pytest.mark.parametrize("message", BROKEN)
def test_refuses(message: str) -> None:
    with pytest.raises(InvalidGraphError, match=message):
        verify(BROKEN[message])


def test_each_rule_has_a_negative() -> None:
    rules = {line.split()[0] for line in (verify.__doc__ or "").splitlines() if line.strip()[:4].isupper()}
    assert rules == {message.split(":")[0] for message in BROKEN}


def test_builder_refuses_and_names_the_op() -> None:
    b = Builder()
    with pytest.raises(InvalidGraphError, match=r"NOT.*on \(f32\[2, 3\]\): not takes bool"):
        b.add(Unary(UnaryKind.NOT), b.input("x", MATRIX))
