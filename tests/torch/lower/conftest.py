"""Fixtures of the lowering tests, which compile nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """Replace the fixture of the torch tests: nothing here touches dynamo or the report, and a reset takes long."""
    yield
