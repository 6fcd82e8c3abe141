"""Emission of ops that contract."""

from __future__ import annotations

__all__: list[str] = []

import math
from typing import Any

from trt_backend.emit.tensorrt.network import Handle, NetworkWriter, Tensor
from trt_backend.emit.tensorrt.rules import FLOATS, RULES
from trt_backend.ir.ops.base import Types
from trt_backend.ir.ops.contraction import Attention, Convolution, Deconvolution, MatrixMultiply
from trt_backend.ir.types import DType

_LARGEST_WINDOW = 8192


def _refuse_window(op: Convolution | Deconvolution, types: Types) -> str | None:
    if types[0].rank == 3:
        return "takes 2 or 3 spatial dimensions"
    if min((*op.pre_padding, *op.post_padding)) < 0:
        return "negative padding"
    static = [size for size in types[1].shape if isinstance(size, int)]
    if len(static) < types[1].rank:
        return "a kernel of symbolic shape"
    return "a window that is too large" if math.prod(static[2:]) > _LARGEST_WINDOW else None


@RULES.rule(Convolution, FLOATS, _refuse_window)
def _convolution(
    m: NetworkWriter, op: Convolution, x: Tensor, kernel: Tensor, bias: Tensor | None = None
) -> Handle:
    maps = kernel.shape[0]
    return _windowed(m, op, m.network.add_convolution_nd, maps, x, kernel, bias)


def _refuse_deconvolution(op: Deconvolution, types: Types) -> str | None:
    if max(op.dilation) > 1:
        return "dilated"  # with strides, the builder refuses it
    return _refuse_window(op, types)


@RULES.rule(Deconvolution, FLOATS - {DType.BFLOAT16}, _refuse_deconvolution)
def _deconvolution(
    m: NetworkWriter, op: Deconvolution, x: Tensor, kernel: Tensor, bias: Tensor | None = None
) -> Handle:
    maps = kernel.shape[1] * op.groups
    return _windowed(m, op, m.network.add_deconvolution_nd, maps, x, kernel, bias)


def _windowed(
    m: NetworkWriter,
    op: Convolution | Deconvolution,
    add_layer: Any,
    maps: Any,
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None,
) -> Handle:
    """Add a layer whose kernel and bias are weights where they are known, and tensors where only the call knows."""
    known_bias = None if bias is None else bias.array
    layer = add_layer(
        x.handle, maps, kernel.shape[2:], m.weights(kernel.array, x.dtype), m.weights(known_bias, x.dtype)
    )
    if kernel.array is None:
        layer.set_input(1, kernel.handle)
    if bias is not None and bias.array is None:
        layer.set_input(2, bias.handle)
    layer.stride_nd = op.stride
    layer.pre_padding = op.pre_padding
    layer.post_padding = op.post_padding
    layer.dilation_nd = op.dilation
    layer.num_groups = op.groups
    return m.add(layer, x.dtype)


@RULES.rule(MatrixMultiply, FLOATS)
def _matrix_multiply(m: NetworkWriter, op: MatrixMultiply, a: Tensor, b: Tensor) -> Handle:
    flags = [
        m.trt.MatrixOperation.TRANSPOSE if transpose else m.trt.MatrixOperation.NONE
        for transpose in (op.transpose_a, op.transpose_b)
    ]
    return m.add(m.network.add_matrix_multiply(a.handle, flags[0], b.handle, flags[1]), a.dtype)


def _refuse_attention(op: Attention, types: Types) -> str | None:
    """Refuse masks: where one hides every key of a query, TensorRT does not promise zeros."""
    if types[0].shape[3] != types[2].shape[3]:
        return "values of another size than keys"
    return "a mask" if len(types) == 4 else None


@RULES.rule(Attention, FLOATS, _refuse_attention)
def _attention(m: NetworkWriter, op: Attention, q: Tensor, k: Tensor, v: Tensor) -> Handle:
    scaled = q.handle if op.scale == 1 else m.binary("PROD", q.handle, m.filled(op.scale, q), q.dtype)
    softmax = m.trt.AttentionNormalizationOp.SOFTMAX
    causal: Any = op.causal
    if m.stack.attention == "add_attention_v2":
        causal = m.trt.CausalMaskKind.UPPER_LEFT if op.causal else m.trt.CausalMaskKind.NONE
    layer = getattr(m.network, m.stack.attention)(scaled, k.handle, v.handle, softmax, causal)
    layer.decomposable = True
    layer.name = f"{m.scope}.attention"
    return layer.get_output(0)
