"""For every op, and every kind of it, instances with operands: what the conformance tests run on each element type."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from trt_backend.emit.rules import op_label
from trt_backend.errors import InvalidGraphError
from trt_backend.ir.builder import Builder
from trt_backend.ir.dims import Dim, DimLike, Symbol, dim_max, dim_min, evaluate
from trt_backend.ir.graph import Graph
from trt_backend.ir.ops.base import Op
from trt_backend.ir.ops.contraction import Attention, Convolution, Deconvolution, MatrixMultiply
from trt_backend.ir.ops.elementwise import (
    Activation,
    ActivationKind,
    BatchNorm,
    Cast,
    Elementwise,
    ElementwiseKind,
    QuantizeDequantize,
    Select,
    Unary,
    UnaryKind,
)
from trt_backend.ir.ops.layout import (
    Concatenation,
    Expand,
    Extent,
    Gather,
    GatherElements,
    GatherND,
    GridSample,
    GridSamplePadding,
    Identity,
    InterpolationMode,
    Pad,
    PadMode,
    Range,
    Reshape,
    Resize,
    ResizeCoordinates,
    ScatterElements,
    ScatterND,
    Slice,
    Transpose,
)
from trt_backend.ir.ops.reduction import (
    CumulativeSum,
    Normalization,
    Pooling,
    PoolingKind,
    Reduce,
    ReduceKind,
    Softmax,
    TopK,
    TopKKind,
)
from trt_backend.ir.types import DType, TensorType

Make = Callable[[np.random.Generator, tuple[int, ...], DType], Any]
"""Makes the elements of an operand."""


def numbers(low: float, high: float) -> Make:
    """Make evenly distributed numbers: small ones for integers, as their sums and products must fit."""

    def make(rng: np.random.Generator, shape: tuple[int, ...], dtype: DType) -> Any:
        if dtype is DType.BOOL:
            return rng.integers(0, 2, shape)
        if dtype.is_integer:
            return rng.integers(max(int(low), 0 if dtype is DType.UINT8 else -5), 6, shape)
        return rng.uniform(low, high, shape)

    return make


def elements(*values: float) -> Make:
    """Make the given elements, again from the first where they do not suffice."""
    return lambda rng, shape, dtype: np.resize(np.array(values), shape)


ANY = numbers(-3, 3)
POSITIVE = numbers(1, 4)
UNIT = numbers(-0.9, 0.9)
NAN, INF = float("nan"), float("inf")


@dataclass(frozen=True)
class Operand:
    """An operand: its shape, its elements, and its element type where it is not the case's."""

    shape: tuple[DimLike, ...]
    make: Make = ANY
    dtype: DType | None = None


@dataclass(frozen=True)
class Case:
    """An op with operands, and the value of each symbol.

    Attributes:
        factor: how many tolerances the result may be off.
        dtypes: the element types that the case makes sense for (an operand's elements may need floats).
    """

    op: Op
    operands: tuple[Operand, ...]
    symbols: Mapping[str, int] = field(default_factory=dict)
    factor: float = 1.0
    dtypes: frozenset[DType] = frozenset(DType)

    def __str__(self) -> str:
        shapes = (f"[{', '.join(map(str, operand.shape))}]" for operand in self.operands)
        return f"{op_label(self.op)} {' '.join(shapes)}"

    def types(self, dtype: DType) -> tuple[TensorType, ...]:
        """Return the types of the operands."""
        return tuple(TensorType(operand.dtype or dtype, operand.shape) for operand in self.operands)

    def is_legal(self, dtype: DType) -> bool:
        """Whether the op takes these operands, and the case makes sense for this element type."""
        try:
            self.op.infer(*self.types(dtype))
        except InvalidGraphError:
            return False
        return dtype in self.dtypes

    def is_empty(self, dtype: DType) -> bool:
        """Whether an operand or a result has no elements: partitioning leaves such calls native."""
        types = self.types(dtype)
        shapes = [type.shape for type in (*types, *self.op.infer(*types))]
        return any(0 in (evaluate(dim, self.symbols) for dim in shape) for shape in shapes)

    def graph(self, dtype: DType) -> Graph:
        """Return the graph of just this op."""
        builder = Builder()
        inputs = [builder.input(f"x{i}", type) for i, type in enumerate(self.types(dtype))]
        return builder.build(builder.emit(self.op, *inputs))

    def arrays(self, dtype: DType) -> list[np.ndarray]:
        """Return the operands' elements, the same ones at every call."""
        rng = np.random.default_rng(0)
        arrays: list[np.ndarray] = []
        for operand in self.operands:
            type, shape = operand.dtype or dtype, tuple(evaluate(d, self.symbols) for d in operand.shape)
            arrays.append(np.asarray(operand.make(rng, shape, type)).astype(type.numpy))
        return arrays


