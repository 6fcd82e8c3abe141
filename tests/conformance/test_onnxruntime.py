"""ONNX Runtime on a CPU gives what the reference gives, for every op and every element type that its rule declares."""

from __future__ import annotations

import pytest

from conformance.cases import CASES, Case
from onnx_checks import assert_same, run_graph
from trt_backend.emit.onnx import support
from trt_backend.errors import InvalidGraphError
from trt_backend.ir.reference import evaluate
from trt_backend.ir.types import DType


def _legal(case: Case, dtype: DType) -> bool:
    try:
        case.op.infer(*case.types(dtype))
    except InvalidGraphError:
        return False
    return dtype in case.dtypes


RUNS = [
    pytest.param(case, dtype, id=f"{number}-{case}-{dtype.value}")
    for number, case in enumerate(CASES)
    for dtype in DType
    if _legal(case, dtype) and not support(case.op, case.types(dtype))
]


@pytest.mark.parametrize(("case", "dtype"), RUNS)
def test_supported(case: Case, dtype: DType) -> None:
    graph, arrays = case.graph(dtype), case.arrays(dtype)
    got = run_graph(graph, arrays, case.symbols)
    assert_same(got, evaluate(graph, arrays, case.symbols), case.factor)
