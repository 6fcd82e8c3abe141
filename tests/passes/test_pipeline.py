"""The driver: answers stay, results are legal and minimal, mistakes of a pass are caught, and fuel finds them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given, settings

from ir_cases import SYMBOLS, accepts, arrays_for, assert_equal, graphs
from trt_backend.errors import InvalidGraphError
from trt_backend.ir.builder import Builder
from trt_backend.ir.fingerprint import fingerprint
from trt_backend.ir.graph import Graph, Value
from trt_backend.ir.ops.contraction import Attention
from trt_backend.ir.ops.elementwise import Activation, BatchNorm, Elementwise, ElementwiseKind
from trt_backend.ir.ops.layout import Identity, Pad, Transpose
from trt_backend.ir.ops.reduction import CumulativeSum, Normalization
from trt_backend.ir.reference import evaluate
from trt_backend.ir.text import parse_graph
from trt_backend.ir.types import DType, TensorType
from trt_backend.passes import pipeline, simplify
from trt_backend.passes.pipeline import run_passes

# Of MiniLM: position ids, a padding mask, and one linear layer with its transposed weight.
TEXT = """graph main(%x: f32[8, 58, 4], %mask: i64[8, 58], weight %w: f32[6, 4], weight %b: f32[6]) {
  %zero = constant [0] : i64[]
  %true = constant [True] : bool[]
  %low = constant [-3.4028234663852886e+38] : f32[]
  %none = constant [0.0] : f32[]
  %p = Range() {size=58, start=0, step=1, dtype=i64} : i64[58]
  %zeros = Reshape(%zero) {shape=[1]} : i64[1]
  %q = Elementwise(%p, %zeros) {kind=sum} : i64[58]
  %rows = Reshape(%q) {shape=[1, 58]} : i64[1, 58]
  %rows2 = Reshape(%rows) {shape=[1, 1, 58, 1]} : i64[1, 1, 58, 1]
  %zeros2 = Reshape(%zero) {shape=[1, 1, 1, 1]} : i64[1, 1, 1, 1]
  %below = Elementwise(%rows2, %zeros2) {kind=less} : bool[1, 1, 58, 1]
  %above = Unary(%below) {kind=not} : bool[1, 1, 58, 1]
  %all = Reshape(%true) {shape=[1, 1, 1, 1]} : bool[1, 1, 1, 1]
  %both = Elementwise(%all, %above) {kind=and} : bool[1, 1, 58, 1]
  %kept = Cast(%mask) {dtype=bool} : bool[8, 58]
  %kept2 = Reshape(%kept) {shape=[8, 1, 1, 58]} : bool[8, 1, 1, 58]
  %seen = Elementwise(%both, %kept2) {kind=and} : bool[8, 1, 58, 58]
  %whole = Expand(%seen) {shape=[8, 1, 58, 58]} : bool[8, 1, 58, 58]
  %nones = Reshape(%none) {shape=[1, 1, 1, 1]} : f32[1, 1, 1, 1]
  %lows = Reshape(%low) {shape=[1, 1, 1, 1]} : f32[1, 1, 1, 1]
  %bias = Select(%whole, %nones, %lows) : f32[8, 1, 58, 58]
  %rows3 = Reshape(%x) {shape=[464, 4]} : f32[464, 4]
  %t = Transpose(%w) {permutation=[1, 0]} : f32[4, 6]
  %product = MatrixMultiply(%rows3, %t) {transpose_a=False, transpose_b=False} : f32[464, 6]
  %b2 = Reshape(%b) {shape=[1, 6]} : f32[1, 6]
  %sum = Elementwise(%product, %b2) {kind=sum} : f32[464, 6]
  %y = Reshape(%sum) {shape=[8, 58, 6]} : f32[8, 58, 6]
  %clone = Identity(%y) : f32[8, 58, 6]
  %heads = Reshape(%clone) {shape=[8, 58, 2, 3]} : f32[8, 58, 2, 3]
  %apart = Transpose(%heads) {permutation=[0, 2, 1, 3]} : f32[8, 2, 58, 3]
  %again = Transpose(%apart) {permutation=[0, 2, 1, 3]} : f32[8, 58, 2, 3]
  %joined = Reshape(%again) {shape=[8, 58, 6]} : f32[8, 58, 6]
  return %joined, %bias
}
"""


def test_golden(golden: Callable[[str], None]) -> None:
    before = parse_graph(TEXT)
    after, timings = run_passes(before, support=accepts())
    golden(TEXT + str(after))
    arrays = arrays_for(before)
    assert_equal(evaluate(after, arrays), evaluate(before, arrays), 1e-6)
    assert sum(timing.rewrites for timing in timings) > 10
    assert {timing.name for timing in timings} == {name for stage in pipeline.PIPELINE for name in stage}


def test_dump_sees_each_changed_graph() -> None:
    dumped: list[tuple[str, str]] = []
    after, _ = run_passes(
        parse_graph(TEXT), support=accepts(), dump=lambda name, g: dumped.append((name, str(g)))
    )
    assert dumped[0][0] == "simplify"
    assert dumped[-1][1] == str(after)
    assert all(a[1] != b[1] for a, b in itertools.pairwise(dumped))


def test_is_deterministic() -> None:
    first, second = (run_passes(parse_graph(TEXT), support=accepts())[0] for _ in range(2))
    assert str(first) == str(second)


REFUSED = (Activation, BatchNorm, CumulativeSum, Identity, Normalization, Pad)


@given(graphs())
def test_answers_stay(graph: Graph) -> None:
    arrays = arrays_for(graph)
    wanted = evaluate(graph, arrays, SYMBOLS)
    after, _ = run_passes(graph, support=accepts())
    assert_equal(evaluate(after, arrays, SYMBOLS), wanted, 1e-5)
    assert fingerprint(run_passes(after, support=accepts())[0]) == fingerprint(after)


@given(graphs())
@settings(max_examples=50)
def test_results_are_legal(graph: Graph) -> None:
    support = accepts(*(op for op in REFUSED if op is not CumulativeSum))
    after, _ = run_passes(graph, support=support)
    assert not any(support(node.op, ()) for node in after.nodes)


def test_a_mask_that_hides_nothing_goes_however_large() -> None:
    """As Transformers makes it for ViT, at batch 32 too large to be folded: TensorRT fuses attention without a mask."""
    before = parse_graph(
        """graph main(%q: f16[32, 12, 197, 64]) {
  %seen = constant [[[[True]]]] : bool[1, 1, 1, 1]
  %none = constant [[[[0.0]]]] : f16[1, 1, 1, 1]
  %hidden = constant [[[[-9.0]]]] : f16[1, 1, 1, 1]
  %column = Expand(%seen) {shape=[1, 1, 197, 1]} : bool[1, 1, 197, 1]
  %both = Elementwise(%column, %seen) {kind=and} : bool[1, 1, 197, 1]
  %whole = Expand(%both) {shape=[32, 1, 197, 197]} : bool[32, 1, 197, 197]
  %mask = Select(%whole, %none, %hidden) : f16[32, 1, 197, 197]
  %y = Attention(%q, %q, %q, %mask) {scale=0.125, causal=False} : f16[32, 12, 197, 64]
  return %y
}
"""
    )
    after, _ = run_passes(before, support=accepts())
    (node,) = after.nodes
    assert isinstance(node.op, Attention)
    assert node.inputs == after.inputs * 3


@given(graphs(max_nodes=6))
@settings(max_examples=30)
def test_any_fuel_gives_the_answer(graph: Graph) -> None:
    arrays = arrays_for(graph)
    wanted = evaluate(graph, arrays, SYMBOLS)
    _, timings = run_passes(graph, support=accepts())
    for fuel in range(sum(timing.rewrites for timing in timings) + 1):
        after, spent = run_passes(graph, support=accepts(), fuel=fuel)
        assert sum(timing.rewrites for timing in spent) <= fuel
        assert_equal(evaluate(after, arrays, SYMBOLS), wanted, 1e-5)


def test_without_fuel_only_dead_code_goes() -> None:
    before = parse_graph(TEXT)
    after, _ = run_passes(before, support=accepts(), fuel=0)
    assert after is before


def test_fuel_finds_the_wrong_rewrite(monkeypatch: pytest.MonkeyPatch) -> None:
    def swap_operands(b: Builder, op: Elementwise, left: Value, right: Value) -> Value | None:
        return (
            b.add(Elementwise(ElementwiseKind.SUM), left, right) if op.kind is ElementwiseKind.SUB else None
        )

    table = simplify._REWRITES
    monkeypatch.setitem(table, Elementwise, (*table[Elementwise], swap_operands))
    b = Builder()
    y = x = b.input("x", TensorType(DType.FLOAT32, (2, 2)))
    for step in range(9):
        y = b.add(Transpose((1, 0)), b.add(Identity(), y))
        y = b.add(Elementwise(ElementwiseKind.SUB), y, x) if step == 6 else y
    before = b.build([y])
    arrays = arrays_for(before)
    wanted = evaluate(before, arrays)
    names: list[str] = []

    def is_wrong(fuel: int) -> bool:
        names.clear()
        after, _ = run_passes(
            before, support=accepts(), fuel=fuel, dump=lambda name, graph: names.append(str(graph))
        )
        try:
            assert_equal(evaluate(after, arrays), wanted)
        except AssertionError:
            return True
        return False

    low, high = 0, sum(timing.rewrites for timing in run_passes(before, support=accepts())[1])
    assert not is_wrong(low)
    assert is_wrong(high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_wrong(middle) else (middle, high)
    assert is_wrong(high)
    assert any("kind=sum" in name for name in names)
    assert not is_wrong(low)
    assert not any("kind=sum" in name for name in names)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda g: dataclasses.replace(g, nodes=g.nodes[1:]),
            "the pass eliminate_dead made an invalid graph: DEFINED",
        ),
        (
            lambda g: dataclasses.replace(g, outputs=g.outputs[:1]),
            "eliminate_dead changed the graph's inputs or",
        ),
        (
            lambda g: dataclasses.replace(g, weights=frozenset()),
            "eliminate_dead changed the graph's inputs or",
        ),
    ],
)
def test_a_broken_pass_is_named(
    change: Callable[[Graph], Graph], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "eliminate_dead", change)
    with pytest.raises(InvalidGraphError, match=message):
        run_passes(parse_graph(TEXT), support=accepts())


def test_thousands_of_nodes_take_no_time_to_speak_of() -> None:
    b = Builder()
    x = b.input("x", TensorType(DType.FLOAT32, (4, 4)))
    y = x
    for _ in range(1000):
        y = b.add(Elementwise(ElementwiseKind.SUM), b.add(Transpose((1, 0)), y), x)
    _, timings = run_passes(b.build([y]), support=accepts())
    assert sum(timing.seconds for timing in timings) < 5
