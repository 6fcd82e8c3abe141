"""`Executable` builds once, remembers failures, and contains bugs."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Thread
from typing import Any

import pytest

from trt_backend.engine.base import CPU_HOST, CallShapes, Engine, Host, LazyEngine
from trt_backend.engine.profile import EVERYTHING, Profile
from trt_backend.errors import (
    BuildError,
    NotReadyError,
    OutOfMemoryError,
    Reason,
    ReasonKind,
    RunError,
    UnsupportedError,
)
from trt_backend.ir.builder import Builder
from trt_backend.options import CompileOptions
from trt_backend.report import GraphRecord, RegionRecord, Report
from trt_backend.runtime import pause
from trt_backend.runtime.answers import AnswerCheck
from trt_backend.runtime.executable import Executable
from trt_backend.runtime.profiled import ProfiledEngine


class Doubler:
    """An engine in name only; the calls below compute."""

    def prepare(self, shapes: CallShapes, inputs: Sequence[int], host: Host) -> None:
        pass

    def run(self, shapes: CallShapes, inputs: Sequence[int], outputs: Sequence[int], host: Host) -> None:
        raise AssertionError("not called here")


def on_engine(_: Engine, arguments: Sequence[Any]) -> tuple[str, int]:
    return "engine", 2 * arguments[0]


def native(x: int) -> tuple[str, int]:
    return "native", 2 * x


def answers() -> AnswerCheck:
    return AnswerCheck("region", Builder("region").build([]), CompileOptions())


def executable(build: Callable[[], LazyEngine], *, strict: bool = False) -> tuple[Executable, RegionRecord]:
    record = RegionRecord("region", "test", "none")
    return Executable(build, record, answers(), strict=strict), record


def failing(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail


def test_the_first_call_builds_and_later_ones_do_not() -> None:
    built: list[Doubler] = []

    def build() -> LazyEngine:
        built.append(Doubler())
        return built[-1]

    region, record = executable(build)
    assert not built
    assert [region.call(on_engine, native, [x]) for x in (1, 2)] == [("engine", 2), ("engine", 4)]
    assert (len(built), record.engine_calls, record.native_calls) == (1, 2, 0)


def test_threads_build_once() -> None:
    started = Barrier(8)
    built: list[int] = []

    def build() -> LazyEngine:
        built.append(1)
        return Doubler()

    region, record = executable(build)

    def call(x: int) -> tuple[str, int]:
        started.wait()
        return region.call(on_engine, native, [x])

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(call, range(8)))
    assert answers == [("engine", 2 * x) for x in range(8)]
    assert (len(built), record.engine_calls) == (1, 8)


@pytest.mark.parametrize(
    ("error", "kind", "level"),
    [
        (BuildError("no"), ReasonKind.BUILD_FAILED, logging.WARNING),
        (UnsupportedError("no", ReasonKind.DTYPE), ReasonKind.DTYPE, logging.WARNING),
        (ZeroDivisionError("oops"), ReasonKind.BUG, logging.ERROR),
    ],
)
def test_a_failed_build_is_remembered(
    error: Exception, kind: ReasonKind, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    attempts: list[int] = []

    def build() -> LazyEngine:
        attempts.append(1)
        raise error

    region, record = executable(build)
    with caplog.at_level(logging.DEBUG, "trt_backend"):
        assert [region.call(on_engine, native, [x]) for x in (1, 2)] == [("native", 2), ("native", 4)]
    assert len(attempts) == 1
    assert record.native_calls == 2
    assert record.engines == 0
    assert record.reason is not None
    assert record.reason.kind is kind
    assert [entry.levelno for entry in caplog.records] == [level]


@pytest.mark.parametrize("error", [RunError("no memory"), KeyError("oops")])
def test_a_failed_run_goes_native_for_good(error: Exception) -> None:
    region, record = executable(Doubler)
    assert region.call(failing(error), native, [1]) == ("native", 2)
    assert region.call(on_engine, native, [1]) == ("native", 2)
    assert (record.engine_calls, record.native_calls) == (0, 2)
    assert record.reason is not None
    assert record.reason.kind is (ReasonKind.RUN_FAILED if isinstance(error, RunError) else ReasonKind.BUG)


@pytest.mark.parametrize("error", [BuildError("no"), KeyError("oops")])
def test_strict_raises(error: Exception) -> None:
    region, _ = executable(failing(error), strict=True)
    with pytest.raises(type(error)):
        region.call(on_engine, native, [1])
    region, _ = executable(Doubler, strict=True)
    with pytest.raises(type(error)):
        region.call(failing(error), native, [1])


def test_an_error_of_the_native_code_is_the_users() -> None:
    region, record = executable(failing(BuildError("no")))
    with pytest.raises(ValueError, match="theirs"):
        region.call(on_engine, failing(ValueError("theirs")), [1])
    assert record.reason is not None
    assert record.reason.kind is ReasonKind.BUILD_FAILED


def test_an_engine_survives_arguments_that_native_refuses_too() -> None:
    region, record = executable(Doubler)
    with pytest.raises(IndexError):
        region.call(failing(RunError("out of range")), failing(IndexError("out of range")), [1])
    assert region.call(on_engine, native, [1]) == ("engine", 2)
    assert record.reason is None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a list whose one entry is the time."""
    now = [1000.0]
    monkeypatch.setattr(pause, "monotonic", lambda: now[0])
    return now


