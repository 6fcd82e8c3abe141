"""Pooling; the indices of a maximum, which only a backward pass or an unpooling reads, are None: their use is refused."""

from __future__ import annotations

__all__ = ["RULES"]

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from trt_backend.errors import ReasonKind, UnsupportedError
from trt_backend.ir.dims import Dim, DimLike
from trt_backend.ir.graph import Value
from trt_backend.ir.ops.contraction import MatrixMultiply
from trt_backend.ir.ops.reduction import Pooling, PoolingKind, ReduceKind
from trt_backend.ir.types import volume
from trt_backend_torch.lower.context import Lowering
from trt_backend_torch.lower.reduction import widened
from trt_backend_torch.lower.rules import RuleTable

RULES = RuleTable()

_aten = torch.ops.aten

Ints: TypeAlias = int | Sequence[int]
ValueOnly: TypeAlias = tuple[Value, None]


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
    """Return a reduction where the output is one element, windows that do not overlap, or averages of uneven ones."""
    rank = x.type.rank
    if all(size == 1 for size in output_size):
        reduce = ReduceKind.MAX if kind is PoolingKind.MAX else ReduceKind.AVG
        return b.reduce(reduce, x, range(rank - spatial, rank), keep_dims=True)
    sizes = b.static("the size of what is pooled", *x.shape[rank - spatial :])
    outputs = b.static("the size to pool to", *output_size)
    if any(size % output for size, output in zip(sizes, outputs, strict=True)):
        if kind is PoolingKind.MAX:
            raise UnsupportedError(f"{list(sizes)} pooled to {list(outputs)} needs windows of several sizes")
        return _averaged(b, x, sizes, outputs)
    window = tuple(size // output for size, output in zip(sizes, outputs, strict=True))
    return _pooled(b, kind, x, spatial, window, window, (0,), ceil_mode=False)


def _averaged(b: Lowering, x: Value, sizes: Sequence[int], outputs: Sequence[int]) -> Value:
    """Average windows of several sizes, by a product with a matrix of shares along each axis.

    What is not finite reaches windows beside its own: 0 times it is NaN.
    """
    _require_floats(x)
    y, spatial = widened(b, x), len(sizes)
    lead = tuple(range(x.type.rank - spatial))
    for size, output in zip(reversed(sizes), reversed(outputs), strict=True):
        rows = b.reshape(y, (volume(y.shape[:-1]), size))
        product = b.add(MatrixMultiply(), rows, b.constant(_shares(size, output), y.dtype))
        y = b.reshape(product, (*y.shape[:-1], output))
        y = b.transpose(y, (*lead, x.type.rank - 1, *range(len(lead), x.type.rank - 1)))
    return b.cast(y, x.dtype)


def _require_floats(x: Value) -> None:
    if not x.dtype.is_float:
        raise UnsupportedError(f"no engine op pools {x.dtype.value}", ReasonKind.DTYPE)


def _shares(size: int, output: int) -> npt.NDArray[np.float64]:
    """Return [size, output]: the share of each element in each average (torch's windows)."""
    place, window = np.arange(size)[:, None], np.arange(output)
    first, last = window * size // output, -(-(window + 1) * size // output)
    return ((first <= place) & (place < last)) / (last - first)


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
    _require_floats(x)
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
