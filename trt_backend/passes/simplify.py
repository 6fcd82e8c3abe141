"""Local simplification: a table of rewrites, each exact to the bit."""

from __future__ import annotations

__all__ = ["simplify"]

import functools
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from trt_backend.ir.builder import Builder, rebuild
from trt_backend.ir.graph import Graph, Node, Value
from trt_backend.ir.ops.base import Op
from trt_backend.ir.ops.contraction import Attention, MatrixMultiply
from trt_backend.ir.ops.elementwise import (
    Activation,
    ActivationKind,
    Cast,
    Elementwise,
    ElementwiseKind,
    Select,
    Unary,
    UnaryKind,
)
from trt_backend.ir.ops.layout import Concatenation, Expand, Gather, Identity, Pad, Reshape, Slice, Transpose
from trt_backend.ir.types import DType, TensorType
from trt_backend.passes.fuel import Fuel


def simplify(graph: Graph, fuel: Fuel | None = None) -> Graph:
    """Apply the rewrites of `_REWRITES` to each node, in one walk, as long as one matches.

    What a rewrite bypasses stays, for `eliminate_dead`. Returns `graph` itself where nothing matches.
    """
    return rebuild(graph, functools.partial(_apply, fuel or Fuel()))


Rewrite = Callable[..., "Value | None"]
"""`(builder, op, *inputs)` to the value that takes the place of the op's one output, or None for no match.

A result of another type than the output's is no match, so that `x * 1` need not ask whether x broadcasts.
"""


def _apply(fuel: Fuel, b: Builder, node: Node, inputs: tuple[Value, ...]) -> Sequence[Value] | None:
    result = _match(fuel, b, node.op, inputs, node.outputs[0].type)
    if result is None:
        return None
    while (made := b.producer(result)) is not None:
        if (again := _match(fuel, b, made.op, made.inputs, result.type)) is None:
            break
        result = again
    return [result]


def _match(fuel: Fuel, b: Builder, op: Op, inputs: tuple[Value, ...], type_: TensorType) -> Value | None:
    """Return what the first matching rewrite makes of the op, which has one output of that type."""
    for rewrite in () if fuel.empty else _REWRITES.get(type(op), ()):
        result = rewrite(b, op, *inputs)
        if result is not None and result.type == type_:
            fuel.burn()
            return result
    return None


# ---- what an operand is ---------------------------------------------------------------------------------------------

_O = TypeVar("_O", bound=Op)


def _made_by(b: Builder, value: Value, kind: type[_O]) -> tuple[_O, tuple[Value, ...]] | None:
    """Return the op that made `value`, and its inputs, where that is a `kind`."""
    node = b.producer(value)
    return (node.op, node.inputs) if node is not None and isinstance(node.op, kind) else None


def _scalar(b: Builder, value: Value) -> Any:
    """Return the element of a constant that has just one (as a NumPy scalar), or None."""
    constant = b.constant_of(value)
    if constant is None or any(dim != 1 for dim in value.shape):
        return None
    return constant.array.reshape(())[()]


def _is_zero(element: Any, *, negative: bool) -> bool:
    """Whether this is zero and, for floats, of that sign."""
    return element == 0 and (
        np.issubdtype(type(element), np.integer) or bool(np.signbit(element)) == negative
    )


def _without_expands(b: Builder, op: Op, inputs: Sequence[Value], *, kept: int) -> Value | None:
    """Bypass each Expand that the op's own broadcasting makes up for; the last `kept` dimensions do not broadcast."""
    wanted = op.infer(*(value.type for value in inputs))
    shorter = list(inputs)
    for i, value in enumerate(inputs):
        shorter[i] = _unexpanded(b, value, kept=kept)
        if op.infer(*(v.type for v in shorter)) != wanted:
            shorter[i] = value
    return None if shorter == list(inputs) else b.add(op, *shorter)


def _unexpanded(b: Builder, value: Value, *, kept: int) -> Value:
    """Return what an Expand repeats along dimensions of size 1, but for the last `kept`; else `value` itself."""
    if (inner := _made_by(b, value, Expand)) is None:
        return value
    (source,) = inner[1]
    sizes = zip(source.shape, value.shape, range(value.type.rank, 0, -1), strict=True)
    repeats = all(old == new or (old == 1 and place > kept) for old, new, place in sizes)
    return source if repeats else value


