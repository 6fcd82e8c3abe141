"""Engines that are built when a call needs them, for the sizes that it needs.

Rules:
  LAZY        The first engine is built by `prepare`, by the first call, or (`background`) beside native calls.
  GROWN       A call outside of an engine's profile asks for a wider engine, which is built once, and runs natively.
  AFTERWARDS  What is built beside native calls begins when the call that asks for it has its answer: a builder takes the
              interpreter's time, and memory's, which that answer would wait for.
  EXIT        A process that ends waits for its builder threads, which end at once where they wait for another process:
              a thread that is inside an engine's library while that is taken down would crash.
  REMEMBERED  A failed first build raises its error. After a failed wider one the engine serves what it can, and no
              other is built; unless memory was lacking, which may pass: then after a pause.
"""

from __future__ import annotations

__all__ = ["BUILDER_THREAD", "ProfiledEngine"]

import atexit
from collections.abc import Callable, Sequence
from functools import partial
from threading import Lock, Thread, current_thread

from trt_backend.debug import log
from trt_backend.engine.base import CPU_HOST, CallShapes, Engine, Host
from trt_backend.engine.profile import Profile
from trt_backend.errors import NotReadyError, OutOfMemoryError
from trt_backend.runtime.pause import Pause

Build = Callable[[Profile, bool], Engine]
"""From a profile, and whether calls run natively meanwhile, to an engine."""

BUILDER_THREAD = "engine build"
"""The name of threads that build beside native calls."""

ProfileFor = Callable[[CallShapes, "Profile | None"], Profile]


class ProfiledEngine:
    """An engine that serves every size, from as few engines as there are profiles.

    Args:
        build: makes the engines.
        profile_for: from a call's shapes and the former profile to the profile of the engine to build.
        background: whether the first engine, too, is built beside native calls.
        carry: called by a caller's thread, returns what the building thread calls first.
    """

    def __init__(
        self,
        build: Build,
        profile_for: ProfileFor,
        *,
        background: bool,
        carry: Callable[[], Callable[[], None]],
    ) -> None:
        self._build = build
        self._profile_for = profile_for
        self._background = background
        self._carry = carry
        self._lock = Lock()
        self._profile: Profile | None = None
        self._engine: Engine | None = None
        self._builder: Thread | None = None
        self._error: Exception | None = None
        self._pause = Pause()

    def run(
        self, shapes: CallShapes, inputs: Sequence[int], outputs: Sequence[int], host: Host = CPU_HOST
    ) -> None:
        """Run the engine (NotReadyError while there is none for these shapes; it may carry what begins to build one)."""
        engine, profile = self._engine, self._profile
        if engine is None or profile is None or not profile.covers(shapes.symbols):
            engine = self._engine_for(shapes)
        engine.run(shapes, inputs, outputs, host)

    def prepare(self, shapes: CallShapes, inputs: Sequence[int], host: Host = CPU_HOST) -> None:
        """Build the first engine, for these shapes."""
        with self._lock:
            if self._engine is None and self._error is None:
                self._build_first(shapes)

    def _build_first(self, shapes: CallShapes) -> Engine:
        self._profile = self._profile_for(shapes, None)
        self._engine = self._build(self._profile, False)
        return self._engine

    def _engine_for(self, shapes: CallShapes) -> Engine:
        with self._lock:
            if (
                self._engine is not None
                and self._profile is not None
                and self._profile.covers(shapes.symbols)
            ):
                return self._engine
            if self._error is not None and self._engine is None:
                raise self._error.with_traceback(None)
            if self._failed():
                raise NotReadyError(f"no wider engine could be built: {self._error}")
            if self._engine is None and not self._background:
                return self._build_first(shapes)
            if self._is_building():
                raise NotReadyError("its engine is being built")
            wanted = self._profile_for(shapes, self._profile)
            raise NotReadyError(
                "its engine is built after this call", partial(self._begin, wanted, self._profile)
            )

    def _failed(self) -> bool:
        """Whether nothing more is to be built, or not yet."""
        lacked_memory = self._engine is not None and isinstance(self._error, OutOfMemoryError)
        return self._error is not None and not (lacked_memory and self._pause.over)

    def _is_building(self) -> bool:
        return self._builder is not None and self._builder.is_alive()

    def _begin(self, wanted: Profile, former: Profile | None) -> None:
        """Build beside native calls; not where another call's build has begun, failed or ended since this one's miss."""
        with self._lock:
            if self._is_building() or self._failed() or self._profile is not former:
                return
            arguments = wanted, self._carry()
            self._builder = Thread(
                target=self._build_beside, args=arguments, name=BUILDER_THREAD, daemon=True
            )
            atexit.register(self._builder.join)
            try:
                self._builder.start()
            except RuntimeError as error:
                atexit.unregister(self._builder.join)
                raise OutOfMemoryError(f"no thread to build in: {error}") from error

    def _build_beside(self, profile: Profile, enter: Callable[[], None]) -> None:
        try:
            enter()
            engine = self._build(profile, True)
        except Exception as error:  # noqa: BLE001  raised where a call needs the engine, and contained there
            self._error = error.with_traceback(None)  # whose frames hold what was being built
            self._pause.begin()
            if self._engine is not None:
                log.warning("sizes outside of %s run natively, no wider engine: %s", self._profile, error)
        else:
            with self._lock:
                self._engine, self._profile, self._error = engine, profile, None
        finally:
            atexit.unregister(current_thread().join)
