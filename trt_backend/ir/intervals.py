"""The range of values that a dimension can have, from the ranges of its symbols, by interval arithmetic.

A symbol that occurs twice counts as two: `s - s % 2` may get a wider range than it has, never a narrower one. But for `s - s // 2`, or
`s - 2 * (s // 2)`: borders are halved so.
"""

from __future__ import annotations

__all__ = ["Interval", "interval"]

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import reduce
from itertools import product
from typing import cast

from trt_backend.ir.dims import Atom, Call, Dim, DimLike, Monomial, Symbol

Interval = tuple[float, float]
"""The least and the highest value: integers, or an infinity where there is no bound."""

_ANY: Interval = (-math.inf, math.inf)


def interval(dim: DimLike, ranges: Mapping[str, Interval] | None = None) -> Interval:
    """Return bounds of `dim` where each symbol is in its range.

    Args:
        dim: the dimension.
        ranges: of symbols by name; a symbol that is not there has its own range.
    """
    if isinstance(dim, int):
        return dim, dim
    known = ranges or {}
    low = high = 0.0
    for monomial, coefficient in dim.terms:
        factors = [_atom(atom, known) for atom in monomial]
        least, most = reduce(_times, factors, (coefficient, coefficient))
        low, high = low + least, high + most
    for least, most in _less_parts(dim, known):
        low, high = max(low, least), min(high, most)
    return _whole(low), _whole(high)


def _less_parts(dim: Dim, ranges: Mapping[str, Interval]) -> Iterator[Interval]:
    """Yield bounds of a sum for each `x - c * (x // n)` in it, where 0 < c <= n."""
    divisions = [(term, part) for term in dim.terms if (part := _division(term[0])) is not None]
    for (monomial, coefficient), part in divisions:
        without = dim + Dim(((monomial, -coefficient),))
        for x, divisor in _divided_by(part, [other for _, other in divisions]):
            rest = without - x
            simpler = isinstance(rest, int) or len(rest.terms) < len(dim.terms)
            if simpler and 0 < -coefficient <= divisor:
                low, high = interval(rest, ranges)
                least, most = _less_part(interval(x, ranges), -coefficient, divisor)
                yield low + least, high + most


def _division(monomial: Monomial) -> Call | None:
    """Return what is nothing but a division by a number."""
    part = monomial[0] if len(monomial) == 1 else None
    return part if isinstance(part, Call) and part.function == "//" and isinstance(part.right, int) else None


def _divided_by(part: Call, others: Iterable[Call]) -> Iterator[tuple[DimLike, int]]:
    """Yield each x and n of which a division is `x // n`: `(s + 3) // 6` is `(s // 3 + 1) // 2`, too."""
    divisor = cast("int", part.right)
    yield part.left, divisor
    for other in others:
        inner = cast("int", other.right)
        if other is part or inner <= 0 or divisor % inner:
            continue
        more = part.left - other.left
        if isinstance(more, int) and more % inner == 0:
            yield Dim((((other,), 1),)) + more // inner, divisor // inner


def _less_part(x: Interval, times: int, divisor: int) -> Interval:
    """Return bounds of `x - times * (x // divisor)`, which is `(divisor - times) * (x // divisor) + x % divisor`."""
    if times == 1:  # it never falls where x grows
        least, most = (end if math.isinf(end) else end - end // divisor for end in x)
        return least, most
    left = divisor - times
    least, most = _times((left, left), _divided(x, (divisor, divisor)))
    return least, most + divisor - 1


def _atom(atom: Atom, ranges: Mapping[str, Interval]) -> Interval:
    match atom:
        case Symbol():
            return ranges.get(atom.name, (atom.min, math.inf if atom.max is None else atom.max))
        case Call():
            return _CALLS[atom.function](interval(atom.left, ranges), interval(atom.right, ranges))


def _times(left: Interval, right: Interval) -> Interval:
    corners = [0.0 if 0 in (a, b) else a * b for a, b in product(left, right)]  # 0 of infinitely many is 0
    return min(corners), max(corners)


def _divided(left: Interval, right: Interval) -> Interval:
    if right[0] <= 0:
        return _ANY
    corners = [_floor_divide(a, b) for a, b in product(left, right)]
    return min(corners), max(corners)


def _floor_divide(dividend: float, divisor: float) -> float:
    if math.isinf(divisor):
        return 0.0 if dividend >= 0 else -1.0
    return dividend if math.isinf(dividend) else dividend // divisor


def _modulo(left: Interval, right: Interval) -> Interval:
    if right[0] <= 0:
        return _ANY
    unchanged = left[0] >= 0 and left[1] < right[0]
    return left if unchanged else (0, right[1] - 1)


def _larger(left: Interval, right: Interval) -> Interval:
    return max(left[0], right[0]), max(left[1], right[1])


def _smaller(left: Interval, right: Interval) -> Interval:
    return min(left[0], right[0]), min(left[1], right[1])


def _whole(bound: float) -> float:
    return bound if math.isinf(bound) else int(bound)


_CALLS: dict[str, Callable[[Interval, Interval], Interval]] = {
    "//": _divided,
    "%": _modulo,
    "max": _larger,
    "min": _smaller,
}
