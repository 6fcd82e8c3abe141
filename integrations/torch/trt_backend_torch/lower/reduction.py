"""Aten ops that look along axes: reductions, softmax, normalizations, sorting, pooling.

Rules:
  WIDE   an input is cast to the dtype that torch promises before it is summed (booleans and integers to int64);
         squares and exponentials of float16 and bfloat16, which would overflow, are summed in float32, as in torch.
  FIRST  the index of an extreme is the least at which the tensor equals its extreme; a NaN is every extreme.
  ORDER  NaN is larger than infinity: the keys of sorts are float64, where larger numbers than any float32 stand for
         both. Equal elements keep their order, which torch promises for stable sorts only: integers and booleans,
         which often repeat, are not sorted otherwise, while the indices of equal floats may differ from torch's.
  NONE   outputs that only a backward pass reads (statistics, pooling indices) are None: their use is refused.
"""

from __future__ import annotations

__all__ = ["RULES"]

import math
from collections.abc import Sequence
from typing import TypeAlias

import torch

from trt_backend.errors import ReasonKind, UnsupportedError
from trt_backend.ir.dims import Dim, DimLike
from trt_backend.ir.graph import Value
from trt_backend.ir.ops.elementwise import ActivationKind, BatchNorm, ElementwiseKind, UnaryKind
from trt_backend.ir.ops.layout import GatherElements, Range
from trt_backend.ir.ops.reduction import (
    CumulativeSum,
    Normalization,
    Pooling,
    PoolingKind,
    ReduceKind,
    Softmax,
    TopK,
    TopKKind,
)
from trt_backend.ir.types import DType, volume
from trt_backend_torch.lower.context import Lowering, Number
from trt_backend_torch.lower.rules import RuleTable

RULES = RuleTable()

_aten = torch.ops.aten

_SUM, _SUB, _PROD, _DIV = ElementwiseKind.SUM, ElementwiseKind.SUB, ElementwiseKind.PROD, ElementwiseKind.DIV

_HUGE = 1e300

Axes: TypeAlias = int | Sequence[int] | None
Ints: TypeAlias = int | Sequence[int]
ValueOnly: TypeAlias = tuple[Value, None]
ValueOfThree: TypeAlias = tuple[Value, None, None]


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
    """The norm of the order 0, 1, 2, inf or -inf."""
    result = b.result.dtype
    if ord not in (0, 1, 2, math.inf, -math.inf):
        raise UnsupportedError(f"a norm of the order {ord}")
    x = b.cast(x, result)
    if ord == 0:
        zero = b.elementwise(ElementwiseKind.EQUAL, x, 0, result)
        return _accumulated(ReduceKind.SUM, b, b.unary(UnaryKind.NOT, zero), dim, keepdim)
    if ord == 2:
        axes = b.axes(dim, x.type.rank)
        total = b.reduce(ReduceKind.SUM, _squared(b, _widened(b, x)), axes, keep_dims=keepdim)
        return b.cast(b.unary(UnaryKind.SQRT, total), result)
    kind = {1: ReduceKind.SUM, math.inf: ReduceKind.MAX, -math.inf: ReduceKind.MIN}[ord]
    return _accumulated(kind, b, b.unary(UnaryKind.ABS, x), dim, keepdim)


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
    wide, axes = _widened(b, x), b.axes(dim, x.type.rank)
    mean = b.reduce(ReduceKind.AVG, wide, axes, keep_dims=True)
    squares = _squared(b, b.elementwise(_SUB, wide, mean, wide.dtype))
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


def _widened(b: Lowering, x: Value) -> Value:
    return b.cast(x, DType.FLOAT32) if x.dtype in (DType.FLOAT16, DType.BFLOAT16) else x


def _squared(b: Lowering, x: Value) -> Value:
    return b.elementwise(_PROD, x, x, x.dtype)


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
        finite = b.activation(ActivationKind.CLIP, b.cast(key, DType.FLOAT64), -math.inf, _HUGE)
        key = b.select(b.unary(UnaryKind.ISNAN, key), math.inf, finite, DType.FLOAT64)
    _, indices = b.emit(TopK(kind, count, axis), key)
    values, indices = b.add(GatherElements(axis), lifted, indices), b.cast(indices, DType.INT64)
    return (values, indices) if x.type.rank else (b.reshape(values, ()), b.reshape(indices, ()))


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
    lifted = b.with_rank(_widened(b, x), 1)
    axes, dtype = (b.axis(dim, x.type.rank),), lifted.dtype
    shifted = b.elementwise(_SUB, lifted, b.reduce(ReduceKind.MAX, lifted, axes, keep_dims=True), dtype)
    total = b.reduce(ReduceKind.SUM, b.unary(UnaryKind.EXP, shifted), axes, keep_dims=True)
    y = b.cast(b.elementwise(_SUB, shifted, b.unary(UnaryKind.LOG, total), dtype), b.result.dtype)
    return y if x.type.rank else b.reshape(y, ())


