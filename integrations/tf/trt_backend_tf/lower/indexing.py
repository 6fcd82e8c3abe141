"""Ops that read elements by index.

An index outside of its dimension raises in TensorFlow on the CPU. ONNX Runtime fails the call then, which runs natively
and raises; negative ones, which it would count from the end, are made too large.
"""

from __future__ import annotations

__all__ = ["RULES"]

from trt_backend.errors import UnsupportedError
from trt_backend.ir.dims import Dim
from trt_backend.ir.graph import Value
from trt_backend.ir.ops.elementwise import ElementwiseKind
from trt_backend.ir.ops.layout import Gather, GatherElements, GatherND, ScatterND
from trt_backend.ir.types import DType, volume
from trt_backend_tf.lower.context import Known, Lowering
from trt_backend_tf.lower.rules import RuleTable
from trt_backend_tf.lower.shapes import order_of_formats

RULES = RuleTable()


@RULES.rule("GatherV2")
def _gather(b: Lowering, x: Value, indices: Value, axis: Known, *, batch_dims: int) -> Value:
    """Slices of a dimension; with batch dimensions, each row of them by its own indices."""
    _check_index(indices)
    (given,) = axis.static("an axis")
    place, batch = b.axis(given, x.type.rank), b.axis(batch_dims, indices.type.rank)
    if not batch:
        return b.add(Gather(place), x, indices)
    b.agree(x.shape[:batch], indices.shape[:batch])
    picked = indices.shape[batch:]
    before, between, behind = x.shape[:batch], x.shape[batch:place], x.shape[place + 1 :]
    count = volume(picked)
    lifted = b.reshape(indices, (*before, *(1 for _ in between), count, *(1 for _ in behind)))
    each = b.add(GatherElements(place), x, b.expand(lifted, (*before, *between, count, *behind)))
    return b.reshape(each, (*before, *between, *picked, *behind))


@RULES.rule("Gather")
def _gather_v1(b: Lowering, x: Value, indices: Value) -> Value:
    """Slices of the first dimension."""
    _check_index(indices)
    return b.add(Gather(0), x, indices)


@RULES.rule("GatherNd")
def _gather_nd(b: Lowering, x: Value, indices: Value) -> Value:
    """What the rows of an index address."""
    _check_index(indices)
    if isinstance(indices.shape[-1], Dim):
        raise UnsupportedError("the depth of the index is dynamic")
    return b.add(GatherND(), x, indices)


@RULES.rule("TensorScatterUpdate")
def _scatter(b: Lowering, x: Value, indices: Value, updates: Value) -> Value:
    """A copy with other slices at what the rows of an index address."""
    _check_index(indices)
    return b.add(ScatterND(), x, indices, updates)


@RULES.rule("DataFormatVecPermute")
def _data_format_vec_permute(b: Lowering, x: Value, *, src_format: str, dst_format: str) -> Value:
    """The entries of a shape, or the rows of paddings, in the order of another data format."""
    (count,) = b.static("the number of entries", x.shape[0])
    order = order_of_formats(src_format, dst_format, count)
    return b.add(Gather(0), x, b.constant(order, DType.INT64))


@RULES.rule("CombinedNonMaxSuppression")
def _combined_non_max_suppression(b: Lowering, *_: Value, **__: object) -> Value:
    """The boxes that do not overlap better ones: no IR op, and no sum of them, looks at each choice for the next."""
    raise UnsupportedError("each box that it keeps decides about the next; engines have no such op")


@RULES.rule("OneHot")
def _one_hot(b: Lowering, indices: Value, depth: Known, on: Value, off: Value, *, axis: int) -> Value:
    """`on` where the index is the position along a new dimension, else `off`."""
    (size,) = depth.static("the depth of a one-hot")
    place = b.axis(axis, indices.type.rank + 1)
    lifted = b.reshape(indices, (*indices.shape[:place], 1, *indices.shape[place:]))
    lifted = b.cast(lifted, DType.INT64)
    row = [size if i == place else 1 for i in range(lifted.type.rank)]
    positions = b.reshape(b.constant(list(range(size)), DType.INT64), row)
    return b.select(b.elementwise(ElementwiseKind.EQUAL, lifted, positions), on, off, on.dtype)


def _check_index(indices: Value) -> None:
    if indices.dtype not in (DType.INT32, DType.INT64):
        raise UnsupportedError(f"indices of {indices.dtype.value}")
