"""Aten ops that look along axes: sums, variances, extremes, sorting, softmax.

Rules:
  WIDE   an input is cast to the dtype that torch promises before it is summed (booleans and integers to int64);
         squares and exponentials of float16 and bfloat16, which would overflow, are summed in float32, as in torch.
  FIRST  the index of an extreme is the least at which the tensor equals its extreme; a NaN is every extreme.
  ORDER  NaN is larger than infinity: the keys of sorts are quarters, and what is larger than any quarter stands for
         infinity and for NaN (ADR 22 says why no key is infinite). The smallest numbers of all lose bits in that. Equal
         elements keep their order, which torch promises for stable sorts only: integers and booleans, which often repeat,
         are not sorted otherwise, while the indices of equal floats may differ from torch's.
"""

from __future__ import annotations

__all__ = ["RULES", "widened"]

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch

from trt_backend.errors import ReasonKind, UnsupportedError
from trt_backend.ir.dims import DimLike
from trt_backend.ir.graph import Value
from trt_backend.ir.ops.elementwise import ActivationKind, ElementwiseKind, UnaryKind
from trt_backend.ir.ops.layout import GatherElements, Range
from trt_backend.ir.ops.reduction import CumulativeSum, ReduceKind, Softmax, TopK, TopKKind
from trt_backend.ir.types import DType, volume
from trt_backend_torch.lower.context import Lowering, Number
from trt_backend_torch.lower.elementwise import no_narrower, squared
from trt_backend_torch.lower.rules import RuleTable

RULES = RuleTable()

_aten = torch.ops.aten

_SUM, _SUB, _PROD, _DIV = ElementwiseKind.SUM, ElementwiseKind.SUB, ElementwiseKind.PROD, ElementwiseKind.DIV

_INFINITY_KEY, _NAN_KEY = 9e37, 9.5e37  # above a quarter of the largest float32, 8.5e37 (ORDER)

Axes: TypeAlias = int | Sequence[int] | None


# Sums


def _accumulated(kind: ReduceKind, b: Lowering, x: Value, dim: Axes = None, keepdim: bool = False) -> Value:
    """Return a sum, product or mean in the promised dtype (WIDE)."""
    x = b.cast(x, b.result.dtype)
    return b.reduce(kind, x, b.axes(dim, x.type.rank), keep_dims=keepdim)


@RULES.rule(_aten.sum.default, _aten.sum.dim_IntList)
def _sum(b: Lowering, x: Value, dim: Axes = None, keepdim: bool = False, dtype: DType | None = None) -> Value:
    """Sum."""
    return _accumulated(ReduceKind.SUM, b, x, dim, keepdim)


@RULES.rule(_aten.mean.default, _aten.mean.dim)
def _mean(
    b: Lowering, x: Value, dim: Axes = None, keepdim: bool = False, dtype: DType | None = None
) -> Value:
    """Mean."""
    return _accumulated(ReduceKind.AVG, b, x, dim, keepdim)


@RULES.rule(_aten.prod.default, _aten.prod.dim_int)
def _prod(
    b: Lowering, x: Value, dim: Axes = None, keepdim: bool = False, dtype: DType | None = None
) -> Value:
    """Product."""
    return _accumulated(ReduceKind.PROD, b, x, dim, keepdim)


@RULES.rule(_aten.cumsum.default)
def _cumsum(b: Lowering, x: Value, dim: int, dtype: DType | None = None) -> Value:
    """Running sum along one axis."""
    x = b.cast(x, b.result.dtype)
    return b.add(CumulativeSum(b.axis(dim, x.type.rank)), x) if x.type.rank else x


@RULES.rule(_aten.linalg_vector_norm.default)
def _vector_norm(
    b: Lowering, x: Value, ord: Number, dim: Axes = None, keepdim: bool = False, dtype: DType | None = None
) -> Value:
    """The norm of an order: 0 counts what is not 0, infinities take the largest and least."""
    result = b.result.dtype
    x = b.cast(x, result)
    if ord == 0:
        zero = b.elementwise(ElementwiseKind.EQUAL, x, 0, result)
        return _accumulated(ReduceKind.SUM, b, b.unary(UnaryKind.NOT, zero), dim, keepdim)
    kinds = {1: ReduceKind.SUM, math.inf: ReduceKind.MAX, -math.inf: ReduceKind.MIN}
    if ord in kinds:
        return _accumulated(kinds[ord], b, b.unary(UnaryKind.ABS, x), dim, keepdim)
    wide = widened(b, x)

    def power(y: Value, exponent: float) -> Value:
        return b.elementwise(ElementwiseKind.POW, y, exponent, wide.dtype)

    powers = squared(b, wide) if ord == 2 else power(b.unary(UnaryKind.ABS, wide), ord)
    total = b.reduce(ReduceKind.SUM, powers, b.axes(dim, x.type.rank), keep_dims=keepdim)
    return b.cast(b.unary(UnaryKind.SQRT, total) if ord == 2 else power(total, 1 / ord), result)


# Variances


