"""The engine cache: one build among threads and processes, and no torn, damaged or foreign entry, whatever dies when."""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import platformdirs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trt_backend.engine.cache import EngineCache
from trt_backend.errors import BuildError

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("cache_worker.py")

KEY = "0123456789abcdef" * 2
OTHER = "fedcba9876543210" * 2
NEIGHBOUR = "012" + "f" * 29  # shares the lock file of KEY
PAYLOAD = b"engine " * 100

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "builds").mkdir()
    return tmp_path / "cache"


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[int], list[str]]:
    """Return the messages of a level so far."""
    caplog.set_level(logging.DEBUG, "trt_backend")
    return lambda level: [
        r.getMessage() for r in caplog.records if r.name == "trt_backend" and r.levelno == level
    ]


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    """Start workers that stand ready; `go` lets one run."""
    workers: list[subprocess.Popen[str]] = []

    def start_worker(mode: str, key: str = KEY) -> subprocess.Popen[str]:
        worker = subprocess.Popen(
            [sys.executable, WORKER, mode, folder, key],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        workers.append(worker)
        return worker

    yield start_worker
    for worker in workers:
        worker.kill()
        worker.communicate()


def go(*workers: subprocess.Popen[str]) -> None:
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()


def hangs(worker: subprocess.Popen[str]) -> None:
    assert worker.stdout is not None
    assert worker.stdout.readline() == "hanging\n"


def finish(worker: subprocess.Popen[str]) -> str:
    """Return the log of a worker that did what it was asked for."""
    _, logs = worker.communicate(timeout=30)
    assert worker.returncode == 0, logs
    return logs


def no_build() -> NoReturn:
    raise AssertionError("it builds")


def builds(folder: Path) -> int:
    return len(list((folder.parent / "builds").iterdir()))


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()}


def entry(folder: Path, key: str = KEY) -> Path:
    return folder / f"{key}.engine"


# Hits and misses


def test_an_engine_is_built_once_and_found_again(folder: Path, logged: Callable[[int], list[str]]) -> None:
    assert EngineCache(folder).get_or_build(KEY, lambda: PAYLOAD) == PAYLOAD
    assert EngineCache(folder).get_or_build(KEY, no_build) == PAYLOAD
    assert EngineCache(folder).get_or_build(OTHER, lambda: b"") == b""
    assert EngineCache(folder).get_or_build(OTHER, no_build) == b""
    assert files(folder) == {f"{KEY}.engine", f"{OTHER}.engine"}
    assert logged(logging.WARNING) == []


def test_a_second_process_starts_without_building(folder: Path, start: Start) -> None:
    EngineCache(folder).get_or_build(KEY, lambda: KEY.encode() * 1000)
    worker = start("hit")
    go(worker)
    assert "WARNING" not in finish(worker)


def test_a_hit_needs_no_lock(folder: Path, logged: Callable[[int], list[str]]) -> None:
    EngineCache(folder).get_or_build(KEY, lambda: PAYLOAD)
    for lock in (folder / "locks").iterdir():
        lock.unlink()
    (folder / "locks").rmdir()
    (folder / "locks").touch()  # as on a read-only file system: no lock can be made
    cache = EngineCache(folder)
    assert cache.get_or_build(KEY, no_build) == PAYLOAD
    assert logged(logging.WARNING) == []
    assert cache.get_or_build(OTHER, lambda: b"other") == b"other"
    assert not entry(folder, OTHER).exists(), "written without a lock"
    assert len(logged(logging.WARNING)) == 1


@pytest.mark.parametrize(
    "key", ["", "0123", "../../etc/passwd", KEY.upper(), "g" * 32, "0" * 129, KEY + "\n"]
)
def test_a_key_is_hex(folder: Path, key: str) -> None:
    with pytest.raises(ValueError, match="hex digits"):
        EngineCache(folder).get_or_build(key, no_build)


# Damage

DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda blob: b"", "its header is not"),
    "header cut": (lambda blob: blob[:20], "its header is not"),
    "payload cut": (lambda blob: blob[:-1], "truncated"),
    "payload gone": (lambda blob: blob[: blob.index(b"\n") + 1], "truncated"),
    "longer": (lambda blob: blob + b"\0", "not the length"),
    "payload bit": (lambda blob: blob[:-9] + bytes([blob[-9] ^ 1]) + blob[-8:], "checksum is wrong"),
    "checksum": (lambda blob: flip(blob, blob.index(b"\n") - 1), "checksum is wrong"),
    "length": (lambda blob: flip(blob, blob.index(b" 700 ") + 1), "not the length"),
    "key": (lambda blob: flip(blob, blob.index(KEY.encode())), "another key"),
    "line end": (lambda blob: flip(blob, blob.index(b"\n")), ""),
    "format": (lambda blob: blob.replace(b"-cache-1 ", b"-cache-0 ", 1), "another version"),
    "zeros": (lambda blob: bytes(len(blob)), "its header is not"),
    "text": (lambda blob: b"404 not found\n", "its header is not"),
}


def flip(blob: bytes, at: int) -> bytes:
    return blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_a_miss_that_is_logged_once(
    folder: Path, logged: Callable[[int], list[str]], damage: str
) -> None:
    spoil, reason = DAMAGES[damage]
    cache = EngineCache(folder)
    cache.get_or_build(KEY, lambda: PAYLOAD)
    entry(folder).write_bytes(spoil(entry(folder).read_bytes()))
    assert cache.get_or_build(KEY, lambda: b"new") == b"new"
    assert cache.get_or_build(KEY, no_build) == b"new"
    (warning,) = logged(logging.WARNING)
    assert str(entry(folder)) in warning
    assert reason in warning


def test_the_entry_of_another_key_is_a_miss(folder: Path, logged: Callable[[int], list[str]]) -> None:
    cache = EngineCache(folder)
    cache.get_or_build(OTHER, lambda: PAYLOAD)
    entry(folder, OTHER).rename(entry(folder))
    assert cache.get_or_build(KEY, lambda: b"new") == b"new"
    assert "another key" in logged(logging.WARNING)[0]


def test_a_damaged_entry_is_gone_even_where_the_build_fails(folder: Path) -> None:
    cache = EngineCache(folder)
    cache.get_or_build(KEY, lambda: PAYLOAD)
    entry(folder).write_bytes(b"")
    with pytest.raises(AssertionError, match="it builds"):
        cache.get_or_build(KEY, no_build)
    assert files(folder) == set()


@given(st.binary(max_size=300), st.data())
def test_no_change_of_a_byte_and_no_cut_goes_unseen(
    tmp_path_factory: pytest.TempPathFactory, payload: bytes, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("cache")
    cache = EngineCache(folder)
    cache.get_or_build(KEY, lambda: payload)
    blob = bytearray(entry(folder).read_bytes())
    at = data.draw(st.integers(0, len(blob) - 1))
    if data.draw(st.booleans()):
        del blob[at:]
    else:
        blob[at] ^= data.draw(st.integers(1, 255))
    entry(folder).write_bytes(blob)
    with pytest.raises(AssertionError, match="it builds"):
        cache.get_or_build(KEY, no_build)


def test_an_engine_that_does_not_load_is_discarded(folder: Path, logged: Callable[[int], list[str]]) -> None:
    cache = EngineCache(folder)
    foreign = cache.get_or_build(KEY, lambda: PAYLOAD)
    cache.discard(KEY, foreign, "built for SM 90")
    (warning,) = logged(logging.WARNING)
    assert f"{entry(folder)} does not load here: built for SM 90" in warning
    assert cache.get_or_build(KEY, lambda: b"ours") == b"ours"
    cache.discard(KEY, foreign, "built for SM 90")  # another thread that had loaded it too
    assert cache.get_or_build(KEY, no_build) == b"ours"
    cache.discard(OTHER, foreign, "not there")
    assert len(logged(logging.WARNING)) == 1


# Threads, processes, and killed ones


def test_two_processes_of_eight_threads_build_once(folder: Path, start: Start) -> None:
    workers = [start("eight_threads"), start("eight_threads")]
    go(*workers)
    logs = "".join(finish(worker) for worker in workers)
    assert builds(folder) == 1
    assert files(folder) == {f"{KEY}.engine"}
    assert logs.count(f"INFO waiting for another process that builds {entry(folder)}") == 1
    assert "WARNING" not in logs


def test_a_damaged_entry_is_built_once_too(folder: Path, start: Start) -> None:
    folder.mkdir()
    entry(folder).write_bytes(b"")
    workers = [start("eight_threads"), start("eight_threads")]
    go(*workers)
    logs = "".join(finish(worker) for worker in workers)
    assert builds(folder) == 1
    assert logs.count("WARNING") == 1


def test_different_engines_build_at_the_same_time(folder: Path) -> None:
    cache = EngineCache(folder)
    both = threading.Barrier(2)

    def build() -> bytes:
        both.wait(timeout=10)
        return PAYLOAD

    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(cache.get_or_build, key, build) for key in (KEY, OTHER)]
        assert [call.result() for call in calls] == [PAYLOAD, PAYLOAD]


