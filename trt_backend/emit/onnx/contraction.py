"""Emission of ops that contract."""

from __future__ import annotations

__all__: list[str] = []

import math
from typing import Any

import numpy as np

from trt_backend.emit.onnx.model import ModelWriter, Tensor
from trt_backend.emit.onnx.rules import FLOATS, RULES, SINGLE
from trt_backend.ir.ops.base import Types
from trt_backend.ir.ops.contraction import Attention, Convolution, Deconvolution, MatrixMultiply
from trt_backend.ir.types import DType

_LARGE_WINDOW = 27
"""Elements. 3x3x3 takes 0.1 to 0.4 of PyTorch's time, 4x4x4 more than twice of it (version 1.31, one thread)."""


def _refuse_convolution(op: Convolution, types: Types) -> str | None:
    """Refuse cut inputs, and volumes whose kernel takes 2 to 9 times as long as PyTorch's and TensorFlow's."""
    if min((*op.pre_padding, *op.post_padding)) < 0:
        return "a convolution that cuts its input (negative padding)"
    window = [size for size in types[1].shape[2:] if isinstance(size, int)]  # a window is static in ONNX
    is_volume = len(window) == 3 and 1 not in window and window != [*op.stride]
    if is_volume and (op.groups > 1 or math.prod(window) > _LARGE_WINDOW):
        return "the kernel for volumes, in groups or of large windows, takes 2 to 9 times as long as the frameworks'"
    return None


@RULES.rule(Convolution, SINGLE, _refuse_convolution)
def _convolution(
    m: ModelWriter, op: Convolution, x: Tensor, kernel: Tensor, bias: Tensor | None = None
) -> str:
    pads = [*op.pre_padding, *op.post_padding]
    return m.node("Conv", *_names(x, kernel, bias), pads=pads, **_window_attributes(op, kernel))


def _refuse_output_padding(op: Deconvolution, types: Types) -> str | None:
    if min(op.pre_padding) < 0:
        return "a deconvolution that adds elements in front (negative padding before)"
    for after, stride in zip(op.post_padding, op.stride, strict=True):
        if -after >= stride:  # less than the dilation would do for ONNX, but not for ONNX Runtime 1.31
            return f"a deconvolution that adds {-after} elements behind, not less than its stride"
    return None


@RULES.rule(Deconvolution, SINGLE, _refuse_output_padding)
def _deconvolution(
    m: ModelWriter, op: Deconvolution, x: Tensor, kernel: Tensor, bias: Tensor | None = None
) -> str:
    after = [max(padding, 0) for padding in op.post_padding]
    more = [max(-padding, 0) for padding in op.post_padding]
    attributes = _window_attributes(op, kernel)
    pads = [*op.pre_padding, *after]
    return m.node("ConvTranspose", *_names(x, kernel, bias), pads=pads, output_padding=more, **attributes)


def _window_attributes(op: Convolution | Deconvolution, kernel: Tensor) -> dict[str, Any]:
    return {
        "kernel_shape": list(kernel.shape[2:]),
        "strides": list(op.stride),
        "dilations": list(op.dilation),
        "group": op.groups,
    }


def _refuse_empty(op: MatrixMultiply, types: Types) -> str | None:
    """Refuse what kills the process (SIGFPE) where ONNX Runtime fuses a Transpose into the product."""
    return "an operand without elements" if any(0 in operand.shape for operand in types) else None


@RULES.rule(MatrixMultiply, FLOATS | {DType.INT32, DType.INT64}, _refuse_empty)
def _matrix_multiply(m: ModelWriter, op: MatrixMultiply, a: Tensor, b: Tensor) -> str:
    """Emit Transpose and MatMul, of which ONNX Runtime makes one FusedMatMul; floats of rank 2 are Gemms already.

    In float64, ONNX Runtime 1.23 makes one, too, but cannot run it.
    """
    if a.dtype is DType.FLOAT64:
        left, right = "ki" if op.transpose_a else "ik", "jk" if op.transpose_b else "kj"
        return m.node("Einsum", a.name, b.name, equation=f"...{left},...{right}->...ij")
    left = _transposed(m, a) if op.transpose_a else a.name
    right = _transposed(m, b) if op.transpose_b else b.name
    return m.node("MatMul", left, right)


def _transposed(m: ModelWriter, x: Tensor) -> str:
    rank = x.type.rank
    return m.node("Transpose", x.name, perm=[*range(rank - 2), rank - 1, rank - 2])


def _refuse_attention(op: Attention, types: Types) -> str | None:
    """Refuse what would need a repair of rows that only causality and the mask together hide."""
    return "causal attention with a mask" if op.causal and len(types) == 4 else None


@RULES.rule(Attention, SINGLE, _refuse_attention)
def _attention(
    m: ModelWriter, op: Attention, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None
) -> str:
    attributes: dict[str, Any] = {"scale": op.scale, "is_causal": int(op.causal)}
    if mask is None:
        return m.node("Attention", q.name, k.name, v.name, **attributes)
    shape = (*mask.shape[:2], q.shape[2], k.shape[2])
    finite = _above_lowest(m, mask)
    full = finite if mask.shape == shape else m.node("Expand", finite, m.dims(shape))
    result = m.node("Attention", q.name, k.name, v.name, full, **attributes)
    known = m.known(mask)
    if known is not None and not np.isneginf(known).all(axis=-1).any():
        return result
    visible = m.node("ReduceMax", mask.name, m.constant([3], DType.INT64), keepdims=1)
    hidden = m.node("IsInf", visible, detect_positive=0)
    return m.node("Where", hidden, m.constant(0, q.dtype), result)  # ONNX Runtime 1.23 gives NaN


def _above_lowest(m: ModelWriter, mask: Tensor) -> str:
    """Return the mask with the lowest finite number raised by one step: ONNX Runtime 1.23 takes it for -inf."""
    lowest = np.finfo(mask.dtype.numpy).min
    known = m.known(mask)
    if known is not None and not (known == lowest).any():
        return mask.name
    is_lowest = m.node("Equal", mask.name, m.constant(lowest, mask.dtype))
    return m.node(
        "Where", is_lowest, m.constant(np.nextafter(lowest, type(lowest)(0)), mask.dtype), mask.name
    )


def _names(*tensors: Tensor | None) -> list[str]:
    return [tensor.name for tensor in tensors if tensor]