FLOATS = frozenset({DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32, DType.FLOAT64})
S, T, E = Dim.of(Symbol("s", 0, 64)), Dim.of(Symbol("t", 1, 64)), Dim.of(Symbol("e", 0, 64))
SYMBOLS = {"s": 6, "t": 4, "e": 0}


def x(*shape: DimLike, make: Make = ANY) -> Operand:
    """Return an operand of the case's element type."""
    return Operand(shape, make)


def index(*shape: DimLike, below: int, dtype: DType = DType.INT64, distinct: bool = False) -> Operand:
    """Return indices; distinct ones count from 0 along the first axis."""
    if distinct:
        return Operand(
            shape,
            lambda rng, s, _: rng.permuted(
                np.tile(np.arange(s[0]).reshape(-1, *[1] * (len(s) - 1)), (1, *s[1:])), axis=0
            ),
            dtype,
        )
    return Operand(shape, lambda rng, s, _: rng.integers(0, below, s), dtype)


def case(
    op: Op, *operands: Operand, factor: float = 1.0, dtypes: frozenset[DType] = frozenset(DType)
) -> Case:
    """Return a case; the symbols that occur have the values in SYMBOLS."""
    dims = [dim for operand in operands for dim in operand.shape] + list(op.dims())
    names = {symbol.name for dim in dims if isinstance(dim, Dim) for symbol in dim.symbols}
    return Case(op, operands, {name: SYMBOLS[name] for name in sorted(names)}, factor, dtypes)


def elementwise_cases() -> Iterator[Case]:
    """Yield the cases of `ir.ops.elementwise`."""
    positive = {UnaryKind.LOG, UnaryKind.SQRT, UnaryKind.ACOSH, UnaryKind.RECIP}
    unit = {UnaryKind.ACOS, UnaryKind.ASIN, UnaryKind.ATANH, UnaryKind.TAN}
    for kind in UnaryKind:
        make = POSITIVE if kind in positive else UNIT if kind in unit else ANY
        yield case(Unary(kind), x(3, 7, make=make))
        yield case(Unary(kind), x(make=make))
    yield case(
        Unary(UnaryKind.ROUND), x(8, make=elements(-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 0.4, 3.5)), dtypes=FLOATS
    )
    for kind in (UnaryKind.ISINF, UnaryKind.ISNAN, UnaryKind.ABS, UnaryKind.NEG, UnaryKind.FLOOR):
        yield case(Unary(kind), x(5, make=elements(NAN, INF, -INF, 1, -2)), dtypes=FLOATS)
    for kind in ElementwiseKind:
        yield from _binary_cases(kind)
    for kind in ActivationKind:
        alpha, beta = {ActivationKind.CLIP: (-1.0, 2.0), ActivationKind.SOFTPLUS: (0.5, 2.0)}.get(
            kind, (0.3, 0.4)
        )
        yield case(Activation(kind, alpha, beta), x(4, 9))
        yield case(Activation(kind, alpha, beta), x())
        yield case(
            Activation(kind, alpha, beta), x(6, make=elements(NAN, INF, -2, 0, 80, -80)), dtypes=FLOATS
        )
    yield case(Activation(ActivationKind.CLIP, -INF, 1.0), x(4, 9))
    yield case(Activation(ActivationKind.SOFTPLUS, 1.0, 1.0), x(4, 9))
    condition = Operand((2, 1, 5), numbers(0, 1), DType.BOOL)
    yield case(Select(), condition, x(2, 3, 5), x(1, 3, 1))
    yield case(Select(), Operand((), numbers(0, 1), DType.BOOL), x(), x())
    yield case(Select(), Operand((S, 1), numbers(0, 1), DType.BOOL), x(1, T), x(S, T))
    for dtype in DType:
        yield case(Cast(dtype), x(9, make=elements(0, 1.5, 2.9, 100, 0.5, 1, 7.999, 3, 2)))
        yield case(
            Cast(dtype),
            x(6, make=elements(-1.5, -2.9, -0.5, -100, 0, 3)),
            dtypes=frozenset(DType) - {DType.UINT8, DType.BOOL} if dtype is not DType.UINT8 else frozenset(),
        )
    yield case(Cast(DType.BOOL), x(4, make=elements(NAN, 0, -0.0, 1e-3)), dtypes=FLOATS)
    vector = x(3, make=POSITIVE)
    for shape in ((2, 3), (2, 3, 4), (2, 3, 4, 5), (S, 3, T, 5)):
        yield case(BatchNorm(1e-3), x(*shape), vector, vector, vector, vector)
    yield case(QuantizeDequantize((0.25,)), x(8, make=elements(0, -0.1, 0.125, 0.375, 31.7, 32, -31.9, -33)))
    yield case(QuantizeDequantize((0.25,)), x(S, 3, T))
    yield case(QuantizeDequantize((0.25, 0.5, 2.0), axis=1), x(2, 3, 4, 5))