def test_caches_of_one_folder_in_one_process_build_once(folder: Path) -> None:
    def build() -> bytes:
        (folder.parent / "builds" / str(threading.get_ident())).touch()
        return PAYLOAD

    with ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(EngineCache(folder).get_or_build, KEY, build) for _ in range(4)]
        assert {call.result() for call in calls} == {PAYLOAD}
    assert builds(folder) == 1


def test_who_waits_for_a_killed_builder_builds(
    folder: Path, start: Start, logged: Callable[[int], list[str]]
) -> None:
    worker = start("hang_in_build")
    go(worker)
    hangs(worker)
    cache = EngineCache(folder)
    with ThreadPoolExecutor(2) as threads:
        calls = [threads.submit(cache.get_or_build, KEY, lambda: PAYLOAD) for _ in range(2)]
        deadline = time.monotonic() + 5
        while not logged(logging.INFO) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(call.done() for call in calls), "the lock of the other process was not seen"
        worker.kill()
        assert [call.result(timeout=10) for call in calls] == [PAYLOAD, PAYLOAD]
    assert logged(logging.INFO) == [f"waiting for another process that builds {entry(folder)}"]
    assert files(folder) == {f"{KEY}.engine"}


def test_a_writer_killed_amid_its_write_leaves_nothing_for_long(folder: Path, start: Start) -> None:
    worker = start("hang_in_write")
    go(worker)
    hangs(worker)
    cache = EngineCache(folder)
    cache.get_or_build(OTHER, lambda: PAYLOAD)
    (torn,) = files(folder) - {f"{OTHER}.engine"}
    assert torn.endswith(".tmp"), "the file of a living writer must stay"
    assert not entry(folder).exists()
    worker.kill()
    worker.wait()
    assert torn in files(folder), "the test shows nothing: the killed writer left no file"
    assert cache.get_or_build(KEY, lambda: PAYLOAD) == PAYLOAD
    assert files(folder) == {f"{KEY}.engine", f"{OTHER}.engine"}
    assert cache.get_or_build(KEY, no_build) == PAYLOAD


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_amid_a_build_waits_for_the_parent(folder: Path, start: Start) -> None:
    worker = start("fork_in_build")
    go(worker)
    finish(worker)
    assert builds(folder) == 1


def test_a_build_that_raises_leaves_nothing_and_who_waits_builds(
    folder: Path, logged: Callable[[int], list[str]]
) -> None:
    cache = EngineCache(folder)
    waiters: list[Future[bytes]] = []
    with ThreadPoolExecutor(1) as threads:

        def fail_with_a_waiter() -> bytes:
            waiters.append(threads.submit(cache.get_or_build, KEY, lambda: PAYLOAD))
            raise OSError("no memory")

        with pytest.raises(OSError, match="no memory"):
            cache.get_or_build(KEY, fail_with_a_waiter)
        assert waiters[0].result(timeout=10) == PAYLOAD
    assert files(folder) == {f"{KEY}.engine"}
    assert logged(logging.WARNING) == [], "an OSError of the build was taken for one of the folder"


def test_an_interrupted_build_lets_the_next_one_build(folder: Path) -> None:
    cache = EngineCache(folder)

    def interrupted() -> bytes:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.get_or_build(KEY, interrupted)
    assert files(folder) == set()
    assert cache.get_or_build(KEY, lambda: PAYLOAD) == PAYLOAD


# The bound