def test_calls_that_lack_memory_together_pause_once(clock: list[float]) -> None:
    """The next try is a minute later, however many threads failed; a late one does not undo it."""
    region, record = executable(Doubler)
    barrier = Barrier(8)

    def fail(engine: Engine, arguments: Sequence[Any]) -> tuple[str, int]:
        barrier.wait(timeout=30)
        raise OutOfMemoryError("none left")

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda i: region.call(fail, native, [i]), range(8)))
    assert answers == [("native", 2 * i) for i in range(8)]
    assert record.reason is not None
    clock[0] += 60

    def fail_late(engine: Engine, arguments: Sequence[Any]) -> tuple[str, int]:
        region._give_up(Reason(ReasonKind.OUT_OF_MEMORY, "x", "another call's"), engine)
        assert region.call(on_engine, native, [1]) == ("native", 2)
        clock[0] += 120
        assert region.call(on_engine, native, [1]) == ("engine", 2), "built again"
        raise OutOfMemoryError("none left")

    assert region.call(fail_late, native, [1]) == ("native", 2)
    assert record.reason is None
    assert region.call(on_engine, native, [1]) == ("engine", 2)


def test_a_call_that_comes_while_an_engine_is_given_up_does_not_build() -> None:
    built: list[int] = []
    others: list[Thread] = []

    class Record(RegionRecord):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "reason" and value is not None:
                others.append(Thread(target=region.call, args=(on_engine, native, [1])))
                others[0].start()
                others[0].join(0.2)  # it is to wait; if it does not, it is through by then
            super().__setattr__(name, value)

    def build() -> LazyEngine:
        built.append(1)
        return Doubler()

    region = Executable(build, Record("region", "test", "none"), answers(), strict=False)
    assert region.call(failing(RunError("no")), native, [1]) == ("native", 2)
    others[0].join()
    assert built == [1]
    assert region.ready is None


@pytest.mark.parametrize("error", [OutOfMemoryError("none left"), MemoryError("none left")])
@pytest.mark.parametrize("at", ["build", "run"])
def test_a_lack_of_memory_may_pass(error: Exception, at: str, clock: list[float]) -> None:
    lack = [error]
    attempts: list[float] = []

    def engine_of_the_time(step: str) -> Any:
        if step == at:
            attempts.append(clock[0])
            if lack:
                raise lack[0]
        return Doubler()

    def run(engine: Engine, arguments: Sequence[Any]) -> tuple[str, int]:
        engine_of_the_time("run")
        return on_engine(engine, arguments)

    region, record = executable(lambda: engine_of_the_time("build"))
    for later in (0, 59, 60, 60 + 119, 60 + 120):
        clock[0] = 1000.0 + later
        assert region.call(run, native, [1]) == ("native", 2)
        assert record.reason is not None
        assert record.reason.kind is ReasonKind.OUT_OF_MEMORY
    assert attempts == [1000.0, 1060.0, 1180.0], "after a minute, and then after two"
    lack.clear()
    clock[0] += 239
    assert region.call(run, native, [1]) == ("native", 2)
    clock[0] += 1
    assert region.call(run, native, [1]) == ("engine", 2)
    assert record.reason is None


def test_other_failures_do_not_pass(clock: list[float]) -> None:
    region, _ = executable(Doubler)
    assert region.call(failing(RunError("no")), native, [1]) == ("native", 2)
    clock[0] += 1e6
    assert region.call(on_engine, native, [1]) == ("native", 2)


def test_a_prepared_engine_is_there_for_the_first_call() -> None:
    built: list[Profile] = []

    def build(profile: Profile, beside: bool) -> Engine:
        assert not beside
        built.append(profile)
        return Doubler()

    shapes = CallShapes({}, (), ())
    engine = ProfiledEngine(build, lambda *_: EVERYTHING, background=True, carry=lambda: failing(KeyError()))
    region, record = executable(lambda: engine)
    for _ in range(2):
        region.prepare(shapes, (), CPU_HOST)
    assert built == [EVERYTHING]
    with pytest.raises(AssertionError, match="not called here"):
        engine.run(shapes, (), ())
    assert built == [EVERYTHING]
    assert record.reason is None


def test_what_cannot_be_prepared_runs_natively_or_is_raised() -> None:
    def unbuilt() -> ProfiledEngine:
        build = failing(BuildError("no"))
        return ProfiledEngine(build, lambda *_: EVERYTHING, background=False, carry=lambda: lambda: None)

    region, record = executable(unbuilt)
    region.prepare(CallShapes({}, (), ()), (), CPU_HOST)
    assert str(record.reason) == "region: build failed: no"
    assert region.call(on_engine, native, [1]) == ("native", 2)
    region, _ = executable(unbuilt, strict=True)
    with pytest.raises(BuildError, match="no"):
        region.prepare(CallShapes({}, (), ()), (), CPU_HOST)


def test_an_engine_that_lacks_memory_is_gone_before_native_runs() -> None:
    """Which may need what the engine holds."""
    alive: list[weakref.ref[Doubler]] = []

    def build() -> LazyEngine:
        engine = Doubler()
        alive.append(weakref.ref(engine))
        return engine

    def native_in_need(x: int) -> tuple[str, int]:
        if alive[0]() is not None:
            raise MemoryError("none left")
        return native(x)

    def run(engine: Engine, arguments: Sequence[Any]) -> tuple[str, int]:
        raise OutOfMemoryError("none left")

    region, record = executable(build)
    assert region.call(run, native_in_need, [1]) == ("native", 2)
    assert record.reason is not None
    assert record.reason.kind is ReasonKind.OUT_OF_MEMORY


def test_the_report_says_why_an_engine_did_not_serve() -> None:
    region, record = executable(Doubler)
    miss = NotReadyError("no wider engine could be built")
    assert region.call(failing(miss), native, [1]) == ("native", 2)
    assert record.reason is None
    assert record.to_dict()["last_miss"] == "no wider engine could be built"
    assert "last native call: no wider engine" in str(Report((GraphRecord("g", "test", [record]),)))
