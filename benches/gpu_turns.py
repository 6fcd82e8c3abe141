"""Measure one row: its contenders live in one process and take turns, so that all of them see the same machine.

One process is fair on a GPU, where what a contender has on the device does not slow another down, and it lets them
share the device's memory and the model's weights.
"""

from __future__ import annotations

__all__ = ["measure"]

import statistics
import sys
import time
import timeit
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from gpu_contenders import CONTENDERS, INDUCTOR, NATIVE, Made, Plan, failure
from gpu_memory import release
from gpu_rows import Row, Subject, load, relative_error
from timing import ratio

_WARM_UP = 5  # calls; Inductor's CUDA graphs are recorded in the third
_TURN_WARM_UP = 2  # calls: guards of the last contender's graph stand first, and clocks may have fallen


@dataclass
class _Contender:
    """What is known of a contender so far; `error` is what ended it, in a line."""

    name: str
    made: Made | None = None
    error: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    latencies: list[list[float]] = field(default_factory=list)  # seconds, a list a turn
    intervals: list[float] = field(default_factory=list)  # seconds a call, one a turn
    issues: list[float] = field(default_factory=list)  # of an interval, until the call was queued

    def attempt(self, step: Callable[[], None]) -> None:
        """Do a step; a contender that fails leaves the run, and its figures with it."""
        if self.error is not None:
            return
        try:
            step()
        except Exception as error:  # noqa: BLE001 - whatever breaks one contender, the others are still measured
            self.error = failure(error)
            self.made = None


def measure(row: Row, names: Sequence[str], plan: Plan) -> dict[str, dict[str, Any]]:
    """Return a record for each contender of a row."""
    torch._dynamo.reset()
    records = _contest(load(row, plan.device), names, plan)
    torch._dynamo.reset()
    release(plan.device)
    return records


def _contest(subject: Subject, names: Sequence[str], plan: Plan) -> dict[str, dict[str, Any]]:
    contenders = [_Contender(name) for name in names]
    with torch.inference_mode():
        for contender in contenders:
            start = time.perf_counter()
            contender.attempt(partial(_prepare, contender, subject, plan))
            seconds = time.perf_counter() - start
            print(
                f"{subject.row}: {contender.name} was ready after {seconds:.0f} s",
                file=sys.stderr,
                flush=True,
            )
        for _ in range(plan.rounds):
            for contender in contenders:
                contender.attempt(partial(_turn, contender, plan))
        for contender in contenders:
            contender.attempt(partial(_finish, contender, subject, plan))
    return {contender.name: _record(contender, contenders, subject.row) for contender in contenders}


def _prepare(contender: _Contender, subject: Subject, plan: Plan) -> None:
    """Make a contender and call it until nothing is left to be made; note how long it took."""
    start = time.perf_counter()
    made = contender.made = CONTENDERS[contender.name](subject, plan)
    made.call()
    _synchronise(plan.device)
    contender.facts["first_call_seconds"] = time.perf_counter() - start
    release(plan.device)  # what only the build needed
    for _ in range(_WARM_UP):
        made.call()
    _synchronise(plan.device)
    made.settled()


def _turn(contender: _Contender, plan: Plan) -> None:
    """Time one turn: single calls, each until the device is done, then many in a row."""
    made = contender.made
    assert made is not None
    call, clock = made.call, time.perf_counter
    synchronise = torch.cuda.synchronize if plan.device.type == "cuda" else _nothing_to_wait_for
    for _ in range(_TURN_WARM_UP):
        call()
    synchronise()
    latencies: list[float] = []
    for _ in range(plan.calls):
        start = clock()
        call()
        synchronise()
        latencies.append(clock() - start)
    start = clock()
    for _ in range(plan.pipelined):
        call()
    issued = clock()
    synchronise()
    contender.intervals.append((clock() - start) / plan.pipelined)
    contender.issues.append((issued - start) / plan.pipelined)
    contender.latencies.append(latencies)


def _finish(contender: _Contender, subject: Subject, plan: Plan) -> None:
    made = contender.made
    assert made is not None
    contender.facts["error_to_fp32"] = relative_error(subject, made.call())
    contender.facts["idle_synchronise_ms"] = 1e3 * _idle_synchronise(plan.device)
    contender.facts.update(made.facts())


def _record(contender: _Contender, contenders: list[_Contender], row: Row) -> dict[str, Any]:
    if contender.error is not None:
        return {"error": contender.error}
    every = sorted(second for turn in contender.latencies for second in turn)
    interval = statistics.median(contender.intervals)
    return {
        "latency_p50_ms": 1e3 * statistics.median(every),
        "latency_p99_ms": 1e3 * every[min(len(every) - 1, round(0.99 * len(every)))],
        "interval_ms": 1e3 * interval,
        "issue_ms": 1e3 * statistics.median(contender.issues),
        "throughput": row.batch / interval,
        **contender.facts,
        "time_ratios": _ratios(contender, contenders),
    }


def _ratios(contender: _Contender, contenders: list[_Contender]) -> dict[str, Any]:
    """Return this contender's times in units of others', round by round: median and quartiles."""
    alive = {c.name: c for c in contenders if c.error is None}
    bases = {
        "eager": alive.get("eager"),
        "best inductor": _fastest(alive[name] for name in INDUCTOR if name in alive),
        "best native": _fastest(alive[name] for name in NATIVE if name in alive),
        "raw": alive.get("raw"),
    }
    ratios: dict[str, Any] = {}
    for name, base in bases.items():
        if base is None:
            continue
        pipelined = ratio(contender.intervals, base.intervals)
        latency = ratio(_medians(contender), _medians(base))
        ratios[name] = {
            "is": base.name,
            "pipelined": [pipelined.ratio, pipelined.low, pipelined.high],
            "latency": [latency.ratio, latency.low, latency.high],
        }
    return ratios


def _medians(contender: _Contender) -> list[float]:
    return [statistics.median(turn) for turn in contender.latencies]


def _fastest(contenders: Iterable[_Contender]) -> _Contender | None:
    return min(contenders, key=lambda c: statistics.median(c.intervals), default=None)


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _nothing_to_wait_for() -> None:
    pass


def _idle_synchronise(device: torch.device) -> float:
    """Return the seconds of a synchronisation that has nothing to wait for."""
    _synchronise(device)
    return statistics.median(timeit.repeat(partial(_synchronise, device), number=1, repeat=100))
