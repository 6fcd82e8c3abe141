"""A process of its own that uses a cache: `cache_worker.py MODE FOLDER KEY`, run by test_cache.py.

It says "ready", waits for a line on its standard input, does what MODE names, and writes its log to standard error.
Every build leaves a file in FOLDER/../builds.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

from trt_backend.engine.cache import EngineCache

mode, folder, key = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
cache = EngineCache(folder)


def payload() -> bytes:
    return key.encode() * 1000


def note_build() -> None:
    (folder.parent / "builds" / uuid.uuid4().hex).touch()


def hang() -> NoReturn:
    print("hanging", flush=True)
    while True:
        time.sleep(60)


def build_slowly() -> bytes:
    note_build()
    time.sleep(1.0)
    return payload()


def eight_threads() -> None:
    with ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(cache.get_or_build, key, build_slowly) for _ in range(8)]
        assert all(call.result() == payload() for call in calls)


def hit() -> None:
    assert cache.get_or_build(key, lambda: sys.exit("it builds")) == payload()


def hang_in_build() -> None:
    def build() -> bytes:
        note_build()
        hang()

    cache.get_or_build(key, build)


def hang_in_write() -> None:
    def tear(descriptor: int) -> NoReturn:
        os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        hang()

    os.fsync = tear
    cache.get_or_build(key, payload)


def merge() -> None:
    for i in range(40):
        cache.merge_timings("timings", lambda old, i=i: old + f"{os.getpid()}-{i}\n".encode())


def fork_in_build() -> None:
    builds = threading.Event()

    def build() -> bytes:
        builds.set()
        return build_slowly()

    thread = threading.Thread(target=cache.get_or_build, args=(key, build))
    thread.start()
    builds.wait()
    if (child := os.fork()) == 0:
        signal.alarm(10)  # a child that waits for ever must not outlive the test
        found = cache.get_or_build(key, lambda: b"the child built")
        os._exit(0 if found == payload() else 1)
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


MODES: list[Callable[[], None]] = [eight_threads, hit, hang_in_build, hang_in_write, merge, fork_in_build]

if __name__ == "__main__":
    logging.basicConfig(level=logging.DEBUG, format="%(name)s %(levelname)s %(message)s")
    print("ready", flush=True)
    sys.stdin.readline()
    {run.__name__: run for run in MODES}[mode]()
