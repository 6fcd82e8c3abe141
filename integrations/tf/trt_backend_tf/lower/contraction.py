"""Ops that contract: matrix products, convolutions, einsum.

Rules:
  LAYOUT  The IR convolves [N, C, *spatial]. TensorFlow's NHWC is transposed there and back; engines cancel the pairs
          between neighbours.
  SAME    pads so that there are `ceil(size / stride)` windows, the odd element behind. Where that depends on a dynamic size,
          the image is padded before.
"""

from __future__ import annotations

__all__ = ["RULES", "is_channels_last", "same_padding", "spatial_of"]

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from trt_backend.errors import UnsupportedError
from trt_backend.ir.dims import DimLike, dim_max
from trt_backend.ir.graph import Value
from trt_backend.ir.ops.contraction import Convolution, Deconvolution, MatrixMultiply
from trt_backend.ir.ops.elementwise import ElementwiseKind
from trt_backend.ir.ops.reduction import ReduceKind
from trt_backend.ir.types import volume
from trt_backend_tf.lower.context import Known, Lowering
from trt_backend_tf.lower.rules import RuleTable
from trt_backend_tf.types import dtype_of

RULES = RuleTable()


# Matrix products


@RULES.rule("MatMul")
def _matmul(b: Lowering, x: Value, y: Value, *, transpose_a: bool, transpose_b: bool) -> Value:
    """Multiply two matrices."""
    return b.add(MatrixMultiply(transpose_a, transpose_b), x, y)


