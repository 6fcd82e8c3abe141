"""ONNX Runtime on a CPU gives what the reference gives, for every op and every element type that its rule declares."""

from __future__ import annotations

import sys
from enum import Enum

import pytest

from array_checks import assert_same
from conformance.cases import CASES, Case
from onnx_checks import run_graph
from trt_backend.emit.onnx import support
from trt_backend.emit.onnx.rules import RULES
from trt_backend.emit.rules import op_label, working_dtypes
from trt_backend.ir.ops import OPS
from trt_backend.ir.reference import evaluate
from trt_backend.ir.types import DType

NEEDS_A_LATER_VERSION = "ONNX Runtime 1.23, the oldest that we run on, has no kernel"
REFUSED_THOUGH_IT_RUNS: dict[tuple[str, str], str] = {
    ("Unary cos", "f64"): NEEDS_A_LATER_VERSION,
    **{
        (f"Elementwise {kind}", dtype): NEEDS_A_LATER_VERSION
        for kind in ("div", "floor_div", "max", "min")
        for dtype in ("i8", "u8")
    },
    ("Activation relu", "i8"): NEEDS_A_LATER_VERSION,
    ("Activation relu", "u8"): NEEDS_A_LATER_VERSION,
    ("Select", "i8"): NEEDS_A_LATER_VERSION,
    **{(f"TopK {kind}", dtype): NEEDS_A_LATER_VERSION for kind in ("max", "min") for dtype in ("i8", "u8")},
    **{("Reduce prod", dtype): "computed in float64: wrong from 2**53 on" for dtype in ("i32", "i64")},
    ("Elementwise pow", "i64"): "computed in float64: wrong from 2**53 on",
    ("Elementwise pow", "i32"): "computed in float64: what should wrap is cut off",
    **{
        ("Resize", dtype): "cubic, or nearest elements of volumes or by no whole factor: slow"
        for dtype in ("f16", "f32")
    },
    **{("GridSample", dtype): "slower by far than the frameworks" for dtype in ("f16", "f32", "f64")},
    **{
        ("Deconvolution", dtype): "more elements behind than a stride: 1.31 refuses"
        for dtype in ("f16", "f32")
    },
    ("Normalization", "bf16"): "without a scale there is no kernel",
    ("Attention", "f32"): "causal with a mask: 1.23 gives NaN where the two together hide a row",
    ("Attention", "f16"): "causal with a mask: 1.23 gives NaN where the two together hide a row",
    ("Attention", "f64"): "only where ONNX Runtime takes it apart, and then not in float64 throughout",
}
"""What `support` refuses although some version runs it and answers right, and why."""


def _param(number: int, case: Case, dtype: DType) -> object:
    return pytest.param(case, dtype, id=f"{number}-{case}-{dtype.value}")


LEGAL = [
    (number, case, dtype) for number, case in enumerate(CASES) for dtype in DType if case.is_legal(dtype)
]
SUPPORTED = [_param(n, c, d) for n, c, d in LEGAL if support(c.op, c.types(d)) is None]
REFUSED = [_param(n, c, d) for n, c, d in LEGAL if support(c.op, c.types(d)) is not None]


def test_every_op_and_kind_has_a_case() -> None:
    tried = {op_label(case.op) for case in CASES}
    for name, op in OPS.items():
        kind = getattr(sys.modules[op.__module__], f"{name}Kind", None)
        kinds = list(kind) if isinstance(kind, type) and issubclass(kind, Enum) else []
        assert {f"{name} {k.value}" for k in kinds} <= tried if kinds else name in tried, (
            f"{name} has no case"
        )


def test_every_declared_dtype_is_tried() -> None:
    """An element type that is declared, but that no case can try, would be a claim without proof."""
    tried = {
        (op_label(case.op), dtype)
        for _, case, own in LEGAL
        for dtype in (own, *working_dtypes(case.op, case.types(own)))
    }
    claimed = {(op_label(case.op), dtype) for case in CASES for dtype in RULES.dtypes(case.op)}
    assert claimed <= tried


@pytest.mark.parametrize(("case", "dtype"), SUPPORTED)
def test_supported(case: Case, dtype: DType) -> None:
    graph, arrays = case.graph(dtype), case.arrays(dtype)
    got = run_graph(graph, arrays, case.symbols)
    assert_same(got, evaluate(graph, arrays, case.symbols), case.factor)


@pytest.mark.parametrize(("case", "dtype"), REFUSED)
def test_refused(case: Case, dtype: DType, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `support` refuses is refused by ONNX Runtime, or answered wrongly, or stands in the table above."""
    monkeypatch.setattr("trt_backend.emit.onnx.support", lambda op, types: None)
    graph, arrays = case.graph(dtype), case.arrays(dtype)
    try:
        got = run_graph(graph, arrays, case.symbols)
        assert_same(got, evaluate(graph, arrays, case.symbols), case.factor)
    except Exception:
        return
    assert (op_label(case.op), dtype.value) in REFUSED_THOUGH_IT_RUNS
