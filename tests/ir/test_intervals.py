"""Intervals hold every value that a dimension takes, and are exact where each symbol occurs once."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ir.test_dims import SYMBOLS, TREES, _build
from trt_backend.ir.dims import Dim, Symbol, evaluate, parse_dim
from trt_backend.ir.intervals import interval

RANGES = st.tuples(st.integers(0, 20), st.integers(0, 20)).map(sorted).map(tuple)


@given(TREES, st.fixed_dictionaries(dict.fromkeys(SYMBOLS, RANGES)), st.data())
def test_every_value_is_inside(tree: Any, ranges: dict[str, Any], data: st.DataObject) -> None:
    dim = _build(tree)
    values = {name: data.draw(st.integers(*bounds)) for name, bounds in ranges.items()}
    try:
        value = evaluate(dim, values)
    except ZeroDivisionError:
        assume(False)
    low, high = interval(dim, ranges)
    assert low <= value <= high


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("8 - s%8", (1, 8)),
        ("(s + 1)//2", (1, 8)),
        ("s*t - 3", (-1, 157)),
        ("-2*s", (-32, -4)),
        ("max(s, 5)", (5, 16)),
        ("min(s, t)", (1, 10)),
        ("s%32", (2, 16)),
        ("s - s//2", (1, 8)),
        ("2*s - s//3 + t", (5, 37)),
        ("s//3 + 1 - 2*((s//3 + 1)//2)", (0, 1)),
        ("s - 2*(s//3)", (0, 7)),
        ("max(0, 7 - s) - max(0, 7 - s)//2", (0, 3)),
    ],
)
def test_bounds(text: str, wanted: tuple[int, int]) -> None:
    symbols = {"s": Symbol("s", 2, 16), "t": Symbol("t", 1, 10)}
    assert interval(parse_dim(text, symbols)) == wanted


def test_without_a_highest_value() -> None:
    n = Dim.of(Symbol("n", 2))
    assert interval(n * 3 - 1) == (5, math.inf)
    assert interval(n // 2) == (1, math.inf)
    assert interval(n % 8) == (0, 7)
    assert interval(-n) == (-math.inf, -2)
