"""Optimization profiles: the range of each symbol that an engine serves.

Rules:
  MARKED  A symbol that the user gave a highest value has the range that the user gave.
  USED    Any other reaches from its least value to the next power of two of what it was first called
          with, or to the highest size.
  GROWN   A value outside makes a profile that covers the old range, too, so that few engines are built.
"""

from __future__ import annotations

__all__ = ["EVERYTHING", "HIGHEST_SIZE", "Profile", "Range", "profile_for"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from trt_backend.ir.dims import Symbol

HIGHEST_SIZE = 2**31 - 1
"""The highest size that TensorRT takes in a profile."""


@dataclass(frozen=True)
class Range:
    """The least and highest value of a symbol, and the one to optimize for."""

    min: int
    opt: int
    max: int


@dataclass(frozen=True)
class Profile:
    """The range of each symbol by name, in the order of the names."""

    ranges: tuple[tuple[str, Range], ...]

    def covers(self, symbols: Mapping[str, int]) -> bool:
        """Whether an engine of this profile serves a call where the symbols have these values."""
        return all(r.min <= symbols[name] <= r.max for name, r in self.ranges)


EVERYTHING = Profile(())
"""The profile of an engine that serves every size."""


def profile_for(
    symbols: Sequence[Symbol], values: Mapping[str, int], wider_than: Profile | None = None
) -> Profile:
    """Return a profile that covers `values`, and `wider_than` as well."""
    old = dict(wider_than.ranges) if wider_than else {}
    return Profile(
        tuple((s.name, _range_for(s, values[s.name], old.get(s.name))) for s in sorted(symbols, key=str))
    )


def _range_for(symbol: Symbol, value: int, old: Range | None) -> Range:
    low, high = min(max(symbol.min, 1), value), symbol.max
    if high is None or high < value:
        high = max(value, min(1 << max(value - 1, 0).bit_length(), HIGHEST_SIZE))
    if old is None:
        return Range(low, value, high)
    return Range(min(low, old.min), value, max(high, old.max))