@RULES.rule("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
def _batch_matmul(
    b: Lowering, x: Value, y: Value, *, adj_x: bool, adj_y: bool, Tout: tf.DType | None = None
) -> Value:
    """Multiply batches of matrices, which broadcast; 8 bits are multiplied in 32."""
    dtype = x.dtype if Tout is None else dtype_of(Tout)
    x, y = b.cast(x, dtype), b.cast(y, dtype)
    rank = max(x.type.rank, y.type.rank)
    return b.add(MatrixMultiply(adj_x, adj_y), b.with_rank(x, rank), b.with_rank(y, rank))


@RULES.rule("Einsum")
def _einsum(b: Lowering, *operands: Value, equation: str) -> Value:
    """A sum of products of two operands, as one batched matrix product; of one, as a transposed sum."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    *terms, output = _spelled_out([*inputs.split(","), output], [x.type.rank for x in operands])
    if not arrow or len(terms) > 2 or any(len(set(term)) != len(term) for term in (*terms, output)):
        raise UnsupportedError(f"the equation {equation}")
    reduced = [
        _summed(b, x, term, set(output) | set("".join(terms[:i] + terms[i + 1 :])))
        for i, (x, term) in enumerate(zip(operands, terms, strict=True))
    ]
    if len(reduced) == 1:
        x, term = reduced[0]
        return b.transpose(x, [term.index(label) for label in output])
    return _product(b, *reduced[0], *reduced[1], output)


def _spelled_out(terms: Sequence[str], ranks: Sequence[int]) -> list[str]:
    """Return terms with labels for what `...` stands for: digits, counted from behind, as dimensions broadcast.

    Where two operands have such dimensions, their sizes must agree, as those of any label must.
    """
    counts = [rank - len(term) + 3 for term, rank in zip(terms, ranks, strict=False) if "..." in term]
    digits = "9876543210"[10 - max(counts, default=0) :]
    ranks = [*ranks, len(terms[-1]) - 3 + len(digits)]
    return [
        term.replace("...", digits[len(digits) - (rank - len(term) + 3) :])
        for term, rank in zip(terms, ranks, strict=True)
    ]


def _summed(b: Lowering, x: Value, term: str, kept: set[str]) -> tuple[Value, str]:
    """Return an operand without the dimensions that nobody else has, which are summed."""
    axes = [i for i, label in enumerate(term) if label not in kept]
    return b.reduce(ReduceKind.SUM, x, axes, keep_dims=False), "".join(l for l in term if l in kept)


def _product(b: Lowering, x: Value, left: str, y: Value, right: str, output: str) -> Value:
    """Return the product as [batch, rows, inner] times [batch, inner, columns]."""
    batch = [label for label in left if label in right and label in output]
    inner = [label for label in left if label in right and label not in output]
    for label in (*batch, *inner):
        one, other = x.shape[left.index(label)], y.shape[right.index(label)]
        if one != other and 1 in (one, other):
            raise UnsupportedError(f"dimensions of an einsum that broadcast: {one} and {other}")
        b.agree([one], [other])
    rows = [label for label in left if label not in right]
    columns = [label for label in right if label not in left]
    sizes = {**dict(zip(right, y.shape, strict=True)), **dict(zip(left, x.shape, strict=True))}

    def group(value: Value, term: str, *groups: Sequence[str]) -> Value:
        """Bring the dimensions in the order of the groups, and fold each group but the batch into one."""
        ordered = b.transpose(value, [term.index(label) for labels in groups for label in labels])
        folded = [volume(tuple(sizes[label] for label in labels)) for labels in groups[1:]]
        return b.reshape(ordered, (*(sizes[label] for label in groups[0]), *folded))

    result = b.add(
        MatrixMultiply(), group(x, left, batch, rows, inner), group(y, right, batch, inner, columns)
    )
    made = [*batch, *rows, *columns]
    unfolded = b.reshape(result, [sizes[label] for label in made])
    return b.transpose(unfolded, [made.index(label) for label in output])


# Biases


@RULES.rule("BiasAdd", "BiasAddV1")
def _bias_add(b: Lowering, x: Value, bias: Value, *, data_format: str = "NHWC") -> Value:
    """Add a vector along the channels."""
    last = is_channels_last(data_format)
    b.agree(bias.shape, [x.shape[-1 if last else 1]])
    if not last:
        bias = b.reshape(bias, (*bias.shape, *(1,) * (x.type.rank - 2)))
    return b.elementwise(ElementwiseKind.SUM, x, bias)


# Convolution


def is_channels_last(data_format: str) -> bool:
    """Whether channels are the last dimension (LAYOUT)."""
    return data_format in ("NHWC", "NDHWC")


def spatial_of(values: Sequence[int], data_format: str) -> tuple[int, ...]:
    """Return the spatial entries of a list with one entry for each dimension (UnsupportedError where another is not 1)."""
    last = is_channels_last(data_format)
    spatial = tuple(values[1:-1] if last else values[2:])
    if values[0] != 1 or (values[-1] if last else values[1]) != 1:
        raise UnsupportedError(f"windows over batch or channels: {list(values)}")
    return spatial


def same_padding(
    size: DimLike, reach: int, stride: int, count: DimLike | None = None
) -> tuple[DimLike, DimLike]:
    """Return the padding before and after one dimension (SAME).

    Args:
        size: of the dimension.
        reach: how many elements a window spans.
        stride: from window to window.
        count: how many windows there are, where it is known.
    """
    if count is None:
        count = (size + stride - 1) // stride
    total = dim_max((count - 1) * stride + reach - size, 0)
    return total // 2, (total + 1) // 2


def pad_dynamic(
    b: Lowering, image: Value, sides: Sequence[Sequence[DimLike]], number: float
) -> tuple[Value, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Return [N, C, *spatial] and the padding that is left for windows, which is none where it depends on dynamic sizes."""
    static = tuple(tuple(size for size in side if isinstance(size, int)) for side in sides)
    if len(static[0]) == len(static[1]) == len(sides[0]):
        return image, (static[0], static[1])
    none = (0,) * len(sides[0])
    padded = b.pad(image, (0, 0, *sides[0]), (0, 0, *sides[1]), b.full((), number, image.dtype))
    return padded, (none, none)


@dataclass(frozen=True)
class _Windows:
    """How the windows of a convolution lie: what its attributes say of the spatial dimensions."""

    step: tuple[int, ...]
    spread: tuple[int, ...]
    padding: str
    explicit: tuple[tuple[int, int], ...]
    channels_last: bool

    @classmethod
    def of(
        cls,
        strides: Sequence[int],
        dilations: Sequence[int],
        padding: str,
        explicit: Sequence[int],
        data_format: str,
    ) -> _Windows:
        """Return what the attributes say."""
        last = is_channels_last(data_format)
        pairs = tuple(zip(explicit[::2], explicit[1::2], strict=True))
        pairs = pairs[1:-1] if last else pairs[2:]
        return cls(spatial_of(strides, data_format), spatial_of(dilations, data_format), padding, pairs, last)

    def enter(self, b: Lowering, x: Value) -> Value:
        """Return an operand as [N, C, *spatial]."""
        return b.channels_first(x) if self.channels_last else x

    def leave(self, b: Lowering, y: Value) -> Value:
        """Return a result in the format of the op."""
        return b.channels_last(y) if self.channels_last else y

    def reaches(self, window: Sequence[int]) -> tuple[int, ...]:
        """Return how many elements a window spans in each dimension."""
        return tuple(d * (w - 1) + 1 for d, w in zip(self.spread, window, strict=True))

    def counts(self, sizes: Sequence[DimLike], window: Sequence[int]) -> list[DimLike]:
        """Return how many windows there are in each dimension."""
        if self.padding == "SAME":
            return [(size + step - 1) // step for size, step in zip(sizes, self.step, strict=True)]
        pairs = self.explicit or ((0, 0),) * len(sizes)
        given = zip(sizes, pairs, self.reaches(window), self.step, strict=True)
        return [(size + sum(pair) - reach) // step + 1 for size, pair, reach, step in given]

    def pads(
        self, sizes: Sequence[DimLike], window: Sequence[int], counts: Sequence[DimLike | None]
    ) -> tuple[tuple[DimLike, ...], tuple[DimLike, ...]]:
        """Return the padding before and after each dimension; for `counts`, see `same_padding`."""
        if self.padding == "VALID":
            return (0,) * len(sizes), (0,) * len(sizes)
        if self.padding == "EXPLICIT":
            pairs = self.explicit
        else:
            given = zip(sizes, self.reaches(window), self.step, counts, strict=True)
            pairs = [same_padding(*item) for item in given]
        return tuple(before for before, _ in pairs), tuple(after for _, after in pairs)


def _convolved(b: Lowering, x: Value, weights: Value, windows: _Windows) -> Value:
    """Return a convolution by weights [K, C/groups, *window]; the number of groups follows from the shapes."""
    image = windows.enter(b, x)
    channels, per_group = b.static("the number of channels", image.shape[1], weights.shape[1])
    window = b.static("the window of the convolution", *weights.shape[2:])
    sides = windows.pads(image.shape[2:], window, [None] * len(window))
    image, (before, after) = pad_dynamic(b, image, sides, 0.0)
    op = Convolution(windows.step, before, after, windows.spread, channels // per_group)
    return windows.leave(b, b.add(op, image, weights))


def _with_channels_in_front(b: Lowering, kernel: Value) -> Value:
    """Return [*window, C, K] as [K, C, *window]."""
    rank = kernel.type.rank
    return b.transpose(kernel, (rank - 1, rank - 2, *range(rank - 2)))


@RULES.rule("Conv2D", "Conv3D")
def _convolution(
    b: Lowering,
    x: Value,
    kernel: Value,
    *,
    strides: list[int],
    padding: str,
    explicit_paddings: Sequence[int] = (),
    data_format: str,
    dilations: list[int],
) -> Value:
    """A convolution of [N, *spatial, C] by [*window, C/groups, K]."""
    windows = _Windows.of(strides, dilations, padding, explicit_paddings, data_format)
    return _convolved(b, x, _with_channels_in_front(b, kernel), windows)


@RULES.rule("DepthwiseConv2dNative")
def _depthwise(
    b: Lowering,
    x: Value,
    kernel: Value,
    *,
    strides: list[int],
    padding: str,
    explicit_paddings: list[int],
    data_format: str,
    dilations: list[int],
) -> Value:
    """Each channel by its own kernels [H, W, C, multiplier]."""
    height, width, channels, multiplier = b.static("the kernel", *kernel.shape)
    order = b.transpose(kernel, (2, 3, 0, 1))
    weights = b.reshape(order, (channels * multiplier, 1, height, width))
    windows = _Windows.of(strides, dilations, padding, explicit_paddings, data_format)
    return _convolved(b, x, weights, windows)


@RULES.rule("Conv2DBackpropInput", "Conv3DBackpropInputV2")
def _deconvolution(
    b: Lowering,
    input_sizes: Known,
    kernel: Value,
    gradient: Value,
    *,
    strides: list[int],
    padding: str,
    explicit_paddings: Sequence[int] = (),
    data_format: str,
    dilations: list[int],
) -> Value:
    """The transpose of a convolution from `input_sizes` to the gradient's: Keras' Conv2DTranspose."""
    windows = _Windows.of(strides, dilations, padding, explicit_paddings, data_format)
    image, weights = windows.enter(b, gradient), _with_channels_in_front(b, kernel)
    sizes = input_sizes.dims()
    if len(sizes) != image.type.rank:
        raise UnsupportedError("its sizes are only those of an image")
    target, depth = (sizes[1:-1], sizes[-1]) if windows.channels_last else (sizes[2:], sizes[1])
    channels, per_group, _ = b.static("the number of channels", depth, weights.shape[1], image.shape[1])
    window, counts = b.static("the window of the convolution", *weights.shape[2:]), image.shape[2:]
    b.agree([sizes[0], *windows.counts(target, window)], [image.shape[0], *counts])
    before = b.static("the padding of a deconvolution", *windows.pads(target, window, counts)[0])
    rests = [
        (count - 1) * step + reach - pad - size
        for count, step, reach, pad, size in zip(
            counts, windows.step, windows.reaches(window), before, target, strict=True
        )
    ]
    after = b.static("the padding of a deconvolution", *rests)
    op = Deconvolution(windows.step, before, after, windows.spread, channels // per_group)
    return windows.leave(b, b.add(op, image, weights))
