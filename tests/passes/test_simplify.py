"""Simplification: what each rewrite makes of a small graph (goldens), and that no answer changes by a bit."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given

from ir_cases import SYMBOLS, arrays_for, assert_equal, assert_fuel_caps, graphs
from trt_backend.ir.builder import Builder
from trt_backend.ir.graph import Graph
from trt_backend.ir.ops.contraction import MatrixMultiply
from trt_backend.ir.ops.elementwise import Cast
from trt_backend.ir.reference import evaluate
from trt_backend.ir.text import parse_graph
from trt_backend.ir.types import DType, TensorType
from trt_backend.ir.verify import verify
from trt_backend.passes.eliminate_dead import eliminate_dead
from trt_backend.passes.simplify import simplify

# Each is a header and a body; `return` names the last value.
MATCHES = {
    "identity": ("%x: f32[2, 3]", "%y = Identity(%x) : f32[2, 3]"),
    "transpose_identity": ("%x: f32[2, 3]", "%y = Transpose(%x) {permutation=[0, 1]} : f32[2, 3]"),
    "transpose_transpose": (
        "%x: f32[2, 3, 4]",
        "%a = Transpose(%x) {permutation=[2, 0, 1]} : f32[4, 2, 3]",
        "%y = Transpose(%a) {permutation=[0, 2, 1]} : f32[4, 3, 2]",
    ),
    "transpose_of_ones": ("%x: f32[2, 1, 3]", "%y = Transpose(%x) {permutation=[1, 0, 2]} : f32[1, 2, 3]"),
    "reshape_reshape": (
        "%x: f32[s, 4]",
        "%a = Reshape(%x) {shape=[s, 1, 4]} : f32[s, 1, 4]",
        "%y = Reshape(%a) {shape=[4*s]} : f32[4*s]",
    ),
    "reshape_back": (
        "%x: f32[s, 4]",
        "%a = Reshape(%x) {shape=[1, s, 4]} : f32[1, s, 4]",
        "%y = Reshape(%a) {shape=[s, 4]} : f32[s, 4]",
    ),
    "expand_same": ("%x: f32[s, 4]", "%y = Expand(%x) {shape=[s, 4]} : f32[s, 4]"),
    "expand_expand": (
        "%x: f32[1, 1]",
        "%a = Expand(%x) {shape=[1, 4]} : f32[1, 4]",
        "%y = Expand(%a) {shape=[s, 4]} : f32[s, 4]",
    ),
    "expand_broadcast": (
        "%x: f32[1, 4], %w: f32[s, 4]",
        "%a = Expand(%x) {shape=[s, 4]} : f32[s, 4]",
        "%y = Elementwise(%a, %w) {kind=sub} : f32[s, 4]",
    ),
    "expand_later": (
        "%x: f32[1, 1], %w: f32[1, 4]",
        "%a = Expand(%x) {shape=[s, 4]} : f32[s, 4]",
        "%b = Expand(%w) {shape=[s, 4]} : f32[s, 4]",
        "%c = Cast(%a) {dtype=bool} : bool[s, 4]",
        "%y = Select(%c, %b, %a) : f32[s, 4]",
    ),
    "expand_batch": (
        "%x: f32[1, 4, 5], %w: f32[2, 5, 6]",
        "%a = Expand(%x) {shape=[2, 4, 5]} : f32[2, 4, 5]",
        "%y = MatrixMultiply(%a, %w) {transpose_a=False, transpose_b=False} : f32[2, 4, 6]",
    ),
    "slice_all": ("%x: f32[s, 4]", "%y = Slice(%x) {start=[0, 0], size=[s, 4], stride=[1, 1]} : f32[s, 4]"),
    "slice_slice": (
        "%x: f32[9, 8]",
        "%a = Slice(%x) {start=[8, 1], size=[4, 6], stride=[-2, 1]} : f32[4, 6]",
        "%y = Slice(%a) {start=[1, 2], size=[2, 2], stride=[2, 2]} : f32[2, 2]",
    ),
    "pad_nothing": ("%x: f32[2]", "%y = Pad(%x) {mode=edge, before=[0], after=[0]} : f32[2]"),
    "concatenation_of_one": ("%x: f32[2]", "%y = Concatenation(%x) {axis=0} : f32[2]"),
    "concatenation_with_empty": (
        "%x: f32[2], %e: f32[0], %w: f32[3]",
        "%y = Concatenation(%x, %e, %w) {axis=0} : f32[5]",
    ),
    "cast_same": ("%x: f32[2]", "%y = Cast(%x) {dtype=f32} : f32[2]"),
    "cast_cast": ("%x: f16[2]", "%a = Cast(%x) {dtype=f32} : f32[2]", "%y = Cast(%a) {dtype=f64} : f64[2]"),
    "cast_and_back": (
        "%x: f16[2]",
        "%a = Cast(%x) {dtype=f32} : f32[2]",
        "%y = Cast(%a) {dtype=f16} : f16[2]",
    ),
    "neg_neg": ("%x: f32[2]", "%a = Unary(%x) {kind=neg} : f32[2]", "%y = Unary(%a) {kind=neg} : f32[2]"),
    "not_not": ("%x: bool[2]", "%a = Unary(%x) {kind=not} : bool[2]", "%y = Unary(%a) {kind=not} : bool[2]"),
    "floor_floor": (
        "%x: f32[2]",
        "%a = Unary(%x) {kind=floor} : f32[2]",
        "%y = Unary(%a) {kind=floor} : f32[2]",
    ),
    "abs_neg": ("%x: f32[2]", "%a = Unary(%x) {kind=neg} : f32[2]", "%y = Unary(%a) {kind=abs} : f32[2]"),
    "relu_relu": (
        "%x: f32[2]",
        "%a = Activation(%x) {kind=relu, alpha=0.0, beta=0.0} : f32[2]",
        "%y = Activation(%a) {kind=relu, alpha=0.0, beta=0.0} : f32[2]",
    ),
    "times_one": (
        "%x: f32[2]",
        "%c = constant [1.0] : f32[1]",
        "%y = Elementwise(%c, %x) {kind=prod} : f32[2]",
    ),
    "minus_zero": (
        "%x: f32[2]",
        "%c = constant [0.0] : f32[1]",
        "%y = Elementwise(%x, %c) {kind=sub} : f32[2]",
    ),
    "plus_integer_zero": (
        "%x: i64[2]",
        "%c = constant [0] : i64[1]",
        "%y = Elementwise(%x, %c) {kind=sum} : i64[2]",
    ),
    "plus_negative_zero": (
        "%x: f32[2]",
        "%c = constant [-0.0] : f32[1]",
        "%y = Elementwise(%x, %c) {kind=sum} : f32[2]",
    ),
    "and_true": (
        "%x: bool[2]",
        "%c = constant [True] : bool[1]",
        "%y = Elementwise(%c, %x) {kind=and} : bool[2]",
    ),
    "square": ("%x: f32[2]", "%c = constant [2.0] : f32[1]", "%y = Elementwise(%x, %c) {kind=pow} : f32[2]"),
    "select_same": ("%p: bool[2], %x: f32[2]", "%y = Select(%p, %x, %x) : f32[2]"),
    "select_known": (
        "%x: f32[2], %w: f32[2]",
        "%c = constant [False] : bool[1]",
        "%y = Select(%c, %x, %w) : f32[2]",
    ),
    "select_not": (
        "%p: bool[2], %x: f32[2], %w: f32[2]",
        "%a = Unary(%p) {kind=not} : bool[2]",
        "%y = Select(%a, %x, %w) : f32[2]",
    ),
    "linear": (
        "%x: f32[s, 5], %w: f32[4, 5]",
        "%a = Transpose(%w) {permutation=[1, 0]} : f32[5, 4]",
        "%y = MatrixMultiply(%x, %a) {transpose_a=False, transpose_b=False} : f32[s, 4]",
    ),
    "attention_scores": (
        "%x: f32[2, 3, 4, 5], %w: f32[2, 3, 5, 4]",
        "%a = Transpose(%x) {permutation=[0, 1, 3, 2]} : f32[2, 3, 5, 4]",
        "%b = Transpose(%w) {permutation=[0, 1, 3, 2]} : f32[2, 3, 4, 5]",
        "%y = MatrixMultiply(%a, %b) {transpose_a=True, transpose_b=True} : f32[2, 3, 4, 4]",
    ),
    "cast_moves": (
        "%x: f16[4, 3]",
        "%i = constant [0, 0, 1] : i64[3]",
        "%a = Cast(%x) {dtype=f32} : f32[4, 3]",
        "%b = Gather(%a, %i) {axis=0} : f32[3, 3]",
        "%c = Transpose(%b) {permutation=[1, 0]} : f32[3, 3]",
        "%y = Cast(%c) {dtype=f16} : f16[3, 3]",
    ),
    "attention_open_mask": (
        "%x: f32[2, 1, 2, 4], %w: f32[2, 1, 2, 4]",
        "%c = constant [[[[0.0, -0.0], [0.0, 0.0]]]] : f32[1, 1, 2, 2]",
        "%m = Expand(%c) {shape=[2, 1, 2, 2]} : f32[2, 1, 2, 2]",
        "%y = Attention(%x, %w, %w, %m) {scale=0.5, causal=False} : f32[2, 1, 2, 4]",
    ),
}

# What looks like a match but would change an answer, or the type.
NO_MATCHES = {
    "plus_zero": (
        "%x: f32[2]",
        "%c = constant [0.0] : f32[1]",
        "%y = Elementwise(%x, %c) {kind=sum} : f32[2]",
    ),
    "one_minus": (
        "%x: f32[2]",
        "%c = constant [0.0] : f32[1]",
        "%y = Elementwise(%c, %x) {kind=sub} : f32[2]",
    ),
    "times_one_broadcasts": (
        "%x: f32[1]",
        "%c = constant [1.0, 1.0] : f32[2]",
        "%y = Elementwise(%x, %c) {kind=prod} : f32[2]",
    ),
    "times_one_of_rank": (
        "%x: f32[1, 1]",
        "%c = constant [1.0, 1.0] : f32[1, 2]",
        "%y = Elementwise(%x, %c) {kind=prod} : f32[1, 2]",
    ),
    "cast_narrow": ("%x: f32[2]", "%a = Cast(%x) {dtype=f16} : f16[2]", "%y = Cast(%a) {dtype=f32} : f32[2]"),
    "cast_moves_narrow": (
        "%x: f32[4, 3]",
        "%a = Cast(%x) {dtype=f16} : f16[4, 3]",
        "%b = Transpose(%a) {permutation=[1, 0]} : f16[3, 4]",
        "%y = Cast(%b) {dtype=f32} : f32[3, 4]",
    ),
    "cast_i64_f64": (
        "%x: i64[2]",
        "%a = Cast(%x) {dtype=f64} : f64[2]",
        "%y = Cast(%a) {dtype=i64} : i64[2]",
    ),
    "cast_overflow": ("%x: i32[2]", "%a = Cast(%x) {dtype=f64} : f64[2]", "%y = Cast(%a) {dtype=i8} : i8[2]"),
    "cast_sign": ("%x: i8[2]", "%a = Cast(%x) {dtype=u8} : u8[2]", "%y = Cast(%a) {dtype=i32} : i32[2]"),
    "abs_neg_wraps": ("%x: u8[2]", "%a = Unary(%x) {kind=neg} : u8[2]", "%y = Unary(%a) {kind=abs} : u8[2]"),
    "select_broadcasts": ("%p: bool[2], %x: f32[1]", "%y = Select(%p, %x, %x) : f32[2]"),
    "expand_rows": (
        "%x: f32[4, 1], %w: f32[5, 6]",
        "%a = Expand(%x) {shape=[4, 5]} : f32[4, 5]",
        "%y = MatrixMultiply(%a, %w) {transpose_a=False, transpose_b=False} : f32[4, 6]",
    ),
    "transpose_other_dims": (
        "%x: f32[4, 5, 6]",
        "%a = Transpose(%x) {permutation=[1, 0, 2]} : f32[5, 4, 6]",
        "%y = MatrixMultiply(%a, %a) {transpose_a=True, transpose_b=False} : f32[5, 6, 6]",
    ),
    "expand_of_another_symbol": (
        "%x: f32[s, 5], %w: f32[4, 5]",
        "%b = Slice(%w) {start=[0, 0], size=[1, 5], stride=[1, 1]} : f32[1, 5]",
        "%c = Expand(%b) {shape=[4, 5]} : f32[4, 5]",
        "%y = Elementwise(%x, %c) {kind=sub} : f32[4, 5]",
    ),
    "attention_mask": (
        "%x: f32[2, 1, 2, 4], %w: f32[2, 1, 2, 4]",
        "%c = constant [[[[0.0, -9.0], [0.0, 0.0]]]] : f32[1, 1, 2, 2]",
        "%y = Attention(%x, %w, %w, %c) {scale=0.5, causal=False} : f32[2, 1, 2, 4]",
    ),
    "reverse": ("%x: f32[4]", "%y = Slice(%x) {start=[3], size=[4], stride=[-1]} : f32[4]"),
    "clip_other_clip": (
        "%x: f32[2]",
        "%a = Activation(%x) {kind=clip, alpha=0.0, beta=1.0} : f32[2]",
        "%y = Activation(%a) {kind=clip, alpha=0.0, beta=2.0} : f32[2]",
    ),
}


def _graph(header: str, *body: str) -> Graph:
    symbol = "  symbol s in [1, inf]\n" if "s" in header.replace("%s", "") else ""
    lines = "".join(f"  {line}\n" for line in body)
    return parse_graph(f"graph main({header}) {{\n{symbol}{lines}  return %y\n}}\n")


def _assert_same_answers(before: Graph, after: Graph) -> None:
    verify(after)
    arrays = arrays_for(before)
    # A product that reads its operand transposed may add in another order.
    sums = any(isinstance(node.op, MatrixMultiply) for node in before.nodes)
    assert_equal(evaluate(after, arrays, SYMBOLS), evaluate(before, arrays, SYMBOLS), 1e-5 if sums else None)


@pytest.mark.parametrize("name", MATCHES)
def test_match(name: str, golden: Callable[[str], None]) -> None:
    before = _graph(*MATCHES[name])
    after = eliminate_dead(simplify(before))
    golden(f"{before}{after}")
    assert simplify(after) is after
    _assert_same_answers(before, after)


@pytest.mark.parametrize("name", NO_MATCHES)
def test_no_match(name: str) -> None:
    graph = _graph(*NO_MATCHES[name])
    assert simplify(graph) is graph


@pytest.mark.parametrize("first", DType)
def test_casts(first: DType) -> None:
    for second, third in itertools.product(DType, DType):
        b = Builder()
        x = b.input("x", TensorType(first, (64,)))
        before = b.build([b.add(Cast(third), b.add(Cast(second), x))])
        after = simplify(before)
        if after is not before:
            _assert_same_answers(before, after)


@given(graphs())
def test_answers_stay(graph: Graph) -> None:
    _assert_same_answers(graph, simplify(graph))


@given(graphs())
def test_fuel_caps_the_rewrites(graph: Graph) -> None:
    assert_fuel_caps(simplify, graph, lambda after: _assert_same_answers(graph, after))