# ---- layout ---------------------------------------------------------------------------------------------------------


def remove_identity(b: Builder, op: Identity, x: Value) -> Value:
    """Identity(x) is x."""
    return x


def remove_transpose(b: Builder, op: Transpose, x: Value) -> Value | None:
    """A permutation that moves nothing."""
    return x if op.permutation == tuple(range(x.type.rank)) else None


def merge_transposes(b: Builder, op: Transpose, x: Value) -> Value | None:
    """Transpose of Transpose."""
    if (inner := _made_by(b, x, Transpose)) is None:
        return None
    first, (source,) = inner
    return b.add(Transpose(tuple(first.permutation[i] for i in op.permutation)), source)


def transpose_to_reshape(b: Builder, op: Transpose, x: Value) -> Value | None:
    """A permutation that moves only dimensions of size 1 leaves the elements in their order."""
    moved = [i for i in op.permutation if x.shape[i] != 1]
    return b.add(Reshape(tuple(x.shape[i] for i in op.permutation)), x) if moved == sorted(moved) else None


def remove_reshape(b: Builder, op: Reshape, x: Value) -> Value | None:
    """A reshape to the same shape."""
    return x if op.shape == x.shape else None


def merge_reshapes(b: Builder, op: Reshape, x: Value) -> Value | None:
    """Reshape of Reshape."""
    inner = _made_by(b, x, Reshape)
    return None if inner is None else b.add(op, *inner[1])


def remove_expand(b: Builder, op: Expand, x: Value) -> Value | None:
    """An expansion to the same shape."""
    return x if op.shape == x.shape else None


def merge_expands(b: Builder, op: Expand, x: Value) -> Value | None:
    """Expand of Expand."""
    inner = _made_by(b, x, Expand)
    return None if inner is None else b.add(op, *inner[1])


def remove_slice(b: Builder, op: Slice, x: Value) -> Value | None:
    """A slice of everything."""
    whole = op.size == x.shape and all(start == 0 for start in op.start)
    return x if whole and all(stride == 1 for stride in op.stride) else None


def merge_slices(b: Builder, op: Slice, x: Value) -> Value | None:
    """Slice of Slice."""
    if (inner := _made_by(b, x, Slice)) is None:
        return None
    first, (source,) = inner
    starts = zip(first.start, op.start, first.stride, strict=True)
    start = tuple(outer + position * stride for outer, position, stride in starts)
    stride = tuple(a * b for a, b in zip(first.stride, op.stride, strict=True))
    return b.add(Slice(start, op.size, stride), source)


def remove_pad(b: Builder, op: Pad, x: Value, *fill: Value) -> Value | None:
    """A border of width 0."""
    return None if any(op.before) or any(op.after) else x


def remove_concatenation(b: Builder, op: Concatenation, *parts: Value) -> Value | None:
    """Concatenation of one, not counting operands that are empty along the axis."""
    present = [part for part in parts if part.shape[op.axis] != 0] or list(parts[:1])
    if len(present) == 1:
        return present[0]
    return b.add(op, *present) if len(present) < len(parts) else None


# ---- elementwise ----------------------------------------------------------------------------------------------------

_DIGITS = {DType.BOOL: 1, DType.INT8: 7, DType.UINT8: 8, DType.INT32: 31, DType.INT64: 63}
_SIGNIFICANDS = {DType.BFLOAT16: 8, DType.FLOAT16: 11, DType.FLOAT32: 24, DType.FLOAT64: 53}
_WIDER_FLOATS = {
    DType.FLOAT16: (DType.FLOAT32, DType.FLOAT64),
    DType.BFLOAT16: (DType.FLOAT32, DType.FLOAT64),
    DType.FLOAT32: (DType.FLOAT64,),
}


def _is_lossless(source: DType, target: DType) -> bool:
    """Whether a cast keeps every value of `source`."""
    if source is target:
        return True
    if source in _SIGNIFICANDS:
        return target in _WIDER_FLOATS.get(source, ())
    if target in _SIGNIFICANDS:
        return _DIGITS[source] <= _SIGNIFICANDS[target]
    signed_to_unsigned = target is DType.UINT8 and source is not DType.BOOL
    return not signed_to_unsigned and _DIGITS[source] < _DIGITS[target]


