"""Emission rules: a table from IR ops to functions that emit them, with what each rule takes declared beside it.

Rules of the table:
  ONE   an op has one rule; a second one is an error.
  ALL   a finished table has a rule for every op of the IR; a gap is an error.
  DATA  the element types that a rule takes are declared where it is registered, for each kind where the op has kinds;
        `support` and the emitter read the same declaration.
"""

from __future__ import annotations

__all__ = ["Declared", "RuleTable", "op_label", "working_dtypes"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Generic, TypeAlias, TypeVar

from trt_backend.errors import Reason, ReasonKind
from trt_backend.ir.ops import OPS
from trt_backend.ir.ops.base import Op, Types
from trt_backend.ir.ops.elementwise import Cast, Select
from trt_backend.ir.ops.layout import Extent, Range
from trt_backend.ir.types import DType

Emit = TypeVar("Emit", bound=Callable[..., Any])
DTypes = frozenset[DType]
Declared: TypeAlias = DTypes | Mapping[Any, DTypes]
"""The element types that a rule takes: the same for all kinds of an op, or for each kind."""
Refuse: TypeAlias = Callable[[Any, Types], "str | None"]
"""A further limit: what is wrong with an op and the types of its operands, or None."""


@dataclass(frozen=True)
class _Rule(Generic[Emit]):
    emit: Emit
    dtypes: Declared
    refuse: Refuse | None


class RuleTable(Generic[Emit]):
    """The emission rules of one target, keyed by the class of the op."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._rules: dict[type[Op], _Rule[Emit]] = {}

    def rule(self, op: type[Op], dtypes: Declared, refuse: Refuse | None = None) -> Callable[[Emit], Emit]:
        """Register the decorated function as the rule of `op`.

        Raises:
            ValueError: the op already has a rule, or the kinds declared are not those of the op.
        """
        if op in self._rules:
            raise ValueError(f"{self.target} has a rule for {op.__name__} already; it knows {self._known()}")
        _check_kinds(op, dtypes)

        def register(emit: Emit) -> Emit:
            self._rules[op] = _Rule(emit, dtypes, refuse)
            return emit

        return register

    def check_complete(self) -> None:
        """Raise LookupError unless every op of the IR has a rule."""
        missing = sorted(name for name, op in OPS.items() if op not in self._rules)
        if missing:
            raise LookupError(f"{self.target} has no rule for {', '.join(missing)}; it knows {self._known()}")

    def __getitem__(self, op: type[Op]) -> Emit:
        """Return the function that emits `op`."""
        return self._find(op).emit

    def dtypes(self, op: Op) -> DTypes:
        """Return the element types that are declared for `op`, of its kind."""
        declared = self._find(type(op)).dtypes
        return declared if isinstance(declared, frozenset) else declared[op.attributes()["kind"]]

    def support(self, op: Op, types: Types) -> Reason | None:
        """Return why the target cannot run `op` on operands of these types, or None where it can."""
        dtypes = self.dtypes(op)
        refused = [dtype.value for dtype in working_dtypes(op, types) if dtype not in dtypes]
        if refused:
            taken = ", ".join(dtype.value for dtype in DType if dtype in dtypes) or "nothing"
            detail = f"{self.target} takes {taken}, not {refused[0]}"
            return Reason(ReasonKind.DTYPE, op_label(op), detail)
        refuse = self._find(type(op)).refuse
        detail = refuse(op, types) if refuse else None
        return Reason(ReasonKind.UNSUPPORTED, op_label(op), detail) if detail else None

    def _find(self, op: type[Op]) -> _Rule[Emit]:
        if op not in self._rules:
            raise LookupError(f"{self.target} has no rule for {op.__name__}; it knows {self._known()}")
        return self._rules[op]

    def _known(self) -> str:
        return ", ".join(sorted(op.__name__ for op in self._rules)) or "nothing"


def op_label(op: Op) -> str:
    """Return the op's name for a `Reason`, with its kind where it has one: `Unary erf`."""
    kind = op.attributes().get("kind")
    return f"{type(op).__name__} {kind.value}" if isinstance(kind, Enum) else type(op).__name__


def working_dtypes(op: Op, types: Types) -> tuple[DType, ...]:
    """Return the element types that an op computes in: those of its operands but for conditions and indices."""
    if isinstance(op, Cast):
        return types[0].dtype, op.dtype
    if isinstance(op, Select):
        return (types[1].dtype,)
    if isinstance(op, Range):
        return (op.dtype,)
    if isinstance(op, Extent):
        return (DType.INT64,)
    return (types[0].dtype,)


def _check_kinds(op: type[Op], dtypes: Declared) -> None:
    if isinstance(dtypes, frozenset):
        return
    first: Enum = next(iter(dtypes))
    missing: list[str] = [kind.value for kind in type(first) if kind not in dtypes]
    if missing:
        raise ValueError(f"the rule for {op.__name__} does not say what {', '.join(missing)} take")
