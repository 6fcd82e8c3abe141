"""The on-disk cache of serialized engines and of builders' timing caches, shared by threads, processes and ranks."""

from __future__ import annotations

__all__ = ["EngineCache"]

import functools
import logging
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import platformdirs
import xxhash
from filelock import BaseFileLock, FileLock, Timeout

from trt_backend.debug import log
from trt_backend.errors import BuildError

_FORMAT = "trt-backend-cache-1"
_HEADER_LIMIT = 1024

_KEY = re.compile(r"[0-9a-f]{16,128}")
_NAME = re.compile(r"[0-9A-Za-z_-]{1,128}")

# Only these are ever deleted: a user may give us a folder in which other things lie, other engines among them.
_ENGINE = re.compile(rf"{_KEY.pattern}\.engine")
_LEFTOVER = re.compile(rf"{_NAME.pattern}\.(engine|timings)\.[0-9a-f]{{16}}\.tmp")

# An eviction holds other entries' locks for a moment: a wait of less than this is no wait for a build.
_PATIENCE_SECONDS = 0.5


class EngineCache:
    """A folder of engines by key, bounded in size, and of timing caches by name.

    * **One writer.** Who writes, replaces or deletes an entry holds its lock; an entry is read without it, for it is
      replaced in one step and carries its key and a checksum.
    * **Locks.** A few keys share a lock file (their first digits), so that lock files are bounded in number and never
      deleted: deleting one that somebody waits for would let two in. The OS releases the lock of a killed process.
    * **Verdicts.** Beside an engine may lie the checksum of that which was found to answer as native does.
    * **Leftovers.** A temporary file whose lock nobody holds is a killed writer's.
    * **Never in the way.** Where the folder cannot be used, builds go on without it: one warning, and nothing is stored.
    """

    def __init__(self, folder: Path, max_bytes: int = 10 << 30) -> None:
        """Make the cache of `folder`, which need not exist; timing caches do not count towards `max_bytes`."""
        self.folder = folder.absolute()
        self.max_bytes = max_bytes
        # Keyed by process too: in a fork, a lock that another thread held at that moment would stay held for ever.
        self._thread_locks: dict[tuple[int, str], threading.Lock] = {}
        self._failures = count()

    @classmethod
    def of_user(cls, folder: str | None = None) -> EngineCache:
        """Return the cache in `folder`, else in $TRT_BACKEND_CACHE_DIR, else in the user's cache directory."""
        chosen = folder or os.environ.get("TRT_BACKEND_CACHE_DIR")
        try:
            default = platformdirs.user_cache_path("trt-backend", appauthor=False)
            return _cache_of((Path(chosen).expanduser() if chosen else default).absolute())
        except RuntimeError as error:
            raise BuildError(f"no folder for engines, set $TRT_BACKEND_CACHE_DIR: {error}") from error

    def get_or_build(self, key: str, build: Callable[[], bytes]) -> bytes:
        """Return the engine of `key`; `build` runs where none is stored, once among all threads and processes.

        Args:
            key: 16 to 128 hex digits that cover everything the engine depends on; ValueError otherwise.
            build: makes the engine, and must not use engines of this cache. What it raises comes through with nothing
                stored, and whoever waits for this key builds in turn.
        """
        path = self._engine_path(key)
        stored = _read(path)
        if isinstance(stored, bytes):
            _touch(path)
            return stored
        with self._locked(path) as locked:
            stored = _read_or_delete(path)
            if stored is not None:
                return stored
            engine = build()
            written = locked and self._write(path, engine)
        if written:
            self._clean(keep=path)
        return engine

    def find(self, key: str) -> bytes | None:
        """Return the engine of `key`, None where none is stored."""
        stored = _read(self._engine_path(key))
        return stored if isinstance(stored, bytes) else None

    def discard(self, key: str, engine: bytes, reason: str) -> None:
        """Delete the entry that gave `engine`, which does not load here; keep it if it was replaced meanwhile."""
        path = self._engine_path(key)
        with self._locked(path):
            if _read(path) == engine:
                _delete(path, f"does not load here: {reason}")

    def is_checked(self, key: str, engine: bytes) -> bool:
        """Whether this engine of `key` is known to answer as native does."""
        try:
            return self._verdict_path(key).read_text("utf-8") == xxhash.xxh3_128_hexdigest(engine)
        except (OSError, UnicodeDecodeError):
            return False

    def checked(self, key: str, engine: bytes) -> Callable[[], None]:
        """Return what notes that this engine of `key` answers as native does; without the engine itself."""
        return functools.partial(self._note, self._verdict_path(key), xxhash.xxh3_128_hexdigest(engine))

    def _note(self, path: Path, digest: str) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_text(digest, "utf-8")
        except OSError as error:
            self._warn(error)

    def timings(self, name: str) -> bytes:
        """Return the timing cache `name` (letters, digits, `-` and `_`; ValueError otherwise), b"" where there is none."""
        path = self._timings_path(name)
        with self._locked(path):
            return _read_or_delete(path) or b""

    def merge_timings(self, name: str, merge: Callable[[bytes], bytes]) -> None:
        """Replace the timing cache `name` by `merge` of it (b"" where there is none), as one step for everybody."""
        path = self._timings_path(name)
        with self._locked(path) as locked:
            stored = _read_or_delete(path)
            merged = merge(stored or b"")
            if locked and merged != stored:
                self._write(path, merged)

    def _engine_path(self, key: str) -> Path:
        if not _KEY.fullmatch(key):
            raise ValueError(f"key {key!r} is not of 16 to 128 hex digits in lower case")
        return self.folder / f"{key}.engine"

    def _verdict_path(self, key: str) -> Path:
        return self._engine_path(key).with_suffix(".checked")

    def _timings_path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ValueError(f"name {name!r} is not of 1 to 128 letters, digits, '-' and '_'")
        return self.folder / f"{name}.timings"

    @contextmanager
    def _locked(self, path: Path) -> Generator[bool]:
        """Hold the lock of an entry; gives False where the folder takes no lock file, and so holds off threads only."""
        name = _lock_name(path)
        with self._thread_locks.setdefault((os.getpid(), name), threading.Lock()):
            lock = self._wait_for_lock(name, path)
            try:
                yield lock is not None
            finally:
                if lock is not None:
                    lock.release()

    def _wait_for_lock(self, name: str, path: Path) -> BaseFileLock | None:
        try:
            lock = self._file_lock(name)
            with suppress(Timeout):
                lock.acquire(timeout=_PATIENCE_SECONDS)
                return lock
            start = time.perf_counter()
            log.info("waiting for another process that builds %s", path)
            while threading.main_thread().is_alive():  # a process that ends waits for nobody
                with suppress(Timeout):
                    lock.acquire(timeout=_PATIENCE_SECONDS)
                    log.debug("waited %.1f s for %s", _PATIENCE_SECONDS + time.perf_counter() - start, path)
                    return lock
        except (
            OSError,
            NotImplementedError,
        ) as error:  # filelock 3 raises the latter where there is no flock
            self._warn(error)
        return None

    def _file_lock(self, name: str) -> BaseFileLock:
        """Return a lock of its own for each call: only so does it exclude this process's other users too."""
        folder = self.folder / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{name}.lock")

    def _write(self, path: Path, payload: bytes) -> bool:
        """Store a payload in one step, and say whether that went well; the caller holds the lock."""
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
        try:
            try:
                with temporary.open("xb") as file:
                    file.write(_header(path.stem, payload))
                    file.write(payload)
                    file.flush()
                    os.fsync(file.fileno())
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
        except OSError as error:
            self._warn(error)
            return False
        return True

    def _clean(self, keep: Path) -> None:
        """Delete what killed writers left, then the engines not used for the longest time until the rest fits."""
        try:
            paths = list(self.folder.iterdir())
            engines = sorted(_usage(path for path in paths if _ENGINE.fullmatch(path.name)))
        except OSError as error:
            self._warn(error)
            return
        for path in paths:
            if _LEFTOVER.fullmatch(path.name):
                self._delete_unlocked(path)
        total = sum(size for _, size, _ in engines)
        for _, size, path in engines:
            if total > self.max_bytes and path != keep and self._delete_unlocked(path):
                with suppress(OSError):
                    path.with_suffix(".checked").unlink(missing_ok=True)
                log.debug("evicted %s (%d bytes)", path, size)
                total -= size

    def _delete_unlocked(self, path: Path) -> bool:
        """Delete a file unless its lock is held, and say whether it is gone."""
        lock = self._file_lock(_lock_name(path))
        try:
            with lock.acquire(timeout=0):
                path.unlink(missing_ok=True)
        except OSError:  # Timeout is one
            return False
        return True

    def _warn(self, error: Exception) -> None:
        level = logging.WARNING if next(self._failures) == 0 else logging.DEBUG
        log.log(level, "the engine cache %s cannot be used, engines are built anew: %s", self.folder, error)


