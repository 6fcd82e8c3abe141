"""Builds in a process of their own: what crosses, what a crash costs, and who ends when."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fake_provider import WEIGHT, FakeProvider, Region, example_graph, nothing
from trt_backend.calibration import Calibration
from trt_backend.engine import builder_process
from trt_backend.engine.builder_process import _write, build_apart
from trt_backend.engine.profile import EVERYTHING
from trt_backend.errors import BuildError, ReasonKind, UnsupportedError
from trt_backend.options import CompileOptions

HERE = Path(__file__).parent
PATIENCE = 60.0


def build(how: str, folder: Path) -> bytes:
    options = CompileOptions(precision="int8", calibration=Calibration())
    return build_apart(FakeProvider(how, folder), example_graph(), EVERYTHING, options)


def builders(folder: Path) -> list[int]:
    """Return the processes that have built."""
    return [int(path.name.split("-")[1]) for path in folder.glob("build-*")]


def wait_until(what: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.01)


def is_running(process: int) -> bool:
    """Whether a process runs: one that has ended may wait for somebody to ask how."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_graph_crosses_with_its_weights(tmp_path: Path) -> None:
    assert build("well", tmp_path) == WEIGHT.tobytes()
    (builder,) = builders(tmp_path)
    assert builder != os.getpid()
    wait_until(lambda: not is_running(builder))


def test_the_log_comes_back_and_what_is_printed_does_no_harm(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO", "trt_backend"):
        assert build("logs", tmp_path) == WEIGHT.tobytes()
    assert [record.getMessage() for record in caplog.records] == [f"built by {builders(tmp_path)[0]}"]


def test_no_interpreter_to_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(BuildError, match="does not start"):
        build("well", tmp_path)


def test_errors_come_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UnsupportedError, match="not today") as refused:
        build("refuses", tmp_path)
    assert refused.value.kind is ReasonKind.DTYPE
    with pytest.raises(RuntimeError, match="KeyError: 'oops'"):
        build("bug", tmp_path)
    assert "fake_provider.py" in caplog.text, "the traceback"


@pytest.mark.parametrize(("how", "named"), [("aborts", "SIGABRT"), ("exits", "exit code 3")])
def test_a_death_is_a_build_error_that_names_its_cause(how: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=f"the builder's process died of {named}"):
        build(how, tmp_path)


def test_what_a_start_up_file_prints_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('welcome')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(BuildError, match="the builder's process died of SIGKILL"):
        build("sleeps", tmp_path)


def test_a_builder_ends_in_good_order_while_its_parent_lives(tmp_path: Path) -> None:
    code = f"import sys; sys.path[:] = {sys.path}; from trt_backend.engine import builder_process as b; b.serve()"
    provider = FakeProvider("well", tmp_path)
    request = 0, nothing, "fake", provider, example_graph(), EVERYTHING, CompileOptions()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        _write(request, child.stdin)
        assert pickle.load(child.stdout) == WEIGHT.tobytes()
        assert child.wait(PATIENCE) == 0


def test_a_process_without_standard_error_gets_its_answer(tmp_path: Path) -> None:
    code = f"import sys; sys.path[:] = {[str(HERE), *sys.path]}; import test_builder_process as t"
    code += f"; assert t.build('logs', t.Path({str(tmp_path)!r})) == t.WEIGHT.tobytes()"
    command = ["sh", "-c", 'exec "$0" -c "$1" 2>&-', sys.executable, code]
    assert subprocess.run(command, check=False).returncode == 0


def test_a_builder_that_sees_another_device_does_not_build(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match=r"the builder's process sees fake \d+, not fake"):
        build("elsewhere", tmp_path)
    assert not builders(tmp_path)


def test_a_crash_costs_one_region_its_engine_and_the_next_one_is_built(tmp_path: Path) -> None:
    broken = Region(FakeProvider("aborts", tmp_path), build="background")

    def has_failed() -> bool:
        assert broken.call() == "native"
        return broken.record.reason is not None

    wait_until(has_failed)
    assert str(broken.record.reason) == "region: build failed: the builder's process died of SIGABRT"
    assert not list((tmp_path / "cache").glob("*.engine*"))
    assert len(builders(tmp_path)) == 1
    region = Region(FakeProvider("well", tmp_path), build="background")
    wait_until(lambda: region.call() == "engine")
    assert len(builders(tmp_path)) == 2
    assert len(list((tmp_path / "cache").glob("*.engine"))) == 1
    again = Region(FakeProvider("aborts", tmp_path), build="background")
    wait_until(lambda: again.call() == "engine")
    assert len(builders(tmp_path)) == 2, "it came from the cache"


def test_builders_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    under_way = [0]

    def one(*_: object) -> bytes:
        under_way[0] += 1
        time.sleep(0.02)
        alone = under_way == [1]
        under_way[0] -= 1
        return str(alone).encode()

    monkeypatch.setattr(builder_process, "_build", one)
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(lambda _: build("well", tmp_path), range(4))) == {b"True"}


def test_who_waits_for_a_turn_ends_with_the_interpreter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder_process, "_PATIENCE_SECONDS", 0.01)
    monkeypatch.setattr(threading, "main_thread", threading.Thread)  # one that does not run
    with builder_process._turn, pytest.raises(BuildError, match="the interpreter ends"):
        build("well", tmp_path)


Start = Callable[[str, str], "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a worker, and return once it builds."""
    workers: list[subprocess.Popen[str]] = []

    def started(how: str, cached: str) -> subprocess.Popen[str]:
        worker = subprocess.Popen(
            [sys.executable, HERE / "exit_worker.py", how, cached, tmp_path],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )  # fmt: skip
        workers.append(worker)
        assert worker.stdout is not None
        assert worker.stdout.readline() == "building\n"
        return worker

    yield started
    for worker in workers:
        worker.kill()
        worker.communicate()


def test_a_process_that_ends_takes_its_builder_along(start: Start, tmp_path: Path) -> None:
    worker = start("sleeps", "cached")
    (builder,) = builders(tmp_path)
    assert is_running(builder)
    assert worker.communicate("end\n", timeout=PATIENCE) == ("", "")
    assert worker.returncode == 0
    assert not is_running(builder)
    assert not list((tmp_path / "cache").glob("*.engine*"))


def test_a_process_that_ends_does_not_wait_for_another_ones_build(start: Start, tmp_path: Path) -> None:
    start("sleeps", "cached")
    (builder,) = builders(tmp_path)
    waits = start("sleeps", "cached")
    assert waits.communicate("end\n", timeout=PATIENCE) == ("", "")
    assert waits.returncode == 0
    assert is_running(builder)
    assert builders(tmp_path) == [builder]


def test_a_process_that_is_killed_takes_its_builder_along(start: Start, tmp_path: Path) -> None:
    worker = start("sleeps", "cached")
    (builder,) = builders(tmp_path)
    assert is_running(builder)
    worker.kill()
    wait_until(lambda: not is_running(builder))


def test_a_process_that_ends_waits_for_a_thread_inside_a_library(start: Start, tmp_path: Path) -> None:
    worker = start("naps", "uncached")
    assert builders(tmp_path) == [worker.pid], "no process of its own"
    assert not list(tmp_path.glob("built-*"))
    assert worker.communicate("end\n", timeout=PATIENCE) == ("", "")
    assert worker.returncode == 0
    assert list(tmp_path.glob("built-*"))
