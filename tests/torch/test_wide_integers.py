"""Integers beyond 32 bits, which kernels of ONNX Runtime were seen to cut off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_checks import ReportChecks, assert_runs_as_eager

pytestmark = pytest.mark.cpu_only(reason="TensorRT 8.6 has no int64")

WIDE = (
    2**31,
    2**31 - 1,
    -(2**31),
    -(2**31) - 1,
    2**32,
    2**32 - 1,
    -(2**32),
    2**33 + 5,
    -(2**40),
    2**62,
    5,
    -7,
)

FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "clamp": lambda x, y: x.clamp(-7, 7),
    "clamp_min": lambda x, y: x.clamp_min(2**33),
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "relu": lambda x, y: torch.relu(x),
    "amax": lambda x, y: (x.amax(1), x.amin(0)),
    "max": lambda x, y: x.max(1),
    "argmax": lambda x, y: (x.argmax(1), x.argmin(0)),
    "abs": lambda x, y: (x.abs(), -x, x.sign()),
    "sum": lambda x, y: (x.sum(1), x.cumsum(0)),
    "arithmetic": lambda x, y: (x + y, x - y, (x >> 20) * 3),
    "floor_divide": lambda x, y: (x // 3, x % 10, torch.div(x, 3, rounding_mode="trunc")),
    "comparisons": lambda x, y: (x == y, x < y, x > 5, x != 2**32),
    "where": lambda x, y: torch.where(x > y, x, y),
    "casts": lambda x, y: (x.float() * 1.5, x.double() * 1.5, ~x.bool()),
    "layout": lambda x, y: (torch.cat([x, y]).t().contiguous(), x.flip(1), x[:, ::2] + 1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_they_stay_whole(name: str, report: ReportChecks) -> None:
    x = torch.tensor(WIDE).view(3, 4)
    y = x.flip(0).flip(1).contiguous()
    with torch.no_grad():
        assert_runs_as_eager(FUNCTIONS[name], lambda: (x.clone(), y.clone()), options={"min_block_size": 1})
    report.engines_ran(calls=3)
