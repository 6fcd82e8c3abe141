"""Contractions in other ops: attention from matrix products, rows from columns, convolutions of one dimension from two."""

from __future__ import annotations

__all__ = ["EXPANSIONS"]

import dataclasses
import math

from trt_backend.ir.builder import Builder
from trt_backend.ir.dims import DimLike
from trt_backend.ir.graph import Value
from trt_backend.ir.ops.base import Op
from trt_backend.ir.ops.contraction import Attention, Convolution, Deconvolution, MatrixMultiply
from trt_backend.ir.ops.elementwise import Cast, ElementwiseKind
from trt_backend.ir.ops.layout import Range
from trt_backend.ir.ops.reduction import Reduce, ReduceKind, Softmax
from trt_backend.ir.types import DType
from trt_backend.passes.expansions.base import Expansion, binary, per_axis, reshape, select


def attention(b: Builder, op: Attention, q: Value, k: Value, v: Value, *mask: Value) -> Value:
    """MatrixMultiply, mask, Softmax, MatrixMultiply; only a mask can hide every key of a query (then: zeros).

    Such queries are found in the mask, which all layers of a model share, and not in the scores, so that targets still
    recognise the four as one. No largest element is looked for in it: what that is of infinities alone depends on where
    a kernel begins.
    """
    scaled = q if op.scale == 1 else binary(b, ElementwiseKind.PROD, q, op.scale)
    scores = b.add(MatrixMultiply(transpose_b=True), scaled, k)
    if not mask and not op.causal:
        return _attend(b, scores, v)
    if not mask:
        return _attend(b, select(b, _later_keys(b, q.shape[2], k.shape[2]), -math.inf, scores), v)
    shown = mask[0]
    if op.causal:
        shown = select(b, _later_keys(b, q.shape[2], k.shape[2]), -math.inf, shown)
    hides = b.add(Cast(DType.INT32), binary(b, ElementwiseKind.EQUAL, shown, -math.inf))
    hides_all = b.add(Reduce(ReduceKind.MIN, (3,), keep_dims=True), hides)
    hidden = b.add(Cast(DType.BOOL), hides_all)
    shown = select(b, hidden, 0.0, shown)
    attended = _attend(b, binary(b, ElementwiseKind.SUM, scores, shown), v)
    return select(b, hidden, 0.0, attended)


def _attend(b: Builder, scores: Value, v: Value) -> Value:
    return b.add(MatrixMultiply(), b.add(Softmax(3), scores), v)


def matrix_multiply(b: Builder, op: MatrixMultiply, left: Value, right: Value) -> Value | None:
    """One row times a matrix, as the transposed matrix times a column."""
    *batch, rows, columns = op.infer(left.type, right.type)[0].shape
    if rows != 1 or columns == 1:
        return None
    column = b.add(MatrixMultiply(not op.transpose_b, not op.transpose_a), right, left)
    return reshape(b, column, *batch, rows, columns)


def convolution(
    b: Builder, op: Convolution | Deconvolution, x: Value, kernel: Value, *bias: Value
) -> Value | None:
    """One spatial dimension as two, of which the first has size 1."""
    if x.type.rank != 3:
        return None
    lifted = dataclasses.replace(
        op,
        stride=(1, *op.stride),
        pre_padding=(0, *op.pre_padding),
        post_padding=(0, *op.post_padding),
        dilation=(1, *op.dilation),
    )
    y = b.add(lifted, _with_height(b, x), _with_height(b, kernel), *bias)
    return reshape(b, y, *y.shape[:2], y.shape[3])


def _later_keys(b: Builder, queries: DimLike, keys: DimLike) -> Value:
    """Return [1, 1, query, key]: whether the key stands after the query."""
    row = per_axis(b, b.add(Range(queries, 0, 1, DType.INT32)), 2, 4)
    column = per_axis(b, b.add(Range(keys, 0, 1, DType.INT32)), 3, 4)
    return binary(b, ElementwiseKind.LESS, row, column)


def _with_height(b: Builder, x: Value) -> Value:
    return reshape(b, x, *x.shape[:2], 1, x.shape[2])


EXPANSIONS: dict[type[Op], Expansion] = {
    Attention: attention,
    Convolution: convolution,
    Deconvolution: convolution,
    MatrixMultiply: matrix_multiply,
}
