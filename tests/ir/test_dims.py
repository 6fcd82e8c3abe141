"""Symbolic dimensions compute like Python's integers, and equal ones are equal objects."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from trt_backend.errors import InvalidGraphError
from trt_backend.ir.dims import Dim, DimLike, Symbol, dim_max, dim_min, evaluate, parse_dim, symbols_of

S, T, U = (Symbol(name, 1, 64) for name in "stu")
SYMBOLS = {symbol.name: symbol for symbol in (S, T, U)}
s, t, u = Dim.of(S), Dim.of(T), Dim.of(U)

LEAVES = st.one_of(st.integers(-6, 9), st.sampled_from([s, t, u]))
OPERATIONS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
}


def _apply(operation: str, left: Any, right: Any) -> Any:
    if operation in OPERATIONS:
        return OPERATIONS[operation](left, right)
    if isinstance(left, int) and isinstance(right, int):
        return max(left, right) if operation == "max" else min(left, right)
    return dim_max(left, right) if operation == "max" else dim_min(left, right)


TREES = st.recursive(
    LEAVES, lambda tree: st.tuples(st.sampled_from([*OPERATIONS, "max", "min"]), tree, tree), max_leaves=8
)


def _build(tree: Any) -> DimLike:
    if not isinstance(tree, tuple):
        return tree
    left, right = _build(tree[1]), _build(tree[2])
    assume(not (tree[0] in ("//", "%") and right == 0))
    return _apply(tree[0], left, right)


def _compute(tree: Any, values: dict[str, int]) -> int:
    if not isinstance(tree, tuple):
        return evaluate(tree, values)
    left, right = _compute(tree[1], values), _compute(tree[2], values)
    assume(not (tree[0] in ("//", "%") and right == 0))
    return _apply(tree[0], left, right)


@given(TREES, st.fixed_dictionaries({name: st.integers(1, 20) for name in SYMBOLS}))
def test_computes_like_python(tree: Any, values: dict[str, int]) -> None:
    wanted = _compute(tree, values)
    assert evaluate(_build(tree), values) == wanted


@given(TREES)
def test_text_reads_back(tree: Any) -> None:
    dim = _build(tree)
    assert parse_dim(str(dim), SYMBOLS) == dim
    assert str(parse_dim(str(dim), SYMBOLS)) == str(dim)


@given(TREES)
def test_no_symbol_is_no_dim(tree: Any) -> None:
    dim = _build(tree)
    assert isinstance(dim, int) or dim.symbols


@given(TREES, TREES, TREES)
def test_equal_sums_are_equal_objects(x: Any, y: Any, z: Any) -> None:
    a, b, c = _build(x), _build(y), _build(z)
    assert (a + b) + c == a + (b + c) == (c + a) + b
    assert a * (b + c) == b * a + a * c
    assert a - a == 0
    assert hash(a * b) == hash(b * a)


@given(TREES, TREES, st.integers(1, 6))
def test_division_gives_up_what_divides(x: Any, y: Any, divisor: int) -> None:
    a, b = _build(x), _build(y)
    assert (a * divisor + b) // divisor == a + b // divisor
    assert (a * divisor + b) % divisor == b % divisor


@pytest.mark.parametrize(
    ("dim", "text"),
    [
        (s // 2, "s//2"),
        ((s - 1) // 2 + 1, "(s + 1)//2"),
        (3 * s * t - 2 * s + 1, "3*s*t - 2*s + 1"),
        (-s, "-s"),
        (2 - s, "-s + 2"),
        ((s // 2) * 3, "3*(s//2)"),
        (s // 2 // 3, "s//6"),
        (((s + 1) // 2 + 1) // 2, "(s + 3)//4"),
        ((s // 3 - 1) // 2, "(s + 3)//6 - 1"),
        (s // t % 4, "(s//t)%4"),
        (2 * s // 3, "(2*s)//3"),
        (7 % s, "7%s"),
        (dim_max(1, s) * t, "max(1, s)*t"),
        (12 * s * t // (3 * s), "4*t"),
        (s * s, "s*s"),
    ],
)
def test_text(dim: Dim, text: str) -> None:
    assert str(dim) == text


@pytest.mark.parametrize(
    ("text", "dim"),
    [
        ("FloorDiv(s - 1, 2) + 1", (s + 1) // 2),
        ("Max(1, s, t)", dim_max(dim_max(1, s), t)),
        ("Min(s, 4)", dim_min(4, s)),
        ("Mod(s, 2) + PythonMod(t, 2)", s % 2 + t % 2),
        ("s**2", s * s),
        ("-3", -3),
    ],
)
def test_reads_sympy(text: str, dim: DimLike) -> None:
    assert parse_dim(text, SYMBOLS) == dim


@pytest.mark.parametrize(
    "text", ["", "s +", "s / 2", "s.x", "f(s)", "1.5", "s**t", "s**-1", "'s'", "True", "s // 0"]
)
def test_refuses(text: str) -> None:
    with pytest.raises(InvalidGraphError, match="no dimension expression"):
        parse_dim(text, SYMBOLS)


def test_symbols() -> None:
    assert symbols_of((s // t, 3, dim_max(u, s))) == (S, T, U)
    assert s.symbol == S
    assert (s + 1).symbol is None  # type: ignore[union-attr]
    assert parse_dim("w", SYMBOLS) == Dim.of(Symbol("w"))
