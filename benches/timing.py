"""Paired timing: contenders take turns, so that all of them see the same machine."""

from __future__ import annotations

__all__ = ["Row", "paired", "ratio"]

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One contender: its median seconds, and its ratio to the first contender, round by round."""

    median: float
    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{1e3 * self.median:.2f} ms | {self.ratio:.2f} ({self.low:.2f} to {self.high:.2f})"


def paired(contenders: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 3) -> dict[str, Row]:
    """Time every contender once a round; ratios are medians over rounds, with their quartiles as the noise."""
    for _ in range(warmup):
        for contender in contenders.values():
            contender()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, contender in contenders.items():
            start = time.perf_counter()
            contender()
            seconds[name].append(time.perf_counter() - start)
    base = next(iter(seconds.values()))
    return {name: ratio(runs, base) for name, runs in seconds.items()}


def ratio(runs: list[float], base: list[float]) -> Row:
    """Return one contender's row from the seconds of its runs and of the base's runs, round by round."""
    ratios = [a / b for a, b in zip(runs, base, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return Row(statistics.median(runs), middle, low, high)
