"""Whole small graphs as ONNX models: the conventions of inputs and outputs, dimension arithmetic, and fusion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from array_checks import assert_same
from onnx_checks import run_graph, session
from trt_backend.emit.onnx import emit_onnx, support
from trt_backend.errors import InvalidGraphError, ReasonKind, UnsupportedError
from trt_backend.ir.builder import Builder
from trt_backend.ir.dims import Dim, DimLike, Symbol, dim_max, dim_min
from trt_backend.ir.dims import evaluate as evaluate_dim
from trt_backend.ir.graph import Graph, Value
from trt_backend.ir.ops.contraction import Attention, Convolution, MatrixMultiply
from trt_backend.ir.ops.elementwise import (
    Activation,
    ActivationKind,
    Cast,
    Elementwise,
    ElementwiseKind,
    Unary,
    UnaryKind,
)
from trt_backend.ir.ops.layout import Concatenation, Expand, Extent, Pad, PadMode, Reshape, Slice, Transpose
from trt_backend.ir.ops.reduction import Reduce, ReduceKind
from trt_backend.ir.reference import evaluate
from trt_backend.ir.types import DType, TensorType
from trt_backend.passes.pipeline import run_passes

S, T = Dim.of(Symbol("s", 0)), Dim.of(Symbol("t"))
SUM, PROD = Elementwise(ElementwiseKind.SUM), Elementwise(ElementwiseKind.PROD)


def f32(*shape: DimLike) -> TensorType:
    return TensorType(DType.FLOAT32, shape)


def array(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def optimized_ops(graph: Graph, folder: Path) -> list[str]:
    """Return the nodes that ONNX Runtime runs."""
    path = str(folder / "optimized.onnx")
    session(emit_onnx(graph), optimized=path)
    return [node.op_type for node in onnx.load(path).graph.node]


def test_inputs_and_outputs() -> None:
    builder = Builder()
    x = builder.input("x", f32(S, 3))
    w = builder.input("w", f32(1, 3), weight=True)
    y = builder.add(SUM, x, w)
    graph = builder.build([y, builder.add(Reshape((S * T, 3)), builder.add(Expand((S, 3)), y))])
    model = emit_onnx(graph)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["x", "w", "dim.s", "dim.t"]
    assert [value.name for value in model.graph.output] == ["output.0", "output.1"]
    dims = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input]
    assert dims == [["s", 3], [1, 3], [1], [1]]
    assert not model.graph.initializer or "w" not in {item.name for item in model.graph.initializer}


def test_an_expression_has_no_name() -> None:
    builder = Builder()
    x = builder.input("x", f32(2 * S, 3))
    model = emit_onnx(builder.build([x]))
    first = model.graph.input[0].type.tensor_type.shape.dim[0]
    assert not first.dim_param
    assert not first.HasField("dim_value")


def test_outputs_twice_and_inputs_and_constants_as_outputs() -> None:
    builder = Builder()
    x = builder.input("x", f32(2, 3))
    c = builder.constant([1, 2], DType.INT64)
    y = builder.add(Unary(UnaryKind.NEG), x)
    graph = builder.build([y, x, y, c])
    assert_same(run_graph(graph, [array(2, 3)]), evaluate(graph, [array(2, 3)]))


def test_a_graph_without_nodes_or_inputs() -> None:
    builder = Builder()
    x = builder.input("x", f32(2))
    assert_same(run_graph(builder.build([x]), [array(2)]), [array(2)])
    alone = Builder()
    graph = alone.build([alone.add(Extent(S + T))])  # type: ignore[arg-type]
    assert run_graph(graph, [], {"s": 2, "t": 3})[0] == 5


def test_an_unused_input_stays_an_input() -> None:
    builder = Builder()
    builder.input("unused", f32(2))
    x = builder.input("x", f32(S))
    graph = builder.build([builder.add(Unary(UnaryKind.NEG), x)])
    assert len(session(emit_onnx(graph)).get_inputs()) == 3


def test_names_that_the_model_needs_are_refused() -> None:
    builder = Builder()
    x = builder.input("output.0", f32(2))
    with pytest.raises(InvalidGraphError, match=r"output\.0"):
        emit_onnx(builder.build([x]))


def test_what_is_not_supported_is_refused_with_the_line() -> None:
    builder = Builder()
    x = builder.input("x", TensorType(DType.FLOAT64, (2,)))
    with builder.at("model.py:7"):
        y = builder.add(Unary(UnaryKind.ERF), x)
    with pytest.raises(UnsupportedError, match=r"Unary erf: .* not f64 \[model\.py:7\]") as caught:
        emit_onnx(builder.build([y]))
    assert caught.value.kind is ReasonKind.DTYPE


@pytest.mark.parametrize("dtype", [DType.INT32, DType.INT64])
@pytest.mark.parametrize("kind", [ElementwiseKind.DIV, ElementwiseKind.FLOOR_DIV])
def test_an_integer_division_by_zero_does_not_kill_the_process(kind: ElementwiseKind, dtype: DType) -> None:
    builder = Builder()
    x, y = (builder.input(name, TensorType(dtype, (2,))) for name in "xy")
    graph, _ = run_passes(builder.build([builder.add(Elementwise(kind), x, y)]), support=support)
    (got,) = run_graph(graph, [np.array([7, 7], dtype.numpy), np.array([0, 2], dtype.numpy)])
    assert got[1] == 3


def test_a_product_without_elements_is_refused() -> None:
    """Some kill the process."""
    builder = Builder()
    x, w = builder.input("x", f32(0, 4, 3)), builder.input("w", f32(1, 3, 2))
    graph = builder.build([builder.add(MatrixMultiply(), builder.add(Transpose((1, 0, 2)), x), w)])
    with pytest.raises(UnsupportedError, match="without elements"):
        emit_onnx(graph)


@pytest.mark.parametrize("dtype", [DType.FLOAT16, DType.FLOAT32, DType.FLOAT64])
def test_a_clip_behind_a_relu(dtype: DType) -> None:
    builder = Builder()
    x = builder.add(Activation(ActivationKind.RELU), builder.input("x", TensorType(dtype, (5,))))
    graph = builder.build([builder.add(Activation(ActivationKind.CLIP, -1.0, 6.0), x)])
    inputs = [np.array([-2, 0, 3, 7, np.nan], dtype.numpy)]
    assert_same(run_graph(graph, inputs), evaluate(graph, inputs))


@pytest.mark.parametrize("symbols", [{"s": 0, "t": 1}, {"s": 7, "t": 3}, {"s": 5, "t": 64}])
def test_dimension_arithmetic(symbols: dict[str, int]) -> None:
    dims: list[DimLike] = [
        S + 1,
        3 * S * T - 2,
        (S - 9) // 4,
        (S - 9) // (T + 1),
        (S - 9) % T,
        (S + 5) // 2,
        (1 - S) // -3,
        dim_max(S, 2 * T) + dim_min(S - T, 3),
        dim_max(S // T, 4) * T,
        S * S - T * T,
    ]
    builder = Builder()
    graph = builder.build([builder.add(Extent(dim)) for dim in dims if isinstance(dim, Dim)])
    got = [int(value) for value in run_graph(graph, [], symbols)]
    assert got == [evaluate_dim(dim, symbols) for dim in dims]


def test_an_expression_is_computed_once() -> None:
    builder = Builder()
    x = builder.input("x", f32(1, 1))
    outputs = [builder.add(Expand((S // 2, S // 2 + T)), x) for _ in range(3)]
    kinds = [node.op_type for node in emit_onnx(builder.build(outputs)).graph.node]
    assert kinds.count("Div") == 1
    assert kinds.count("Concat") == 1


@pytest.mark.parametrize(
    ("before", "after"),
    [((S, T, 6), (S, T, 2, 3)), ((S, 6), (S, 2, 3)), ((T, 4, 6), (T * 4, 6)), ((T, S, 2), (T, S, 1, 2))],
)
def test_a_reshape_needs_no_arithmetic_where_onnx_can_say_it(
    before: tuple[DimLike, ...], after: tuple[DimLike, ...]
) -> None:
    builder = Builder()
    graph = builder.build([builder.add(Reshape(after), builder.input("x", f32(*before)))])
    assert [node.op_type for node in emit_onnx(graph).graph.node] == ["Reshape", "Identity"]
    for symbols in ({"s": 3, "t": 2}, {"s": 0, "t": 2}):
        used = {symbol.name: symbols[symbol.name] for symbol in graph.symbols}
        x = array(*(evaluate_dim(dim, used) for dim in before))
        assert_same(run_graph(graph, [x], used), evaluate(graph, [x], used))


@pytest.mark.parametrize("rows", [4, S])
@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.FLOAT64])
@pytest.mark.parametrize("bias_first", [False, True])
@pytest.mark.parametrize("transpose", ["flag", "node"])
def test_a_linear_layer_is_one_gemm(
    rows: DimLike, dtype: DType, bias_first: bool, transpose: str, tmp_path: Path
) -> None:
    builder = Builder()
    x = builder.input("x", TensorType(dtype, (rows, 8)))
    w = builder.input("w", TensorType(dtype, (16, 8)), weight=True)
    bias = builder.input("b", TensorType(dtype, (16,)), weight=True)
    row = builder.add(Reshape((1, 16)), bias)
    turned = builder.add(Transpose((1, 0)), w) if transpose == "node" else w
    product = builder.add(MatrixMultiply(False, transpose == "flag"), x, turned)
    operands = (row, product) if bias_first else (product, row)
    graph = builder.build([builder.add(SUM, *operands)])
    assert optimized_ops(graph, tmp_path) == ["Gemm"]
    symbols = {} if rows == 4 else {"s": 4}
    arrays = [a.astype(dtype.numpy) for a in (array(4, 8), array(16, 8), array(16))]
    assert_same(run_graph(graph, arrays, symbols), evaluate(graph, arrays, symbols), 4)


def test_a_gemm_leaves_what_others_need() -> None:
    builder = Builder()
    x, y = builder.input("x", f32(3, 3)), builder.input("y", f32(3, 3))
    turned = builder.add(Transpose((1, 0)), y)
    left, right = builder.add(MatrixMultiply(), x, turned), builder.add(MatrixMultiply(True), y, turned)
    both = builder.add(SUM, left, right)
    kept = builder.add(MatrixMultiply(), both, x)
    twice = builder.add(MatrixMultiply(), x, x)
    column = builder.add(Reduce(ReduceKind.SUM, (1,), True), y)
    outputs = [
        both,
        builder.add(SUM, kept, turned),
        kept,
        builder.add(SUM, twice, twice),
        builder.add(SUM, builder.add(MatrixMultiply(), y, x), column),
        turned,
    ]
    graph = builder.build(outputs)
    arrays = [array(3, 3), array(3, 3) + 1]
    assert_same(run_graph(graph, arrays), evaluate(graph, arrays), 10)


def test_a_product_that_the_bias_widens_is_no_gemm_with_it() -> None:
    builder = Builder()
    x, w, more = builder.input("x", f32(1, 3)), builder.input("w", f32(3, 4)), builder.input("m", f32(5, 4))
    graph = builder.build([builder.add(SUM, builder.add(MatrixMultiply(), x, w), more)])
    arrays = [array(1, 3), array(3, 4), array(5, 4)]
    assert_same(run_graph(graph, arrays), evaluate(graph, arrays))


def test_a_product_of_higher_rank_does_not_transpose_at_run_time(tmp_path: Path) -> None:
    builder = Builder()
    q, k = builder.input("q", f32(2, 3, S, 8)), builder.input("k", f32(2, 3, S, 8))
    graph = builder.build([builder.add(MatrixMultiply(False, True), q, k)])
    assert optimized_ops(graph, tmp_path) == ["FusedMatMul"]


def test_a_convolution_takes_its_bias(tmp_path: Path) -> None:
    builder = Builder()
    x, w, b = (
        builder.input("x", f32(1, 3, 8, 8)),
        builder.input("w", f32(4, 3, 3, 3)),
        builder.input("b", f32(4)),
    )
    y = builder.add(Convolution((1, 1), (1, 1), (1, 1), (1, 1)), x, w, b)
    graph = builder.build([builder.add(Activation(ActivationKind.RELU), y)])
    assert optimized_ops(graph, tmp_path) in (["FusedConv"], ["Conv", "Relu"])


@pytest.mark.parametrize("hides_all", [False, True])
def test_a_constant_mask_is_repaired_only_where_it_must_be(hides_all: bool) -> None:
    builder = Builder()
    q, k, v = (builder.input(name, f32(2, 3, 4, 8)) for name in "qkv")
    mask = np.where(np.tril(np.ones((1, 1, 4, 4))) > 0, 0, -np.inf).astype(np.float32)
    mask[..., 0, 0] = -np.inf if hides_all else 0
    graph = builder.build([builder.add(Attention(0.5), q, k, v, builder.constant(mask))])
    assert ("Where" in {node.op_type for node in emit_onnx(graph).graph.node}) is hides_all
    arrays = [array(2, 3, 4, 8)] * 3
    assert_same(run_graph(graph, arrays), evaluate(graph, arrays), 4)


UNARY = st.sampled_from([UnaryKind.NEG, UnaryKind.ABS, UnaryKind.EXP, UnaryKind.SIN, UnaryKind.FLOOR])
BINARY = st.sampled_from(
    [ElementwiseKind.SUM, ElementwiseKind.SUB, ElementwiseKind.PROD, ElementwiseKind.MAX]
)


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Draw chains of elementwise and layout ops on x [s, t, 3] and y [1, t, 1], static or symbolic."""
    s, t = (S, T) if draw(st.booleans()) else (4, 2)
    builder = Builder()
    values = [builder.input("x", f32(s, t, 3)), builder.input("y", f32(1, t, 1))]
    for _ in range(draw(st.integers(1, 8))):
        step = draw(
            st.sampled_from([_unary, _binary, _transpose, _flatten, _slice, _pad, _join, _reduce, _mask])
        )
        values.append(step(draw, builder, draw(st.sampled_from(values)), values))
    outputs = draw(st.lists(st.sampled_from(values), min_size=1, max_size=3))
    return builder.build([*outputs, values[-1]])


