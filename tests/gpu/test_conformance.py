"""TensorRT on a GPU gives what the reference gives, for every op and element type that it declares."""

from __future__ import annotations

import numpy as np
import pytest

from array_checks import assert_same
from conformance.cases import CASES, Case
from tensorrt_checks import infinities, installed, load, run_graph
from trt_backend.ir.reference import evaluate
from trt_backend.ir.types import DType

pytestmark = pytest.mark.gpu
torch = pytest.importorskip("torch")
if not torch.cuda.is_available() or installed() is None:
    pytest.skip("needs a GPU and TensorRT", allow_module_level=True)

STACK = load()


CALLS = [
    pytest.param(case, dtype, id=f"{number}-{case}-{dtype.value}")
    for number, case in enumerate(CASES)
    for dtype in DType
    if case.is_legal(dtype) and not case.is_empty(dtype) and STACK.support(case.op, case.types(dtype)) is None
]


@pytest.mark.parametrize(("case", "dtype"), CALLS)
def test_the_answer_is_the_references(case: Case, dtype: DType) -> None:
    torch.cuda.init()
    torch.zeros(1, device="cuda")
    graph, arrays = case.graph(dtype), case.arrays(dtype)
    got = run_graph(STACK, graph, arrays, case.symbols)
    wanted = evaluate(graph, arrays, case.symbols)
    for left, right in zip(got, wanted, strict=True):  # TensorRT promises nothing for NaN: see README
        np.copyto(left, right, where=right != right)
    assert_same(got, wanted, 4 * case.factor)


@pytest.mark.parametrize("dtype", [DType.FLOAT32, DType.FLOAT16])
@pytest.mark.parametrize("constant", [np.inf, -np.inf])
def test_infinite_constants(constant: float, dtype: DType) -> None:
    graph = infinities(constant, dtype)
    largest = np.finfo(dtype.numpy).max
    arrays = [np.array([-np.inf, -largest, -1, 0, 1, largest, np.inf], dtype.numpy)]
    got, wanted = run_graph(STACK, graph, arrays, {}), evaluate(graph, arrays)
    for left, right in zip(got, wanted, strict=True):
        np.copyto(left, right, where=right != right)
    assert_same(got, wanted, 1)