def _binary_cases(kind: ElementwiseKind) -> Iterator[Case]:
    power = kind is ElementwiseKind.POW
    divides = kind in (ElementwiseKind.DIV, ElementwiseKind.FLOOR_DIV)
    left = POSITIVE if power else ANY
    right = POSITIVE if power or divides else ANY
    factor = 4 if power else 1
    yield case(Elementwise(kind), x(3, 5, make=left), x(3, 5, make=right), factor=factor)
    yield case(Elementwise(kind), x(2, 1, 5, make=left), x(1, 3, 1, make=right), factor=factor)
    yield case(Elementwise(kind), x(make=left), x(make=right), factor=factor)
    yield case(Elementwise(kind), x(S, 1, make=left), x(S, T, make=right), factor=factor)
    if divides:
        signed = frozenset(DType) - {DType.BOOL, DType.UINT8}
        yield case(
            Elementwise(kind),
            x(6, make=elements(7, -7, 7, -7, 6, -6)),
            x(6, make=elements(2, 2, -2, -2, -3, -3)),
            dtypes=signed,
        )
        whole = frozenset(d for d in DType if d.is_integer)
        yield case(
            Elementwise(kind), x(4, make=elements(7, 6, 5, 0)), x(4, make=elements(7, 1, 2, 3)), dtypes=whole
        )
        yield case(
            Elementwise(kind),
            x(5, make=elements(-(2**31), -2e9, -1.5e9, -1, 2e9)),
            x(5, make=elements(3, 1.5e9, 1.5e9, 2e9, -1.5e9)),
            dtypes=frozenset({DType.INT32, DType.INT64}),
        )
    if kind in (ElementwiseKind.MAX, ElementwiseKind.MIN):
        for length in (3, 19):
            yield case(
                Elementwise(kind),
                x(length, make=elements(NAN, 1, 2)),
                x(length, make=elements(1, NAN, 3)),
                dtypes=FLOATS,
            )
            yield case(
                Elementwise(kind), x(length, make=elements(NAN, 1, 2)), x(1, make=elements(1)), dtypes=FLOATS
            )
            yield case(
                Elementwise(kind), x(length, make=elements(3, 1, 2)), x(1, make=elements(NAN)), dtypes=FLOATS
            )


