"""Aten ops that make tensors: ranges, numbers in every element; and triangles, which a range cuts out."""

from __future__ import annotations

__all__ = ["RULES", "UNINITIALIZED"]

from collections.abc import Sequence

import numpy as np
import torch

from trt_backend.errors import UnsupportedError
from trt_backend.ir.dims import Dim, DimLike
from trt_backend.ir.graph import Value
from trt_backend.ir.ops.elementwise import ElementwiseKind
from trt_backend.ir.ops.layout import Range
from trt_backend.ir.types import DType
from trt_backend_torch.lower.context import Lowering, Number
from trt_backend_torch.lower.layout import Dims
from trt_backend_torch.lower.rules import RuleTable

RULES = RuleTable()

_aten = torch.ops.aten

UNINITIALIZED = (
    _aten.empty.memory_format,
    _aten.empty_like.default,
    _aten.empty_permuted.default,
    _aten.empty_strided.default,
    _aten.new_empty.default,
    _aten.new_empty_strided.default,
)
"""Ops whose results may be anything."""


@RULES.rule(_aten.arange.default, _aten.arange.start, _aten.arange.start_step)
def _arange(
    b: Lowering,
    end: DimLike | float,
    start: DimLike | float = 0,
    step: DimLike | float = 1,
    dtype: DType | None = None,
) -> Value:
    """`start + i * step`: a range of integers, cast, or a constant where start or step is a float."""
    (size,), made = b.result.shape, b.result.dtype
    if not isinstance(start, float) and not isinstance(step, float):
        (stride,) = b.static("the step of a range", step)
        wide = DType.INT32 if made is DType.INT32 else DType.INT64
        return b.cast(b.add(Range(size, start, stride, wide)), made)
    if isinstance(start, Dim) or isinstance(step, Dim):
        raise UnsupportedError("a range of floats from or by a symbolic size")
    (count,) = b.static("the length of a range of floats", size)
    first, by = (start, step) if made.is_float else (int(start), int(step))
    return b.constant((first + by * np.arange(count)).astype(made.numpy))


@RULES.rule(_aten.full.default, _aten.full_like.default, _aten.new_full.default)
def _full(
    b: Lowering, fill_value: Number | Dim, x: Value | None = None, size: Dims = (), dtype: DType | None = None
) -> Value:
    """One number in the promised shape and dtype."""
    return b.expand(b.value(fill_value, b.result.dtype, b.result.rank), b.result.shape)


@RULES.rule(_aten.scalar_tensor.default)
def _scalar_tensor(b: Lowering, s: Number | Dim, dtype: DType | None) -> Value:
    """A number as a tensor."""
    return b.value(s, b.result.dtype)


def _filled(
    number: int,
    b: Lowering,
    x: Value | None = None,
    size: Dims = (),
    dtype: DType | None = None,
    stride: Dims = (),
    physical_layout: Sequence[int] = (),
) -> Value:
    """Zeros or ones; what torch leaves uninitialized is zero too."""
    return _full(b, number)


RULES.rules(
    _filled,
    {
        **dict.fromkeys(UNINITIALIZED, 0),
        _aten.new_ones.default: 1,
        _aten.new_zeros.default: 0,
        _aten.ones.default: 1,
        _aten.ones_like.default: 1,
        _aten.zeros.default: 0,
        _aten.zeros_like.default: 0,
    },
)


def _triangle(hidden: ElementwiseKind, b: Lowering, x: Value, diagonal: DimLike) -> Value:
    """Zero where the column is greater (less) than the row plus `diagonal`."""
    rows, columns = x.shape[-2:]
    row = b.reshape(b.add(Range(rows, diagonal, 1, DType.INT64)), (rows, 1))
    column = b.reshape(b.add(Range(columns, 0, 1, DType.INT64)), (1, columns))
    return b.select(b.elementwise(hidden, column, row, DType.INT64), 0, x, x.dtype)


RULES.rules(
    _triangle, {_aten.tril.default: ElementwiseKind.GREATER, _aten.triu.default: ElementwiseKind.LESS}
)
