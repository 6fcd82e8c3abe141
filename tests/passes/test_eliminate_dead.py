"""Dead code: gone; inputs: kept."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given

from ir_cases import SYMBOLS, arrays_for, assert_equal, graphs
from trt_backend.ir.graph import Graph
from trt_backend.ir.reference import evaluate
from trt_backend.ir.text import parse_graph
from trt_backend.ir.verify import verify
from trt_backend.passes.eliminate_dead import eliminate_dead

TEXT = """graph main(%x: f32[2, 3], weight %unused: f32[3]) {
  %c = constant [1.0] : f32[1, 1]
  %dead = constant [2.0] : f32[1, 1]
  %a = Elementwise(%x, %c) {kind=sum} : f32[2, 3]
  %b = Elementwise(%a, %dead) {kind=sum} : f32[2, 3]
  %values, %indices = TopK(%a) {kind=max, k=1, axis=1} : f32[2, 1], i32[2, 1]
  %d = Unary(%b) {kind=neg} : f32[2, 3]
  return %indices
}
"""


def test_golden(golden: Callable[[str], None]) -> None:
    after = eliminate_dead(parse_graph(TEXT))
    golden(TEXT + str(after))
    assert eliminate_dead(after) is after


@given(graphs())
def test_answers_and_inputs_stay(graph: Graph) -> None:
    after = eliminate_dead(graph)
    verify(after)
    assert (after.inputs, after.weights) == (graph.inputs, graph.weights)
    arrays = arrays_for(graph)
    assert_equal(evaluate(after, arrays, SYMBOLS), evaluate(graph, arrays, SYMBOLS))
    assert eliminate_dead(after) is after
