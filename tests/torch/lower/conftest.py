"""Fixtures of the lowering tests, which compile nothing."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Replace the fixture of the torch tests: nothing here touches dynamo or the report, and a reset takes long."""