def _unary(draw: st.DrawFn, builder: Builder, x: Value, values: list[Value]) -> Value:
    bounded = builder.add(Activation(ActivationKind.CLIP, -2.0, 2.0), x)
    return builder.add(Unary(draw(UNARY)), bounded)


def _binary(draw: st.DrawFn, builder: Builder, x: Value, values: list[Value]) -> Value:
    y = draw(st.sampled_from([value for value in values if value.shape == x.shape]))
    return builder.add(Elementwise(draw(BINARY)), x, y)


def _transpose(draw: st.DrawFn, builder: Builder, x: Value, values: list[Value]) -> Value:
    return builder.add(Transpose(tuple(draw(st.permutations(range(len(x.shape)))))), x)


def _flatten(draw: st.DrawFn, builder: Builder, x: Value, values: list[Value]) -> Value:
    if len(x.shape) < 2:
        return builder.add(Reshape((1, *x.shape)), x)
    return builder.add(Reshape((x.shape[0] * x.shape[1], *x.shape[2:])), x)


def _slice(draw: st.DrawFn, builder: Builder, x: Value, values: list[Value]) -> Value:
    axis = draw(st.integers(0, len(x.shape) - 1))
    backwards = draw(st.booleans())
    start = [x.shape[axis] - 1 if backwards and i == axis else 0 for i in range(len(x.shape))]
    stride = [-1 if backwards and i == axis else 1 for i in range(len(x.shape))]
    return builder.add(Slice(tuple(start), x.shape, tuple(stride)), x)


