"""From a graph to an engine: what the cache keeps when an engine does not load."""

from __future__ import annotations

from pathlib import Path

import pytest

from fake_provider import FakeProvider, Region
from trt_backend import compile
from trt_backend.engine.cache import EngineCache
from trt_backend.errors import BuildError, OutOfMemoryError, ReasonKind
from trt_backend.runtime import pause


def builds(folder: Path) -> int:
    return len(list(folder.glob("built-*")))


def test_no_memory_to_load_an_engine_does_not_cost_its_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(pause, "monotonic", lambda: now[0])
    region = Region(FakeProvider("well", tmp_path, load_errors=[OutOfMemoryError("not now")]))
    assert region.call() == "native"
    assert region.record.reason is not None
    assert region.record.reason.kind is ReasonKind.OUT_OF_MEMORY
    (mark,) = tmp_path.glob("built-*")
    mark.unlink()
    now[0] = 60.0
    assert region.call() == "engine"
    assert builds(tmp_path) == 0, "it came from the cache"
    assert region.record.reason is None


def test_an_entry_that_does_not_load_is_built_again_once(tmp_path: Path) -> None:
    assert Region(FakeProvider("well", tmp_path)).call() == "engine"
    (mark,) = tmp_path.glob("built-*")
    mark.unlink()
    region = Region(FakeProvider("well", tmp_path, load_errors=[BuildError("of another version")]))
    assert region.call() == "engine"
    assert builds(tmp_path) == 1
    region = Region(FakeProvider("well", tmp_path, load_errors=[BuildError("no"), BuildError("no")]))
    assert region.call() == "native"


def test_an_entry_that_does_not_load_and_cannot_be_deleted_is_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a folder that another user fills."""
    assert Region(FakeProvider("well", tmp_path)).call() == "engine"
    (mark,) = tmp_path.glob("built-*")
    mark.unlink()
    monkeypatch.setattr(EngineCache, "discard", lambda *_: None)
    region = Region(FakeProvider("well", tmp_path, load_errors=[BuildError("of another version")]))
    assert region.call() == "engine"
    assert builds(tmp_path) == 1


def test_other_code_makes_other_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for digest, built in (("a", 1), ("a", 0), ("b", 1)):
        monkeypatch.setattr(compile, "_sources", lambda digest=digest: digest)
        assert Region(FakeProvider("well", tmp_path)).call() == "engine"
        assert builds(tmp_path) == built
        for mark in tmp_path.glob("built-*"):
            mark.unlink()


def test_the_digest_of_the_code_covers_what_makes_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []
    monkeypatch.setattr(Path, "read_bytes", lambda path: (read.append(path), b"")[1])
    compile._sources.__wrapped__()
    assert {"fingerprint.py", "simplify.py", "contraction.py", "tensorrt_build.py"} <= {
        path.name for path in read
    }
