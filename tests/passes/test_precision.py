"""Lower precision: what moves, what stays in float32, and that the answers stay close."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ir_cases import accepts
from trt_backend.errors import Reason, ReasonKind
from trt_backend.ir.builder import Builder
from trt_backend.ir.graph import Graph, Value
from trt_backend.ir.ops.base import Op
from trt_backend.ir.ops.contraction import Attention, Convolution, MatrixMultiply
from trt_backend.ir.ops.elementwise import (
    Activation,
    ActivationKind,
    BatchNorm,
    Elementwise,
    ElementwiseKind,
    Select,
    Unary,
    UnaryKind,
)
from trt_backend.ir.ops.layout import Reshape
from trt_backend.ir.ops.reduction import Normalization, Pooling, PoolingKind, Softmax
from trt_backend.ir.reference import evaluate
from trt_backend.ir.types import DType, TensorType
from trt_backend.passes.pipeline import run_passes

LOW = [DType.FLOAT16, DType.BFLOAT16]
TOLERANCE = {DType.FLOAT16: 5e-3, DType.BFLOAT16: 4e-2}
SUM, PROD = Elementwise(ElementwiseKind.SUM), Elementwise(ElementwiseKind.PROD)
RELU = Activation(ActivationKind.RELU)


def numbers(*shape: int, scale: float = 1.0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32) * np.float32(scale)


def floats(b: Builder, name: str, *shape: int) -> Value:
    return b.input(name, TensorType(DType.FLOAT32, shape))


def lowered(graph: Graph, dtype: DType, **target: Any) -> Graph:
    return run_passes(graph, support=target.get("support", accepts()), precision=dtype)[0]


def dtypes(graph: Graph, op: type[Op]) -> list[DType]:
    """The element types of what the nodes of an op make."""
    return [node.outputs[0].dtype for node in graph.nodes if isinstance(node.op, op)]


def convolutional() -> Graph:
    """A residual block with batch norms of a large variance, pooling, a linear layer and its softmax."""
    b = Builder()
    x = y = floats(b, "x", 2, 4, 8, 8)
    for _ in range(2):
        y = b.add(
            Convolution((1, 1), (1, 1), (1, 1), (1, 1), 1), y, b.constant(numbers(4, 4, 3, 3, scale=300.0))
        )
        statistics = (numbers(4), numbers(4), numbers(4), np.full(4, 2e5, np.float32))
        y = b.add(RELU, b.add(BatchNorm(1e-5), y, *map(b.constant, statistics)))
    y = b.add(
        SUM, y, b.add(Convolution((1, 1), (0, 0), (0, 0), (1, 1), 1), x, b.constant(numbers(4, 4, 1, 1)))
    )
    y = b.add(Pooling(PoolingKind.MAX, (2, 2), (2, 2), (0, 0), (0, 0)), y)
    y = b.add(MatrixMultiply(), b.add(Reshape((2, 64)), y), b.constant(numbers(64, 5, scale=0.1)))
    return b.build([b.add(Softmax(1), y)])


@pytest.mark.parametrize("dtype", LOW)
def test_a_convolutional_network(dtype: DType) -> None:
    graph = convolutional()
    low = lowered(graph, dtype)
    for op in (Convolution, BatchNorm, Activation, Elementwise, Pooling, MatrixMultiply):
        assert set(dtypes(low, op)) == {dtype}, op
    assert dtypes(low, Softmax) == [DType.FLOAT32]
    casts = [node for node in low.nodes if type(node.op).__name__ == "Cast"]
    assert len(casts) == 2, "at the border and before the softmax: all others cancel"
    x = [numbers(2, 4, 8, 8)]
    np.testing.assert_allclose(evaluate(low, x)[0], evaluate(graph, x)[0], atol=2 * TOLERANCE[dtype])


def attending(mask_value: float) -> Graph:
    """Attention under a computed mask, and what follows it in a transformer."""
    b = Builder()
    x, hidden = floats(b, "x", 2, 6, 8), floats(b, "hidden", 2, 1, 1, 6)
    heads = [
        b.add(Reshape((2, 1, 6, 8)), b.add(MatrixMultiply(), x, b.constant(numbers(1, 8, 8, scale=s))))
        for s in (0.3, 0.5, 0.7)
    ]
    mask = b.add(PROD, hidden, b.constant(np.full((1, 1, 1, 1), mask_value, np.float32)))
    y = b.add(SUM, x, b.add(Reshape((2, 6, 8)), b.add(Attention(0.35), *heads, mask)))
    return b.build([b.add(Normalization(2, 1e-12), y)])


@pytest.mark.parametrize("mask_value", [-1e4, float(np.finfo(np.float32).min)])
@pytest.mark.parametrize("dtype", LOW)
def test_attention(dtype: DType, mask_value: float) -> None:
    graph = attending(mask_value)
    low = lowered(graph, dtype)
    assert dtypes(low, Attention) == [dtype]
    assert dtypes(low, Normalization) == [DType.FLOAT32]
    hidden = np.zeros((2, 1, 1, 6), np.float32)
    hidden[1, ..., 3:] = 1
    inputs = [numbers(2, 6, 8), hidden]
    np.testing.assert_allclose(
        evaluate(low, inputs)[0], evaluate(graph, inputs)[0], atol=4 * TOLERANCE[dtype]
    )


@pytest.mark.parametrize("computed", [True, False], ids=["computed", "constant"])
@pytest.mark.parametrize("dtype", LOW)
def test_a_query_that_sees_no_key_gets_zeros(dtype: DType, computed: bool) -> None:
    mask = np.triu(np.full((1, 1, 4, 4), -np.inf, np.float32))
    mask[..., 2, 2:] = np.finfo(np.float32).min
    b = Builder()
    x = floats(b, "x", 1, 1, 4, 8)
    hidden = floats(b, "mask", 1, 1, 4, 4) if computed else b.constant(mask)
    graph = b.build([b.add(Attention(0.35), x, x, x, hidden)])
    inputs = [numbers(1, 1, 4, 8), mask][: 1 + computed]
    low = lowered(graph, dtype, support=accepts(Attention))
    (got,) = evaluate(low, inputs)
    assert not got[..., 0, :].any()
    np.testing.assert_allclose(got, evaluate(graph, inputs)[0], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("computed", [True, False], ids=["computed", "constant"])
@pytest.mark.parametrize("dtype", LOW)
def test_a_query_whose_keys_are_all_hidden_by_a_number(dtype: DType, computed: bool) -> None:
    """Its scores, below 0, must not add up with the mask to -inf."""
    mask = np.full((1, 1, 2, 4), np.finfo(np.float32).min, np.float32)
    b = Builder()
    query, key, value = (floats(b, name, 1, 1, size, 8) for name, size in (("q", 2), ("k", 4), ("v", 4)))
    hidden = floats(b, "mask", 1, 1, 2, 4) if computed else b.constant(mask)
    graph = b.build([b.add(Attention(1.0), query, key, value, hidden)])
    twos = np.full((1, 1, 4, 8), 2, np.float32)
    inputs = [twos[..., :2, :], -twos, numbers(1, 1, 4, 8), mask][: 3 + computed]
    low = lowered(graph, dtype, support=accepts(Attention))
    np.testing.assert_allclose(evaluate(low, inputs)[0], evaluate(graph, inputs)[0], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", LOW)
def test_a_sum_with_a_number_out_of_range_is_an_island(dtype: DType) -> None:
    b = Builder()
    scores = b.add(MatrixMultiply(), floats(b, "x", 2, 4), b.constant(numbers(4, 4, scale=-30.0)))
    least = np.full((1, 1), np.finfo(np.float32).min, np.float32)
    graph = b.build([b.add(Softmax(1), b.add(SUM, scores, b.constant(least)))])
    low = lowered(graph, dtype)
    assert dtypes(low, Elementwise) == [DType.FLOAT32]
    inputs = [np.ones((2, 4), np.float32)]
    np.testing.assert_allclose(evaluate(low, inputs)[0], evaluate(graph, inputs)[0], atol=TOLERANCE[dtype])


def test_products_with_numbers_out_of_range_are_islands() -> None:
    b = Builder()
    small = b.add(MatrixMultiply(), floats(b, "x", 2, 4), b.constant(numbers(4, 4, scale=1e-4)))
    scaled = b.add(PROD, small, b.constant(np.full((1, 1), 1e6, np.float32)))
    graph = b.build([b.add(MatrixMultiply(), scaled, b.constant(numbers(4, 4, scale=1e6)))])
    low = lowered(graph, DType.FLOAT16)
    assert dtypes(low, Elementwise) == [DType.FLOAT32]
    assert dtypes(low, MatrixMultiply) == [DType.FLOAT16, DType.FLOAT32]
    inputs = [numbers(2, 4)]
    np.testing.assert_allclose(evaluate(low, inputs)[0], evaluate(graph, inputs)[0], rtol=1e-2, atol=1e4)


@pytest.mark.parametrize("dtype", LOW)
def test_infinities_stay(dtype: DType) -> None:
    b = Builder()
    x = b.add(MatrixMultiply(), floats(b, "x", 2, 4), b.constant(numbers(4, 4)))
    banned = b.input("banned", TensorType(DType.BOOL, (2, 4)))
    y = b.add(Select(), banned, b.constant(np.full((1, 1), -np.inf, np.float32)), x)
    graph = b.build([y, b.add(Unary(UnaryKind.ISINF), y)])
    low = lowered(graph, dtype)
    assert dtypes(low, Select) == [dtype]
    inputs = [numbers(2, 4), np.array([[True, False, True, False], [True] * 4])]
    for got, wanted in zip(evaluate(low, inputs), evaluate(graph, inputs), strict=True):
        np.testing.assert_allclose(got, wanted, atol=4 * TOLERANCE[dtype])


def test_the_squares_of_a_norm_stay_in_range() -> None:
    b = Builder()
    x = b.add(MatrixMultiply(), floats(b, "x", 2, 4), b.constant(numbers(4, 4, scale=300.0)))
    graph = b.build([b.add(PROD, x, x)])
    low = lowered(graph, DType.FLOAT16)
    assert dtypes(low, Elementwise) == [DType.FLOAT32]
    inputs = [numbers(2, 4)]
    np.testing.assert_allclose(evaluate(low, inputs)[0], evaluate(graph, inputs)[0], rtol=1e-2)


def test_what_was_not_made_in_low_precision_is_not_moved() -> None:
    b = Builder()
    x = floats(b, "x", 2, 4)
    graph = b.build([b.add(SUM, x, b.constant(numbers(1, 4)))])
    assert lowered(graph, DType.FLOAT16) is graph


@pytest.mark.parametrize("dtype", LOW)
def test_a_batch_norm_whose_scale_is_computed_stays(dtype: DType) -> None:
    b = Builder()
    kernel = b.constant(numbers(4, 3, 3, 3))
    x = b.add(Convolution((1, 1), (1, 1), (1, 1), (1, 1), 1), floats(b, "x", 2, 3, 5, 5), kernel)
    made = b.add(MatrixMultiply(), floats(b, "z", 1, 8), b.constant(numbers(8, 4)))
    statistics = (b.constant(np.full(4, n, np.float32)) for n in (0, 0, 1))
    graph = b.build([b.add(BatchNorm(1e-5), x, b.add(Reshape((4,)), made), *statistics)])
    low = lowered(graph, dtype)
    assert (dtypes(low, Convolution), dtypes(low, BatchNorm)) == ([dtype], [DType.FLOAT32])


def test_what_the_target_refuses_stays() -> None:
    def support(op: Op, inputs: tuple[TensorType, ...]) -> Reason | None:
        refused = isinstance(op, Convolution) and inputs[0].dtype is DType.BFLOAT16
        return Reason(ReasonKind.DTYPE, "Convolution") if refused else None

    low = lowered(convolutional(), DType.BFLOAT16, support=support)
    assert set(dtypes(low, Convolution)) == {DType.FLOAT32}
    assert dtypes(low, MatrixMultiply) == [DType.BFLOAT16]


def test_halves_and_integers_are_left_alone() -> None:
    b = Builder()
    x = b.input("x", TensorType(DType.FLOAT16, (2, 4)))
    graph = b.build([b.add(MatrixMultiply(), x, b.constant(numbers(4, 4).astype(np.float16)))])
    assert lowered(graph, DType.BFLOAT16) is graph
