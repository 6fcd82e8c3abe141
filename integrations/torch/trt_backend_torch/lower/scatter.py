"""Aten ops that combine elements where an index repeats (REDUCE of `indexing`); and what a mask takes from another tensor."""

from __future__ import annotations

__all__ = ["RULES"]

import math

import numpy as np
import torch

from trt_backend.ir.graph import Value
from trt_backend.ir.ops.elementwise import ElementwiseKind
from trt_backend.ir.ops.layout import Gather, ScatterElements, ScatterReduceKind
from trt_backend.ir.ops.reduction import CumulativeSum
from trt_backend.ir.types import DType, volume
from trt_backend_torch.lower.context import Lowering, Number
from trt_backend_torch.lower.elementwise import times
from trt_backend_torch.lower.indexing import matching, put_slices, reducing
from trt_backend_torch.lower.rules import RuleTable

RULES = RuleTable()

_aten = torch.ops.aten

_SUM, _PROD = ScatterReduceKind.SUM, ScatterReduceKind.PROD
_MAX, _MIN = ScatterReduceKind.MAX, ScatterReduceKind.MIN

_KINDS = {
    "add": _SUM,
    "amax": _MAX,
    "amin": _MIN,
    "mean": _SUM,
    "multiply": _PROD,
    "prod": _PROD,
    "sum": _SUM,
}


@RULES.rule(_aten.scatter_add.default)
def _scatter_add(b: Lowering, x: Value, dim: int, index: Value, src: Value) -> Value:
    """Elements of `src`, as many as there are indices, added along a dimension (BOUNDS)."""
    return _scatter_reduce(b, x, dim, index, src, "sum")


@RULES.rule(_aten.scatter_reduce.two, _aten.scatter.reduce)
def _scatter_reduce(
    b: Lowering, x: Value, dim: int, index: Value, src: Value, reduce: str, include_self: bool = True
) -> Value:
    """Elements of `src`, as many as there are indices, combined with those along a dimension (BOUNDS)."""
    target = b.with_rank(x, 1)
    axis = b.axis(dim, target.type.rank)
    index, src = matching(b, index, src)
    return b.reshape(_combined(b, target, axis, index, src, reduce, include_self), x.shape)


@RULES.rule(_aten.scatter.value_reduce)
def _scatter_value_reduce(b: Lowering, x: Value, dim: int, index: Value, value: Number, reduce: str) -> Value:
    """One number combined with elements along a dimension (BOUNDS)."""
    return _scatter_reduce(b, x, dim, index, b.expand(b.value(value, x.dtype), index.shape), reduce)


@RULES.rule(_aten.index_add.default)
def _index_add(b: Lowering, x: Value, dim: int, index: Value, source: Value, alpha: Number) -> Value:
    """Slices of `source`, times `alpha`, added along a dimension (BOUNDS)."""
    target = b.with_rank(x, 1)
    axis, updates = b.axis(dim, target.type.rank), b.value(times(b, source, alpha), x.dtype)
    return b.reshape(put_slices(b, target, axis, index, updates, reducing(_SUM, target, axis)), x.shape)


@RULES.rule(_aten.index_reduce.default)
def _index_reduce(
    b: Lowering, x: Value, dim: int, index: Value, source: Value, reduce: str, include_self: bool
) -> Value:
    """Slices of `source` combined with those along a dimension (BOUNDS)."""
    target = b.with_rank(x, 1)
    axis = b.axis(dim, target.type.rank)
    (count,) = b.with_rank(index, 1).shape
    shape = (*target.shape[:axis], count, *target.shape[axis + 1 :])
    row = b.reshape(index, (count if i == axis else 1 for i in range(len(shape))))
    result = _combined(b, target, axis, b.expand(row, shape), b.reshape(source, shape), reduce, include_self)
    return b.reshape(result, x.shape)


def _combined(
    b: Lowering, x: Value, axis: int, index: Value, updates: Value, reduce: str, include_self: bool
) -> Value:
    """Return x combined with updates; where it is not included, its elements that are hit are neutral before."""
    kind = _KINDS[reduce]

    def hit(y: Value, number: Number) -> Value:
        return b.add(ScatterElements(axis), y, index, b.expand(b.full((), number, y.dtype), index.shape))

    scatter = reducing(kind, x, axis)
    start = x if include_self else hit(x, _neutral(kind, x.dtype))
    result = b.add(scatter, start, index, updates)
    if reduce != "mean":
        return result
    one = b.full((), 1, x.dtype)
    ones = b.expand(one, x.shape)
    counts = b.add(scatter, ones if include_self else hit(ones, 0), index, b.expand(one, index.shape))
    division = ElementwiseKind.DIV if x.dtype.is_float else ElementwiseKind.FLOOR_DIV
    return b.elementwise(division, result, counts, x.dtype)


def _neutral(kind: ScatterReduceKind, dtype: DType) -> Number:
    """Return the number that changes nothing."""
    if kind in (_SUM, _PROD):
        return int(kind is _PROD)
    if dtype.is_float:
        return -math.inf if kind is _MAX else math.inf
    limits = np.iinfo(dtype.numpy)
    return int(limits.min if kind is _MAX else limits.max)


@RULES.rule(_aten.masked_scatter.default)
def _masked_scatter(b: Lowering, x: Value, mask: Value, source: Value) -> Value:
    """Elements of `source`, in their order, where the mask is true (BOUNDS, where `source` has too few)."""
    shape = b.result.shape
    places = b.reshape(b.expand(mask, shape), (volume(shape),))
    number = b.add(CumulativeSum(0), b.cast(places, DType.INT64))
    index = b.elementwise(
        ElementwiseKind.MAX, b.elementwise(ElementwiseKind.SUB, number, 1, DType.INT64), 0, DType.INT64
    )
    taken = b.add(Gather(0), b.reshape(source, (volume(source.shape),)), index)
    return b.select(mask, b.reshape(taken, shape), x, x.dtype)
