"""Aten ops that contract: matrix products, convolutions, attention.

`linear`, `matmul` and `einsum` never get here: torch takes them apart into products of rank 2 and 3 and views.
"""

from __future__ import annotations

__all__ = ["RULES"]

import math
from collections.abc import Sequence

import torch

from trt_backend.errors import ReasonKind, UnsupportedError
from trt_backend.ir.dims import DimLike
from trt_backend.ir.graph import Value
from trt_backend.ir.ops.contraction import Attention, Convolution, Deconvolution, MatrixMultiply
from trt_backend.ir.ops.elementwise import ElementwiseKind
from trt_backend.ir.ops.reduction import ReduceKind
from trt_backend.ir.types import DType
from trt_backend_torch.attention import ATTENTION
from trt_backend_torch.lower.context import Lowering, Number
from trt_backend_torch.lower.rules import RuleTable

RULES = RuleTable()

_aten = torch.ops.aten


# Matrix products


@RULES.rule(_aten.mm.default, _aten.bmm.default)
def _matrix_multiply(b: Lowering, x: Value, mat2: Value) -> Value:
    """Multiply two matrices, or two batches of as many."""
    return _product(b, x, mat2)


@RULES.rule(_aten.mv.default)
def _matrix_vector(b: Lowering, x: Value, vec: Value) -> Value:
    """Multiply by a column, which is then dropped."""
    return b.reshape(_product(b, x, b.reshape(vec, (*vec.shape, 1))), b.result.shape)


@RULES.rule(_aten.addmm.default)
def _matrix_multiply_add(
    b: Lowering, x: Value, mat1: Value, mat2: Value, beta: Number, alpha: Number
) -> Value:
    """`beta * x + alpha * (mat1 @ mat2)`: engines fuse a product and the sum with a row into one kernel."""
    return _plus(b, _product(b, mat1, mat2), x, beta, alpha)


@RULES.rule(_aten.baddbmm.default)
def _batch_multiply_add(
    b: Lowering, x: Value, batch1: Value, batch2: Value, beta: Number, alpha: Number
) -> Value:
    """`beta * x + alpha * (batch1 @ batch2)`."""
    return _plus(b, _product(b, batch1, batch2), x, beta, alpha)


@RULES.rule(_aten.addbmm.default)
def _batch_sum_add(b: Lowering, x: Value, batch1: Value, batch2: Value, beta: Number, alpha: Number) -> Value:
    """`beta * x + alpha * (batch1 @ batch2).sum(0)`."""
    total = b.reduce(ReduceKind.SUM, _product(b, batch1, batch2), (0,), keep_dims=False)
    return _plus(b, total, x, beta, alpha)


@RULES.rule(_aten.addmv.default)
def _matrix_vector_add(b: Lowering, x: Value, mat: Value, vec: Value, beta: Number, alpha: Number) -> Value:
    """`beta * x + alpha * (mat @ vec)`."""
    return _plus(b, _matrix_vector(b, mat, vec), x, beta, alpha)


def _product(b: Lowering, x: Value, y: Value) -> Value:
    """Multiply; torch refuses operands of two dtypes only when it runs."""
    if x.dtype is not y.dtype:
        raise UnsupportedError(f"{x.dtype.value} times {y.dtype.value}", ReasonKind.DTYPE)
    return b.add(MatrixMultiply(), x, y)


def _plus(b: Lowering, product: Value, x: Value, beta: Number, alpha: Number) -> Value:
    """Return `alpha * product + beta * x`; x is not looked at where beta is 0."""
    dtype = product.dtype
    if alpha != 1:
        product = b.elementwise(ElementwiseKind.PROD, product, alpha, dtype)
    if beta == 0:
        return product
    scaled = x if beta == 1 else b.elementwise(ElementwiseKind.PROD, x, beta, dtype)
    return b.elementwise(ElementwiseKind.SUM, product, scaled, dtype)


# Convolution