@functools.cache
def _cache_of(folder: Path) -> EngineCache:
    """Return the process's one cache of a folder, whose locks hold off its threads."""
    return EngineCache(folder)


def _lock_name(path: Path) -> str:
    """Return the lock of an entry, or of a temporary file of it; engines and timing caches never share one."""
    stem, kind = path.name.split(".")[:2]
    return f"{kind}-{stem[:3]}"


def _header(key: str, payload: bytes) -> bytes:
    return f"{_FORMAT} {key} {len(payload)} {xxhash.xxh3_128_hexdigest(payload)}\n".encode()


def _read(path: Path) -> bytes | str | None:
    """Return the payload, or what is wrong with the file, or None where there is none."""
    try:
        with path.open("rb", buffering=0) as file:  # a buffer would cost a second copy of the engine
            header, payload = file.readline(_HEADER_LIMIT), file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    expected = _header(path.stem, payload)
    return payload if header == expected else _difference(header.split(), expected.split())


def _difference(found: list[bytes], expected: list[bytes]) -> str:
    if len(found) != len(expected) or found[0] != expected[0]:
        return f"is damaged or of another version: its header is not of {_FORMAT}"
    if found[1] != expected[1]:
        return "is the entry of another key"
    if found[2] != expected[2]:
        return f"is truncated or damaged: not the length that its header says, but {int(expected[2])} bytes"
    return "is damaged: its checksum is wrong"


def _read_or_delete(path: Path) -> bytes | None:
    """Return the payload, or None after deleting a file that is no good; the caller holds the lock."""
    stored = _read(path)
    if isinstance(stored, str):
        _delete(path, stored)
        return None
    return stored


def _delete(path: Path, reason: str) -> None:
    log.warning("%s %s; it is made anew", path, reason)
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _touch(path: Path) -> None:
    """Set the time of last use, where the folder can be written."""
    with suppress(OSError):
        os.utime(path)


def _usage(paths: Iterator[Path]) -> Iterator[tuple[int, int, Path]]:
    """Yield the time of last use, the size and the path of each file that is still there."""
    for path in paths:
        with suppress(FileNotFoundError):
            stat = path.stat()
            yield stat.st_mtime_ns, stat.st_size, path
