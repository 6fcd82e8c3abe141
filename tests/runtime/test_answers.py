"""Which engines' answers are compared, what counts as wrong, and who need not compare again."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from trt_backend.errors import WrongAnswerError
from trt_backend.ir.builder import Builder
from trt_backend.ir.ops.elementwise import Unary, UnaryKind
from trt_backend.ir.types import DType, TensorType
from trt_backend.options import CompileOptions
from trt_backend.runtime.answers import AnswerCheck, difference


def check_of(dtype: DType = DType.FLOAT32, **options: object) -> AnswerCheck:
    b = Builder("region")
    graph = b.build([b.add(Unary(UnaryKind.EXP), b.input("x", TensorType(dtype, (2,))))])
    return AnswerCheck("region", graph, CompileOptions.from_mapping(options))


def still(noise: float) -> list[tuple[float, float]]:
    """Native that hardly moves where it is shaken."""
    return [(noise, 1.0)] * 3


def test_an_engine_is_due_until_it_was_right() -> None:
    kept: list[str] = []
    check = check_of()
    assert not check.due
    check.expect(lambda: kept.append("verdict"))
    assert check.due
    check.check(lambda: [(1e-5, 1.0)], still)
    assert not check.due
    assert kept == ["verdict"]


def test_a_wrong_engine_leaves_no_verdict() -> None:
    kept: list[str] = []
    check = check_of()
    check.expect(lambda: kept.append("verdict"))
    with pytest.raises(WrongAnswerError, match=r"0\.23 of the largest number off \(bound: 0\.01\)"):
        check.check(lambda: [(0.0, 1.0), (0.43, 1.88)], still)
    assert not kept


@pytest.mark.parametrize(
    ("dtype", "precision", "bound"),
    [
        (DType.FLOAT32, "auto", 1e-2),
        (DType.FLOAT64, "auto", 1e-2),
        (DType.FLOAT32, "tf32", 100 * 2**-10),
        (DType.FLOAT32, "fp16", 100 * 2**-10),
        (DType.FLOAT16, "auto", 100 * 2**-10),
        (DType.BFLOAT16, "auto", 100 * 2**-7),
    ],
)
def test_the_bound_follows_the_least_exact_type(dtype: DType, precision: str, bound: float) -> None:
    check = check_of(dtype, precision=precision)
    check.expect()
    check.check(lambda: [(0.99 * bound * 8, 8.0)], still)
    check.expect()
    with pytest.raises(WrongAnswerError):
        check.check(lambda: [(1.01 * bound * 8, 8.0)], still)


@pytest.mark.parametrize("off", [math.nan, math.inf])
def test_what_only_native_has_finite_is_wrong(off: float) -> None:
    check = check_of()
    check.expect()
    with pytest.raises(WrongAnswerError):
        check.check(lambda: [(0.0, 1.0), (off, 1.0), (0.0, 1.0)], still)


def test_what_is_left_of_a_difference_is_not_compared_closely() -> None:
    check = check_of()
    check.expect()
    check.check(lambda: [(1e-7, 0.0), (1e-6, 1e-7)], still)
    assert not check.due


def test_never_waits_for_nothing() -> None:
    check = check_of(answer_check="never")
    check.expect()
    assert not check.due


def fail() -> list[tuple[float, float]]:
    raise MemoryError


def test_a_comparison_that_fails_is_neither_verdict() -> None:
    kept: list[str] = []
    check = check_of()
    check.expect(lambda: kept.append("verdict"))
    check.check(fail, still)
    assert not check.due
    assert not kept


@pytest.mark.parametrize(
    ("off", "move"),
    [(0.9, 0.1), (590.0, 0.2), (math.inf, 0.5), (math.nan, math.nan), (math.inf, math.inf)],
)
def test_nothing_is_said_where_native_moves_as_far(off: float, move: float) -> None:
    check = check_of()
    check.expect()
    check.check(lambda: [(off, 1.0)], lambda noise: [(move, 1.0)])
    assert not check.due


ARRAYS: dict[str, tuple[Callable[[], tuple[list[float], list[float]]], tuple[float, float]]] = {
    "equal": (lambda: ([1, -2], [1, -2]), (0.0, 2.0)),
    "off": (lambda: ([1, -2.5], [1, -2]), (0.5, 2.0)),
    "native is not finite": (lambda: ([1, 3, 4], [1, math.inf, math.nan]), (0.0, 1.0)),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_differences_of_arrays(name: str, dtype: type) -> None:
    arrays, expected = ARRAYS[name]
    ours, native = (np.array(array, dtype) for array in arrays())
    assert difference(ours, native) == expected
    assert not math.isfinite(difference(np.full_like(native, np.nan), native)[0])
