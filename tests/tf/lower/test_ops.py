"""Each op type against TensorFlow, in ONNX Runtime; and as TensorRT gets it, which its RTX builder must take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from op_cases import CASES, FOLDED, Case, dtypes_in_tensorrt, tensorrt_refuses  # noqa: E402
from tf_checks import assert_close, check, check_native, convert_function, specs_of  # noqa: E402

import trt_backend_tf.lowering  # noqa: E402
from trt_backend.errors import ReasonKind  # noqa: E402
from trt_backend.ir.dims import Dim, Symbol, evaluate  # noqa: E402
from trt_backend_tf.host_graph import ordered  # noqa: E402
from trt_backend_tf.lower import FOLDS, RULES  # noqa: E402
from trt_backend_tf.lowering import analyze  # noqa: E402

SIMPLIFIED = {"IdentityN", "PreventGradient", "Shape", "StopGradient"}
"""Op types that Grappler makes others of, mostly; and the one that is always known."""


class Spy:
    """A table of rules that notes whose it uses."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self.used: set[str] = set()

    def __contains__(self, op: object) -> bool:
        return op in self._table

    def __call__(self, *arguments: Any) -> Any:
        self.used |= {argument.type for argument in arguments if isinstance(argument, tf.Operation)}
        return self._table(*arguments)


@pytest.fixture
def lowered(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The op types that the rules have lowered."""
    spy = Spy(RULES)
    monkeypatch.setattr(trt_backend_tf.lowering, "RULES", spy)
    return spy.used


def _params(dtypes: Callable[[Case], Sequence[str]]) -> list[Any]:
    return [
        pytest.param(op, case, dtype, id=f"{op}-{number}-{dtype}")
        for op, cases in CASES.items()
        for number, case in enumerate(cases)
        for dtype in dtypes(case)
    ]


@pytest.mark.parametrize(("op", "case", "dtype"), _params(lambda case: case.dtypes))
def test_as_tensorflow(op: str, case: Case, dtype: str, lowered: set[str]) -> None:
    check(case.function(op), *case.draw(dtype), dynamic=case.dynamic)
    assert op in lowered | SIMPLIFIED


@pytest.mark.parametrize(("op", "case", "dtype"), _params(lambda case: case.refused))
def test_refused_by_onnxruntime(op: str, case: Case, dtype: str) -> None:
    check_native(case.function(op), *case.draw(dtype), because="ONNX Runtime on CPU takes")


@pytest.mark.parametrize(("op", "case", "dtype"), _params(dtypes_in_tensorrt))
def test_builds_with_tensorrt(op: str, case: Case, dtype: str) -> None:
    pytest.importorskip("tensorrt_rtx")
    from tensorrt_checks import AheadOfTime

    stack = AheadOfTime()
    inputs = case.draw(dtype)
    concrete, conversion = convert_function(case.function(op), specs_of(inputs, case.dynamic), stack)
    assert_close(conversion.function(*inputs), concrete(*inputs))
    assert len(stack.built) == len(conversion.record.regions)
    for reason in conversion.record.native:
        assert reason.kind is ReasonKind.DTYPE
        assert "tensorrt" in reason.detail.lower(), "its support table says so"
    assert bool(stack.built) is not tensorrt_refuses(op, case, dtype)


@pytest.mark.parametrize("op", sorted(SIMPLIFIED))
def test_what_grappler_leaves_out_is_lowered(op: str, lowered: set[str]) -> None:
    (case,) = CASES[op]
    concrete = tf.function(case.function(op)).get_concrete_function(*specs_of(case.draw("float32"), True))
    ops = ordered(concrete.graph)
    assert op in {each.type for each in ops}
    assert not analyze(ops, lambda graph: None, strict=True).reasons


SYMBOLS = [Symbol("s", 1), Symbol("t", 1)]
SIZES = {"s": 5, "t": 7}


@pytest.mark.parametrize(("op", "case"), [(op, case) for op, cases in FOLDED.items() for case in cases])
def test_fold(op: str, case: Case) -> None:
    """An op on sizes, two of them symbols, gives what TensorFlow gives for the numbers that they stand for."""
    graph = tf.Graph()
    with graph.as_default():
        case.function(op)()
    (node,) = (node for node in graph.get_operations() if node.type == op)
    given = [tf.make_ndarray(tensor.op.get_attr("value")) for tensor in node.inputs]
    folded = FOLDS(node, [_symbolic(array) for array in given])
    expected = case.function(op)()
    results = folded if isinstance(folded, tuple) else (folded,)
    assert len(results) == len(expected)
    for result, tensor in zip(results, expected, strict=True):
        numbers = [evaluate(size, SIZES) for size in result.reshape(-1)]
        assert (result.shape, numbers) == (tensor.shape, tensor.numpy().reshape(-1).tolist())


def _symbolic(array: Any) -> Any:
    """Put a symbol in the place of each number that is one's size."""
    dims = {SIZES[symbol.name]: Dim.of(symbol) for symbol in SYMBOLS}
    return np.array([dims.get(number, number) for number in array.reshape(-1).tolist()], object).reshape(
        array.shape
    )


def test_every_rule_has_a_case() -> None:
    """But for a rule that only says why there is none."""
    assert set(CASES) == set(RULES) - {"CombinedNonMaxSuppression"} | {"Shape"}
    assert set(FOLDED) == set(FOLDS)