# Normalizations


@RULES.rule(_aten.native_layer_norm.default)
def _layer_norm(
    b: Lowering,
    input: Value,
    normalized_shape: Sequence[DimLike],
    weight: Value | None,
    bias: Value | None,
    eps: float,
) -> ValueOfThree:
    """Layer normalization; where the weight is wider than the input, in the weight's dtype."""
    dtype = input.dtype if weight is None else weight.dtype
    op = Normalization(input.type.rank - len(normalized_shape), eps)
    if weight is not None and bias is not None:
        y = b.add(op, b.cast(input, dtype), weight, b.cast(bias, dtype))
    else:
        y = b.add(op, b.cast(input, dtype), *(() if weight is None else (weight,)))
        y = y if bias is None else b.elementwise(_SUM, y, bias, dtype)
    return b.cast(y, b.result.dtype), None, None


@RULES.rule(_aten.native_group_norm.default)
def _group_norm(
    b: Lowering,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    N: DimLike,
    C: DimLike,
    HxW: DimLike,
    group: int,
    eps: float,
) -> ValueOfThree:
    """Group normalization: each group of channels as one row, then scale and bias of each channel."""
    dtype = input.dtype if weight is None else weight.dtype
    rows = b.reshape(b.cast(input, dtype), (N, group, C // group * HxW))
    y = b.reshape(b.add(Normalization(2, eps), rows), input.shape)
    return b.cast(_affine(b, y, weight, bias), b.result.dtype), None, None


@RULES.rule(_aten._native_batch_norm_legit_no_training.default)
def _batch_norm_inference(
    b: Lowering,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value,
    running_var: Value,
    momentum: float,
    eps: float,
) -> ValueOfThree:
    """Batch normalization with the running statistics, in their dtype."""
    dtype = running_mean.dtype
    channels = running_mean.shape[0]
    scale = b.expand(b.full((1,), 1, dtype), (channels,)) if weight is None else b.cast(weight, dtype)
    offset = b.expand(b.full((1,), 0, dtype), (channels,)) if bias is None else b.cast(bias, dtype)
    y = b.add(BatchNorm(eps), b.cast(input, dtype), scale, offset, running_mean, b.cast(running_var, dtype))
    return b.cast(y, b.result.dtype), None, None


@RULES.rule(_aten._batch_norm_no_update.default)
def _batch_norm_no_update(
    b: Lowering,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value | None,
    running_var: Value | None,
    momentum: float,
    eps: float,
) -> tuple[Value, None, None, None]:
    """Batch normalization as exported graphs write it."""
    y, *_ = _batch_norm(b, input, weight, bias, running_mean, running_var, False, momentum, eps)
    return y, None, None, None


@RULES.rule(_aten.native_batch_norm.default)
def _batch_norm(
    b: Lowering,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    running_mean: Value | None,
    running_var: Value | None,
    training: bool,
    momentum: float,
    eps: float,
) -> ValueOfThree:
    """Batch normalization that does not update its statistics."""
    if running_mean is None or running_var is None:
        return _batch_norm_no_stats(b, input, weight, bias, True, momentum, eps)
    if training:
        raise UnsupportedError("it updates the running statistics")
    return _batch_norm_inference(b, input, weight, bias, running_mean, running_var, momentum, eps)


@RULES.rule(_aten._native_batch_norm_legit.no_stats)
def _batch_norm_no_stats(
    b: Lowering,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    training: bool,
    momentum: float,
    eps: float,
) -> ValueOfThree:
    """Normalization with the statistics of the batch itself: what torch makes of instance normalization."""
    x = _widened(b, input)
    axes, dtype = (0, *range(2, x.type.rank)), x.dtype
    centred = b.elementwise(_SUB, x, b.reduce(ReduceKind.AVG, x, axes, keep_dims=True), dtype)
    variance = b.reduce(ReduceKind.AVG, _squared(b, centred), axes, keep_dims=True)
    deviation = b.unary(UnaryKind.SQRT, b.elementwise(_SUM, variance, eps, dtype))
    y = _affine(b, b.elementwise(_DIV, centred, deviation, dtype), weight, bias)
    return b.cast(y, b.result.dtype), None, None


def _affine(b: Lowering, x: Value, weight: Value | None, bias: Value | None) -> Value:
    """Return x scaled and moved by vectors along dimension 1."""
    for kind, vector in ((_PROD, weight), (_SUM, bias)):
        if vector is not None:
            shape = (vector.shape[0], *(1,) * (x.type.rank - 2))
            x = b.elementwise(kind, x, b.reshape(vector, shape), x.dtype)
    return x


# Pooling


def _max_pool(
    spatial: int,
    b: Lowering,
    x: Value,
    kernel_size: Ints,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    ceil_mode: bool,
) -> ValueOnly:
    """Max pooling without its indices."""
    if set(_each(dilation, spatial)) != {1}:
        raise UnsupportedError("no engine op pools over a dilated window")
    return _pooled(b, PoolingKind.MAX, x, spatial, kernel_size, stride, padding, ceil_mode), None


RULES.rules(_max_pool, {_aten.max_pool2d_with_indices.default: 2, _aten.max_pool3d_with_indices.default: 3})


def _average_pool(
    spatial: int,
    b: Lowering,
    x: Value,
    kernel_size: Ints,
    stride: Ints,
    padding: Ints,
    ceil_mode: bool,
    count_include_pad: bool,
) -> Value:
    """Average pooling."""
    return _pooled(
        b, PoolingKind.AVERAGE, x, spatial, kernel_size, stride, padding, ceil_mode, count_include_pad
    )


RULES.rules(_average_pool, {_aten.avg_pool2d.default: 2, _aten.avg_pool3d.default: 3})


def _adaptive_max_pool(spatial: int, b: Lowering, x: Value, output_size: Sequence[DimLike]) -> ValueOnly:
    """Max pooling to a size, without its indices."""
    return _adapted(b, PoolingKind.MAX, x, spatial, output_size), None


RULES.rules(_adaptive_max_pool, {_aten.adaptive_max_pool2d.default: 2, _aten.adaptive_max_pool3d.default: 3})


def _adaptive_average_pool(spatial: int, b: Lowering, x: Value, output_size: Sequence[DimLike]) -> Value:
    """Average pooling to a size."""
    return _adapted(b, PoolingKind.AVERAGE, x, spatial, output_size)


RULES.rules(
    _adaptive_average_pool, {_aten._adaptive_avg_pool2d.default: 2, _aten._adaptive_avg_pool3d.default: 3}
)


def _adapted(b: Lowering, kind: PoolingKind, x: Value, spatial: int, output_size: Sequence[DimLike]) -> Value:
    """Return a reduction where the output is one element, or windows that do not overlap."""
    rank = x.type.rank
    if all(size == 1 for size in output_size):
        reduce = ReduceKind.MAX if kind is PoolingKind.MAX else ReduceKind.AVG
        return b.reduce(reduce, x, range(rank - spatial, rank), keep_dims=True)
    sizes = b.static("the size of what is pooled", *x.shape[rank - spatial :])
    outputs = b.static("the size to pool to", *output_size)
    if any(size % output for size, output in zip(sizes, outputs, strict=True)):
        raise UnsupportedError(f"{list(sizes)} pooled to {list(outputs)} needs windows of several sizes")
    window = tuple(size // output for size, output in zip(sizes, outputs, strict=True))
    return _pooled(b, kind, x, spatial, window, window, (0,), ceil_mode=False)


def _pooled(
    b: Lowering,
    kind: PoolingKind,
    x: Value,
    spatial: int,
    kernel_size: Ints,
    stride: Ints,
    padding: Ints,
    ceil_mode: bool,
    count_padding: bool = False,
) -> Value:
    """Return the pooling of [*batch, C, *spatial]."""
    if not x.dtype.is_float:
        raise UnsupportedError(f"no engine op pools {x.dtype.value}", ReasonKind.DTYPE)
    window, border = _each(kernel_size, spatial), _each(padding, spatial)
    step = _each(stride, spatial) or window
    if ceil_mode:
        _check_last_window(x.shape[x.type.rank - spatial :], window, step, border)
    batched = b.with_rank(x, spatial + 2)
    y = b.add(Pooling(kind, window, step, border, border, count_padding, ceil_mode), batched)
    return b.reshape(y, y.shape[spatial + 2 - x.type.rank :])


def _check_last_window(
    sizes: Sequence[DimLike], window: Sequence[int], step: Sequence[int], border: Sequence[int]
) -> None:
    """Refuse a dynamic size where a window could start behind the input, and torch would then leave it out."""
    for size, reach, stride, before in zip(sizes, window, step, border, strict=True):
        if isinstance(size, Dim) and stride + before > reach:
            raise UnsupportedError(f"ceil_mode with the dynamic size {size}")


def _each(values: Ints, spatial: int) -> tuple[int, ...]:
    """Return one entry for each spatial dimension (none where there are none)."""
    given = (values,) if isinstance(values, int) else tuple(values)
    return given * spatial if len(given) == 1 else given
