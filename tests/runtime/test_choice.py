"""The faster of engine and native serves a signature, and the report says where that is native."""

from __future__ import annotations

import time

from trt_backend.errors import ReasonKind
from trt_backend.report import RegionRecord
from trt_backend.runtime.choice import Choice


def test_what_cannot_be_timed_is_served_by_its_engine() -> None:
    """The call has its answer; a native run that finds no memory is not the caller's business, now or later."""
    record = RegionRecord("region", "test", "none")
    choice = Choice(record, lambda: None)

    def no_memory() -> None:
        raise MemoryError("none left")

    choice.measure((1,), lambda: None, no_memory)
    assert choice.native_is_faster((1,)) is False
    assert record.reason is None


def test_the_faster_one_is_remembered_for_each_signature() -> None:
    record = RegionRecord("region", "test", "none")
    waits: list[None] = []
    choice = Choice(record, lambda: waits.append(None))
    assert choice.native_is_faster((1,)) is None
    choice.measure((1,), lambda: time.sleep(0.02), lambda: None)
    assert choice.native_is_faster((1,)) is True
    assert record.reason is not None
    assert record.reason.kind is ReasonKind.SLOWER
    choice.measure((8,), lambda: None, lambda: time.sleep(0.02))
    assert choice.native_is_faster((8,)) is False
    assert choice.native_is_faster((1,)) is True
    assert record.reason is None, "an engine serves one of the two"
    assert len(waits) == 2 * 2 * 16, "each of 16 calls waits before and after, for two signatures"
