"""Ops as models use them: engines run them, with eager's answers; or not, where answers would differ."""

from __future__ import annotations

import pytest
import torch
from torch_checks import assert_close, compile_trt

import models


def _positions(x):
    """As DETR's sine embedding: even and odd channels have one frequency."""
    channel = torch.arange(x.shape[1], dtype=torch.float32, device=x.device)
    frequency = 10000 ** (2 * torch.div(channel, 2, rounding_mode="floor") / x.shape[1])
    return (x.cumsum(0) / frequency).sin() + torch.atan2(x, x.flip(0)) + (x * 7) % 2


FUNCTIONS = {
    "positions": _positions,
    "lengths": lambda x: x.sin().hypot(x.cos()) + x.fmax(x.exp()) + x.norm(3, 0),
    "rounded": lambda x: [torch.round(100 * x, decimals=d) for d in range(-6, 7)],
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("rows", [10, 13])
def test_engines_run(name, rows, report):
    function = FUNCTIONS[name]
    x = models.randn(rows, 10, seed=1)
    with torch.no_grad():
        assert_close(compile_trt(function)(x), function(x), strides=True)
    report.engines_ran(share=1)


_QUOTIENTS = {
    "floor_divide": torch.floor_divide,
    "remainder": torch.remainder,
    "fmod": torch.fmod,
}


@pytest.mark.parametrize("name", _QUOTIENTS)
@pytest.mark.parametrize(
    ("dtype", "divisor"),
    [
        (torch.float16, 2.0),
        (torch.float16, 65536.0),
        (torch.float16, 2.0**100),
        (torch.bfloat16, 2.0**130),
        (torch.float32, 2048.0),
        (torch.float32, 2.0**40),
        (torch.float32, 2.0**130),
    ],
)
def test_quotients_that_may_leave_their_range_are_eagers(name, dtype, divisor):
    function = _QUOTIENTS[name]
    x = torch.tensor([0.0, -0.0, 1.5, -7.25, 1000.0, -1e-5, -1e-36, 3e4], dtype=dtype)

    def quotient(x):
        return function(x + 0.0, divisor), function(x * 2, divisor)

    with torch.no_grad():
        torch.testing.assert_close(compile_trt(quotient)(x), quotient(x), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("decimals", range(-6, 7))
def test_rounding_to_decimals_is_eagers(dtype, decimals):
    x = torch.tensor([0.0, 1.23456789, -987.654321, 12345.678, 5e-6, 0.5, -2.5, 45000.0]).to(dtype)

    def rounded(x):
        return torch.round(x, decimals=decimals), torch.round(-x, decimals=decimals)

    with torch.no_grad():
        torch.testing.assert_close(compile_trt(rounded)(x), rounded(x), rtol=0, atol=0, equal_nan=True)


def test_order_of_what_is_not_finite(report):
    """NaN behind infinity, and infinity behind the largest number."""
    inf, nan, most = torch.inf, torch.nan, torch.finfo(torch.float32).max
    x = torch.tensor([[inf, most, 1.0, -inf, nan, 0.5], [2.0, nan, inf, most, -most, -inf]])

    def ordered(x):
        y = x * 1
        return y.sort(1), y.sort(1, descending=True), y.topk(3, 1), y.topk(4, 1, largest=False)

    with torch.no_grad():
        assert_close(compile_trt(ordered)(x), ordered(x))
    report.engines_ran(share=1)


@pytest.mark.cpu_only(reason="ONNX Runtime's kernels are slow")
@pytest.mark.parametrize(
    ("convolution", "native"),
    [
        (torch.nn.Conv3d(4, 4, 3, padding=1), False),
        (torch.nn.Conv3d(4, 4, (5, 1, 1), groups=4), False),
        (torch.nn.Conv3d(4, 4, 4, stride=4), False),
        (torch.nn.Conv3d(4, 4, 3, groups=4), True),
        (torch.nn.Conv3d(4, 4, 4, stride=2), True),
    ],
    ids=["3x3x3", "5x1x1 in groups", "patches", "in groups", "4x4x4"],
)
def test_volumes_whose_convolution_is_slow_in_engines_are_native(convolution, native, report):
    convolution.eval()

    def block(x):
        return (convolution(x + 1).relu() * 2).sigmoid()

    x = models.randn(2, 4, 8, 8, 8)
    with torch.no_grad():
        assert_close(compile_trt(block, options={"min_block_size": 1})(x), block(x))
    report.engines_ran(share=0.0)
    assert any("volumes" in reason for reason in report.reasons()) == native
