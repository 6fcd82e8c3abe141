"""The rule tables: how an op becomes IR nodes, and how one on known integers is computed at once.

Rules:
  OPERANDS    A rule takes the op's inputs by position, a list of inputs as the last, `*`-parameter or as a tuple. One
              whose annotation is `Known` must be known when the graph is lowered; any other is a value.
  ATTRIBUTES  It takes the op's attributes by their names, keyword-only. One that it does not name must have its
              default value, unless it is a type or says only how to compute.
"""

from __future__ import annotations

__all__ = ["Fold", "FoldTable", "LoweringRule", "RuleTable"]

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

import tensorflow as tf

from trt_backend.errors import UnsupportedError
from trt_backend_tf.internals import op_def_registry
from trt_backend_tf.lower.context import Known, Lowering, Operand

LoweringRule: TypeAlias = Callable[..., Any]
Entry = TypeVar("Entry")
Fold: TypeAlias = Callable[..., Any]
"""`(*known operands, **attributes)` to `Known` or several; None where it cannot tell."""

_HINTS = frozenset(
    {
        "exclusive_hint",
        "grad_a",
        "grad_b",
        "grad_x",
        "grad_y",
        "parallel_iterations",
        "use_cudnn_on_gpu",
        "validate_indices",
        "message",
        "debug_name",
    }
)
"""Attributes that say how to compute, not what: rules need not name them (ATTRIBUTES)."""


@dataclass(frozen=True)
class _Bound:
    """A rule, which of its operands must be known, and the attributes that it takes."""

    function: LoweringRule
    known: tuple[bool, ...]
    rest_known: bool
    attributes: tuple[str, ...]


class _Table(Generic[Entry]):
    """Entries by op type, one for each."""

    def __init__(self) -> None:
        self._entries: dict[str, Entry] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, op: object) -> bool:
        return op in self._entries

    def _insert(self, op: str, entry: Entry) -> None:
        if op in self._entries:
            raise TypeError(f"{op} has two {type(self).__name__} entries")
        self._entries[op] = entry


class RuleTable(_Table[_Bound]):
    """Lowering rules by op type."""

    def __init__(self, tables: Sequence[RuleTable] = ()) -> None:
        super().__init__()
        for table in tables:
            for op, rule in table._entries.items():
                self._insert(op, rule)

    def rule(self, *ops: str) -> Callable[[LoweringRule], LoweringRule]:
        """Register the decorated function `(b, *operands, *, attributes) -> Value | tuple` for each op type.

        Raises:
            TypeError: an op has a rule already, or lacks an attribute that the rule names without a default.
        """

        def register(function: LoweringRule) -> LoweringRule:
            _, *parameters = inspect.signature(function, eval_str=True).parameters.values()
            named = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
            operands = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
            rest = [p for p in parameters if p.kind is p.VAR_POSITIONAL]
            bound = _Bound(
                function,
                tuple(p.annotation is Known for p in operands),
                bool(rest) and rest[0].annotation is Known,
                tuple(p.name for p in named),
            )
            required = {p.name for p in named if p.default is p.empty}
            for op in ops:
                definition = op_def_registry.get(op)
                if definition is None:  # an op of a later TensorFlow
                    continue
                unknown = required - {attribute.name for attribute in definition.attr}
                if unknown:
                    raise TypeError(f"{op} has no attribute {', '.join(sorted(unknown))}")
                self._insert(op, bound)
            return function

        return register

    def rules(self, function: LoweringRule, table: Mapping[str, Any]) -> None:
        """Register `function(entry, b, *operands, **attributes)` for each op type of a table, with the op's entry."""
        for op, entry in table.items():
            self.rule(op)(partial(function, entry))

    def __call__(self, b: Lowering, op: tf.Operation, operands: Sequence[Operand]) -> Any:
        """Lower one op with its rule.

        Raises:
            UnsupportedError: an operand must be known and is not, or an attribute has a value that the rule does not know.
        """
        rule = self._entries[op.type]
        given = [_operand(b, op, rule, i, x) for i, x in enumerate(operands)]
        attributes = {name: value for name, value in attributes_of(op).items() if name in rule.attributes}
        _check_other_attributes(op, rule.attributes)
        return rule.function(b, *given, **attributes)


class FoldTable(_Table[tuple[Fold, tuple[str, ...]]]):
    """How ops on known integers are computed, by op type, with the attributes that each takes."""

    def fold(self, *ops: str) -> Callable[[Fold], Fold]:
        """Register the decorated function for each op type."""

        def register(function: Fold) -> Fold:
            parameters = inspect.signature(function).parameters.values()
            names = tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
            for op in ops:
                self._insert(op, (function, names))
            return function

        return register

    def folds(self, function: Fold, table: Mapping[str, Any]) -> None:
        """Register `function(entry, *operands, **attributes)` for each op type of a table, with the op's entry."""
        for op, entry in table.items():
            self.fold(op)(partial(function, entry))

    def __call__(self, op: tf.Operation, operands: Sequence[Any]) -> Any:
        """Return the results of an op, or None where they cannot be told."""
        function, names = self._entries[op.type]
        given = attributes_of(op)
        return function(*operands, **{name: given[name] for name in names})


def attributes_of(op: tf.Operation) -> dict[str, Any]:
    """Return the attributes that the op's definition names: numbers, dtypes, lists; strings as `str`."""
    definition = op_def_registry.get(op.type)
    assert definition is not None
    return {attribute.name: _text(op.get_attr(attribute.name)) for attribute in definition.attr}


def _text(value: Any) -> Any:
    return value.decode() if isinstance(value, bytes) else value


def _operand(b: Lowering, op: tf.Operation, rule: _Bound, i: int, x: Operand) -> Operand:
    wants_known = rule.known[i] if i < len(rule.known) else rule.rest_known
    if not wants_known:
        return b.value(x)
    known = b.known(x)
    if known is None:
        raise UnsupportedError(f"its input {i} ({op.inputs[i].name}) is known only at run time")
    return known


def _check_other_attributes(op: tf.Operation, known: Sequence[str]) -> None:
    definition = op_def_registry.get(op.type)
    assert definition is not None
    for attribute in definition.attr:
        if attribute.name in known or attribute.name in _HINTS or attribute.type in ("type", "list(type)"):
            continue
        if not attribute.HasField("default_value"):
            if attribute.type == "int" and attribute.has_minimum:  # N: how many inputs a list has
                continue
            raise UnsupportedError(f"{attribute.name}={_text(op.get_attr(attribute.name))}")
        given = op.node_def.attr
        if attribute.name in given and given[attribute.name] != attribute.default_value:
            raise UnsupportedError(f"{attribute.name}={_text(op.get_attr(attribute.name))}")
