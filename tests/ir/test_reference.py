"""The reference: every op has a function, and what no other implementation can tell us is checked by hand."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from trt_backend.ir.builder import Builder
from trt_backend.ir.dims import Dim, Symbol
from trt_backend.ir.ops import OPS
from trt_backend.ir.ops.contraction import Attention, Convolution, Deconvolution
from trt_backend.ir.ops.elementwise import (
    Activation,
    ActivationKind,
    Cast,
    Elementwise,
    ElementwiseKind,
    Unary,
    UnaryKind,
)
from trt_backend.ir.ops.layout import (
    Extent,
    InterpolationMode,
    Range,
    Reshape,
    Resize,
    ResizeCoordinates,
    Slice,
)
from trt_backend.ir.ops.reduction import CumulativeSum, Pooling, PoolingKind, TopK, TopKKind
from trt_backend.ir.reference import REFERENCE, evaluate, evaluate_op
from trt_backend.ir.types import DType, TensorType

S, T = Dim.of(Symbol("s")), Dim.of(Symbol("t"))


def test_every_op_has_a_function() -> None:
    assert set(REFERENCE) == set(OPS.values())


def test_every_kind_has_a_function() -> None:
    x = np.array([0.5], np.float32)
    for kind in UnaryKind:
        evaluate_op(Unary(kind), [x.astype(bool) if kind is UnaryKind.NOT else x])
    for kind in ActivationKind:
        evaluate_op(Activation(kind, 0.1, 0.2), [x])
    logical = {ElementwiseKind.AND, ElementwiseKind.OR, ElementwiseKind.XOR}
    for kind in ElementwiseKind:
        operand = x.astype(bool) if kind in logical else x
        evaluate_op(Elementwise(kind), [operand, operand])


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [(ElementwiseKind.DIV, [3, -3, -3, 3, 2]), (ElementwiseKind.FLOOR_DIV, [3, -4, -4, 3, 2])],
)
def test_integer_division(kind: ElementwiseKind, wanted: list[int]) -> None:
    left, right = np.array([7, -7, 7, -7, 6]), np.array([2, 2, -2, -2, 3])
    (got,) = evaluate_op(Elementwise(kind), [left, right])
    assert got.tolist() == wanted


def test_integer_powers() -> None:
    base, exponent = np.array([3, -2, -1, 2, 1]), np.array([39, 3, -3, -1, -5])
    (got,) = evaluate_op(Elementwise(ElementwiseKind.POW), [base, exponent])
    assert got.tolist() == [3**39, -8, -1, 0, 1]


def test_narrow_floats_compute_in_float32() -> None:
    x = np.array([1.0, 2.0**-9], ml_dtypes.bfloat16)
    (got,) = evaluate_op(CumulativeSum(0), [x])
    assert got.dtype == x.dtype
    (total,) = evaluate_op(Elementwise(ElementwiseKind.PROD), [np.array([300.0], np.float16)] * 2)
    assert np.isinf(total[0])
    assert total.dtype == np.float16


def test_cast_truncates() -> None:
    (got,) = evaluate_op(Cast(DType.INT32), [np.array([-1.9, 1.9, 0.5])])
    assert got.tolist() == [-1, 1, 0]


def test_clip_bounds_of_integers() -> None:
    x = np.array([-128, 0, 127], np.int8)
    (got,) = evaluate_op(Activation(ActivationKind.CLIP, -math.inf, 1e9), [x])
    assert got.tolist() == x.tolist()
    (got,) = evaluate_op(Activation(ActivationKind.CLIP, -3.0, 5.0), [x])
    assert got.tolist() == [-3, 0, 5]


def test_causal_attention_counts_from_the_first() -> None:
    q, k = np.zeros((1, 1, 2, 1), np.float32), np.zeros((1, 1, 3, 1), np.float32)
    v = np.array([1, 3, 100], np.float32).reshape(1, 1, 3, 1)
    (got,) = evaluate_op(Attention(1.0, causal=True), [q, k, v])
    assert got.reshape(-1).tolist() == [1, 2]


def test_attention_that_sees_nothing_gives_zeros() -> None:
    q = np.ones((1, 1, 2, 1), np.float32)
    mask = np.array([[-np.inf, -np.inf], [0, -np.inf]], np.float32).reshape(1, 1, 2, 2)
    (got,) = evaluate_op(Attention(1.0), [q, q, q, mask])
    assert got.reshape(-1).tolist() == [0, 1]


def test_deconvolution_is_the_adjoint_of_convolution() -> None:
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(6, 2, 3, 2))
    geometry = ((2, 1), (1, 0), (1, 2), (1, 2), 2)
    x = rng.normal(size=(1, 4, 7, 6))
    (y,) = evaluate_op(Convolution(*geometry), [x, kernel])
    z = rng.normal(size=y.shape)
    (back,) = evaluate_op(Deconvolution(*geometry), [z, kernel])
    assert back.shape == x.shape
    assert math.isclose(float((y * z).sum()), float((x * back).sum()), rel_tol=1e-9)


def test_top_k_keeps_the_order_of_equal_elements() -> None:
    x = np.array([1, 3, 2, 3, 1], np.int32)
    values, indices = evaluate_op(TopK(TopKKind.MAX, 4, 0), [x])
    assert (values.tolist(), indices.tolist()) == ([3, 3, 2, 1], [1, 3, 2, 0])
    values, indices = evaluate_op(TopK(TopKKind.MIN, 3, 0), [x])
    assert (values.tolist(), indices.tolist()) == ([1, 1, 2], [0, 4, 2])
    assert indices.dtype == np.int32


@pytest.mark.parametrize(
    ("exclusive", "reverse", "wanted"),
    [(False, False, [1, 3, 6]), (True, False, [0, 1, 3]), (False, True, [6, 5, 3]), (True, True, [5, 3, 0])],
)
def test_cumulative_sum(exclusive: bool, reverse: bool, wanted: list[int]) -> None:
    (got,) = evaluate_op(CumulativeSum(1, exclusive, reverse), [np.array([[1, 2, 3]])])
    assert got.tolist() == [wanted]


def test_average_never_counts_what_lies_beyond_the_padding() -> None:
    x = np.ones((1, 1, 4), np.float32)
    (got,) = evaluate_op(Pooling(PoolingKind.AVERAGE, (3,), (2,), (0,), (1,), True, True), [x])
    assert got.reshape(-1).tolist() == pytest.approx([1, 2 / 3])
    (got,) = evaluate_op(Pooling(PoolingKind.AVERAGE, (3,), (2,), (1,), (0,), True, True), [x])
    assert got.reshape(-1).tolist() == pytest.approx([2 / 3, 1])
    (got,) = evaluate_op(Pooling(PoolingKind.AVERAGE, (2,), (3,), (0,), (0,), False, True), [x])
    assert got.reshape(-1).tolist() == [1, 1]


def test_nearest_resize_rounds_as_said() -> None:
    x = np.arange(3, dtype=np.float32).reshape(1, 1, 3)
    for coordinates, wanted in (
        (ResizeCoordinates.ASYMMETRIC, [0, 0, 1, 1, 2, 2]),
        (ResizeCoordinates.HALF_PIXEL, [0, 0, 1, 1, 2, 2]),
        (ResizeCoordinates.ALIGN_CORNERS, [0, 0, 1, 1, 2, 2]),
    ):
        (got,) = evaluate_op(Resize(InterpolationMode.NEAREST, coordinates, (6,)), [x])
        assert got.reshape(-1).tolist() == wanted
    (got,) = evaluate_op(Resize(InterpolationMode.NEAREST, ResizeCoordinates.ALIGN_CORNERS, (5,)), [x])
    assert got.reshape(-1).tolist() == [0, 1, 1, 2, 2]


def test_symbols() -> None:
    assert evaluate_op(Extent(S * 3 + T), [], {"s": 2, "t": 5})[0] == 11  # type: ignore[arg-type]
    assert evaluate_op(Range(S, T, -1, DType.INT32), [], {"s": 3, "t": 5})[0].tolist() == [5, 4, 3]
    (got,) = evaluate_op(Slice((S - 1,), (S,), (-1,)), [np.arange(4)], {"s": 4})
    assert got.tolist() == [3, 2, 1, 0]


def test_graph() -> None:
    builder = Builder()
    x = builder.input("x", TensorType(DType.FLOAT32, (S, T)))
    two = builder.constant([[2.0]], DType.FLOAT32)
    scaled = builder.add(Elementwise(ElementwiseKind.PROD), x, two)
    graph = builder.build([builder.add(Reshape((S * T,)), scaled), x, two])
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    flat, same, constant = evaluate(graph, [array], {"s": 2, "t": 3})
    assert flat.tolist() == [0, 2, 4, 6, 8, 10]
    assert same is array
    assert constant.tolist() == [[2]]
