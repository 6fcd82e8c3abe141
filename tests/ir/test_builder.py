"""The builder's names, and `rebuild`, the walk of every rewrite."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given

from ir_cases import graphs
from trt_backend.errors import InvalidGraphError
from trt_backend.ir.builder import Builder, rebuild
from trt_backend.ir.fingerprint import fingerprint
from trt_backend.ir.graph import Constant, Graph, Value
from trt_backend.ir.ops.elementwise import Cast, Unary, UnaryKind
from trt_backend.ir.types import DType, TensorType
from trt_backend.ir.verify import verify

VECTOR = TensorType(DType.FLOAT32, (2,))
NEG = Unary(UnaryKind.NEG)


@pytest.mark.parametrize("name", ["x", "v", "c", "v1", "arg0_1", "dense/kernel:0", "L__self___w"])
def test_inputs_keep_their_names(name: str) -> None:
    b = Builder()
    x = b.input(name, VECTOR)
    y = b.add(NEG, b.add(NEG, x))
    assert x.name == name
    graph = b.build([y])
    verify(graph)
    assert rebuild(graph, lambda b, node, inputs: inputs).inputs == graph.inputs


def test_taken_and_unreadable_names_change() -> None:
    b = Builder("a (b)")
    names = [b.input(name, VECTOR).name for name in ("x", "x", "x", "a b", "", "é")]
    assert len(set(names)) == len(names)
    assert names[3:] == ["a_b", "_", "é"]
    graph = b.build([])
    assert graph.name == "a__b_"
    verify(graph)


def test_knows_what_made_a_value() -> None:
    b = Builder()
    x, c = b.input("x", VECTOR), b.constant([1.0])
    y = b.add(NEG, x)
    node = b.producer(y)
    assert node is not None
    assert node.op == NEG
    assert b.producer(x) is b.producer(c) is b.constant_of(x) is b.constant_of(y) is None
    assert b.constant_of(c) is not None


def test_an_adopted_constant_with_a_taken_name_is_read_once() -> None:
    reads: list[int] = []

    def read() -> np.ndarray:
        reads.append(1)
        return np.zeros(2, np.float32)

    constant = Constant(Value("x", VECTOR), read)
    b = Builder()
    b.input("x", VECTOR)
    (adopted,) = b.build([b.adopt(constant)]).constants
    assert adopted.value.name != "x"
    assert not reads
    assert constant.digest == adopted.digest
    assert len(reads) == 1


def test_source_is_the_line_around() -> None:
    b = Builder()
    x = b.input("x", VECTOR)
    with b.at("a.py:1"):
        b.add(NEG, x)
        with b.at("b.py:2"):
            b.add(NEG, x)
        b.add(NEG, x)
    b.add(NEG, x)
    assert [node.source for node in b.build([]).nodes] == ["a.py:1", "b.py:2", "a.py:1", ""]


@given(graphs())
def test_rebuild_without_a_match_is_the_graph_itself(graph: Graph) -> None:
    assert rebuild(graph, lambda b, node, inputs: None) is graph


@given(graphs())
def test_rebuild_with_itself_keeps_the_structure(graph: Graph) -> None:
    same = rebuild(graph, lambda b, node, inputs: b.emit(node.op, *inputs))
    assert fingerprint(same) == fingerprint(graph)


def test_rebuild_refuses_another_type() -> None:
    b = Builder()
    graph = b.build([b.add(NEG, b.input("x", VECTOR))])
    with pytest.raises(InvalidGraphError, match=r"a rewrite made f16\[2\] of: %v1 = Unary"):
        rebuild(graph, lambda b, node, inputs: [b.add(Cast(DType.FLOAT16), *inputs)])
