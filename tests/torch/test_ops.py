"""Ops of detectors, graph networks and models of images among words: engines run them, with eager's answers."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch_checks import assert_close, compile_trt, device

import models


def _positions(x):
    """As DETR's sine embedding: even and odd channels have one frequency."""
    channel = torch.arange(x.shape[1], dtype=torch.float32, device=x.device)
    frequency = 10000 ** (2 * torch.div(channel, 2, rounding_mode="floor") / x.shape[1])
    return (x.cumsum(0) / frequency).sin() + torch.atan2(x, x.flip(0)) + (x * 7) % 2


def _merged(x):
    """As models that put an image's features at the places of one word."""
    mask = (x.sum(1, keepdim=True) > 0).expand_as(x)
    return (x * 2).masked_scatter(mask, x.exp()) + 1


def _pyramid(x):
    """As PSPNet's pools, of which some windows differ in size."""
    image = x.exp()[None, None].expand(1, 2, -1, -1)
    return [F.adaptive_avg_pool2d(image, size) * 2 for size in (1, 2, 3, 4)]


def _aggregated(x):
    """As a layer of a graph network."""
    target = torch.arange(x.shape[0], device=x.device) * 7 % 3
    total = x.new_zeros(3, x.shape[1]).index_add(0, target, x.exp())
    return total + x.new_zeros(3, x.shape[1]).scatter_reduce(0, target[:, None].expand_as(x), x, "amax")


FUNCTIONS = {
    "positions": _positions,
    "merged": _merged,
    "pyramid": _pyramid,
    "aggregated": _aggregated,
    "ranks": lambda x: x.exp().median(1).values + x.sin().hypot(x.cos()).kthvalue(2).values,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("rows", [10, 13])
def test_engines_run(name, rows, report):
    if name in ("aggregated", "ranks") and device() == "cuda":
        pytest.skip("no scatter of TensorRT adds up, and no TopK of it takes the float64 keys of a sort")
    function = FUNCTIONS[name]
    x = models.randn(rows, 10, seed=1)
    with torch.no_grad():
        assert_close(compile_trt(function)(x), function(x), strides=True)
    report.engines_ran(share=1)
