"""Fixtures of the torch tests; `torch_checks.py` holds what they are made of."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# For `models`, `torch_checks` and `harness`, in any import mode.
for _folder in (Path(__file__).parents[1], Path(__file__).parent, Path(__file__).parent / "lower"):
    if str(_folder) not in sys.path:
        sys.path.insert(0, str(_folder))

import torch_checks  # noqa: E402

torch.set_num_threads(2)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "may_report_bug: this test provokes a reason of the kind 'bug'")
    for message, category in (
        (".*torch.jit.*", "DeprecationWarning"),  # torch 2.13 of itself, where parts of it are first imported
        (".*torch.distributed.*", "DeprecationWarning"),
        ("The .grad attribute of a Tensor", "UserWarning"),  # dynamo, looking at a loss
    ):
        config.addinivalue_line("filterwarnings", f"ignore:{message}:{category}")
    if (
        config.getoption("--device") == "cuda"
    ):  # GPU machines have other versions of torch, with warnings of their own
        config.addinivalue_line("filterwarnings", r"default:::torch(\.|$)")
        config.addinivalue_line("filterwarnings", "ignore:Please use the new API settings to control TF32")


@pytest.fixture(autouse=True)
def fresh(request: pytest.FixtureRequest, device: str) -> Iterator[None]:
    """Each test starts with an empty dynamo, report and seed, and fails where the report then names a bug of ours.

    Its new tensors lie on the device that `--device` names.
    """
    with torch_checks.fresh_state(device):
        yield
    bugs: list[str] = []
    if torch_checks.ON_TRT and not request.node.get_closest_marker("may_report_bug"):
        bugs = [r for r in torch_checks.ReportChecks().reasons() if torch_checks.kind_of(r) == "bug"]
    assert not bugs, bugs


@pytest.fixture
def compile_trt():
    """`torch.compile(target, **kwargs)` with the backend under test."""
    return torch_checks.compile_trt


@pytest.fixture
def report() -> torch_checks.ReportChecks:
    return torch_checks.ReportChecks()


class _Records(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def log() -> Iterator[list[logging.LogRecord]]:
    """What is logged under `trt_backend` at INFO or higher."""
    logger, handler = logging.getLogger("trt_backend"), _Records()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler.records
    logger.removeHandler(handler)
    logger.setLevel(level)