@RULES.rule(_aten.convolution.default)
def _convolution(
    b: Lowering,
    input: Value,
    weight: Value,
    bias: Value | None,
    stride: Sequence[DimLike],
    padding: Sequence[DimLike],
    dilation: Sequence[DimLike],
    transposed: bool,
    output_padding: Sequence[DimLike],
    groups: DimLike,
) -> Value:
    """A convolution or its transpose over 1 to 3 spatial dimensions; an option of one entry holds for all of them."""
    rank = input.type.rank - 2
    if not input.dtype.is_float:
        raise UnsupportedError(f"engines convolve floats, not {input.dtype.value}")
    if not 1 <= rank <= 3:
        raise UnsupportedError(f"engines convolve over 1 to 3 dimensions, not {rank}")
    b.static("the window of the convolution", *weight.shape[2:])
    b.static("the channel count of the convolution", input.shape[1])

    def spatial(what: str, sizes: Sequence[DimLike]) -> tuple[int, ...]:
        static = b.static(what, *sizes)
        return static * rank if len(static) == 1 else static

    strides, pads = spatial("stride", stride), spatial("padding", padding)
    dilations = spatial("dilation", dilation)
    (group_count,) = b.static("groups", groups)
    operands = (input, weight) if bias is None else (input, weight, bias)
    if not transposed:
        return b.add(Convolution(strides, pads, pads, dilations, group_count), *operands)
    more = spatial("output_padding", output_padding)
    behind = tuple(pad - extra for pad, extra in zip(pads, more, strict=True))
    return b.add(Deconvolution(strides, pads, behind, dilations, group_count), *operands)


# Attention


@RULES.rule(_aten._scaled_dot_product_flash_attention_for_cpu.default)
def _cpu_attention(
    b: Lowering,
    query: Value,
    key: Value,
    value: Value,
    is_causal: bool,
    attn_mask: Value | None,
    scale: float | None,
) -> tuple[Value | None, ...]:
    return _attention(b, query, key, value, attn_mask, scale, is_causal=is_causal), None


@RULES.rule(_aten._scaled_dot_product_flash_attention.default)
def _flash_attention(
    b: Lowering, query: Value, key: Value, value: Value, is_causal: bool, scale: float | None
) -> tuple[Value | None, ...]:
    return _attention(b, query, key, value, None, scale, is_causal=is_causal), *(None,) * 8


@RULES.rule(
    _aten._scaled_dot_product_efficient_attention.default, _aten._scaled_dot_product_cudnn_attention.default
)
def _masked_attention(
    b: Lowering,
    query: Value,
    key: Value,
    value: Value,
    attn_bias: Value | None,
    compute_log_sumexp: bool,
    is_causal: bool,
    scale: float | None,
) -> tuple[Value | None, ...]:
    return _attention(b, query, key, value, attn_bias, scale, is_causal=is_causal), *(None,) * 8


@RULES.rule(ATTENTION)
def _whole_attention(
    b: Lowering,
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Value | None,
    is_causal: bool,
    scale: float | None,
    enable_gqa: bool,
    heads_first: bool,
) -> Value:
    """Attention with a mask of booleans, or of the query's type; shapes tell whether queries are grouped."""
    if attn_mask is not None and attn_mask.dtype is DType.BOOL:
        attn_mask = b.select(attn_mask, 0.0, -math.inf, query.dtype)
    return _attention(b, query, key, value, attn_mask, scale, is_causal=is_causal)


def _attention(
    b: Lowering,
    query: Value,
    key: Value,
    value: Value,
    mask: Value | None,
    scale: float | None,
    *,
    is_causal: bool,
) -> Value:
    """Attention; the kernels' other results (log-sum-exp, random states) only training reads: they are no values.

    As the IR says, torch counts causal positions from the first of queries and keys, and a query whose keys are all
    hidden gives zeros. Where a head of k and v serves several of q (grouped queries), it is repeated. The kernels'
    masks are additive: torch makes them so.
    """
    if scale is None:
        (size,) = b.static("the size of a head", query.shape[3])
        scale = 1 / math.sqrt(size)
    heads = query.shape[1]
    operands = [query, _repeat_heads(b, key, heads), _repeat_heads(b, value, heads)]
    if mask is not None:
        operands.append(b.with_rank(mask, 4))
    return b.add(Attention(scale, is_causal), *operands)


def _repeat_heads(b: Lowering, x: Value, heads: DimLike) -> Value:
    """Return x [batch, heads of x, sequence, size] with each head repeated up to `heads`."""
    batch, own, sequence, size = x.shape
    if own == heads:
        return x
    own, heads = b.static("the number of heads", own, heads)
    grouped = b.expand(
        b.reshape(x, (batch, own, 1, sequence, size)), (batch, own, heads // own, sequence, size)
    )
    return b.reshape(grouped, (batch, heads, sequence, size))
