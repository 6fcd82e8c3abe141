"""Ops that contract: convolutions, matrix products, attention."""

from __future__ import annotations

__all__ = ["Attention", "Convolution", "Deconvolution", "MatrixMultiply"]

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from trt_backend.ir.dims import DimLike
from trt_backend.ir.ops.base import Op, Types, broadcast, may_agree, require, same_dtype
from trt_backend.ir.types import DType, TensorType

Ints = tuple[int, ...]


@dataclass(frozen=True)
class _Windowed(Op):
    """What a convolution and its transpose share."""

    stride: Ints
    pre_padding: Ints
    post_padding: Ints
    dilation: Ints
    groups: int = 1

    def _spatial(self, x: TensorType, kernel: TensorType) -> Iterator[DimLike]:
        """Yield the output's spatial sizes."""
        for i, (size, window) in enumerate(zip(x.shape[2:], kernel.shape[2:], strict=True)):
            reach = self.dilation[i] * (_static(window) - 1) + 1
            yield self._output_size(size, reach, self.stride[i], self.pre_padding[i] + self.post_padding[i])

    @abstractmethod
    def _output_size(self, size: DimLike, reach: int, stride: int, padding: int) -> DimLike:
        """Return one spatial size of the output, where a window reaches over `reach` elements."""


@dataclass(frozen=True)
class Convolution(_Windowed):
    """IConvolutionLayer, 1 to 3 spatial dimensions (TensorRT takes 2 and 3; `legalize` lifts 1 to 2).

    Operands: x [N, C, *spatial], kernel [K, C/groups, *window], and optionally bias [K].
    """

    def infer(self, *inputs: TensorType) -> Types:
        """Return [N, K, *output spatial]."""
        x, kernel = inputs[:2]
        _check_kernel(self, inputs, spatial=x.rank - 2)
        require(
            x.shape[1] == _times(kernel.shape[1], self.groups),
            f"{x.shape[1]} channels do not fit the kernel {kernel} in {self.groups} groups",
        )
        _check_bias(inputs, kernel.shape[0])
        return (x.with_shape((x.shape[0], kernel.shape[0], *self._spatial(x, kernel))),)

    def _output_size(self, size: DimLike, reach: int, stride: int, padding: int) -> DimLike:
        return (size + padding - reach) // stride + 1


@dataclass(frozen=True)
class Deconvolution(_Windowed):
    """IDeconvolutionLayer, 1 to 3 spatial dimensions.

    Operands: x [N, C, *spatial], kernel [C, K/groups, *window], and optionally bias [K]. A framework's output padding
    is a smaller (even negative) post_padding.
    """

    def infer(self, *inputs: TensorType) -> Types:
        """Return [N, K, *output spatial]."""
        x, kernel = inputs[:2]
        _check_kernel(self, inputs, spatial=x.rank - 2)
        require(x.shape[1] == kernel.shape[0], f"{x.shape[1]} channels do not fit the kernel {kernel}")
        channels = _times(kernel.shape[1], self.groups)
        _check_bias(inputs, channels)
        return (x.with_shape((x.shape[0], channels, *self._spatial(x, kernel))),)

    def _output_size(self, size: DimLike, reach: int, stride: int, padding: int) -> DimLike:
        return (size - 1) * stride - padding + reach


@dataclass(frozen=True)
class MatrixMultiply(Op):
    """IMatrixMultiplyLayer: operands of one rank (2 or more), leading dimensions of size 1 broadcast."""

    transpose_a: bool = False
    transpose_b: bool = False

    def infer(self, *inputs: TensorType) -> Types:
        """Return [*batch, rows, columns]."""
        a, b = inputs
        dtype = same_dtype(a, b)
        require(dtype is not DType.BOOL and a.rank == b.rank >= 2, f"does not multiply {a} by {b}")
        rows, inner = a.shape[-2:][:: -1 if self.transpose_a else 1]
        other, columns = b.shape[-2:][:: -1 if self.transpose_b else 1]
        require(may_agree(inner, other), f"does not multiply {a} by {b}")
        return (TensorType(dtype, (*broadcast(a.shape[:-2], b.shape[:-2]), rows, columns)),)


@dataclass(frozen=True)
class Attention(Op):
    """IAttention: `softmax(scale * q k^T + mask) v` over [batch, heads, sequence, size].

    Operands q, k, v, and optionally an additive mask of rank 4 and the dtype of q that broadcasts to
    [batch, heads, query, key]. `causal` hides keys after the query's position, counted from the first of both. A query
    whose keys are all hidden gives zeros. TensorRT's layer has no scale: its emitter scales q.
    """

    scale: float
    causal: bool = False

    def infer(self, *inputs: TensorType) -> Types:
        """Return [batch, heads, query, value size]."""
        q, k, v, *mask = inputs
        dtype = same_dtype(*inputs)
        require(dtype.is_float and all(t.rank == 4 for t in inputs), "takes floats of rank 4")
        require(may_agree(q.shape[3], k.shape[3]), f"q {q} and k {k} differ in size")
        require(may_agree(k.shape[2], v.shape[2]), f"k {k} and v {v} differ in length")
        heads = [value.shape[1] for value in (q, k, v)]
        require(all(may_agree(a, b) for a, b in combinations(heads, 2)), "q, k and v differ in heads")
        if mask:
            broadcast(mask[0].shape, (*q.shape[:3], k.shape[2]))
        return (q.with_shape((*q.shape[:3], v.shape[3])),)


def _times(dim: DimLike, factor: int) -> DimLike:
    return dim * factor


def _static(dim: DimLike) -> int:
    require(isinstance(dim, int), f"the kernel's window {dim} is not static")
    assert isinstance(dim, int)
    return dim


def _check_kernel(op: _Windowed, inputs: Types, spatial: int) -> None:
    x, kernel = inputs[:2]
    require(same_dtype(*inputs).is_float, f"takes floats, not {x.dtype.value}")
    require(1 <= spatial <= 3 and kernel.rank == x.rank, f"does not apply the kernel {kernel} to {x}")
    for name in ("stride", "pre_padding", "post_padding", "dilation"):
        require(len(getattr(op, name)) == spatial, f"{name} has not {spatial} entries")


def _check_bias(inputs: Types, channels: DimLike) -> None:
    require(len(inputs) in (2, 3), "takes x, kernel and at most a bias")
    if len(inputs) == 3:
        require(inputs[2].shape == (channels,), f"the bias {inputs[2]} is no vector of {channels}")