def _moments(
    root: bool,
    b: Lowering,
    x: Value,
    dim: Axes = None,
    correction: Number | None = None,
    keepdim: bool = False,
) -> tuple[Value, Value]:
    """Return the variance (or its root), and the mean: n elements, squares divided by `n - correction`, at least 0."""
    wide, axes = widened(b, x), b.axes(dim, x.type.rank)
    mean = b.reduce(ReduceKind.AVG, wide, axes, keep_dims=True)
    squares = squared(b, b.elementwise(_SUB, wide, mean, wide.dtype))
    spread = b.reduce(ReduceKind.AVG, squares, axes, keep_dims=keepdim)
    undefined = b.unary(UnaryKind.ISNAN, spread)
    factor = _bessel(
        b, volume(tuple(x.shape[axis] for axis in axes)), 1 if correction is None else correction
    )
    spread = spread if factor is None else b.elementwise(_PROD, spread, factor, wide.dtype)
    spread = b.unary(UnaryKind.SQRT, spread) if root else spread
    mean = mean if keepdim else b.reshape(mean, spread.shape)
    mean = b.select(undefined, math.nan, mean, mean.dtype)  # torch's, of infinite elements, is NaN too
    return b.cast(spread, x.dtype), b.cast(mean, x.dtype)


def _spread(
    root: bool,
    b: Lowering,
    x: Value,
    dim: Axes = None,
    correction: Number | None = None,
    keepdim: bool = False,
) -> Value:
    """Return the variance, or its root."""
    return _moments(root, b, x, dim, correction, keepdim)[0]


RULES.rules(_spread, {_aten.std.correction: True, _aten.var.correction: False})
RULES.rules(_moments, {_aten.std_mean.correction: True, _aten.var_mean.correction: False})


def _bessel(b: Lowering, count: DimLike, correction: Number) -> Value | float | None:
    """Return `count / max(count - correction, 0)`, or None where that is 1."""
    if correction == 0:
        return None
    if isinstance(count, int):
        return count / (count - correction) if count > correction else math.inf
    free = b.elementwise(_SUB, count, correction, DType.FLOAT32)
    free = b.elementwise(ElementwiseKind.MAX, free, 0, DType.FLOAT32)
    return b.elementwise(_DIV, count, free, DType.FLOAT32)


def widened(b: Lowering, x: Value) -> Value:
    """Return x in float32 where it is narrower (WIDE)."""
    return b.cast(x, no_narrower(x.dtype))


# Extremes


def _extreme(kind: ReduceKind, b: Lowering, x: Value, dim: Axes = None, keepdim: bool = False) -> Value:
    """Return a maximum or minimum; booleans are ordered as integers are."""
    number = b.cast(x, DType.INT32) if x.dtype is DType.BOOL else x
    return b.cast(b.reduce(kind, number, b.axes(dim, x.type.rank), keep_dims=keepdim), x.dtype)


RULES.rules(
    _extreme,
    {
        _aten.amax.default: ReduceKind.MAX,
        _aten.amin.default: ReduceKind.MIN,
        _aten.max.default: ReduceKind.MAX,
        _aten.min.default: ReduceKind.MIN,
    },
)


def _extreme_and_index(
    kind: ReduceKind, b: Lowering, x: Value, dim: int, keepdim: bool = False
) -> tuple[Value, Value]:
    """Return the extremes along an axis and their indices."""
    lifted = b.with_rank(x, 1)
    axis = b.axis(dim, x.type.rank)
    found = _extreme(kind, b, lifted, axis, keepdim=True)
    index = _index(b, lifted, found, axis)
    if keepdim and x.type.rank:
        return found, index
    shape = tuple(size for i, size in enumerate(lifted.shape) if i != axis)
    return b.reshape(found, shape), b.reshape(index, shape)


RULES.rules(_extreme_and_index, {_aten.max.dim: ReduceKind.MAX, _aten.min.dim: ReduceKind.MIN})


def _extreme_index(
    kind: ReduceKind, b: Lowering, x: Value, dim: int | None = None, keepdim: bool = False
) -> Value:
    """Return the indices of the extremes along an axis, or in the flat tensor."""
    if dim is None:
        _, index = _extreme_and_index(kind, b, b.reshape(x, (volume(x.shape),)), 0)
        return b.with_rank(index, x.type.rank if keepdim else 0)
    return _extreme_and_index(kind, b, x, dim, keepdim)[1]


RULES.rules(_extreme_index, {_aten.argmax.default: ReduceKind.MAX, _aten.argmin.default: ReduceKind.MIN})


def _index(b: Lowering, x: Value, found: Value, axis: int) -> Value:
    """Return the least index along an axis at which x is `found`, or is NaN (FIRST)."""
    size = x.shape[axis]
    here = b.elementwise(ElementwiseKind.EQUAL, x, found, x.dtype)
    if x.dtype.is_float:
        here = b.elementwise(ElementwiseKind.OR, here, b.unary(UnaryKind.ISNAN, x), DType.BOOL)
    positions = b.add(Range(size, 0, 1, DType.INT64))
    positions = b.reshape(positions, (size if i == axis else 1 for i in range(x.type.rank)))
    return b.reduce(ReduceKind.MIN, b.select(here, positions, size, DType.INT64), (axis,), keep_dims=True)


