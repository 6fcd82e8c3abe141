"""Random well-formed graphs, inputs for them, and targets that refuse: what tests of the IR and the passes share."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import numpy as np
from hypothesis import strategies as st

from trt_backend.errors import Reason, ReasonKind
from trt_backend.ir.builder import Builder
from trt_backend.ir.dims import Dim, Symbol, evaluate
from trt_backend.ir.graph import Graph, Node, Value
from trt_backend.ir.ops.base import Op
from trt_backend.ir.ops.contraction import MatrixMultiply
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
from trt_backend.ir.ops.layout import (
    Concatenation,
    Expand,
    Gather,
    Identity,
    Pad,
    PadMode,
    Range,
    Reshape,
    Slice,
    Transpose,
)
from trt_backend.ir.ops.reduction import CumulativeSum, Normalization, Reduce, ReduceKind, Softmax
from trt_backend.ir.types import DType, TensorType, volume
from trt_backend.passes.fuel import Fuel
from trt_backend.passes.legalize import Support

SYMBOLS = {"s": 3, "t": 2}
_S, _T = Dim.of(Symbol("s", 1, 8)), Dim.of(Symbol("t"))
_DTYPES = (DType.FLOAT32, DType.FLOAT32, DType.FLOAT32, DType.FLOAT16, DType.INT64, DType.INT32, DType.BOOL)
_SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan])


def accepts(*refused: type[Op]) -> Support:
    """Return a target that takes every op but these."""

    def support(op: Op, types: tuple[TensorType, ...]) -> Reason | None:
        if not isinstance(op, refused):
            return None
        return Reason(ReasonKind.UNSUPPORTED, type(op).__name__, "the test refuses it")

    return support


def arrays_for(graph: Graph, seed: int = 0) -> list[np.ndarray]:
    """Return inputs of the graph: small whole numbers and halves, some zeros of either sign, infinities and NaN."""
    rng = np.random.default_rng(seed)
    arrays: list[np.ndarray] = []
    for value in graph.inputs:
        shape = tuple(evaluate(dim, SYMBOLS) for dim in value.shape)
        array = rng.integers(-4, 5, shape).astype(np.float64)
        if value.dtype.is_float:
            array = np.where(rng.random(shape) < 0.1, rng.choice(_SPECIAL, shape), array / 2)
        arrays.append(
            np.asarray(array != 0 if value.dtype is DType.BOOL else array).astype(value.dtype.numpy)
        )
    return arrays


def assert_equal(
    got: Sequence[np.ndarray], wanted: Sequence[np.ndarray], tolerance: float | None = None
) -> None:
    """Compare to the bit (all NaNs are one), or within a tolerance relative to the largest element."""
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if not np.issubdtype(a.dtype, np.floating) and a.dtype.kind != "V":
            np.testing.assert_array_equal(a, b)
            continue
        a, b = a.astype(np.float64), b.astype(np.float64)
        if tolerance is None:
            np.testing.assert_array_equal(a, b)
            defined = ~np.isnan(a)
            np.testing.assert_array_equal(np.signbit(a)[defined], np.signbit(b)[defined])
        else:
            finite = np.abs(b[np.isfinite(b)])
            np.testing.assert_allclose(a, b, tolerance, tolerance * max(1.0, finite.max(initial=0)))


def assert_fuel_caps(
    rewrite: Callable[[Graph, Fuel], Graph], graph: Graph, check: Callable[[Graph], object]
) -> None:
    """Check what a pass makes with each amount of fuel up to what it burns."""
    total = Fuel()
    rewrite(graph, total)
    assert rewrite(graph, Fuel(0)) is graph
    for limit in range(total.spent + 1):
        tank = Fuel(limit)
        check(rewrite(graph, tank))
        assert tank.spent == limit


# ---- random graphs --------------------------------------------------------------------------------------------------

Draw = Callable[..., Any]
Make = Callable[[Draw, Builder, list[Value]], "Value | None"]


def _of(draw: Draw, pool: list[Value], wanted: Callable[[Value], bool]) -> Value | None:
    fitting = [value for value in pool if wanted(value)]
    return draw(st.sampled_from(fitting)) if fitting else None


def _is_number(value: Value) -> bool:
    return value.dtype is not DType.BOOL


def _is_float(value: Value) -> bool:
    return value.dtype.is_float


def _is_matrix(value: Value) -> bool:
    return value.dtype.is_float and value.type.rank >= 2


def _unary(draw: Draw, b: Builder, pool: list[Value]) -> Value | None:
    kinds = {
        DType.BOOL: (UnaryKind.NOT,),
        DType.INT32: (UnaryKind.NEG, UnaryKind.ABS, UnaryKind.SIGN),
        DType.INT64: (UnaryKind.NEG, UnaryKind.ABS, UnaryKind.SIGN),
    }
    floats = (UnaryKind.NEG, UnaryKind.ABS, UnaryKind.SIGN, UnaryKind.FLOOR, UnaryKind.ROUND, UnaryKind.ISNAN)
    x = draw(st.sampled_from(pool))
    y = b.add(Unary(draw(st.sampled_from(kinds.get(x.dtype, floats)))), x)
    again = y.dtype is x.dtype and draw(st.booleans())
    return b.add(Unary(draw(st.sampled_from(kinds.get(x.dtype, floats)))), y) if again else y


def _scalar(draw: Draw, b: Builder, x: Value) -> Value:
    element = draw(st.sampled_from([0.0, -0.0, 1.0, 2.0, -1.0]))
    return b.constant(np.full((1,) * x.type.rank, element).astype(x.dtype.numpy))


def _binary(draw: Draw, b: Builder, pool: list[Value]) -> Value | None:
    logical = (ElementwiseKind.AND, ElementwiseKind.OR, ElementwiseKind.XOR, ElementwiseKind.EQUAL)
    exact = (*set(ElementwiseKind) - set(logical) - {ElementwiseKind.POW}, ElementwiseKind.EQUAL)
    x = draw(st.sampled_from(pool))
    kinds = logical if x.dtype is DType.BOOL else sorted(exact, key=str)
    same = [value for value in pool if value.type == x.type]
    y = draw(st.sampled_from(same)) if draw(st.booleans()) else _scalar(draw, b, x)
    kind = draw(st.sampled_from(kinds))
    divides = kind in (ElementwiseKind.DIV, ElementwiseKind.FLOOR_DIV) and x.dtype.is_integer
    operands = (x, y) if divides or draw(st.booleans()) else (y, x)
    return b.add(Elementwise(kind), *operands)


def _activation(draw: Draw, b: Builder, pool: list[Value]) -> Value | None:
    x = _of(draw, pool, _is_float)
    kind = draw(st.sampled_from([ActivationKind.RELU, ActivationKind.CLIP, ActivationKind.LEAKY_RELU]))
    return None if x is None else b.add(Activation(kind, -1.0, draw(st.sampled_from([0.5, 1.0]))), x)


def _select(draw: Draw, b: Builder, pool: list[Value]) -> Value | None:
    x = draw(st.sampled_from(pool))
    y = draw(st.sampled_from([value for value in pool if value.type == x.type]))
    known = b.constant(np.full((1,) * x.type.rank, draw(st.booleans())))
    fitting = [v for v in pool if v.dtype is DType.BOOL and v.shape == x.shape]
    return b.add(Select(), draw(st.sampled_from([known, *fitting])), x, y)


def _cast(draw: Draw, b: Builder, pool: list[Value]) -> Value | None:
    x = draw(st.sampled_from(pool))
    safe = (DType.FLOAT32, DType.FLOAT64, DType.FLOAT16, DType.BOOL, x.dtype)
    targets = safe if x.dtype.is_float else (*safe, DType.INT32, DType.INT64)
    return b.add(Cast(draw(st.sampled_from(targets))), x)


def _transpose(draw: Draw, b: Builder, pool: list[Value]) -> Value | None:
    x = draw(st.sampled_from(pool))
    return b.add(Transpose(tuple(draw(st.permutations(range(x.type.rank))))), x)


def _reshape(draw: Draw, b: Builder, pool: list[Value]) -> Value | None:
    x = draw(st.sampled_from(pool))
    at = draw(st.integers(0, x.type.rank))
    shapes = [x.shape, (volume(x.shape),), tuple(dim for dim in x.shape if dim != 1)]
    if x.type.rank < 4:
        shapes.append((*x.shape[:at], 1, *x.shape[at:]))
    return b.add(Reshape(draw(st.sampled_from(shapes))), x)


def _expand(draw: Draw, b: Builder, pool: list[Value]) -> Value | None:
    x = draw(st.sampled_from(pool))
    wider = draw(st.sampled_from([1, 2, _T]))
    return b.add(Expand(tuple(wider if dim == 1 else dim for dim in x.shape)), x)


def _slice(draw: Draw, b: Builder, pool: list[Value]) -> Value | None:
    x = draw(st.sampled_from(pool))
    start, size, stride = [0] * x.type.rank, list(x.shape), [1] * x.type.rank
    for i, dim in enumerate(x.shape):
        way = draw(st.integers(0, 3))
        if way == 1 and isinstance(dim, int) and dim > 1:
            start[i], size[i] = 1, dim - 1
        if way == 2 and isinstance(dim, int) and dim > 0:
            start[i], stride[i] = dim - 1, -1
    return b.add(Slice(tuple(start), tuple(size), tuple(stride)), x)


def _concatenation(draw: Draw, b: Builder, pool: list[Value]) -> Value | None:
    x = _of(draw, pool, lambda value: value.type.rank > 0)
    if x is None:
        return None
    others = st.lists(st.sampled_from([value for value in pool if value.type == x.type]), max_size=1)
    return b.add(Concatenation(draw(st.integers(0, x.type.rank - 1))), x, *draw(others))


def _pad(draw: Draw, b: Builder, pool: list[Value]) -> Value | None:
    x = _of(draw, pool, lambda value: value.type.rank > 0)
    if x is None:
        return None
    width = tuple(draw(st.integers(0, 1)) for _ in x.shape)
    return b.add(Pad(PadMode.CONSTANT, width, (0,) * x.type.rank), x, b.constant(0, x.dtype))


def _matrix_multiply(draw: Draw, b: Builder, pool: list[Value]) -> Value | None:
    x = _of(draw, pool, _is_matrix)
    if x is None:
        return None
    swap = (*range(x.type.rank - 2), x.type.rank - 1, x.type.rank - 2)
    if draw(st.booleans()):
        return b.add(MatrixMultiply(), x, b.add(Transpose(swap), x))
    flags = draw(st.sampled_from([(True, False), (False, True)]))
    return b.add(MatrixMultiply(*flags), x, x)


def _along_axis(draw: Draw, b: Builder, pool: list[Value]) -> Value | None:
    x = _of(draw, pool, lambda value: _is_number(value) and value.type.rank > 0)
    if x is None:
        return None
    axis = draw(st.integers(0, x.type.rank - 1))
    kind = draw(st.sampled_from([ReduceKind.MAX, ReduceKind.MIN]))
    ops: list[Op] = [Reduce(kind, (axis,), draw(st.booleans()))]
    if _is_float(x):
        ops += [Softmax(axis), Normalization(axis, 1e-5)]
    if isinstance(x.shape[axis], int):
        ops.append(CumulativeSum(axis, draw(st.booleans()), draw(st.booleans())))
    return b.add(draw(st.sampled_from(ops)), x)


def _generated(draw: Draw, b: Builder, pool: list[Value]) -> Value | None:
    dtype = draw(st.sampled_from([DType.INT32, DType.INT64]))
    size = draw(st.sampled_from([1, 3, _S]))
    if draw(st.booleans()):
        return b.add(Range(size, draw(st.integers(-2, 2)), draw(st.integers(-2, 2)), dtype))
    table = b.constant(np.arange(6).reshape(3, 2), dtype)
    return b.add(
        Gather(0), table, b.constant(draw(st.lists(st.integers(0, 2), min_size=1, max_size=3)), dtype)
    )


def _identity(draw: Draw, b: Builder, pool: list[Value]) -> Value | None:
    return b.add(Identity(), draw(st.sampled_from(pool)))


_MAKES: tuple[Make, ...] = (
    _activation,
    _along_axis,
    _binary,
    _cast,
    _concatenation,
    _expand,
    _generated,
    _identity,
    _matrix_multiply,
    _pad,
    _reshape,
    _select,
    _slice,
    _transpose,
    _unary,
)


@st.composite
def graphs(draw: Draw, max_nodes: int = 12) -> Graph:
    """Draw a well-formed graph that is full of what the passes look for."""
    b = Builder()
    pool: list[Value] = []
    for number in range(draw(st.integers(1, 3))):
        shape = tuple(draw(st.lists(st.sampled_from([1, 1, 2, 3, _S, _T]), max_size=3)))
        dtype = draw(st.sampled_from(_DTYPES))
        pool.append(b.input(f"x{number}", TensorType(dtype, shape), weight=draw(st.booleans())))
    for _ in range(draw(st.integers(1, max_nodes))):
        value = draw(st.sampled_from(_MAKES))(draw, b, pool)
        pool += [] if value is None else [value]
    return b.build(draw(st.lists(st.sampled_from(pool), min_size=1, max_size=3)) + pool[-1:])


# ---- changing graphs ------------------------------------------------------------------------------------------------


def renamed(graph: Graph) -> Graph:
    """Return the same graph with other names for its values."""
    names = {value: Value(f"other{i}", value.type) for i, value in enumerate(graph.values())}

    def new(values: Sequence[Value]) -> tuple[Value, ...]:
        return tuple(names[value] for value in values)

    return Graph(
        "other",
        new(graph.inputs),
        tuple(dataclasses.replace(constant, value=names[constant.value]) for constant in graph.constants),
        tuple(Node(node.op, new(node.inputs), new(node.outputs), "elsewhere") for node in graph.nodes),
        new(graph.outputs),
        frozenset(new(tuple(graph.weights))),
    )


def changed_attributes(op: Op) -> list[Op]:
    """Return the op once for each attribute, with just this attribute changed (no longer well-formed, perhaps)."""
    changed: list[Any] = []
    for name, value in op.attributes().items():
        other = _changed(value)
        if other != value:
            changed.append(dataclasses.replace(op, **{name: other}))  # type: ignore[type-var]
    return changed


def _changed(value: Any) -> Any:
    if isinstance(value, tuple):
        return (*value[:-1], _changed(value[-1])) if value else (1,)
    if isinstance(value, Enum):
        members = list(type(value))
        return members[(members.index(value) + 1) % len(members)]
    return (not value) if isinstance(value, bool) else value + 1
