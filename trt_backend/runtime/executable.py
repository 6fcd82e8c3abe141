"""`Executable`: a region that gets its engine at the first call, and runs natively where it cannot."""

from __future__ import annotations

__all__ = ["Executable"]

from collections.abc import Callable, Sequence
from threading import RLock
from typing import Any, TypeVar

from trt_backend.debug import log
from trt_backend.engine.base import CallShapes, Engine, Host, LazyEngine
from trt_backend.errors import NotReadyError, Reason, ReasonKind
from trt_backend.report import RegionRecord
from trt_backend.runtime.answers import AnswerCheck
from trt_backend.runtime.fallback import contain, reason_of
from trt_backend.runtime.pause import Pause

R = TypeVar("R")


class Executable:
    """Routes each call of a region to its engine or to native.

    Signatures share an engine where the provider's engines take every shape. The engine is built by the first call,
    under a lock, so that threads build once; a failure is remembered with its reason and never tried again. Only a lack
    of memory may pass: the first call after a pause tries again.

    Attributes:
        answers: knows which engines' answers are still to be compared; who runs them does that.
    """

    def __init__(
        self, build: Callable[[], LazyEngine], record: RegionRecord, answers: AnswerCheck, *, strict: bool
    ) -> None:
        self.answers = answers
        self._build = build
        self._record = record
        self._strict = strict
        self._lock = RLock()
        self._pause = Pause()
        self._engine: LazyEngine | None = None

    @property
    def ready(self) -> Engine | None:
        """The engine, once one has answered: this one, or one that was given up."""
        return self._engine if self._record.engine_calls else None

    def prepare(self, shapes: CallShapes, inputs: Sequence[int], host: Host) -> None:
        """Build the engine for a call that is yet to come (`strict` raises where that fails)."""
        engine = self._engine or self._first_engine()
        if engine is None:
            return
        try:
            engine.prepare(shapes, inputs, host)
        except NotReadyError as error:
            log.debug("%s", error)
        except Exception as error:  # noqa: BLE001  sorted there
            self._give_up(self._reason_of(error), engine)

    def call_natively(self, native: Callable[..., R], arguments: Sequence[Any]) -> R:
        """Return `native(*arguments)`, and count the call."""
        answer = native(*arguments)
        self._record.count_native_call()
        return answer

    def call(
        self, run: Callable[[Engine, Sequence[Any]], R], native: Callable[..., R], arguments: Sequence[Any]
    ) -> R:
        """Return `run(engine, arguments)`, or `native(*arguments)` where there is no engine or its run fails.

        An engine is given up only where native succeeds: arguments that native refuses too are the caller's mistake. One
        that lacks memory goes before: native may need what it holds.
        One that is to be built beside native calls is begun once native is through, whatever came of it.

        Raises:
            BuildError, RunError, or whatever escapes a bug: only where `strict`.
        """
        engine = self._engine or self._first_engine()
        failure: Reason | None = None
        begin: Callable[[], None] | None = None
        if engine is not None:
            try:
                result = run(engine, arguments)
            except NotReadyError as error:
                log.debug("%s", error)
                begin = error.begin
                self._record.last_miss = str(error)
            except Exception as error:  # noqa: BLE001  sorted there
                failure = self._reason_of(error)
                if failure.kind is ReasonKind.OUT_OF_MEMORY:
                    self._give_up(failure, engine)
                    engine = failure = None
            else:
                self._record.count_engine_call()
                return result
        try:
            answer = self.call_natively(native, arguments)
        finally:
            if begin is not None:
                self._contain(begin, lambda reason: self._give_up(reason, engine))
        if failure is not None:
            self._give_up(failure, engine)
        return answer

    def _contain(self, attempt: Callable[[], R], failed: Callable[[Reason], None]) -> R | None:
        return contain(attempt, self._record.name, strict=self._strict, failed=failed)

    def _reason_of(self, error: Exception) -> Reason:
        return reason_of(error, self._record.name, strict=self._strict)

    def _first_engine(self) -> LazyEngine | None:
        with self._lock:
            if self._engine is None and self._may_build():
                self._record.reason = None
                self._engine = self._contain(self._build, self._give_up)
            return self._engine

    def _may_build(self) -> bool:
        reason = self._record.reason
        return reason is None or (reason.kind is ReasonKind.OUT_OF_MEMORY and self._pause.over)

    def _give_up(self, reason: Reason, engine: LazyEngine | None = None) -> None:
        with self._lock:
            if self._engine is not engine:  # another thread's call has given it up
                return
            self._engine = None
            if reason.kind is ReasonKind.OUT_OF_MEMORY:
                self._pause.begin()
            self._record.reason = reason
