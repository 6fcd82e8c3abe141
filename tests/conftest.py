"""Options and fixtures of all tests."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile(
    "quick", deadline=None, max_examples=60
)  # cores are shared: a deadline would be noise
settings.load_profile("quick")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--accept", action="store_true", help="rewrite the goldens with what the tests produce")


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
