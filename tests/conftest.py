"""Options and fixtures of all tests."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import trt_backend.compile
from trt_backend.debug import log
from trt_backend.errors import ReasonKind
from trt_backend.ir.graph import Graph

settings.register_profile(
    "quick", deadline=None, max_examples=60
)  # cores are shared: a deadline would be noise
settings.load_profile("quick")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--accept", action="store_true", help="rewrite the goldens with what the tests produce")
    parser.addoption(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="where tests/torch/test_*.py put their tensors: with cuda, TensorRT runs what ONNX Runtime runs on the cpu",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "wrong_answers: engines are made to give some")
    config.addinivalue_line("markers", "cpu_only(reason): left out with --device cuda, for this reason")
    if config.getoption("--device") == "cuda" and "trt" not in _torch_backends():
        raise pytest.UsageError(
            'torch.compile knows no backend "trt" here: install this checkout with `pip install -e .`'
        )


def _torch_backends() -> list[str]:
    import torch

    return torch.compiler.list_backends()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--device") == "cpu":
        return
    for item in items:
        if marker := item.get_closest_marker("cpu_only"):
            item.add_marker(pytest.mark.skip(reason=f"CPU only: {marker.kwargs['reason']}"))


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    """Return the type of device that `--device` names."""
    return str(request.config.getoption("--device"))


@pytest.fixture(scope="session", autouse=True)
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the engines of the tests out of the user's cache, and the user's out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRT_BACKEND_CACHE_DIR", str(tmp_path_factory.mktemp("engines")))
        yield


@pytest.fixture(autouse=True)
def no_wrong_answers(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail tests whose engines gave wrong answers, which nobody else sees: such regions run natively.

    Tests that make them give some are marked `wrong_answers`.
    """
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if ReasonKind.WRONG_ANSWER.value in record.getMessage():
                said.append(record.getMessage())

    listener = Listener()
    log.addHandler(listener)
    yield
    log.removeHandler(listener)
    assert not said or request.node.get_closest_marker("wrong_answers"), said


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a test an empty engine cache: each engine that it uses is really built."""
    monkeypatch.setenv("TRT_BACKEND_CACHE_DIR", str(tmp_path / "engines"))


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[Graph]:
    """Return a list that collects the graphs that engines are built for, as their target gets them."""
    graphs: list[Graph] = []

    def watched(graph: Graph, *rest: Any) -> Graph:
        graphs.append(legal(graph, *rest))
        return graphs[-1]

    legal = trt_backend.compile._legal
    monkeypatch.setattr(trt_backend.compile, "_legal", watched)
    return graphs


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Compare a text with `goldens/<test file>/<test>.txt` beside the test file; `--accept` writes it."""
    stem = request.path.stem.removeprefix("test_")
    name = re.sub(r"[^\w.-]+", "_", request.node.name.removeprefix("test_")).strip("_")
    path: Path = request.path.parent / "goldens" / stem / f"{name}.txt"

    def compare(text: str) -> None:
        if request.config.getoption("--accept"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            return
        assert path.exists(), f"{path} is missing; `pytest --accept` writes it"
        assert text == path.read_text(), f"differs from {path}; `pytest --accept` rewrites it"

    return compare