def _pad(draw: st.DrawFn, builder: Builder, x: Value, values: list[Value]) -> Value:
    before, after = ([draw(st.integers(0, 1)) for _ in x.shape] for _ in range(2))
    return builder.add(
        Pad(PadMode.CONSTANT, tuple(before), tuple(after)), x, builder.constant(0.5, DType.FLOAT32)
    )


def _join(draw: st.DrawFn, builder: Builder, x: Value, values: list[Value]) -> Value:
    return builder.add(Concatenation(draw(st.integers(0, len(x.shape) - 1))), x, x)


def _reduce(draw: st.DrawFn, builder: Builder, x: Value, values: list[Value]) -> Value:
    axis = draw(st.integers(0, len(x.shape) - 1))
    return builder.add(Reduce(draw(st.sampled_from([ReduceKind.SUM, ReduceKind.AVG])), (axis,), True), x)


def _mask(draw: st.DrawFn, builder: Builder, x: Value, values: list[Value]) -> Value:
    return builder.add(Cast(DType.FLOAT32), builder.add(Elementwise(ElementwiseKind.LESS), x, x))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(graphs())
def test_random_graphs(graph: Graph) -> None:
    symbols = {symbol.name: {"s": 4, "t": 2}[symbol.name] for symbol in graph.symbols}
    arrays = [array(4, 2, 3), array(1, 2, 1)]
    assert_same(run_graph(graph, arrays, symbols), evaluate(graph, arrays, symbols), 50)
