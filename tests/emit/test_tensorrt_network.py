"""What a network's writer gives to TensorRT."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest

from array_checks import assert_same
from tensorrt_checks import infinities
from trt_backend.emit.tensorrt import emit_network, support
from trt_backend.emit.tensorrt.network import NetworkWriter
from trt_backend.emit.tensorrt.stacks import stack_of
from trt_backend.ir.builder import Builder
from trt_backend.ir.ops.base import Op
from trt_backend.ir.ops.contraction import Attention, MatrixMultiply
from trt_backend.ir.ops.elementwise import Cast, Elementwise, ElementwiseKind, Unary, UnaryKind
from trt_backend.ir.reference import evaluate
from trt_backend.ir.types import DType, TensorType
from trt_backend.passes.legalize import legalize


@pytest.mark.parametrize("dtype", [DType.FLOAT16, DType.FLOAT32, DType.INT32, DType.INT64, DType.BOOL])
def test_weights_that_came_from_another_process(dtype: DType) -> None:
    """TensorRT 8.6 compares dtype objects by identity, and unpickled arrays bring their own."""
    stack = stack_of("tensorrt", "8.6.0")
    assert stack is not None
    trt = SimpleNamespace(__version__="8.6.0", Weights=lambda array: array)
    array = pickle.loads(pickle.dumps(np.ones((2, 3), dtype.numpy)))
    given = NetworkWriter(trt, None, stack, set()).weights(array, dtype)
    wanted = np.dtype(np.int32 if dtype is DType.INT64 else dtype.numpy)
    assert given.dtype is wanted
    np.testing.assert_array_equal(given, array)
    assert dtype is DType.INT64 or np.shares_memory(given, array)


class Layer:
    """A layer that notes what it is held to."""

    def __init__(self) -> None:
        self.held: dict[str, object] = {}

    def __setattr__(self, name: str, value: object) -> None:
        if name == "precision":
            self.held["precision"] = value
        super().__setattr__(name, value)

    def set_output_type(self, index: int, dtype: str) -> None:
        self.held[f"output {index}"] = dtype

    def get_output(self, index: int) -> SimpleNamespace:
        return SimpleNamespace()


class Network:
    """A network that notes its layers by the methods that added them."""

    def __init__(self) -> None:
        self.layers: dict[str, Layer] = {}

    def __getattr__(self, method: str) -> Callable[..., Layer]:
        return lambda *arguments: self.layers.setdefault(method, Layer())


@pytest.mark.parametrize("version", ["8.6.0", "10.0.1"])
def test_layers_of_float32_beside_float16_are_held_to_it(version: str) -> None:
    stack = stack_of("tensorrt", version)
    assert stack is not None
    trt = SimpleNamespace(__version__=version, DataType=SimpleNamespace(HALF="half", FLOAT="float"))
    weakly = {"precision": "float", "output 0": "float"} if version == "8.6.0" else {}
    for floats in ({DType.FLOAT16, DType.FLOAT32}, {DType.FLOAT32}):
        writer = NetworkWriter(trt, None, stack, floats)
        wide, half = Layer(), Layer()
        writer.add(wide, DType.FLOAT32)
        writer.add(half, DType.FLOAT16)
        assert wide.held == (weakly if len(floats) == 2 else {})
        assert half.held == {}


@pytest.mark.parametrize(
    ("op", "method"),
    [
        *((Elementwise(ElementwiseKind[kind]), "add_elementwise") for kind in ("EQUAL", "GREATER", "LESS")),
        (Unary(UnaryKind.ISINF), "add_unary"),
        *((Cast(dtype), "add_cast") for dtype in (DType.INT32, DType.INT64, DType.BOOL, DType.FLOAT16)),
    ],
    ids=str,
)
@pytest.mark.parametrize("dtype", [DType.FLOAT16, DType.FLOAT32])
def test_what_is_compared_or_truncated_in_float32_beside_float16_is_held_to_it(
    op: Op, method: str, dtype: DType
) -> None:
    b, other = Builder(), DType.FLOAT16 if dtype is DType.FLOAT32 else DType.FLOAT32
    x, beside = b.input("x", TensorType(dtype, (3,))), b.input("beside", TensorType(other, (3,)))
    operands = (x, x) if isinstance(op, Elementwise) else (x,)
    graph = b.build([b.add(op, *operands), beside])
    stack, trt, network = stack_of("tensorrt", "8.6.0"), MagicMock(), Network()
    assert stack is not None
    emit_network(graph, trt, network, stack)
    free = DType.FLOAT16 in (dtype, graph.outputs[0].dtype)
    held = network.layers.get(method, Layer()).held  # a cast to its own type has no layer
    assert held == ({} if free else {"precision": trt.DataType.FLOAT})


@pytest.mark.parametrize("dtype", [DType.FLOAT16, DType.FLOAT32])
@pytest.mark.parametrize("size", [1, 7])
def test_an_infinity_of_one_element_is_no_constant_of_8_6(size: int, dtype: DType) -> None:
    graph = infinities(np.inf, dtype, size)
    stack, trt = stack_of("tensorrt", "8.6.0"), MagicMock()
    assert stack is not None
    emit_network(graph, trt, Network(), stack)
    arrays = [call.args[0] for call in trt.Weights.call_args_list]
    assert any(np.isinf(array).any() for array in arrays) == (size > 1)


@pytest.mark.parametrize("batch", [1, 3])
def test_batches_of_one_row_become_columns_for_8_6(batch: int) -> None:
    stack = stack_of("tensorrt", "8.6.0")
    assert stack is not None
    b, shapes = Builder(), [(batch, 1, 1, 4), (batch, 1, 5, 4), (batch, 1, 5, 4)]
    values = [b.input("x", TensorType(DType.FLOAT32, shape)) for shape in shapes]
    before = b.build([b.add(Attention(0.5), *values)])
    after = legalize(before, partial(support, stack))
    products = [node.outputs[0].shape for node in after.nodes if isinstance(node.op, MatrixMultiply)]
    columns, rows = [(batch, 1, 5, 1), (batch, 1, 4, 1)], [(batch, 1, 1, 5), (batch, 1, 1, 4)]
    assert products == (rows if batch == 1 else columns)
    arrays = [np.random.default_rng(0).random(shape, np.float32) for shape in shapes]
    assert_same(evaluate(after, arrays), evaluate(before, arrays), 2)
