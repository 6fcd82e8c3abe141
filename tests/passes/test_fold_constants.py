"""Folding: what hangs on constants only becomes one, unless it is large or symbolic."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given

from ir_cases import SYMBOLS, arrays_for, assert_equal, graphs
from trt_backend.ir.builder import Builder
from trt_backend.ir.dims import Dim, Symbol
from trt_backend.ir.graph import Graph
from trt_backend.ir.ops.base import Op
from trt_backend.ir.ops.elementwise import Unary, UnaryKind
from trt_backend.ir.ops.layout import Expand, Extent, Range, Transpose
from trt_backend.ir.reference import evaluate
from trt_backend.ir.text import parse_graph
from trt_backend.ir.types import DType, TensorType
from trt_backend.ir.verify import verify
from trt_backend.passes.eliminate_dead import eliminate_dead
from trt_backend.passes.fold_constants import MAX_FOLDED_BYTES, fold_constants
from trt_backend.passes.fuel import Fuel

# Whether a key stands after the query: what a causal mask is made of.
TEXT = """graph main(%x: f32[1, 3, 3]) {
  %c = constant [0.0] : f32[1, 1, 1]
  %p = Range() {size=3, start=0, step=1, dtype=i64} : i64[3]
  %row = Reshape(%p) {shape=[1, 3, 1]} : i64[1, 3, 1]
  %column = Reshape(%p) {shape=[1, 1, 3]} : i64[1, 1, 3]
  %later = Elementwise(%row, %column) {kind=less} : bool[1, 3, 3]
  %y = Select(%later, %c, %x) : f32[1, 3, 3]
  return %y
}
"""


def test_golden(golden: Callable[[str], None]) -> None:
    folded = fold_constants(parse_graph(TEXT))
    after = eliminate_dead(folded)
    golden(TEXT + str(after))
    assert fold_constants(after) is after


S = Dim.of(Symbol("s"))


@pytest.mark.parametrize("op", [Range(S, 0, 1, DType.INT64), Range(3, S, 1, DType.INT64), Extent(S)], ids=str)
def test_symbols_stay(op: Op) -> None:
    b = Builder()
    graph = b.build([b.add(op)])
    assert fold_constants(graph) is graph


def test_growth_has_a_limit() -> None:
    b = Builder()
    size = MAX_FOLDED_BYTES // 4
    small, large = (b.add(Expand((n,)), b.constant(np.ones(1, np.float32))) for n in (size, size + 1))
    after = fold_constants(b.build([small, large]))
    assert [type(node.op) for node in after.nodes] == [Expand]


def test_large_constants_are_read_once_and_late() -> None:
    reads: list[int] = []
    size = MAX_FOLDED_BYTES

    def read() -> np.ndarray:
        reads.append(size)
        return np.arange(2 * size, dtype=np.float32).reshape(2, size)

    b = Builder()
    weight = b.lazy_constant(TensorType(DType.FLOAT32, (2, size)), read)
    negative = b.add(Unary(UnaryKind.NEG), b.add(Transpose((1, 0)), weight))
    after = eliminate_dead(fold_constants(b.build([negative])))
    assert not reads
    assert not after.nodes
    (constant,) = after.constants
    np.testing.assert_array_equal(constant.array, -np.arange(2.0 * size).reshape(2, size).T)
    assert len(reads) == 1


@given(graphs())
def test_answers_stay(graph: Graph) -> None:
    arrays = arrays_for(graph)
    wanted = evaluate(graph, arrays, SYMBOLS)
    tank = Fuel()
    after = fold_constants(graph, tank)
    verify(after)
    assert_equal(evaluate(after, arrays, SYMBOLS), wanted)
    assert len(graph.nodes) - len(after.nodes) == tank.spent
    assert fold_constants(after) is after
    if tank.spent:
        assert_equal(evaluate(fold_constants(graph, Fuel(1)), arrays, SYMBOLS), wanted)