def used_at(folder: Path, *keys: str) -> None:
    """Let the entries have been used in this order, long ago."""
    for second, key in enumerate(keys):
        os.utime(entry(folder, key), (second, second))


def kept(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.engine")}


def test_the_engines_not_used_for_the_longest_time_go(folder: Path) -> None:
    keys = [f"{i}" * 32 for i in range(5)]
    cache = EngineCache(folder, max_bytes=3000)
    for key in keys[:4]:
        EngineCache(folder).get_or_build(key, lambda: bytes(900))
    used_at(folder, *keys[:4])
    cache.get_or_build(keys[0], no_build)
    cache.get_or_build(keys[4], lambda: bytes(900))
    assert kept(folder) == {keys[0], keys[3], keys[4]}
    assert sum(path.stat().st_size for path in folder.glob("*.engine")) <= 3000


def test_the_engine_just_written_stays(folder: Path) -> None:
    cache = EngineCache(folder, max_bytes=10)
    cache.get_or_build(KEY, lambda: PAYLOAD)
    assert kept(folder) == {KEY}
    cache.get_or_build(OTHER, lambda: PAYLOAD)
    assert kept(folder) == {OTHER}


def test_an_engine_whose_lock_is_held_stays(folder: Path) -> None:
    cache = EngineCache(folder, max_bytes=10)
    cache.get_or_build(KEY, lambda: PAYLOAD)

    def build_under_the_lock() -> bytes:
        with ThreadPoolExecutor(1) as threads:
            threads.submit(cache.get_or_build, OTHER, lambda: PAYLOAD).result(timeout=10)
        assert kept(folder) == {KEY, OTHER}
        return PAYLOAD

    cache.get_or_build(NEIGHBOUR, build_under_the_lock)
    assert kept(folder) == {NEIGHBOUR}


def test_what_is_not_ours_stays(folder: Path) -> None:
    folder.mkdir()
    theirs = {"model.engine", "notes.tmp", "resnet.engine.tmp", f"{KEY}.txt", "Makefile"}
    for name in theirs:
        (folder / name).write_bytes(bytes(1000))
    cache = EngineCache(folder, max_bytes=10)
    cache.get_or_build(KEY, lambda: PAYLOAD)
    cache.merge_timings("gpu", lambda old: PAYLOAD)
    cache.get_or_build(OTHER, lambda: PAYLOAD)
    assert files(folder) == theirs | {f"{OTHER}.engine", "gpu.timings"}


# A folder that cannot be used


def test_builds_go_on_where_the_folder_cannot_be_made(
    tmp_path: Path, logged: Callable[[int], list[str]]
) -> None:
    (tmp_path / "file").touch()
    cache = EngineCache(tmp_path / "file" / "cache")
    with ThreadPoolExecutor(8) as threads:
        calls = [threads.submit(cache.get_or_build, KEY, lambda: PAYLOAD) for _ in range(8)]
        assert {call.result() for call in calls} == {PAYLOAD}
    cache.merge_timings("gpu", lambda old: b"timings")
    assert cache.timings("gpu") == b""
    cache.discard(KEY, PAYLOAD, "of no use")
    (warning,) = logged(logging.WARNING)
    assert str(cache.folder) in warning


def test_builds_go_on_where_the_disk_is_full(
    folder: Path, logged: Callable[[int], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    cache = EngineCache(folder)
    assert cache.get_or_build(KEY, lambda: PAYLOAD) == PAYLOAD
    assert cache.get_or_build(OTHER, lambda: PAYLOAD) == PAYLOAD
    cache.merge_timings("gpu", lambda old: b"timings")
    assert files(folder) == set()
    (warning,) = logged(logging.WARNING)
    assert "No space left" in warning


# Timing caches


def test_merges_of_two_processes_lose_nothing(folder: Path, start: Start) -> None:
    workers = [start("merge"), start("merge")]
    go(*workers)
    logs = "".join(finish(worker) for worker in workers)
    lines = EngineCache(folder).timings("timings").decode().split()
    assert sorted(lines) == sorted(f"{worker.pid}-{i}" for worker in workers for i in range(40))
    assert "WARNING" not in logs


def test_a_timing_cache_is_read_and_merged(folder: Path) -> None:
    cache = EngineCache(folder)
    assert cache.timings("gpu") == b""
    cache.merge_timings("gpu", lambda old: old + b"one")
    cache.merge_timings("gpu", lambda old: old + b" two")
    assert EngineCache(folder).timings("gpu") == b"one two"
    assert cache.timings("other") == b""


@pytest.mark.parametrize("merges", [False, True])
def test_a_damaged_timing_cache_counts_as_none(
    folder: Path, logged: Callable[[int], list[str]], merges: bool
) -> None:
    cache = EngineCache(folder)
    cache.merge_timings("gpu", lambda old: b"one")
    path = folder / "gpu.timings"
    path.write_bytes(path.read_bytes()[:-1])
    if merges:
        cache.merge_timings("gpu", lambda old: old + b"two")
    assert cache.timings("gpu") == (b"two" if merges else b"")
    (warning,) = logged(logging.WARNING)
    assert f"{path} is truncated" in warning


def test_a_merge_that_raises_changes_nothing(folder: Path) -> None:
    cache = EngineCache(folder)
    cache.merge_timings("gpu", lambda old: b"one")
    with pytest.raises(AssertionError, match="it builds"):
        cache.merge_timings("gpu", lambda old: no_build())
    assert cache.timings("gpu") == b"one"
    assert files(folder) == {"gpu.timings"}


def test_a_build_may_use_timing_caches(folder: Path) -> None:
    cache = EngineCache(folder)

    def build() -> bytes:
        cache.merge_timings(KEY, lambda old: b"timings")
        return cache.timings(KEY) + b" used"

    assert cache.get_or_build(KEY, build) == b"timings used"


@pytest.mark.parametrize("name", ["", "../gpu", "a.b", "x" * 129])
def test_a_name_is_a_word(folder: Path, name: str) -> None:
    with pytest.raises(ValueError, match="letters, digits"):
        EngineCache(folder).timings(name)


# The user's folder


def test_the_folder_is_the_options_or_the_environments_or_the_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TRT_BACKEND_CACHE_DIR", str(tmp_path / "environment"))
    assert EngineCache.of_user("~/option").folder == tmp_path / "option"
    assert EngineCache.of_user(None).folder == tmp_path / "environment"
    monkeypatch.setenv("TRT_BACKEND_CACHE_DIR", "")
    assert EngineCache.of_user(None).folder == platformdirs.user_cache_path("trt-backend", appauthor=False)


def test_the_folder_stays_where_it_is_when_the_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert EngineCache(Path("cache")).folder == tmp_path / "cache"


def test_a_process_has_one_cache_of_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert EngineCache.of_user("engines") is EngineCache.of_user(str(tmp_path / "engines"))


def test_a_user_without_a_home_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home(*_: object, **__: object) -> None:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.delenv("TRT_BACKEND_CACHE_DIR", raising=False)
    monkeypatch.setattr(platformdirs, "user_cache_path", no_home)
    with pytest.raises(BuildError, match=r"set \$TRT_BACKEND_CACHE_DIR"):
        EngineCache.of_user()


def test_a_verdict_is_of_one_engine(folder: Path) -> None:
    cache = EngineCache(folder)
    cache.get_or_build(KEY, lambda: PAYLOAD)
    assert not cache.is_checked(KEY, PAYLOAD)
    cache.checked(KEY, PAYLOAD)()
    assert cache.is_checked(KEY, PAYLOAD)
    assert not cache.is_checked(KEY, PAYLOAD + b"built anew")
    assert not cache.is_checked(OTHER, PAYLOAD)


def test_a_verdict_goes_with_its_engine(folder: Path) -> None:
    cache = EngineCache(folder, max_bytes=1000)
    cache.get_or_build(KEY, lambda: PAYLOAD)
    cache.checked(KEY, PAYLOAD)()
    cache.get_or_build(OTHER, lambda: PAYLOAD)
    assert [path.name for path in folder.iterdir() if path.is_file()] == [f"{OTHER}.engine"]


def test_damaged_verdicts_are_none(folder: Path) -> None:
    cache = EngineCache(folder)
    cache.checked(KEY, PAYLOAD)()
    (path,) = folder.glob("*.checked")
    path.write_bytes(b"\xff\xfe")
    assert not cache.is_checked(KEY, PAYLOAD)
