"""Lower precision: float32 graphs computed in float16 or bfloat16, but for islands of float32.

Rules (those of PyTorch's autocast, "CUDA Ops that can autocast", but with values instead of calls):
  ALWAYS   Convolutions, matrix products and attention compute in the low precision, and what they read is quantized in it.
  FOLLOW   Ops that cost memory traffic only (layout, activations, sums, ...) do where what they read was made in it.
  ISLAND   All others stay in float32: what sums, exponentiates or divides leaves float16's range or loses its small terms.
  BORDER   Inputs and outputs keep their types.
  FINITE   Ops with a finite constant beyond the low precision's range are islands. An attention's mask becomes one within
           half of it, which hides as well as -3e38, and leaves room for the score that it is added to. Infinities stay: a
           query whose keys are all hidden by -inf attends to none, by -3e38 to all.
"""

from __future__ import annotations

__all__ = ["lower_precision"]

import functools
import math
from collections.abc import Sequence

import numpy as np

from trt_backend.errors import UnsupportedError
from trt_backend.ir.builder import Builder, rebuild
from trt_backend.ir.graph import Graph, Node, Value
from trt_backend.ir.ops.base import Op
from trt_backend.ir.ops.contraction import Attention, Convolution, Deconvolution, MatrixMultiply
from trt_backend.ir.ops.elementwise import (
    Activation,
    BatchNorm,
    Cast,
    Elementwise,
    ElementwiseKind,
    QuantizeDequantize,
    Select,
    Unary,
    UnaryKind,
)
from trt_backend.ir.ops.layout import (
    Concatenation,
    Expand,
    Gather,
    GatherElements,
    GatherND,
    Identity,
    Pad,
    Reshape,
    Resize,
    ScatterElements,
    ScatterND,
    Slice,
    Transpose,
)
from trt_backend.ir.ops.reduction import Pooling, Reduce, ReduceKind
from trt_backend.ir.types import DType, TensorType
from trt_backend.passes.expansions.base import binary, select
from trt_backend.passes.legalize import Support, legalize

_LOW = (DType.FLOAT16, DType.BFLOAT16)
_ALWAYS = (Convolution, Deconvolution, MatrixMultiply, Attention, QuantizeDequantize)
_FOLLOW = (
    *(Activation, BatchNorm, Select, Pooling, Resize),
    *(Identity, Transpose, Reshape, Expand, Slice, Pad, Concatenation),
    *(Gather, GatherElements, GatherND, ScatterElements, ScatterND),
)
_FOLLOWING_KINDS = frozenset(
    {
        ElementwiseKind.SUM,
        ElementwiseKind.SUB,
        ElementwiseKind.PROD,
        ElementwiseKind.MAX,
        ElementwiseKind.MIN,
        UnaryKind.ABS,
        UnaryKind.NEG,
        UnaryKind.SIGN,
        ReduceKind.MAX,
        ReduceKind.MIN,
    }
)

_LARGEST = {DType.FLOAT16: 65504.0, DType.BFLOAT16: float.fromhex("0x1.fep127")}
_LEAST = float(np.finfo(np.float16).tiny)


def lower_precision(graph: Graph, dtype: DType, support: Support) -> Graph:
    """Return the graph with its float32 ops in `dtype` where the rules say so and the target takes them.

    Each op gets casts around it; those between two ops cancel when the graph is simplified. Returns `graph` itself where
    nothing changes.

    Args:
        graph: any graph.
        dtype: FLOAT16 or BFLOAT16.
        support: what the target takes.
    """
    return rebuild(graph, functools.partial(_lower, dtype, support))