def contraction_cases() -> Iterator[Case]:
    """Yield the cases of `ir.ops.contraction`."""
    yield case(Convolution((1,), (1,), (0,), (1,)), x(2, 3, 9), x(4, 3, 3), factor=4)
    yield case(Convolution((2, 1), (1, 0), (2, 3), (1, 2), 2), x(2, 4, 7, 8), x(6, 2, 3, 2), x(6), factor=4)
    yield case(
        Convolution((1, 1, 2), (1, 1, 0), (1, 1, 0), (1, 1, 1)),
        x(1, 2, 4, 5, 6),
        x(3, 2, 3, 3, 2),
        x(3),
        factor=4,
    )
    yield case(
        Convolution((2, 2), (1, 1), (1, 1), (1, 1), 4), x(T, 4, S + 3, S + 2), x(4, 1, 3, 3), x(4), factor=4
    )
    yield case(Deconvolution((2,), (1,), (0,), (1,)), x(2, 3, 5), x(3, 4, 3), factor=4)
    yield case(Deconvolution((2, 3), (1, 0), (0, 1), (1, 2), 2), x(2, 4, 4, 5), x(4, 3, 3, 3), x(6), factor=4)
    yield case(Deconvolution((2, 2), (1, 1), (0, 1), (1, 1)), x(1, 2, 4, 4), x(2, 3, 3, 3), x(3), factor=4)
    yield case(Deconvolution((2, 2), (1, 0), (-1, -1), (1, 1)), x(1, 2, 4, 4), x(2, 3, 2, 2), x(3), factor=4)
    yield case(Deconvolution((2,), (0,), (-1,), (3,)), x(2, 3, 5), x(3, 4, 3), factor=4)
    yield case(Deconvolution((1,), (0,), (-1,), (2,)), x(2, 3, 5), x(3, 4, 3), factor=4)
    yield case(Deconvolution((1, 2), (0, 0), (-2, -3), (1, 1)), x(1, 2, 4, 4), x(2, 3, 2, 2), x(3), factor=4)
    yield case(
        Deconvolution((2, 2, 1), (0, 1, 0), (0, 0, 0), (1, 1, 1)),
        x(1, 2, 3, 4, 3),
        x(2, 3, 2, 3, 2),
        factor=4,
    )
    yield case(Deconvolution((2, 2), (1, 1), (0, 1), (1, 1)), x(T, 2, S, 4), x(2, 3, 3, 3), x(3), factor=4)
    for a, b in ((False, False), (True, False), (False, True), (True, True)):
        op = MatrixMultiply(a, b)
        left, right = ((5, 3) if a else (3, 5)), ((4, 5) if b else (5, 4))
        yield case(op, x(*left), x(*right), factor=4)
        yield case(op, x(2, *left), x(1, *right), factor=4)
        yield case(op, x(2, 1, *left), x(1, 3, *right), factor=4)
        yield case(op, x(2, 3, *((5, 1) if a else (1, 5))), x(2, 3, *right), factor=4)
    yield case(MatrixMultiply(False, True), x(S, 5), x(4, 5), factor=4)
    yield case(MatrixMultiply(), x(T, S, 5), x(1, 5, S), factor=4)
    yield from attention_cases()


def hidden_rows(rng: np.random.Generator, shape: tuple[int, ...], dtype: DType) -> np.ndarray:
    """Make a mask of zeros and -inf, whose first row hides all."""
    mask = np.where(rng.integers(0, 2, shape) == 1, 0.0, -np.inf)
    mask[..., -1] = 0
    mask[..., 0, :] = -np.inf
    return mask


def attention_cases() -> Iterator[Case]:
    """Yield masks of every shape, lengths that differ, and rows that see nothing."""
    q, k, v = x(2, 3, 4, 8), x(2, 3, 5, 8), x(2, 3, 5, 6)
    for causal in (False, True):
        yield case(Attention(0.3, causal), q, k, v, factor=4)
        yield case(Attention(0.3, causal), k, q, x(2, 3, 4, 6), factor=4)
        yield case(Attention(0.3, causal), x(T, 3, S, 8), x(T, 3, S + 2, 8), x(T, 3, S + 2, 8), factor=4)
        for mask in ((2, 3, 4, 5), (1, 1, 4, 5), (2, 1, 1, 5), (1, 3, 4, 1), (1, 1, 1, 1)):
            yield case(Attention(0.3, causal), q, k, v, x(*mask), factor=4)
        yield case(Attention(0.3, causal), q, k, v, x(2, 1, 4, 5, make=hidden_rows), factor=4)
        yield case(Attention(0.3, causal), q, k, v, x(2, 1, 1, 5, make=hidden_rows), factor=4)
        yield case(
            Attention(0.3, causal), x(T, 3, S, 8), x(T, 3, S, 8), x(T, 3, S, 8), x(T, 1, 1, S), factor=4
        )


