"""Legalization: every expansion means what the op means, and a refusal says which op, why, and where."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from conformance.cases import CASES, Case
from ir_cases import accepts, assert_equal
from trt_backend.errors import InvalidGraphError, Reason, ReasonKind, UnsupportedError
from trt_backend.ir.builder import Builder
from trt_backend.ir.ops.base import Op
from trt_backend.ir.ops.contraction import Attention, Convolution, Deconvolution, MatrixMultiply
from trt_backend.ir.ops.elementwise import (
    Activation,
    ActivationKind,
    BatchNorm,
    Elementwise,
    ElementwiseKind,
    Unary,
    UnaryKind,
)
from trt_backend.ir.ops.layout import Expand, GatherND, Identity, Pad
from trt_backend.ir.ops.reduction import CumulativeSum, Normalization, Pooling, Softmax
from trt_backend.ir.reference import evaluate
from trt_backend.ir.types import DType, TensorType
from trt_backend.ir.verify import verify
from trt_backend.passes.expansions import EXPANSIONS
from trt_backend.passes.legalize import Support, legalize

TOLERANCE = {DType.FLOAT16: 4e-3, DType.BFLOAT16: 3e-2, DType.FLOAT32: 2e-5, DType.FLOAT64: 1e-9}
NO_EXPANSION = {
    Unary: [
        "acos",
        "acosh",
        "asin",
        "asinh",
        "atan",
        "atanh",
        "ceil",
        "cos",
        "cosh",
        "erf",
        "exp",
        "floor",
        "log",
        "round",
        "sin",
        "sinh",
        "sqrt",
    ],
    Elementwise: ["sum", "sub", "prod", "div", "max", "min", "pow", "greater", "less", "and", "or"],
    Activation: ["tanh"],
}


def _refuses_just(refused: Op, dtype: DType = DType.FLOAT32) -> Support:
    def support(op: Op, types: tuple[TensorType, ...]) -> Reason | None:
        refuses = op == refused and dtype in [type_.dtype for type_ in types]
        return Reason(ReasonKind.UNSUPPORTED, type(op).__name__) if refuses else None

    return support


def _dtypes(case: Case) -> list[DType]:
    """Return the dtypes that the op takes."""
    taken: list[DType] = []
    for dtype in case.dtypes:
        try:
            case.op.infer(*case.types(dtype))
        except InvalidGraphError:
            continue
        taken.append(dtype)
    return taken


@pytest.mark.parametrize("case", [case for case in CASES if type(case.op) in EXPANSIONS], ids=str)
def test_expansion_means_the_op(case: Case) -> None:
    for dtype in _dtypes(case):
        before, arrays = case.graph(dtype), case.arrays(dtype)
        try:
            after = legalize(before, _refuses_just(case.op, dtype))
        except UnsupportedError:
            assert _has_no_expansion(case, dtype)
            continue
        verify(after)
        assert not any(node.op == case.op and node.inputs[0].dtype is dtype for node in after.nodes)
        tolerance = TOLERANCE.get(dtype)
        wanted = evaluate(before, arrays, case.symbols)
        got = evaluate(after, arrays, case.symbols)
        assert_equal(got, wanted, None if tolerance is None else tolerance * max(2.0, case.factor))


def _has_no_expansion(case: Case, dtype: DType) -> bool:
    """Whether an op may stay refused: each exception is named here."""
    op = case.op
    if isinstance(op, Unary | Elementwise | Activation):
        equal = op == Elementwise(ElementwiseKind.EQUAL) and dtype is not DType.BOOL
        return op.kind.value in NO_EXPANSION[type(op)] or equal
    if isinstance(op, Expand):
        return dtype is not DType.BFLOAT16
    if isinstance(op, GatherND):
        return case.operands[1].shape[-1] != 1
    if isinstance(op, CumulativeSum):
        return not isinstance(case.operands[0].shape[op.axis], int)
    return isinstance(op, Convolution | Deconvolution | MatrixMultiply | Pooling)


GOLDENS: dict[str, tuple[Op, list[tuple[int, ...]]]] = {
    "attention": (Attention(0.5), [(1, 2, 3, 4)] * 3),
    "attention_causal_masked": (Attention(0.5, causal=True), [(1, 2, 3, 4)] * 3 + [(1, 1, 3, 3)]),
    "matrix_multiply_of_rows": (MatrixMultiply(), [(2, 1, 3), (2, 3, 4)]),
    "batch_norm": (BatchNorm(1e-5), [(2, 3, 4, 4), (3,), (3,), (3,), (3,)]),
    "normalization": (Normalization(1, 1e-5), [(2, 3), (3,), (3,)]),
    "convolution_1d": (Convolution((2,), (1,), (0,), (1,)), [(1, 2, 9), (4, 2, 3), (4,)]),
    "cumulative_sum": (CumulativeSum(0), [(5,)]),
    "gelu_erf": (Activation(ActivationKind.GELU_ERF), [(2,)]),
    "floor_div": (Elementwise(ElementwiseKind.FLOOR_DIV), [(2,), (2,)]),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_golden(name: str, golden: Callable[[str], None]) -> None:
    op, shapes = GOLDENS[name]
    b = Builder()
    inputs = [b.input(f"x{i}", TensorType(DType.FLOAT32, shape)) for i, shape in enumerate(shapes)]
    before = b.build([b.add(op, *inputs)])
    golden(f"{before}{legalize(before, _refuses_just(op))}")


def test_what_is_taken_stays() -> None:
    b = Builder()
    graph = b.build([b.add(Softmax(0), b.input("x", TensorType(DType.FLOAT32, (2,))))])
    assert legalize(graph, accepts(Identity)) is graph


def test_expansions_are_expanded() -> None:
    b = Builder()
    x = b.input("x", TensorType(DType.FLOAT32, (8,)))
    before = b.build([b.add(Activation(ActivationKind.SELU, 1.5, 2.0), x)])
    after = legalize(before, accepts(Activation))
    assert {type(node.op).__name__ for node in after.nodes} <= {"Elementwise", "Unary", "Select"}
    array = np.linspace(-3, 3, 8, dtype=np.float32)
    assert_equal(evaluate(after, [array]), evaluate(before, [array]), 1e-6)


def test_dtype_is_kept() -> None:
    b = Builder()
    x = b.input("x", TensorType(DType.FLOAT16, (2, 8)))
    after = legalize(b.build([b.add(Normalization(1, 1e-5), x)]), accepts(Normalization))
    assert {value.dtype for value in after.values()} == {DType.FLOAT16}


def test_epsilon_does_not_vanish_in_float16() -> None:
    b = Builder()
    x = b.input("x", TensorType(DType.FLOAT16, (2, 8)))
    after = legalize(b.build([b.add(Normalization(1, 1e-12), x)]), accepts(Normalization))
    (y,) = evaluate(after, [np.ones((2, 8), np.float16)])
    np.testing.assert_array_equal(y, 0)


def test_source_is_kept() -> None:
    b = Builder()
    with b.at("model.py:7"):
        y = b.add(Normalization(1, 1e-5), b.input("x", TensorType(DType.FLOAT32, (2, 8))))
    after = legalize(b.build([y]), accepts(Normalization))
    assert {node.source for node in after.nodes} == {"model.py:7"}


def test_refusal_names_op_reason_and_source() -> None:
    b = Builder()
    with b.at("model.py:7"):
        y = b.add(Softmax(0), b.input("x", TensorType(DType.FLOAT32, (2,))))
    with pytest.raises(UnsupportedError) as caught:
        legalize(b.build([y]), lambda op, types: Reason(ReasonKind.DTYPE, "Softmax", "f32 is too wide"))
    assert caught.value.kind is ReasonKind.DTYPE
    for part in ("Softmax", "f32 is too wide", "model.py:7"):
        assert part in str(caught.value)


def test_a_circle_ends() -> None:
    refused = (Unary(UnaryKind.NOT), Elementwise(ElementwiseKind.EQUAL), Elementwise(ElementwiseKind.XOR))

    def support(op: Op, types: tuple[TensorType, ...]) -> Reason | None:
        return Reason(ReasonKind.UNSUPPORTED, type(op).__name__) if op in refused else None

    b = Builder()
    y = b.add(Unary(UnaryKind.NOT), b.input("x", TensorType(DType.BOOL, (2,))))
    with pytest.raises(UnsupportedError, match="lead back to it"):
        legalize(b.build([y]), support)


def test_table_covers_what_it_says() -> None:
    assert {Attention, BatchNorm, Normalization, Convolution, Pooling, Pad, CumulativeSum} <= set(EXPANSIONS)


def test_a_graph_without_ops_may_be_illegal() -> None:
    b = Builder()
    x = b.input("x", TensorType(DType.FLOAT32, (2,)))
    b.input("y", TensorType(DType.FLOAT64, (2,)))

    def support(op: Op, types: tuple[TensorType, ...]) -> Reason | None:
        missing = DType.FLOAT64 in [type.dtype for type in types]
        return Reason(ReasonKind.DTYPE, type(op).__name__, "no f64") if missing else None

    with pytest.raises(UnsupportedError, match="the input %y: no f64"):
        legalize(b.build([x]), support)
    c = Builder()
    with pytest.raises(UnsupportedError, match="the output %c0: no f64") as caught:
        legalize(c.build([c.constant([0.5])]), support)
    assert caught.value.kind is ReasonKind.DTYPE