def _truth(kind: ReduceKind, b: Lowering, x: Value, dim: Axes = None, keepdim: bool = False) -> Value:
    """Return whether any, or all, elements are not zero; an empty list of axes reduces nothing, unlike elsewhere."""
    x = b.cast(x, DType.BOOL)
    nothing = isinstance(dim, Sequence) and not dim
    return b.cast(x if nothing else _extreme(kind, b, x, dim, keepdim), b.result.dtype)


RULES.rules(
    _truth,
    {
        _aten.all.default: ReduceKind.MIN,
        _aten.all.dim: ReduceKind.MIN,
        _aten.all.dims: ReduceKind.MIN,
        _aten.any.default: ReduceKind.MAX,
        _aten.any.dim: ReduceKind.MAX,
        _aten.any.dims: ReduceKind.MAX,
    },
)


# Sorting


@RULES.rule(_aten.topk.default)
def _topk(b: Lowering, x: Value, k: DimLike, dim: int, largest: bool, sorted: bool) -> tuple[Value, Value]:
    """The k extremes along an axis and their indices, sorted even where torch need not."""
    (count,) = b.static("k", k)
    if count == 0:
        raise UnsupportedError("k is 0", ReasonKind.EMPTY)
    _check_order(x, stable=False)
    return _top(b, x, count, dim, TopKKind.MAX if largest else TopKKind.MIN)


@RULES.rule(_aten.sort.default, _aten.sort.stable)
def _sort(
    b: Lowering, x: Value, dim: int, descending: bool, stable: bool | None = None
) -> tuple[Value, Value]:
    """The elements along an axis in their order, and their indices."""
    _check_order(x, stable)
    (count,) = b.static("the length of what is sorted", *x.shape[b.axis(dim, x.type.rank) :][:1]) or (1,)
    return _top(b, x, count, dim, TopKKind.MAX if descending else TopKKind.MIN)


def _top(b: Lowering, x: Value, count: int, dim: int, kind: TopKKind) -> tuple[Value, Value]:
    """Return extremes and indices (ORDER)."""
    axis, lifted = b.axis(dim, x.type.rank), b.with_rank(x, 1)
    key = b.cast(lifted, DType.INT32) if x.dtype is DType.BOOL else lifted
    if x.dtype.is_float:
        key = _finite_key(b, b.cast(lifted, DType.FLOAT32))
    _, indices = b.emit(TopK(kind, count, axis), key)
    values, indices = b.add(GatherElements(axis), lifted, indices), b.cast(indices, DType.INT64)
    return (values, indices) if x.type.rank else (b.reshape(values, ()), b.reshape(indices, ()))


def _finite_key(b: Lowering, x: Value) -> Value:
    """Return float32 keys (ORDER)."""
    quarter = b.elementwise(ElementwiseKind.PROD, x, 0.25, DType.FLOAT32)
    finite = b.activation(ActivationKind.CLIP, quarter, -_INFINITY_KEY, _INFINITY_KEY)
    return b.select(b.unary(UnaryKind.ISNAN, x), _NAN_KEY, finite, DType.FLOAT32)


def _check_order(x: Value, stable: bool | None) -> None:
    """Refuse what torch orders in a way that no engine repeats (ORDER)."""
    if x.dtype is DType.FLOAT64:
        raise UnsupportedError("no key orders NaN behind infinity in float64", ReasonKind.DTYPE)
    if not stable and not x.dtype.is_float:
        raise UnsupportedError("integers repeat, and torch orders equal ones as its kernel happens to")


# Softmax


@RULES.rule(_aten._softmax.default)
def _softmax(b: Lowering, x: Value, dim: int, half_to_float: bool) -> Value:
    """Softmax, of float16 perhaps in float32."""
    lifted = b.with_rank(b.cast(x, b.result.dtype), 1)
    y = b.add(Softmax(b.axis(dim, x.type.rank)), lifted)
    return y if x.type.rank else b.reshape(y, ())


@RULES.rule(_aten._log_softmax.default)
def _log_softmax(b: Lowering, x: Value, dim: int, half_to_float: bool) -> Value:
    """`x - max - log(sum(exp(x - max)))`: the logarithm of a softmax would round small probabilities to 0."""
    lifted = b.with_rank(widened(b, x), 1)
    axes, dtype = (b.axis(dim, x.type.rank),), lifted.dtype
    shifted = b.elementwise(_SUB, lifted, b.reduce(ReduceKind.MAX, lifted, axes, keep_dims=True), dtype)
    total = b.reduce(ReduceKind.SUM, b.unary(UnaryKind.EXP, shifted), axes, keep_dims=True)
    y = b.cast(b.elementwise(_SUB, shifted, b.unary(UnaryKind.LOG, total), dtype), b.result.dtype)
    return y if x.type.rank else b.reshape(y, ())