def remove_cast(b: Builder, op: Cast, x: Value) -> Value | None:
    """A cast to the same dtype."""
    return x if op.dtype is x.dtype else None


def merge_casts(b: Builder, op: Cast, x: Value) -> Value | None:
    """Cast of a cast that keeps every value.

    Not where the way from float to integer may overflow: what that gives depends on the float.
    """
    if (inner := _made_by(b, x, Cast)) is None:
        return None
    (source,) = inner[1]
    overflows = x.dtype.is_float and op.dtype.is_integer and not _is_lossless(source.dtype, op.dtype)
    return b.add(op, source) if _is_lossless(source.dtype, x.dtype) and not overflows else None


_MOVES = (Expand, Gather, Reshape, Slice, Transpose)
"""Ops that move the elements of their first operand."""


def narrow_moves(b: Builder, op: Cast, x: Value) -> Value | None:
    """A cast back of what was widened only to be moved: the moves alone."""
    moves: list[Node] = []
    while (node := b.producer(x)) is not None and isinstance(node.op, _MOVES):
        moves.append(node)
        x = node.inputs[0]
    inner = _made_by(b, x, Cast)
    if not moves or inner is None:
        return None
    (source,) = inner[1]
    if source.dtype is not op.dtype or not _is_lossless(source.dtype, x.dtype):
        return None
    for node in reversed(moves):
        source = b.add(node.op, source, *node.inputs[1:])
    return source


_INVOLUTIONS = frozenset({UnaryKind.NEG, UnaryKind.NOT})
_IDEMPOTENT = frozenset({UnaryKind.ABS, UnaryKind.CEIL, UnaryKind.FLOOR, UnaryKind.ROUND, UnaryKind.SIGN})


def merge_unaries(b: Builder, op: Unary, x: Value) -> Value | None:
    """Neg of Neg, Not of Not; Abs of Abs, Floor of Floor and so on; Abs of Neg, but not where that wraps (uint8)."""
    if (inner := _made_by(b, x, Unary)) is None:
        return None
    first, (source,) = inner
    if first.kind is op.kind and op.kind in _INVOLUTIONS:
        return source
    if first.kind is op.kind and op.kind in _IDEMPOTENT:
        return x
    abs_of_neg = (op.kind, first.kind) == (UnaryKind.ABS, UnaryKind.NEG)
    return b.add(op, source) if abs_of_neg and x.dtype is not DType.UINT8 else None


def merge_activations(b: Builder, op: Activation, x: Value) -> Value | None:
    """Relu of Relu, and Clip of the same Clip."""
    inner = _made_by(b, x, Activation)
    again = inner is not None and inner[0] == op
    return x if again and op.kind in (ActivationKind.RELU, ActivationKind.CLIP) else None


_NEUTRAL_RIGHT: dict[ElementwiseKind, Callable[[Any], bool]] = {
    ElementwiseKind.SUM: lambda e: _is_zero(e, negative=True),  # -0.0 + 0.0 is 0.0, so +0.0 is not neutral
    ElementwiseKind.SUB: lambda e: _is_zero(e, negative=False),
    ElementwiseKind.PROD: lambda e: e == 1,
    ElementwiseKind.DIV: lambda e: e == 1,
    ElementwiseKind.POW: lambda e: e == 1,
    ElementwiseKind.AND: bool,
    ElementwiseKind.OR: lambda e: not e,
    ElementwiseKind.XOR: lambda e: not e,
}
_COMMUTATIVE = frozenset(
    {ElementwiseKind.SUM, ElementwiseKind.PROD, ElementwiseKind.AND, ElementwiseKind.OR, ElementwiseKind.XOR}
)


def remove_neutral(b: Builder, op: Elementwise, left: Value, right: Value) -> Value | None:
    """`x * 1`, `x / 1`, `x ** 1`, `x - 0`, `x + -0.0` (integers: `x + 0`), `x and true`, `x or false`, `x xor false`."""
    is_neutral = _NEUTRAL_RIGHT.get(op.kind)
    if is_neutral is None:
        return None
    if (element := _scalar(b, right)) is not None and is_neutral(element):
        return left
    if op.kind in _COMMUTATIVE and (element := _scalar(b, left)) is not None and is_neutral(element):
        return right
    return None


