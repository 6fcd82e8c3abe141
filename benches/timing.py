"""Paired timing: contenders take turns, so that all of them see the same machine, each in a process of its own.

Each round has another order: who comes behind a process with the same library finds its code in the processor's cache
(in a fixed order the second of two equal ones was 7 % faster).

A process of its own is how a user runs a contender, and it keeps them apart: their threads do not wait actively for each
other's cores, and none works on a heap that another has grown (eager maps and unmaps its larger tensors at each
call, thousands of page faults, until the program has freed a larger block elsewhere).
"""

from __future__ import annotations

__all__ = ["Row", "Work", "paired", "ratio"]

import multiprocessing
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing.connection import Connection
from random import Random
from typing import Any

_WARM_UP = 5
_TURN = 3  # calls

# What a contender's process makes: the call to time, and what to report at the end.
Work = tuple[Callable[[], object], Callable[[], Any]]


@dataclass(frozen=True)
class Row:
    """One contender: its median seconds, and its ratio to the first contender, round by round."""

    median: float
    ratio: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{1e3 * self.median:.2f} ms | {self.ratio:.2f} ({self.low:.2f} to {self.high:.2f})"


class _Contender:
    def __init__(self, make: Callable[..., Work], arguments: tuple[Any, ...], stack: ExitStack) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        process.start()
        stack.callback(process.join)
        theirs.close()
        self._pipe.recv()

    def turn(self) -> float:
        self._pipe.send("turn")
        return self._pipe.recv()

    def finish(self) -> Any:
        self._pipe.send("finish")
        return self._pipe.recv()


def _serve(pipe: Connection, make: Callable[..., Work], arguments: tuple[Any, ...]) -> None:
    call, summary = make(*arguments)
    for _ in range(_WARM_UP):
        call()
    pipe.send("ready")
    while pipe.recv() == "turn":
        start = time.perf_counter()
        for _ in range(_TURN):
            call()
        pipe.send((time.perf_counter() - start) / _TURN)
    pipe.send(summary())


def paired(
    contenders: Mapping[str, tuple[Callable[..., Work], tuple[Any, ...]]], rounds: int
) -> tuple[dict[str, Row], dict[str, Any]]:
    """Let every contender have a turn of a few calls once a round; return their rows and what they report.

    Args:
        contenders: for each name a function of a module, which makes the work in a fresh process, and its arguments.
            The first contender is the base of the ratios, which are medians over rounds, with their quartiles.
        rounds: how many.
    """
    with ExitStack() as stack:
        workers = {name: _Contender(make, arguments, stack) for name, (make, arguments) in contenders.items()}
        seconds: dict[str, list[float]] = {name: [] for name in workers}
        names, random = list(workers), Random(0)
        for _ in range(rounds):
            random.shuffle(names)
            for name in names:
                seconds[name].append(workers[name].turn())
        reports = {name: worker.finish() for name, worker in workers.items()}
    base = next(iter(seconds.values()))
    return {name: ratio(runs, base) for name, runs in seconds.items()}, reports


def ratio(runs: list[float], base: list[float]) -> Row:
    """Return one contender's row from the seconds of its runs and of the base's runs, round by round."""
    ratios = [a / b for a, b in zip(runs, base, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return Row(statistics.median(runs), middle, low, high)