def reduction_cases() -> Iterator[Case]:
    """Yield the cases of `ir.ops.reduction`."""
    for kind in ReduceKind:
        make = POSITIVE if kind is ReduceKind.PROD else ANY
        for axes, keep in (((1,), False), ((0, 2), True), ((2,), True), ((2, 0, 1), False)):
            yield case(Reduce(kind, axes, keep), x(2, 3, 2, make=make), factor=4)
        yield case(Reduce(kind, (1,), False), x(S, T, make=make), factor=40)
        yield case(Reduce(kind, (0,), False), x(5, make=make), factor=4)
        yield case(Reduce(kind, (0,), True), x(T, make=make), factor=4)
        yield case(Reduce(kind, (0,), False), x(33, 2, make=numbers(0.9, 1.1)), factor=40, dtypes=FLOATS)
    for kind in (ReduceKind.MAX, ReduceKind.MIN):
        for size in (3, 40):
            for axis in (0, 1):
                first = x(size, size, make=elements(NAN, *range(size)))
                yield case(Reduce(kind, (axis,), False), first, dtypes=FLOATS)
        yield case(Reduce(kind, (1,), False), x(2, 3, make=elements(-INF)), dtypes=FLOATS)
    for axis in range(3):
        yield case(Softmax(axis), x(2, 3, 4))
        yield case(CumulativeSum(axis, axis == 1, axis == 2), x(2, 3, 4), factor=4)
    yield case(CumulativeSum(0, True, True), x(2, 3, 4), factor=4)
    yield case(CumulativeSum(0, True), x(0, 3))
    yield case(Softmax(1), x(S, T))
    for size in (5, T):
        yield case(Softmax(0), x(size))
        yield case(CumulativeSum(0), x(size), factor=4)
    for affine in range(3):
        yield case(Normalization(0, 1e-5), x(8), *[x(8)] * affine, factor=4)
        yield case(Normalization(1, 1e-5), x(2, 3, 8), *[x(3, 8)] * affine, factor=4)
        yield case(Normalization(2, 1e-5), x(2, 3, 8), *[x(8)] * affine, factor=4)
        yield case(Normalization(2, 1e-5), x(S, T, 8), *[x(8)] * affine, factor=4)
        yield case(Normalization(1, 1e-5), x(S, T, 8), *[x(T, 8)] * affine, factor=4)
    for kind in TopKKind:
        yield case(TopK(kind, 3, 1), x(2, 7))
        yield case(TopK(kind, 4, 0), x(7, 2))
        yield case(TopK(kind, 6, 1), x(2, 7, make=elements(1, 2, 2, 1, 3, 3, 2)))
        yield case(TopK(kind, 1, 1), x(2, 7, make=elements(1, 2, 2, 1, 3, 3, 2)))
        yield case(TopK(kind, 20, 0), x(300, make=elements(1, 2, 2, 1, 3, 3, 2)))
        yield case(TopK(kind, 2, 1), x(T, S))
        yield case(TopK(kind, 2, 0), x(S))
    yield from _pooling_cases()


def _pooling_cases() -> Iterator[Case]:
    for kind in PoolingKind:
        for count in (False, True):
            for up in (False, True):
                flags = {"count_padding": count, "round_up": up}
                yield case(Pooling(kind, (3,), (2,), (1,), (1,), **flags), x(2, 3, 8))
                yield case(Pooling(kind, (3, 2), (2, 2), (1, 0), (1, 1), **flags), x(2, 3, 8, 7))
                yield case(Pooling(kind, (2, 2), (3, 3), (1, 1), (1, 1), **flags), x(2, 3, 6, 9))
                yield case(Pooling(kind, (3, 3), (2, 2), (0, 0), (0, 0), **flags), x(2, 3, 6, 6))
                yield case(
                    Pooling(kind, (2, 2, 2), (2, 2, 1), (1, 0, 0), (0, 1, 0), **flags), x(1, 2, 5, 6, 4)
                )
                yield case(Pooling(kind, (3, 3), (2, 2), (1, 1), (1, 1), **flags), x(T, 3, S, S))


