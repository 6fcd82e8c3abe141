"""The rule table: one rule for each op, none missing, and `support` from what the rules declare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from trt_backend.emit.rules import RuleTable, op_label, working_dtypes
from trt_backend.errors import ReasonKind
from trt_backend.ir.ops import OPS
from trt_backend.ir.ops.elementwise import Cast, Elementwise, ElementwiseKind, Select
from trt_backend.ir.ops.layout import Identity, Range
from trt_backend.ir.ops.reduction import Reduce, ReduceKind
from trt_backend.ir.types import DType, TensorType

FLOAT = frozenset({DType.FLOAT32})
F32, I32, BOOL = (TensorType(dtype, (2,)) for dtype in (DType.FLOAT32, DType.INT32, DType.BOOL))


def table() -> RuleTable[Callable[..., Any]]:
    made: RuleTable[Callable[..., Any]] = RuleTable("a target")
    made.rule(Identity, FLOAT)(lambda: "identity")
    return made


def test_a_duplicate_is_an_error_that_lists_what_is_known() -> None:
    with pytest.raises(ValueError, match=r"a target has a rule for Identity already; it knows Identity"):
        table().rule(Identity, FLOAT)


def test_a_gap_is_an_error_that_lists_what_is_known() -> None:
    with pytest.raises(LookupError, match=r"no rule for Activation, .*; it knows Identity"):
        table().check_complete()
    with pytest.raises(LookupError, match=r"no rule for Cast; it knows Identity"):
        table()[Cast]


def test_a_full_table_is_complete() -> None:
    made: RuleTable[Callable[..., Any]] = RuleTable("a target")
    for op in OPS.values():
        made.rule(op, FLOAT)(lambda: None)
    made.check_complete()


def test_every_kind_must_be_declared() -> None:
    with pytest.raises(ValueError, match="does not say what sum, prod, min, avg take"):
        table().rule(Reduce, {ReduceKind.MAX: FLOAT})


def test_support_reads_the_declaration() -> None:
    made = table()
    assert made.support(Identity(), (F32,)) is None
    reason = made.support(Identity(), (I32,))
    assert reason is not None
    assert (reason.kind, reason.op) == (ReasonKind.DTYPE, "Identity")
    assert reason.detail == "a target takes f32, not i32"


def test_support_reads_the_kind() -> None:
    made = table()
    made.rule(Reduce, dict.fromkeys(ReduceKind, FLOAT) | {ReduceKind.MAX: frozenset()})(lambda: None)
    assert made.support(Reduce(ReduceKind.SUM, (0,), False), (F32,)) is None
    reason = made.support(Reduce(ReduceKind.MAX, (0,), False), (F32,))
    assert reason is not None
    assert str(reason) == "Reduce max: unsupported dtype: a target takes nothing, not f32"


def test_support_asks_for_further_limits() -> None:
    made = table()
    made.rule(Cast, frozenset(DType), lambda op, types: "no" if op.dtype is DType.BOOL else None)(
        lambda: None
    )
    assert made.support(Cast(DType.INT8), (F32,)) is None
    reason = made.support(Cast(DType.BOOL), (F32,))
    assert reason is not None
    assert (reason.kind, reason.detail) == (ReasonKind.UNSUPPORTED, "no")


def test_working_dtypes() -> None:
    assert working_dtypes(Select(), (BOOL, I32, I32)) == (DType.INT32,)
    assert working_dtypes(Cast(DType.INT8), (F32,)) == (DType.FLOAT32, DType.INT8)
    assert working_dtypes(Range(2, 0, 1, DType.INT32), ()) == (DType.INT32,)
    assert working_dtypes(Elementwise(ElementwiseKind.LESS), (F32, F32)) == (DType.FLOAT32,)


def test_labels_name_the_kind() -> None:
    assert op_label(Elementwise(ElementwiseKind.LESS)) == "Elementwise less"
    assert op_label(Cast(DType.INT8)) == "Cast"