def square(b: Builder, op: Elementwise, left: Value, right: Value) -> Value | None:
    """`x ** 2` is `x * x`."""
    element = _scalar(b, right) if op.kind is ElementwiseKind.POW else None
    return None if element is None or element != 2 else b.add(Elementwise(ElementwiseKind.PROD), left, left)


def drop_expands(b: Builder, op: Elementwise | Select, *inputs: Value) -> Value | None:
    """An operand that broadcasts needs no Expand before it."""
    return _without_expands(b, op, inputs, kept=0)


def delay_expand(b: Builder, op: Op, *inputs: Value) -> Value | None:
    """What is the same for all that an Expand repeats is computed once, and then repeated.

    Not where one symbol would become another: the operand that had it may broadcast in the call.
    """
    sources = [_unexpanded(b, value, kept=0) for value in inputs]
    if sources == list(inputs):
        return None
    (wanted,) = op.infer(*(value.type for value in inputs))
    (once,) = op.infer(*(value.type for value in sources))
    if any(size not in (1, repeated) for size, repeated in zip(once.shape, wanted.shape, strict=True)):
        return None
    return b.add(Expand(wanted.shape), b.add(op, *sources))


def choose_branch(b: Builder, op: Select, condition: Value, x: Value, y: Value) -> Value | None:
    """Both branches are one, or the condition is constant."""
    if x == y:
        return x
    element = _scalar(b, condition)
    return None if element is None else (x if element else y)


def swap_branches(b: Builder, op: Select, condition: Value, x: Value, y: Value) -> Value | None:
    """Select of Not."""
    inner = _made_by(b, condition, Unary)
    return b.add(op, *inner[1], y, x) if inner is not None and inner[0].kind is UnaryKind.NOT else None


# ---- contraction ----------------------------------------------------------------------------------------------------


def absorb_transposes(b: Builder, op: MatrixMultiply, left: Value, right: Value) -> Value | None:
    """An operand's Transpose of the last two dimensions becomes the product's flag."""
    a, flip_a = _untransposed(b, left)
    c, flip_c = _untransposed(b, right)
    if not flip_a and not flip_c:
        return None
    return b.add(MatrixMultiply(op.transpose_a != flip_a, op.transpose_b != flip_c), a, c)


def drop_batch_expands(b: Builder, op: MatrixMultiply, left: Value, right: Value) -> Value | None:
    """An operand whose leading dimensions broadcast needs no Expand of them."""
    return _without_expands(b, op, (left, right), kept=2)


def drop_mask(b: Builder, op: Attention, q: Value, k: Value, v: Value, *mask: Value) -> Value | None:
    """An additive mask of zeros hides nothing (-0.0 and 0.0 have one softmax)."""
    if not mask:
        return None
    inner = _made_by(b, mask[0], Expand)
    constant = b.constant_of(mask[0] if inner is None else inner[1][0])
    return None if constant is None or constant.array.any() else b.add(op, q, k, v)


def _untransposed(b: Builder, value: Value) -> tuple[Value, bool]:
    inner = _made_by(b, value, Transpose)
    rank = value.type.rank
    swap = (*range(rank - 2), rank - 1, rank - 2)
    return (inner[1][0], True) if inner is not None and inner[0].permutation == swap else (value, False)


_REWRITES: dict[type[Op], tuple[Rewrite, ...]] = {
    Activation: (merge_activations, delay_expand),
    Attention: (drop_mask,),
    Cast: (remove_cast, merge_casts, narrow_moves, delay_expand),
    Concatenation: (remove_concatenation,),
    Elementwise: (remove_neutral, square, drop_expands, delay_expand),
    Expand: (remove_expand, merge_expands),
    Identity: (remove_identity,),
    MatrixMultiply: (absorb_transposes, drop_batch_expands),
    Pad: (remove_pad,),
    Reshape: (remove_reshape, merge_reshapes),
    Select: (choose_branch, swap_branches, drop_expands, delay_expand),
    Slice: (remove_slice, merge_slices),
    Transpose: (remove_transpose, merge_transposes, transpose_to_reshape),
    Unary: (merge_unaries, delay_expand),
}