def layout_cases() -> Iterator[Case]:
    """Yield the cases of `ir.ops.layout`."""
    yield case(Identity(), x(2, 3))
    yield case(Transpose((2, 0, 1)), x(2, 3, 4))
    yield case(Transpose((1, 0)), x(S, T))
    yield case(Transpose(()), x())
    yield case(Reshape((4, 6)), x(2, 3, 4))
    yield case(Reshape(()), x(1, 1))
    yield case(Reshape((1, 1)), x())
    yield case(Reshape((3, 0)), x(0, 5))
    yield case(Reshape((S * T, 3)), x(S, T, 3))
    yield case(Reshape((T, S // 2, 2, 3)), x(S, T, 3))
    yield case(Reshape((T, E)), x(E, T))
    yield case(Reshape((E, 2)), x(2, E))
    yield case(Reshape((E, T, 2, 3)), x(E, T, 6))
    yield case(Reshape((S, T, 2, 3)), x(S, T, 6))
    yield case(Reshape((S * T, 3, 2)), x(S, T, 6))
    yield case(Expand((2, 3, 4)), x(2, 1, 4))
    yield case(Expand(()), x())
    yield case(Expand((S, T, 3)), x(1, T, 3))
    yield case(Expand((dim_max(S, T), dim_min(S, 3 * T), (S - 9) // 4 + 3, (S - 9) % 4 + 1)), x(1, 1, 1, 1))
    yield case(Slice((1, 0), (2, 3), (1, 2)), x(4, 6))
    yield case(Slice((3, 5), (4, 3), (-1, -2)), x(4, 6))
    yield case(Slice((2, 0), (0, 6), (-1, 1)), x(4, 6))
    yield case(Slice((), (), ()), x())
    yield case(Slice((0, S - 1, 1), (T, 1, 5), (1, 1, 1)), x(T, S, 6))
    yield case(Slice((0, 0, 2), (T, S - 2, 2), (1, 1, 2)), x(T, S, 6))
    yield case(Slice((0, 1), (0, S - 1), (1, 1)), x(E, S))
    yield case(Slice((0, 0), (S, T), (1, 1)), x(S, T))
    yield case(Slice((S - 4, 0), (T, S // 2), (1, 2)), x(S, S))
    yield case(Slice((S - 1, T - 1), (S, 2), (-1, -1)), x(S, T))
    fill = x()
    yield case(Pad(PadMode.CONSTANT, (1, 0), (2, 3)), x(2, 3), fill)
    yield case(Pad(PadMode.CONSTANT, (1, 0), (2, 3)), x(S, T), fill)
    for mode in (PadMode.REFLECT, PadMode.EDGE):
        yield case(Pad(mode, (0, 1, 2), (0, 2, 1)), x(2, 4, 5))
        yield case(Pad(mode, (1, 2), (2, 1)), x(S, T))
    yield case(Concatenation(1), x(2, 3), x(2, 1), x(2, 4))
    yield case(Concatenation(0), x(2, 3))
    yield case(Concatenation(0), x(S, 3), x(T, 3), x(0, 3))
    for dtype in (DType.INT32, DType.INT64):
        yield case(Gather(1), x(2, 5, 3), index(4, 2, below=5, dtype=dtype))
        yield case(Gather(0), x(2, 5), index(below=2, dtype=dtype))
        yield case(Gather(0), x(5), index(3, below=5, dtype=dtype))
        yield case(GatherElements(0), x(5), index(3, below=5, dtype=dtype))
        yield case(GatherElements(1), x(3, 5), index(2, 4, below=5, dtype=dtype))
        yield case(GatherND(), x(3, 4, 5), index(2, 2, below=3, dtype=dtype))
        yield case(GatherND(), x(3, 4), index(2, 3, 2, below=3, dtype=dtype))
        yield case(ScatterElements(0), x(4, 5), index(3, 4, below=4, dtype=dtype, distinct=True), x(3, 4))
        yield case(ScatterElements(0), x(4), index(3, below=4, dtype=dtype, distinct=True), x(3))
        yield case(ScatterND(), x(4, 5), index(3, 1, below=4, dtype=dtype, distinct=True), x(3, 5))
        yield case(Range(5, 2, 3, dtype))
        yield case(Range(S, T, -2, dtype))
        yield case(Range(E, 0, 1, dtype))
    yield case(Gather(0), x(T, S), index(S, below=4))
    yield case(GatherElements(0), x(T, S), index(2, S, below=4))
    for mode in InterpolationMode:
        for coordinates in ResizeCoordinates:
            yield case(Resize(mode, coordinates, (7, 3)), x(2, 3, 4, 5), factor=4)
            yield case(Resize(mode, coordinates, (1, 1)), x(2, 3, 4, 5), factor=4)
            yield case(Resize(mode, coordinates, (2 * S, S + T)), x(T, 3, S, T), factor=4)
            if mode is InterpolationMode.CUBIC:
                continue
            yield case(Resize(mode, coordinates, (7,)), x(2, 3, 4), factor=4)
            yield case(Resize(mode, coordinates, (7, 3, 5)), x(1, 2, 4, 5, 2), factor=4)
    for mode in (InterpolationMode.LINEAR, InterpolationMode.CUBIC):
        for coordinates in (ResizeCoordinates.ASYMMETRIC, ResizeCoordinates.HALF_PIXEL):
            yield case(Resize(mode, coordinates, (8, 2), (1.7, 0.5)), x(2, 3, 5, 5), factor=4)
            yield case(Resize(mode, coordinates, (5, 8), (1.1, 1.7)), x(2, 3, 5, 5), factor=4)
            yield case(Resize(mode, coordinates, (S // 2, 3 * T // 2), (0.5, 1.5)), x(2, 3, S, T), factor=4)
    yield case(
        Resize(InterpolationMode.LINEAR, ResizeCoordinates.HALF_PIXEL, (9,), (1.9,)), x(2, 3, 5), factor=4
    )
    yield from _grid_sample_cases()
    yield case(Resize(InterpolationMode.NEAREST, ResizeCoordinates.ASYMMETRIC, (16,)), x(1, 1, 14))
    yield case(Resize(InterpolationMode.NEAREST, ResizeCoordinates.HALF_PIXEL, (37,)), x(1, 1, 6))
    yield case(Resize(InterpolationMode.NEAREST, ResizeCoordinates.ALIGN_CORNERS, (31,)), x(1, 1, 36))
    yield case(Extent(S * T + 3))  # type: ignore[arg-type]


def _grid_sample_cases() -> Iterator[Case]:
    """Yield every mode with places inside, outside and, in eighths, on the edges that rounding and reflection turn at."""
    eighths = numbers(-24, 25)

    def on_edges(rng: np.random.Generator, shape: tuple[int, ...], dtype: DType) -> Any:
        return np.rint(eighths(rng, shape, dtype)) / 8

    for mode in InterpolationMode:
        for padding in GridSamplePadding:
            for align_corners in (False, True):
                op = GridSample(mode, padding, align_corners)
                for shape in ((2, 3, 4, 4), (2, 3, 8, 1)):
                    yield case(op, x(*shape), x(2, 5, 6, 2, make=UNIT), factor=8)
                    yield case(op, x(*shape), x(2, 5, 6, 2, make=ANY), factor=8)
                    yield case(op, x(*shape), x(2, 9, 9, 2, make=on_edges), factor=8)
                yield case(op, x(T, 3, S, T), x(T, S, 2, 2, make=UNIT), factor=8)


CASES = [*elementwise_cases(), *contraction_cases(), *reduction_cases(), *layout_cases()]
