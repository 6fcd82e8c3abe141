"""The rule table: an aten overload's arguments, bound by name from its schema."""

from __future__ import annotations

__all__ = ["Argument", "LoweringRule", "RuleTable"]

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from torch._ops import OpOverload

from trt_backend.errors import UnsupportedError
from trt_backend.ir.dims import Dim
from trt_backend.ir.graph import Value
from trt_backend.ir.types import DType

Argument: TypeAlias = Value | Dim | DType | int | float | bool | str | Sequence[Any] | None
"""What a rule gets for an argument: tensors are values, symbolic integers dims, dtypes IR dtypes."""

LoweringRule = Callable[..., Any]

_PLACEMENT = frozenset(
    {"device", "layout", "pin_memory", "memory_format", "non_blocking", "requires_grad", "generator"}
)
"""Arguments that say where or how memory lies, not what is computed: rules need not name them."""


@dataclass(frozen=True)
class _Bound:
    """A rule with the names of the arguments that it takes."""

    function: LoweringRule
    names: tuple[str, ...]


class RuleTable:
    """Lowering rules by aten overload; a rule names the arguments it handles as the schema does (`self` is `x`)."""

    def __init__(self, tables: Sequence[RuleTable] = ()) -> None:
        self._rules: dict[OpOverload, _Bound] = {}
        for table in tables:
            for target in table:
                self._insert(target, table._rules[target])

    def rule(self, *targets: OpOverload) -> Callable[[LoweringRule], LoweringRule]:
        """Register the decorated function `(b, *named arguments) -> Value | tuple` for each target.

        Raises:
            TypeError: a target has a rule, or its schema lacks an argument that the rule names without a default.
        """

        def register(function: LoweringRule) -> LoweringRule:
            _, *parameters = inspect.signature(function).parameters.values()
            bound = _Bound(function, tuple(parameter.name for parameter in parameters))
            required = {parameter.name for parameter in parameters if parameter.default is parameter.empty}
            for target in targets:
                unknown = required - {name for name, _, _ in _declared(target)}
                if unknown:
                    raise TypeError(
                        f"{target} has no argument {', '.join(sorted(unknown))}: {target._schema}"
                    )
                self._insert(target, bound)
            return function

        return register

    def rules(self, function: LoweringRule, table: Mapping[OpOverload, Any]) -> None:
        """Register `function(entry, b, *named arguments)` for each target of a table, with the target's entry."""
        for target, entry in table.items():
            self.rule(target)(partial(function, entry))

    def __iter__(self) -> Iterator[OpOverload]:
        return iter(self._rules)

    def __contains__(self, target: object) -> bool:
        return target in self._rules

    def __call__(
        self, b: Any, target: OpOverload, args: Sequence[Argument], kwargs: Mapping[str, Argument]
    ) -> Any:
        """Lower one call with the target's rule.

        Raises:
            UnsupportedError: the rule does not know an argument that is not at its default.
        """
        rule = self._rules[target]
        given: dict[str, Argument] = {}
        for i, (name, keyword, default) in enumerate(_declared(target)):
            value = args[i] if i < len(args) else kwargs.get(keyword, default)
            if name in rule.names:
                given[name] = value
            elif name not in _PLACEMENT and value != default:
                raise UnsupportedError(f"{keyword}={value}")
        return rule.function(b, **given)

    def _insert(self, target: OpOverload, rule: _Bound) -> None:
        if target in self._rules:
            raise TypeError(f"{target} has two rules")
        self._rules[target] = rule


@functools.cache
def _declared(target: OpOverload) -> tuple[tuple[str, str, Any], ...]:
    """Return what a rule calls each argument, what torch calls it, and its default: torch makes the list anew each time."""
    return tuple(
        ("x" if argument.name == "self" else argument.name, argument.name, argument.default_value)
        for argument in target._schema.arguments
    )
