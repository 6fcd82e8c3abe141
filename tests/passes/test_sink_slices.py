"""Slices in front of what they would throw away: what moves where, and that no answer changes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ir_cases import arrays_for, assert_equal, assert_fuel_caps, graphs
from trt_backend.ir.builder import Builder
from trt_backend.ir.dims import Dim, Symbol
from trt_backend.ir.graph import Graph, Node, Value
from trt_backend.ir.ops.base import Op
from trt_backend.ir.ops.contraction import Attention, MatrixMultiply
from trt_backend.ir.ops.elementwise import (
    Activation,
    ActivationKind,
    Cast,
    Elementwise,
    ElementwiseKind,
    Select,
    Unary,
    UnaryKind,
)
from trt_backend.ir.ops.layout import Expand, Reshape, Slice, Transpose
from trt_backend.ir.ops.reduction import Normalization, Softmax
from trt_backend.ir.reference import evaluate
from trt_backend.ir.types import DType, Shape, TensorType
from trt_backend.ir.verify import verify
from trt_backend.passes.eliminate_dead import eliminate_dead
from trt_backend.passes.fuel import Fuel
from trt_backend.passes.pipeline import run_passes
from trt_backend.passes.sink_slices import sink_slices

S = Dim.of(Symbol("s", 1, 8))
SUM = Elementwise(ElementwiseKind.SUM)
F32, BOOL = DType.FLOAT32, DType.BOOL


def _sliced(op: Op, shapes: list[Shape], slice_: Slice, dtypes: list[DType] | None = None) -> Graph:
    b = Builder()
    types = zip(dtypes or [F32] * len(shapes), shapes, strict=True)
    inputs = [b.input(f"x{i}", TensorType(dtype, shape)) for i, (dtype, shape) in enumerate(types)]
    return b.build([b.add(slice_, b.add(op, *inputs))])


def _sunk(graph: Graph, tolerance: float | None = None) -> Graph:
    sunk = eliminate_dead(sink_slices(graph))
    verify(sunk)
    arrays = arrays_for(graph)
    symbols = {"s": 3, "t": 2}
    assert_equal(evaluate(sunk, arrays, symbols), evaluate(graph, arrays, symbols), tolerance)
    return sunk


def _first(rank: int, axis: int, shape: Shape) -> Slice:
    """Return the slice of the second element along an axis, of all along others."""
    return Slice(
        tuple(int(i == axis) for i in range(rank)),
        tuple(1 if i == axis else dim for i, dim in enumerate(shape)),
        (1,) * rank,
    )


# An op, its operands' shapes, the axis of its result along which a slice moves in front of it, the result's shape.
MOVES: dict[str, tuple[Op, list[Shape], int, Shape]] = {
    "activation": (Activation(ActivationKind.RELU), [(2, 4, 6)], 1, (2, 4, 6)),
    "cast": (Cast(DType.FLOAT64), [(4, 6)], 0, (4, 6)),
    "sum": (SUM, [(2, 4, 6), (2, 4, 6)], 1, (2, 4, 6)),
    "sum, broadcast": (SUM, [(2, 4, 6), (1, 1, 6)], 1, (2, 4, 6)),
    "sum, broadcast along the axis": (SUM, [(2, 1, 6), (1, 4, 6)], 1, (2, 4, 6)),
    "sum of symbols": (SUM, [(S, 4), (S, 1)], 1, (S, 4)),
    "sum along a symbol": (SUM, [(S, 4), (1, 4)], 0, (S, 4)),
    "select": (Select(), [(4, 1), (4, 6), (1, 6)], 0, (4, 6)),
    "expand": (Expand((4, 6)), [(1, 6)], 1, (4, 6)),
    "expand along the axis": (Expand((4, 6)), [(1, 6)], 0, (4, 6)),
    "transpose": (Transpose((2, 0, 1)), [(2, 4, 6)], 0, (6, 2, 4)),
    "layer normalization": (Normalization(2, 1e-5), [(2, 4, 6), (6,), (6,)], 1, (2, 4, 6)),
    "softmax": (Softmax(2), [(2, 4, 6)], 1, (2, 4, 6)),
    "rows of a product": (MatrixMultiply(), [(4, 6), (6, 5)], 0, (4, 5)),
    "rows of a transposed product": (MatrixMultiply(True, True), [(6, 4), (5, 6)], 0, (4, 5)),
    "columns of a product": (MatrixMultiply(), [(4, 6), (6, 5)], 1, (4, 5)),
    "columns of a transposed product": (MatrixMultiply(False, True), [(4, 6), (5, 6)], 1, (4, 5)),
    "batch of a product": (MatrixMultiply(), [(2, 4, 6), (1, 6, 5)], 0, (2, 4, 5)),
    "queries": (Attention(0.5), [(2, 3, 4, 6), (2, 3, 5, 6), (2, 3, 5, 7)], 2, (2, 3, 4, 7)),
    "queries under a mask": (
        Attention(0.5),
        [(2, 3, 4, 6), (2, 3, 5, 6), (2, 3, 5, 7), (1, 1, 4, 5)],
        2,
        (2, 3, 4, 7),
    ),
    "batch under a mask": (
        Attention(0.5),
        [(2, 3, 4, 6), (2, 3, 5, 6), (2, 3, 5, 7), (2, 1, 1, 5)],
        0,
        (2, 3, 4, 7),
    ),
    "heads, causal": (Attention(0.5, True), [(2, 3, 4, 6), (2, 3, 4, 6), (2, 3, 4, 7)], 1, (2, 3, 4, 7)),
}
STAYS: dict[str, tuple[Op, list[Shape], int, Shape]] = {
    "columns of values": (Attention(0.5), [(2, 3, 4, 6), (2, 3, 5, 6), (2, 3, 5, 7)], 3, (2, 3, 4, 7)),
    "normalized axis": (Normalization(1, 1e-5), [(2, 4, 6)], 1, (2, 4, 6)),
    "softmax's axis": (Softmax(1), [(2, 4, 6)], 1, (2, 4, 6)),
    "queries, causal": (Attention(0.5, True), [(2, 3, 4, 6), (2, 3, 4, 6), (2, 3, 4, 7)], 2, (2, 3, 4, 7)),
}


def _dtypes(op: Op, shapes: list[Shape]) -> list[DType]:
    return [BOOL, F32, F32] if isinstance(op, Select) else [F32] * len(shapes)


@pytest.mark.parametrize("name", MOVES)
def test_a_slice_moves_in_front(name: str) -> None:
    op, shapes, axis, shape = MOVES[name]
    graph = _sliced(op, shapes, _first(len(shape), axis, shape), _dtypes(op, shapes))
    sunk = _sunk(graph, 1e-5)
    *before, last = sunk.nodes
    assert type(last.op) is type(op)
    assert {type(node.op) for node in before} <= {Slice}


@pytest.mark.parametrize("name", STAYS)
def test_a_slice_stays(name: str) -> None:
    op, shapes, axis, shape = STAYS[name]
    graph = _sliced(op, shapes, _first(len(shape), axis, shape))
    assert sink_slices(graph) is graph


def test_a_slice_that_keeps_most_stays() -> None:
    graph = _sliced(SUM, [(4, 6), (4, 6)], Slice((0, 0), (3, 6), (1, 1)))
    assert sink_slices(graph) is graph
    half = _sliced(SUM, [(4, 6), (4, 6)], Slice((0, 0), (2, 6), (1, 1)))
    assert sink_slices(half) is not half


def test_what_is_read_whole_is_left_alone() -> None:
    b = Builder()
    x, w = b.input("x", TensorType(F32, (4, 6))), b.input("w", TensorType(F32, (6, 5)))
    for _ in range(3):
        w = b.add(Unary(UnaryKind.ABS), w)
    graph = b.build([b.add(Slice((0, 0), (1, 5), (1, 1)), b.add(MatrixMultiply(), x, w))])
    fuel = Fuel()
    sunk = eliminate_dead(sink_slices(graph, fuel))
    assert fuel.spent == 1
    assert sunk.nodes[:3] == graph.nodes[:3]
    assert len(sunk.nodes) == len(graph.nodes)


def test_a_part_of_nothing_and_a_part_of_a_scalar_stay() -> None:
    """An empty slice may begin anywhere, and a scalar has no axes."""
    for slice_ in (Slice((0, 7), (1, 0), (1, 1)), Slice((0, 6), (1, 0), (1, -1))):
        graph = _sliced(Reshape((4, 6)), [(4, 2, 3)], slice_)
        assert sink_slices(graph) is graph
    scalar = _sliced(Reshape((S,)), [()], Slice((0,), (1,), (1,)))
    assert [type(node.op) for node in eliminate_dead(sink_slices(scalar)).nodes] == [Reshape]


def test_a_moved_op_keeps_its_line() -> None:
    b = Builder()
    x = b.input("x", TensorType(F32, (4, 6)))
    with b.at("a.py:1"):
        y = b.add(Unary(UnaryKind.EXP), x)
    with b.at("a.py:9"):
        graph = b.build([b.add(Slice((0, 0), (1, 6), (1, 1)), y)])
    assert [(type(node.op), node.source) for node in _sunk(graph).nodes] == [
        (Slice, "a.py:9"),
        (Unary, "a.py:1"),
    ]


def test_nothing_is_computed_twice() -> None:
    """What somebody else reads is computed whole, and sliced."""
    b = Builder()
    x = b.input("x", TensorType(F32, (4, 6)))
    y = b.add(Unary(UnaryKind.ABS), x)
    z = b.add(Unary(UnaryKind.EXP), y)
    part = b.add(Slice((0, 0), (1, 6), (1, 1)), z)
    (sliced, *_), read_too = _sunk(b.build([part, y])).nodes[1:], _sunk(b.build([part, z, y]))
    assert isinstance(sliced.op, Slice)
    assert str(sliced.inputs[0]) == str(y)
    assert [type(node.op) for node in read_too.nodes] == [Unary, Unary, Slice]


# ---- reshapes -------------------------------------------------------------------------------------------------------

RESHAPES: list[tuple[Shape, Shape]] = [
    ((12,), (3, 4)),
    ((3, 4), (12,)),
    ((2, 3, 4), (6, 4)),
    ((6, 4), (2, 3, 4)),
    ((2, 3, 4), (2, 12)),
    ((1, 3, 4), (3, 4)),
    ((3, 4), (3, 1, 4)),
    ((2, 6), (4, 3)),
    ((2, 3, 2), (12,)),
    ((12,), (2, 3, 2)),
    ((1, 1), (1,)),
]


def _slices(shape: Shape) -> Iterator[Slice]:
    def along(dim: Any) -> list[tuple[int, int, int]]:
        steps = (-2, -1, 1, 2, 3, 4)
        return [
            (start, size, step)
            for start, size, step in itertools.product(range(dim), range(1, dim + 1), steps)
            if 0 <= start + (size - 1) * step < dim and (size > 1 or step == 1)
        ]

    for axes in itertools.product(*map(along, shape)):
        yield Slice(*zip(*axes, strict=True))


@pytest.mark.parametrize(("old", "new"), RESHAPES)
def test_every_slice_of_a_reshape(old: Shape, new: Shape) -> None:
    """Each that moves gives the same elements."""
    moved = 0
    array = np.arange(int(np.prod(old)), dtype=np.float32).reshape(old)  # type: ignore[arg-type]
    for slice_ in _slices(new):
        graph = _sliced(Reshape(new), [old], slice_)
        sunk = sink_slices(graph)
        moved += sunk is not graph
        np.testing.assert_array_equal(evaluate(sunk, [array], {})[0], evaluate(graph, [array], {})[0])
    assert moved or new in ((1,), (4, 3))


@pytest.mark.parametrize(
    ("old", "new", "slice_", "moved"),
    [
        ((6, 4), (2, 3, 4), Slice((0, 1, 0), (2, 1, 4), (1, 1, 1)), Slice((1, 0), (2, 4), (3, 1))),
        ((2, 3, 4), (6, 4), Slice((1, 0), (2, 4), (3, 1)), Slice((0, 1, 0), (2, 1, 4), (1, 1, 1))),
        ((S * 3, 4), (S, 3, 4), Slice((0, 1, 0), (S, 1, 4), (1, 1, 1)), Slice((1, 0), (S, 4), (3, 1))),
        ((S, 3, 4), (S * 3, 4), Slice((1, 0), (S, 4), (3, 1)), Slice((0, 1, 0), (S, 1, 4), (1, 1, 1))),
        ((2, 3, 4, 5), (2, 3, 20), Slice((0, 2, 0), (2, 1, 20), (1, 1, 1)),
         Slice((0, 2, 0, 0), (2, 1, 4, 5), (1, 1, 1, 1))),
    ],
)  # fmt: skip
def test_a_row_of_each_sequence_passes_a_reshape(old: Shape, new: Shape, slice_: Slice, moved: Slice) -> None:
    first, second = _sunk(_sliced(Reshape(new), [old], slice_)).nodes
    assert (first.op, second.op) == (moved, Reshape(slice_.size))


# ---- whole graphs ---------------------------------------------------------------------------------------------------


@st.composite
def sliced_graphs(draw: Any) -> Graph:
    """Draw a graph of which one value is sliced, and little else is read."""
    graph: Graph = draw(graphs())
    values = [value for node in graph.nodes for value in node.outputs if value.type.rank]
    if not values:
        return graph
    nodes: list[Node] = []
    for value in draw(st.lists(st.sampled_from(values), min_size=1, max_size=2)):
        axes: list[Any] = []
        for dim in value.shape:
            if not isinstance(dim, int):
                axes.append(draw(st.sampled_from([(0, dim, 1), (0, 1, 1)])))
                continue
            size = draw(st.integers(min(1, dim), dim))
            step = draw(st.integers(1, (dim - 1) // (size - 1))) if size > 1 else 1
            start = draw(st.integers(0, max(dim - 1 - (size - 1) * step, 0)))
            axes.append((start, size, step))
        op = Slice(*zip(*axes, strict=True))
        nodes.append(Node(op, (value,), (Value(f"part{len(nodes)}", *op.infer(value.type)),)))
    outputs = tuple(node.outputs[0] for node in nodes)
    return eliminate_dead(dataclasses.replace(graph, nodes=(*graph.nodes, *nodes), outputs=outputs))


@given(sliced_graphs())
def test_answers_stay(graph: Graph) -> None:
    _sunk(graph, 1e-3)


@given(sliced_graphs())
def test_fuel_caps_the_rewrites(graph: Graph) -> None:
    assert_fuel_caps(sink_slices, graph, verify)


def _linear(b: Builder, x: Value, outputs: int) -> Value:
    """A product as torch has it: of all rows of all sequences."""
    batch, length, width = x.shape
    weight = b.input("w", TensorType(F32, (outputs, width)), weight=True)
    rows = b.add(MatrixMultiply(transpose_b=True), b.add(Reshape((batch * length, width)), x), weight)
    return b.add(Reshape((batch, length, outputs)), rows)


def test_a_classifier_reads_one_row_of_its_last_layer() -> None:
    """Of the last layer only keys and values are computed for all rows; of those before, everything."""
    b = Builder()
    batch, length, width, heads = 2, 7, 8, 2
    x = b.input("x", TensorType(F32, (batch, length, width)))
    for _ in range(2):
        normal = b.add(Normalization(2, 1e-5), x)
        parts = [
            b.add(Transpose((0, 2, 1, 3)), b.add(Reshape((batch, length, heads, width // heads)), part))
            for part in (_linear(b, normal, width) for _ in range(3))
        ]
        y = b.add(Transpose((0, 2, 1, 3)), b.add(Attention(0.5), *parts))
        x = b.add(SUM, _linear(b, b.add(Reshape((batch, length, width)), y), width), x)
        hidden = b.add(
            Activation(ActivationKind.GELU_ERF), _linear(b, b.add(Normalization(2, 1e-5), x), 4 * width)
        )
        x = b.add(SUM, _linear(b, hidden, width), x)
    token = b.add(Slice((0, 0, 0), (batch, 1, width), (1, 1, 1)), b.add(Normalization(2, 1e-5), x))
    graph = b.build([token])
    made, _ = run_passes(graph, support=lambda op, types: None)
    rows = [node.outputs[0].shape[0] for node in made.nodes if isinstance(node.op, MatrixMultiply)]
    assert sorted(rows) == sorted([*[batch * length] * (6 + 2), *[batch] * 4])
    arrays = arrays_for(graph)
    arrays = [np.nan_to_num(array, posinf=1, neginf=1) / 4 for array in arrays]
    assert_equal(evaluate(made, arrays, {}), evaluate(graph, arrays, {}), 1e-5)
