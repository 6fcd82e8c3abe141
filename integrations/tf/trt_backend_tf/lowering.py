"""From TensorFlow ops to IR nodes: one step that the analysis of a graph and the lowering of a segment share.

Rules:
  SYMBOLS  A dimension that TensorFlow does not know is a symbol of the tensor where it first shows, and goes from there
           through the lowering rules. TensorFlow's own inference would say `None` at every op behind it.
  KNOWN    What is computed from shapes is known when the graph is lowered, as integers and symbols.
  NATIVE   The outputs of an op that runs natively have the shape that TensorFlow infers, with symbols of their own.
  BRANCHES What runs in some calls only, between a Switch and its Merge, or several times, between an Enter and its Exit,
           runs natively: an engine is one op, of which each output waits for each input.
"""

from __future__ import annotations

__all__ = ["Analysis", "analyze", "is_compute", "lower_constant", "lower_op"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import tensorflow as tf

from trt_backend.errors import InvalidGraphError, Reason, ReasonKind, UnsupportedError
from trt_backend.ir.dims import Dim, DimLike, Symbol
from trt_backend.ir.graph import Graph, Value
from trt_backend.ir.types import DType, TensorType
from trt_backend.runtime.fallback import contain
from trt_backend_tf.internals import tensor_util
from trt_backend_tf.lower import FOLDS, RULES
from trt_backend_tf.lower.context import Known, Lowering, Operand
from trt_backend_tf.types import dtype_of

_MOST_FOLDED = 64
"""Elements: what is computed from shapes is small, and larger tables of integers are data."""
_SWITCHES = frozenset({"Switch", "RefSwitch", "_SwitchN"})
_MERGES = frozenset({"Merge", "RefMerge"})
_ENTERS = frozenset({"Enter", "RefEnter"})
_EXITS = frozenset({"Exit", "RefExit"})
_NO_WORK = frozenset(
    {"Const", "Identity", "IdentityN", "NoOp", "Placeholder", "PreventGradient", "Snapshot", "StopGradient"}
)

TensorFact = TensorType | Known | Reason
"""What is known of a tensor: its type, its elements, or why it has neither in the IR."""


def lower_op(b: Lowering, op: tf.Operation, operands: Sequence[Operand]) -> tuple[Operand, ...]:
    """Lower one op.

    Raises:
        UnsupportedError: no rule takes it, or sizes of which TensorFlow does not know do not fit.
        InvalidGraphError: a rule is wrong (it made another type than TensorFlow promises, or an ill-typed op).
    """
    results = _folded(b, op, operands)
    if results is None:
        if op.type not in RULES:
            raise UnsupportedError("", ReasonKind.NO_RULE)
        try:
            with b.at(op.name):
                result = RULES(b, op, operands)
        except InvalidGraphError as error:
            if not any(map(_is_known_better, operands, op.inputs)):
                raise
            raise UnsupportedError(f"TensorFlow may refuse the sizes: {error}") from error
        results = tuple(result) if isinstance(result, (tuple, list)) else (result,)
    _check(op, results)
    return results


def lower_constant(b: Lowering, op: tf.Operation) -> Value:
    """Return a Const as a value, whose elements are read when somebody needs them."""
    type_ = _constant_type(op)
    return b.lazy_constant(
        type_, lambda: tensor_util.MakeNdarray(op.get_attr("value")).astype(type_.dtype.numpy, copy=False)
    )


@dataclass
class Analysis:
    """What is known of a graph before any of it runs.

    Attributes:
        reasons: why each op that cannot go into an engine cannot.
        facts: what each tensor is, by its name.
        origins: the name of the tensor where each symbol first shows.
    """

    reasons: dict[tf.Operation, Reason] = field(default_factory=dict)
    facts: dict[str, TensorFact] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def fresh_shape(self, tensor: tf.Tensor) -> tuple[DimLike, ...]:
        """Return TensorFlow's shape with a new symbol for each dimension that it does not know."""
        dims: list[DimLike] = []
        for size in tensor.shape.as_list():
            if size is None:
                name = f"s{len(self.origins)}"
                self.origins[name] = tensor.name
                size = Dim.of(Symbol(name))
            dims.append(size)
        return tuple(dims)


def analyze(
    ops: Sequence[tf.Operation],
    legal: Callable[[Graph], object],
    *,
    strict: bool,
    denied: frozenset[str] = frozenset(),
) -> Analysis:
    """Find out, by lowering each op alone, which ones engines can run and what every tensor is.

    Args:
        ops: all ops of a graph, inputs before users.
        legal: raises `UnsupportedError` where the provider does not take a graph.
        strict: raise what is a bug of a rule.
        denied: op types that shall run natively.
    """
    known = Analysis()
    branches = _Branches()
    for op in ops:
        conditional = branches.enter(op)
        if op.type == "Const":
            known.facts[op.outputs[0].name] = _constant_fact(op)
        elif op.type == "Placeholder":
            _note_native(known, op)
        elif (reason := conditional or _try(known, op, legal, denied, strict=strict)) is not None:
            known.reasons[op] = reason
            _note_native(known, op)
    return known


class _Branches:
    """Where each op is: in which outcome of which predicate, and in which loops."""

    def __init__(self) -> None:
        self._of: dict[tf.Operation, frozenset[tuple[str, int]]] = {}
        self._around: dict[tuple[str, int], frozenset[tuple[str, int]]] = {}  # a loop

    def enter(self, op: tf.Operation) -> Reason | None:
        """Note where an op is, and return why it runs natively; None where it runs once in every call."""
        given = [self._tensor(tensor) for tensor in op.inputs if tensor.op in self._of]
        waits = [self._of[before] for before in op.control_inputs]
        if op.type in _MERGES:  # whichever branch was taken, this one comes behind it
            self._of[op] = frozenset.intersection(*given)
        elif op.type in _ENTERS:
            loop = (str(op.get_attr("frame_name")), 0)
            self._around[loop] = self._around.get(loop, frozenset()).union(*given, *waits)
            self._of[op] = self._around[loop] | {loop}
        elif op.type in _EXITS:
            loops = [place for place in given[0] if place in self._around]
            self._of[op] = self._around[max(loops, key=lambda loop: len(self._around[loop]))]
        else:
            self._of[op] = frozenset().union(*given, *waits)
        if op.type in _SWITCHES | _MERGES | _EXITS or self._of[op]:
            return Reason(
                ReasonKind.UNSUPPORTED, op.type, "it is in a branch or loop of TensorFlow 1", op.name
            )
        return None

    def _tensor(self, tensor: tf.Tensor) -> frozenset[tuple[str, int]]:
        places = self._of[tensor.op]
        if tensor.op.type in _SWITCHES:
            places |= {(tensor.op.inputs[1].name, tensor.value_index)}
        return places


def is_compute(op: tf.Operation, facts: Mapping[str, TensorFact]) -> bool:
    """Whether an op does work at run time: what only names values, or is known beforehand, does none."""
    if op.type in _NO_WORK or not op.outputs:
        return False
    return not all(isinstance(facts.get(tensor.name), Known) for tensor in op.outputs)


def _try(
    known: Analysis,
    op: tf.Operation,
    legal: Callable[[Graph], object],
    denied: frozenset[str],
    *,
    strict: bool,
) -> Reason | None:
    """Note what an op gives, and return None; or return why it runs natively."""
    failures: list[Reason] = []

    def attempt() -> Reason | bool:
        try:
            if op.type in denied:
                raise UnsupportedError("it is in TF_TRT_OP_DENYLIST")
            return _probe(known, op, legal)
        except UnsupportedError as error:
            return Reason(error.kind, op.type, error.detail, op.name)

    answer = contain(attempt, op.type, strict=strict, failed=failures.append)
    if failures:
        return replace(failures[0], op=op.type, source=op.name)
    return answer if isinstance(answer, Reason) else None


def _probe(known: Analysis, op: tf.Operation, legal: Callable[[Graph], object]) -> bool:
    b = Lowering("probe")
    operands = [_probe_operand(b, known, tensor) for tensor in op.inputs]
    results = lower_op(b, op, operands)
    legal(b.build([result for result in results if isinstance(result, Value)]))
    for result in results:
        if isinstance(result, Value) and 0 in result.shape:
            raise UnsupportedError(f"{result.type} has no elements", ReasonKind.EMPTY)
    for tensor, result in zip(op.outputs, results, strict=True):
        known.facts[tensor.name] = result if isinstance(result, Known) else result.type
    return True


def _probe_operand(b: Lowering, known: Analysis, tensor: tf.Tensor) -> Operand:
    fact = known.facts[tensor.name]
    if isinstance(fact, Reason):
        raise UnsupportedError(fact.detail, fact.kind)
    if isinstance(fact, Known):
        return fact
    if tensor.op.type == "Const":
        return lower_constant(b, tensor.op)
    if 0 in fact.shape:
        raise UnsupportedError(f"{tensor.name} is {fact}, which has no elements", ReasonKind.EMPTY)
    return b.input(tensor.op.name, fact)


def _constant_type(op: tf.Operation) -> TensorType:
    sizes = [dim.size for dim in op.get_attr("value").tensor_shape.dim]
    return TensorType(dtype_of(op.outputs[0].dtype), tuple(sizes))


def _constant_fact(op: tf.Operation) -> TensorFact:
    try:
        return _constant_type(op)
    except UnsupportedError as error:
        return Reason(error.kind, op.type, error.detail, op.name)


def _note_native(known: Analysis, op: tf.Operation) -> None:
    """Note what is known of the outputs of an op that runs natively (NATIVE)."""
    for tensor in op.outputs:
        try:
            if tensor.shape.rank is None:
                raise UnsupportedError(f"the rank of {tensor.name} is unknown")
            known.facts[tensor.name] = TensorType(dtype_of(tensor.dtype), known.fresh_shape(tensor))
        except UnsupportedError as error:
            known.facts[tensor.name] = Reason(error.kind, op.type, error.detail, op.name)


def _folded(b: Lowering, op: tf.Operation, operands: Sequence[Operand]) -> tuple[Operand, ...] | None:
    """Return what an op gives where it is known now (KNOWN)."""
    if op.type == "Shape":
        return (Known.of(list(b.value(operands[0]).shape), dtype_of(op.outputs[0].dtype)),)
    if op.type not in FOLDS or not any(isinstance(operand, Known) for operand in operands):
        return None
    known = [b.known(operand) for operand in operands]
    if any(k is None or k.array.size > _MOST_FOLDED for k in known):
        return None
    folded = FOLDS(op, [k.array for k in known if k is not None])
    if folded is None:
        return None
    arrays = folded if isinstance(folded, (tuple, list)) else (folded,)
    return tuple(
        Known(_wrapped(array, dtype_of(tensor.dtype)), dtype_of(tensor.dtype))
        for tensor, array in zip(op.outputs, arrays, strict=True)
    )


def _wrapped(array: Any, dtype: DType) -> Any:
    """Return integers as they are in an element type; what is computed of sizes is taken to fit."""
    bits = 8 * dtype.numpy.itemsize
    if not dtype.is_integer or bits < 32:
        return array
    half = 1 << (bits - 1)
    wrap = np.frompyfunc(lambda e: e if isinstance(e, Dim) else (e + half) % (2 * half) - half, 1, 1)
    return np.asarray(wrap(array), dtype=object)


def _is_known_better(operand: Operand, tensor: tf.Tensor) -> bool:
    """Whether we know a size, or elements, that TensorFlow does not."""
    if isinstance(operand, Known) or tensor.shape.rank is None:
        return True
    return any(isinstance(a, int) and b is None for a, b in zip(operand.shape, tensor.shape, strict=True))


def _check(op: tf.Operation, results: Sequence[Operand]) -> None:
    """Compare what was made with what TensorFlow promises (sizes that one of them does not know are equal)."""
    if len(results) != len(op.outputs):
        raise InvalidGraphError(f"{op.type} has {len(op.outputs)} outputs, its rule made {len(results)}")
    for made, tensor in zip(results, op.outputs, strict=True):
        promised = tensor.shape
        agree = made.dtype is dtype_of(tensor.dtype) and promised.rank in (None, len(made.shape))
        sizes = zip(made.shape, promised.as_list() if promised.rank is not None else (), strict=False)
        if not agree or any(isinstance(a, int) and b is not None and a != b for a, b in sizes):
            raise InvalidGraphError(
                f"{op.type} {op.name} was lowered to {made.dtype.value}{list(map(str, made.shape))}, "
                f"TensorFlow promises {tensor.dtype.name}{promised}"
            )
