"""Common subexpressions: one of each, constants too, and large constants are read only where they must be."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import given

from ir_cases import SYMBOLS, arrays_for, assert_equal, graphs
from trt_backend.ir.builder import Builder
from trt_backend.ir.graph import Graph
from trt_backend.ir.ops.elementwise import Activation, ActivationKind
from trt_backend.ir.reference import evaluate
from trt_backend.ir.text import parse_graph
from trt_backend.ir.types import DType, TensorType
from trt_backend.ir.verify import verify
from trt_backend.passes.dedupe import dedupe
from trt_backend.passes.fuel import Fuel

TEXT = """graph main(%x: f32[2], %w: f32[2]) {
  %c1 = constant [1.0] : f32[1]
  %c2 = constant [1.0] : f32[1]
  %c3 = constant [2.0] : f32[1]
  %a = Elementwise(%x, %c1) {kind=sub} : f32[2]
  %b = Elementwise(%x, %c2) {kind=sub} : f32[2]
  %c = Elementwise(%x, %c3) {kind=sub} : f32[2]
  %d = Elementwise(%c1, %x) {kind=sub} : f32[2]
  %e = Unary(%a) {kind=neg} : f32[2]
  %f = Unary(%b) {kind=neg} : f32[2]
  %g = Unary(%b) {kind=abs} : f32[2]
  return %e, %f, %g, %c, %d, %c2
}
"""


def test_golden(golden: Callable[[str], None]) -> None:
    after = dedupe(parse_graph(TEXT))
    golden(TEXT + str(after))
    assert dedupe(after) is after


def test_a_constant_is_read_only_beside_another_of_its_type() -> None:
    reads: list[int] = []

    def lazy(size: int) -> Callable[[], np.ndarray]:
        def read() -> np.ndarray:
            reads.append(size)
            return np.zeros(size, np.float32)

        return read

    b = Builder()
    values = [b.lazy_constant(TensorType(DType.FLOAT32, (size,)), lazy(size)) for size in (3, 4, 4)]
    after = dedupe(b.build(values))
    assert reads == [4, 4]
    assert len(after.constants) == 2
    assert after.outputs[1] == after.outputs[2]


def test_zeros_of_either_sign_are_two() -> None:
    b = Builder()
    x = b.input("x", TensorType(DType.FLOAT32, (2,)))
    clips = [b.add(Activation(ActivationKind.CLIP, low, 1.0), x) for low in (0.0, -0.0)]
    graph = b.build([*clips, b.constant([0.0]), b.constant([-0.0])])
    assert dedupe(graph) is graph


@given(graphs())
def test_answers_stay(graph: Graph) -> None:
    tank = Fuel()
    after = dedupe(graph, tank)
    verify(after)
    before_count, after_count = (len(g.nodes) + len(g.constants) for g in (graph, after))
    assert before_count - after_count == tank.spent
    arrays = arrays_for(graph)
    wanted = evaluate(graph, arrays, SYMBOLS)
    assert_equal(evaluate(after, arrays, SYMBOLS), wanted)
    assert dedupe(graph, Fuel(0)) is graph
    if tank.spent:
        half = dedupe(graph, Fuel(tank.spent // 2))
        verify(half)
        assert_equal(evaluate(half, arrays, SYMBOLS), wanted)
