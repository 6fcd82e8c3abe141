"""The meaning of ops that contract."""

from __future__ import annotations

__all__ = ["REFERENCE"]

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from trt_backend.ir.ops.base import Op
from trt_backend.ir.ops.contraction import Attention, Convolution, Deconvolution, MatrixMultiply
from trt_backend.ir.reference.windows import pad_spatial, windows

Array = npt.NDArray[Any]


def _convolution(op: Convolution, x: Array, kernel: Array, bias: Array | None = None) -> Array:
    padded = pad_spatial(x, op.pre_padding, op.post_padding, fill=0)
    patches = windows(padded, kernel.shape[2:], op.stride, op.dilation)
    groups = [
        _contract_patches(patch, weight)
        for patch, weight in zip(np.split(patches, op.groups, 1), np.split(kernel, op.groups, 0), strict=True)
    ]
    return _with_bias(np.concatenate(groups, axis=1), bias)


def _contract_patches(patches: Array, kernel: Array) -> Array:
    """[N, C, *output, *window] by [K, C, *window] to [N, K, *output]."""
    spatial = kernel.ndim - 2
    of_patches = (1, *range(2 + spatial, 2 + 2 * spatial))
    of_kernel = tuple(range(1, kernel.ndim))
    return np.moveaxis(np.tensordot(patches, kernel, axes=(of_patches, of_kernel)), -1, 1)


def _deconvolution(op: Deconvolution, x: Array, kernel: Array, bias: Array | None = None) -> Array:
    """Insert zeros between the elements, then convolve with the flipped kernel."""
    window = kernel.shape[2:]
    stretched = np.zeros(
        (*x.shape[:2], *((s - 1) * t + 1 for s, t in zip(x.shape[2:], op.stride, strict=True))), x.dtype
    )
    stretched[(..., *(slice(None, None, stride) for stride in op.stride))] = x
    reach = [dilation * (size - 1) for dilation, size in zip(op.dilation, window, strict=True)]
    before = [r - p for r, p in zip(reach, op.pre_padding, strict=True)]
    after = [r - p for r, p in zip(reach, op.post_padding, strict=True)]
    ones = (1,) * len(window)
    flipped = np.flip(kernel, tuple(range(2, kernel.ndim)))
    grouped = [np.swapaxes(part, 0, 1) for part in np.split(flipped, op.groups, 0)]
    convolution = Convolution(ones, tuple(before), tuple(after), op.dilation, op.groups)
    return _convolution(convolution, stretched, np.concatenate(grouped, axis=0), bias)


def _with_bias(x: Array, bias: Array | None) -> Array:
    return x if bias is None else x + bias.reshape(-1, *[1] * (x.ndim - 2))


def _matrix_multiply(op: MatrixMultiply, a: Array, b: Array) -> Array:
    left = np.swapaxes(a, -1, -2) if op.transpose_a else a
    right = np.swapaxes(b, -1, -2) if op.transpose_b else b
    return np.matmul(left, right)


def _attention(op: Attention, q: Array, k: Array, v: Array, mask: Array | None = None) -> Array:
    scores = np.matmul(q, np.swapaxes(k, -1, -2)) * q.dtype.type(op.scale)
    if mask is not None:
        scores = scores + mask
    if op.causal:
        scores = np.where(np.tril(np.ones(scores.shape[-2:], bool)), scores, -math.inf).astype(q.dtype)
    peak = np.max(scores, axis=-1, keepdims=True, initial=-math.inf)
    hidden = peak == -math.inf
    weights = np.exp(scores - np.where(hidden, 0, peak))
    total = np.sum(weights, axis=-1, keepdims=True)
    return np.matmul(weights / np.where(hidden, 1, total), v).astype(q.dtype)


REFERENCE: dict[type[Op], Callable[..., Array]] = {
    Convolution: _convolution,
    Deconvolution: _deconvolution,
    MatrixMultiply: _matrix_multiply,
    Attention: _attention,
}
"""The function of each op of the family."""
