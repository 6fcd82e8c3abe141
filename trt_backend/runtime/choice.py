"""Choosing between an engine and native by their times.

Rules:
  ONCE    A signature is timed once, on the real inputs of its first call, both in turn, and the faster serves it.
  MEDIAN  Of a few rounds, after some that do not count: at first calls things are compiled, loaded and captured.
"""

from __future__ import annotations

__all__ = ["Choice"]

import statistics
import time
from collections.abc import Callable, Hashable

from trt_backend.debug import log
from trt_backend.errors import NotReadyError, Reason, ReasonKind
from trt_backend.report import RegionRecord

_WARM_UP = 3
_ROUNDS = 5
_SIGNATURES_KEPT = 1024


class Choice:
    """Remembers the signatures that native serves faster.

    Args:
        record: the region's, which says so.
        synchronize: waits for all that was queued.
    """

    def __init__(self, record: RegionRecord, synchronize: Callable[[], None]) -> None:
        self._record = record
        self._synchronize = synchronize
        self._native_is_faster: dict[Hashable, bool] = {}

    def native_is_faster(self, signature: Hashable) -> bool | None:
        """Return the verdict, or None where there is none yet."""
        return self._native_is_faster.get(signature)

    def measure(
        self, signature: Hashable, engine: Callable[[], object], native: Callable[[], object]
    ) -> None:
        """Time both; where the engine does not serve this signature (any more), a later call does it."""
        if len(self._native_is_faster) >= _SIGNATURES_KEPT:
            self._native_is_faster.clear()
        try:
            rounds = [(self._seconds(engine), self._seconds(native)) for _ in range(_WARM_UP + _ROUNDS)]
        except NotReadyError as error:
            log.debug("%s: not timed: %s", self._record.name, error)
            return
        except Exception as error:  # noqa: BLE001  the call has its answer; what lacks memory is not asked again
            log.warning("%s: not timed, its engine serves %s: %s", self._record.name, signature, error)
            self._native_is_faster[signature] = False
            return
        ratio = statistics.median(b / a for a, b in rounds[_WARM_UP:])
        self._native_is_faster[signature] = ratio < 1
        log.info("%s: native takes %.2f of the engine's time for %s", self._record.name, ratio, signature)
        detail = f"native takes {ratio:.2f} of the engine's time"
        all_native = all(self._native_is_faster.values())
        if self._record.reason is None or self._record.reason.kind is ReasonKind.SLOWER:
            slower = Reason(ReasonKind.SLOWER, self._record.name, detail)
            self._record.reason = slower if all_native else None

    def _seconds(self, call: Callable[[], object]) -> float:
        self._synchronize()
        start = time.perf_counter()
        call()
        self._synchronize()
        return time.perf_counter() - start
