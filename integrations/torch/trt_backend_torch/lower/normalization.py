"""Normalizations; the statistics, which only a backward pass reads, are None: their use is refused."""

from __future__ import annotations

__all__ = ["RULES"]

from collections.abc import Sequence
from typing import TypeAlias

import torch

from trt_backend.errors import UnsupportedError
from trt_backend.ir.dims import DimLike
from trt_backend.ir.graph import Value
from trt_backend.ir.ops.elementwise import BatchNorm, ElementwiseKind, UnaryKind
from trt_backend.ir.ops.reduction import Normalization, ReduceKind
from trt_backend_torch.lower.context import Lowering
from trt_backend_torch.lower.elementwise import squared
from trt_backend_torch.lower.reduction import widened
from trt_backend_torch.lower.rules import RuleTable

RULES = RuleTable()

_aten = torch.ops.aten

_SUM, _SUB, _PROD, _DIV = ElementwiseKind.SUM, ElementwiseKind.SUB, ElementwiseKind.PROD, ElementwiseKind.DIV

Results: TypeAlias = tuple[Value | None, ...]


@RULES.rule(_aten.native_layer_norm.default)
def _layer_norm(
    b: Lowering,
    input: Value,
    normalized_shape: Sequence[DimLike],
    weight: Value | None,
    bias: Value | None,
    eps: float,
) -> Results:
    """Layer normalization; where the weight is wider than the input, in the weight's dtype."""
    dtype = input.dtype if weight is None else weight.dtype
    op = Normalization(input.type.rank - len(normalized_shape), eps)
    if weight is not None and bias is not None:
        return _results(b, b.add(op, b.cast(input, dtype), weight, b.cast(bias, dtype)))
    y = b.add(op, b.cast(input, dtype), *(() if weight is None else (weight,)))
    return _results(b, y if bias is None else b.elementwise(_SUM, y, bias, dtype))


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
) -> Results:
    """Group normalization: each group of channels as one row, then scale and bias of each channel."""
    dtype = input.dtype if weight is None else weight.dtype
    rows = b.reshape(b.cast(input, dtype), (N, group, C // group * HxW))
    y = b.reshape(b.add(Normalization(2, eps), rows), input.shape)
    return _results(b, _affine(b, y, weight, bias))


@RULES.rule(
    _aten._batch_norm_no_update.default,
    _aten._native_batch_norm_legit.no_stats,
    _aten._native_batch_norm_legit_no_training.default,
    _aten.native_batch_norm.default,
)
def _batch_norm(
    b: Lowering,
    input: Value,
    weight: Value | None,
    bias: Value | None,
    momentum: float,
    eps: float,
    running_mean: Value | None = None,
    running_var: Value | None = None,
    training: bool = False,
) -> Results:
    """Batch normalization with the running statistics, or where there are none, with those of the batch."""
    if running_mean is None or running_var is None:
        return _results(b, _own_norm(b, input, weight, bias, eps))
    if training:
        raise UnsupportedError("it updates the running statistics")
    dtype = running_mean.dtype
    channels = running_mean.shape[0]
    scale = b.expand(b.full((1,), 1, dtype), (channels,)) if weight is None else b.cast(weight, dtype)
    offset = b.expand(b.full((1,), 0, dtype), (channels,)) if bias is None else b.cast(bias, dtype)
    statistics = (running_mean, b.cast(running_var, dtype))
    return _results(b, b.add(BatchNorm(eps), b.cast(input, dtype), scale, offset, *statistics))


def _own_norm(b: Lowering, input: Value, weight: Value | None, bias: Value | None, eps: float) -> Value:
    """Return x normalized with the statistics of the batch itself: what torch makes of instance normalization."""
    x = widened(b, input)
    axes, dtype = (0, *range(2, x.type.rank)), x.dtype
    centred = b.elementwise(_SUB, x, b.reduce(ReduceKind.AVG, x, axes, keep_dims=True), dtype)
    variance = b.reduce(ReduceKind.AVG, squared(b, centred), axes, keep_dims=True)
    deviation = b.unary(UnaryKind.SQRT, b.elementwise(_SUM, variance, eps, dtype))
    return _affine(b, b.elementwise(_DIV, centred, deviation, dtype), weight, bias)


def _affine(b: Lowering, x: Value, weight: Value | None, bias: Value | None) -> Value:
    """Return x scaled and moved by vectors along dimension 1."""
    for kind, vector in ((_PROD, weight), (_SUM, bias)):
        if vector is not None:
            shape = (vector.shape[0], *(1,) * (x.type.rank - 2))
            x = b.elementwise(kind, x, b.reshape(vector, shape), x.dtype)
    return x


def _results(b: Lowering, y: Value) -> Results:
    """Return y in the promised dtype, and nothing for each of the statistics."""
    return b.cast(y, b.result.dtype), *(None for _ in b.results[1:])
