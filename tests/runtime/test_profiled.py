"""Engines that are built beside native calls: once, and only when the call that asked has its answer."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

import pytest

from trt_backend.engine.base import CallShapes, Engine, Host
from trt_backend.engine.profile import Profile, profile_for
from trt_backend.errors import BuildError, NotReadyError, OutOfMemoryError, ReasonKind
from trt_backend.ir.builder import Builder
from trt_backend.ir.dims import Symbol
from trt_backend.options import CompileOptions
from trt_backend.report import RegionRecord
from trt_backend.runtime import pause
from trt_backend.runtime.answers import AnswerCheck
from trt_backend.runtime.executable import Executable
from trt_backend.runtime.profiled import BUILDER_THREAD, ProfiledEngine

PATIENCE = 10.0  # seconds; nothing here takes long
ROWS = Symbol("rows")


class Built:
    """An engine of a profile, which tells of its runs."""

    def __init__(self, profile: Profile, events: list[str]) -> None:
        self.profile = profile
        self._events = events

    def run(self, shapes: CallShapes, inputs: Sequence[int], outputs: Sequence[int], host: Host) -> None:
        assert self.profile.covers(shapes.symbols)
        self._events.append("engine")


class Region:
    """A region of one symbolic size; `events` are what happened, in order.

    Args:
        background: as of `ProfiledEngine`.
        errors: what the next builds raise.
        strict: as of `Executable`.
    """

    def __init__(self, *, background: bool, errors: Sequence[Exception] = (), strict: bool = False) -> None:
        self.events: list[str] = []
        self.built: list[Built] = []
        self.record = RegionRecord("region", "test", "none")
        self.carry: Callable[[], Callable[[], None]] = lambda: lambda: self.events.append("begin")
        self.errors = list(errors)
        self.engine = ProfiledEngine(
            self._build,
            lambda shapes, former: profile_for([ROWS], shapes.symbols, former),
            background=background,
            carry=lambda: self.carry(),
        )
        answers = AnswerCheck("region", Builder("region").build([]), CompileOptions())
        self._executable = Executable(lambda: self.engine, self.record, answers, strict=strict)

    def _build(self, profile: Profile, beside: bool) -> Engine:
        self.events.append("build beside" if beside else "build")
        if self.errors:
            raise self.errors.pop(0)
        self.built.append(Built(profile, self.events))
        return self.built[-1]

    def call(self, rows: int, native: Callable[[], Any] = lambda: None) -> None:
        """Call it natively by `native`, or on its engine."""

        def run(engine: Engine, _: Sequence[Any]) -> str:
            engine.run(shapes_of(rows), (), (), HOST)
            return "engine"

        def natively() -> str:
            self.events.append("native")
            native()
            return "native"

        self._executable.call(run, natively, ())


HOST: Any = None


def shapes_of(rows: int) -> CallShapes:
    return CallShapes({"rows": rows}, (), ())


def miss(region: Region, rows: int) -> Callable[[], None]:
    """Run the engine, which is not ready, and return what begins a build."""
    with pytest.raises(NotReadyError) as caught:
        region.engine.run(shapes_of(rows), (), ())
    assert caught.value.begin is not None
    return caught.value.begin


def wait_for_builders() -> None:
    for thread in threading.enumerate():
        if thread.name == BUILDER_THREAD:
            thread.join(PATIENCE)
            assert not thread.is_alive()


def test_the_first_build_begins_when_native_has_answered() -> None:
    region = Region(background=True)
    carried_by: list[list[str]] = []
    region.carry = lambda: carried_by.append(region.events.copy()) or (lambda: region.events.append("begin"))
    region.call(4)
    assert carried_by == [["native"]], "by the caller's thread, after native"
    wait_for_builders()
    assert region.events == ["native", "begin", "build beside"]
    region.call(4)
    assert region.events[3:] == ["engine"]
    assert (region.record.native_calls, region.record.engine_calls) == (1, 1)


def test_a_wider_build_begins_when_native_has_answered() -> None:
    region = Region(background=False)
    region.call(4)
    region.call(64)
    wait_for_builders()
    region.call(64)
    assert region.events == ["build", "engine", "native", "begin", "build beside", "engine"]


def test_a_build_begins_where_native_raises_too() -> None:
    def refuse() -> None:
        raise IndexError("theirs")

    region = Region(background=True)
    with pytest.raises(IndexError, match="theirs"):
        region.call(4, refuse)
    wait_for_builders()
    assert region.events == ["native", "begin", "build beside"]
    region.call(4)
    assert (region.record.native_calls, region.record.engine_calls) == (0, 1)


def test_threads_that_ask_at_the_same_time_get_one_build() -> None:
    region = Region(background=True)
    all_asked = Barrier(8, timeout=PATIENCE)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(partial(region.call, native=all_asked.wait), [4] * 8))
    wait_for_builders()
    assert region.record.native_calls == 8
    assert len(region.built) == 1


def test_what_was_asked_for_before_another_build_ended_is_not_built() -> None:
    """It would take the place of an engine whose sizes it does not know."""
    region = Region(background=False)
    region.call(4)
    first, second = miss(region, 64), miss(region, 9)
    for begin in (first, second):
        begin()
        wait_for_builders()
    assert len(region.built) == 2
    region.call(64)
    assert region.events[-1] == "engine"


def test_a_wider_build_that_lacked_memory_is_tried_again_after_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    monkeypatch.setattr(pause, "monotonic", lambda: now[0])
    region = Region(background=False)
    region.call(4)
    region.errors.append(OutOfMemoryError("full"))
    for seconds, builds in ((0.0, 2), (59.0, 2), (1.0, 3), (0.0, 3)):
        now[0] += seconds
        region.call(64)
        wait_for_builders()
        assert sum(event.startswith("build") for event in region.events) == builds, seconds
    assert region.events[-1] == "engine"


def test_what_was_asked_for_before_another_build_failed_is_not_built() -> None:
    region = Region(background=True, errors=[BuildError("no")])
    for begin in (miss(region, 4), miss(region, 4)):
        begin()
        wait_for_builders()
    assert region.events == ["begin", "build beside"]
    with pytest.raises(BuildError, match="no"):
        region.engine.run(shapes_of(4), (), ())


def test_a_build_that_cannot_begin_costs_the_region_its_engine_or_is_raised() -> None:
    def fail() -> Callable[[], None]:
        raise BuildError("no thread")

    region = Region(background=True)
    region.carry = fail
    for _ in range(2):
        region.call(4)
    assert region.events == ["native", "native"]
    assert str(region.record.reason) == "region: build failed: no thread"
    strict = Region(background=True, strict=True)
    strict.carry = fail
    with pytest.raises(BuildError, match="no thread"):
        strict.call(4)
    assert strict.events == ["native"]


def test_a_thread_that_does_not_start_is_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    region = Region(background=True)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        region.call(1)
    assert region.record.reason is not None
    assert region.record.reason.kind is ReasonKind.OUT_OF_MEMORY
