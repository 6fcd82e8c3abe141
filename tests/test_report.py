"""The report's registry: safe while other threads compile."""

from __future__ import annotations

import sys
import threading
import time

import pytest

from trt_backend.report import open_graph, report


@pytest.fixture
def eager_switching():
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


@pytest.mark.usefixtures("eager_switching")
def test_a_report_while_another_thread_compiles():
    done = threading.Event()

    def compile_graphs() -> None:
        while not done.is_set():
            _ = [open_graph("test") for _ in range(300)]

    thread = threading.Thread(target=compile_graphs)
    thread.start()
    try:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            report()
    finally:
        done.set()
        thread.join()