def _lower(
    dtype: DType, support: Support, b: Builder, node: Node, inputs: tuple[Value, ...]
) -> Sequence[Value] | None:
    floats = [value for value in inputs if value.dtype is DType.FLOAT32]
    if not floats or any(output.dtype is not DType.FLOAT32 for output in node.outputs):
        return None
    if not isinstance(node.op, _ALWAYS) and not _follows(b, node.op, floats):
        return None
    if not isinstance(node.op, (Attention, BatchNorm)) and _exceeds(b, floats, _LARGEST[dtype]):
        return None
    if isinstance(node.op, QuantizeDequantize) and dtype is DType.FLOAT16 and min(node.op.scales) < _LEAST:
        return None
    types = tuple(v.type.with_dtype(dtype) if v.dtype is DType.FLOAT32 else v.type for v in inputs)
    if not _is_taken(support, node.op, types):
        return None
    if isinstance(node.op, BatchNorm):
        lowered = _batch_norm(b, dtype, node.op, inputs)
    else:
        if isinstance(node.op, Attention):
            inputs = (*inputs[:3], *(_finite(b, mask, _LARGEST[dtype]) for mask in inputs[3:]))
        low = [_low(b, value, dtype) if value.dtype is DType.FLOAT32 else value for value in inputs]
        lowered = b.emit(node.op, *low)
    return [b.add(Cast(DType.FLOAT32), value) for value in lowered]


def _follows(b: Builder, op: Op, floats: Sequence[Value]) -> bool:
    """Whether the op may follow, and everything that it reads was made in low precision, but for constants."""
    if isinstance(op, (Elementwise, Unary, Reduce)):
        square = op.kind is ElementwiseKind.PROD and floats[0] == floats[-1]
        if op.kind not in _FOLLOWING_KINDS or square:
            return False
    elif not isinstance(op, _FOLLOW):
        return False
    computed = [value for value in floats if b.constant_of(value) is None]
    if isinstance(op, BatchNorm) and computed != floats[:1]:  # its factor and shift are to be computed here
        return False
    return bool(computed) and all(_made_low(b, value) for value in computed)


def _is_taken(support: Support, op: Op, types: Sequence[TensorType]) -> bool:
    """Whether the target takes the op on operands of these types, or what it expands to."""
    if support(op, tuple(types)) is None:
        return True
    probe = Builder()
    results = probe.emit(op, *(probe.input("x", type) for type in types))
    try:
        legalize(probe.build(results), support)
    except UnsupportedError:
        return False
    return True


def _made_low(b: Builder, value: Value) -> bool:
    node = b.producer(value)
    return node is not None and isinstance(node.op, Cast) and node.inputs[0].dtype in _LOW


def _low(b: Builder, value: Value, dtype: DType) -> Value:
    constant = b.constant_of(value)
    if constant is None:
        return b.add(Cast(dtype), value)
    return b.lazy_constant(value.type.with_dtype(dtype), lambda: constant.array.astype(dtype.numpy))


def _exceeds(b: Builder, values: Sequence[Value], largest: float) -> bool:
    """Whether a constant among them has a finite number beyond the largest of the low precision."""
    arrays = [constant.array for value in values if (constant := b.constant_of(value)) is not None]
    return any(bool((np.isfinite(array) & (np.abs(array) > largest)).any()) for array in arrays)


def _finite(b: Builder, mask: Value, largest: float) -> Value:
    """Return an attention's mask under rule FINITE."""
    if mask.dtype is not DType.FLOAT32:
        return mask
    hides = binary(b, ElementwiseKind.EQUAL, mask, -math.inf)
    return select(b, hides, mask, binary(b, ElementwiseKind.MAX, mask, -largest / 2))


def _batch_norm(b: Builder, dtype: DType, op: BatchNorm, inputs: tuple[Value, ...]) -> Sequence[Value]:
    """Return it with a factor and a shift that were computed in float64: a variance may leave float16's range."""
    x, *vectors = inputs
    constants = [constant for value in vectors if (constant := b.constant_of(value)) is not None]
    scale, bias, mean, variance = (constant.array.astype(np.float64) for constant in constants)
    factor = scale / np.sqrt(variance + op.epsilon)
    shift = bias - mean * factor
    arrays = (factor, shift, np.zeros_like(mean), np.ones_like(mean))
    low = [b.constant(array.astype(dtype.numpy)) for array in arrays]
    return b.emit(BatchNorm(0.0), _low(b, x, dtype), *low)
