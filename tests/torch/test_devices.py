"""Graphs over several GPUs, with tensors that only promise to be there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from trt_backend.engine.onnxruntime import OnnxRuntimeProvider
from trt_backend.errors import UnsupportedError
from trt_backend.options import CompileOptions
from trt_backend.report import GraphRecord
from trt_backend_torch.host_graph import Cut, split
from trt_backend_torch.inference import partition_only
from trt_backend_torch.region import lower_region

pytestmark = pytest.mark.cpu_only(reason="pretends to have two GPUs")


class OnGpus(OnnxRuntimeProvider):
    """Takes what ONNX Runtime takes, on any GPU."""

    device = "cuda"


@pytest.fixture(autouse=True)
def fake() -> Iterator[None]:
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def on(index: int) -> torch.Tensor:
    return torch.empty(4, 4, device=f"cuda:{index}")


def lowered_regions(function: Callable[..., Any], *arguments: torch.Tensor) -> list[Any]:
    """Each region lowered, or the error in its place."""
    graph, record = make_fx(function)(*arguments), GraphRecord("graph", "torch")
    parts = partition_only(graph, OnGpus(), CompileOptions(), record)
    lowered: list[Any] = []

    def call(_: int, cut: Cut) -> Callable[..., Any]:
        try:
            lowered.append(lower_region(cut, "region", frozenset(), frozenset(), lambda dtype: dtype))
        except UnsupportedError as error:
            lowered.append(error)
        return lambda arguments: cut.run_natively(*arguments)

    split(graph, parts.schedule, call)
    return lowered


def test_a_move_to_another_gpu_is_native() -> None:
    """As in a model whose halves are on two GPUs: each half has its engine."""

    def halves(x: torch.Tensor) -> list[torch.Tensor]:
        y = (x * 2 + 1).sigmoid().relu()
        return [(y.to("cuda:1") * 3 + 1).sigmoid().relu()]

    regions = lowered_regions(halves, on(0))
    devices = [
        {layout.device.index for layout in (*(i.layout for i in r.inputs), *r.outputs)} for r in regions
    ]
    assert sorted(map(tuple, devices)) == [(0,), (1,)]


def test_a_region_is_on_one_gpu() -> None:
    """Two independent parts on two GPUs: no engine is given addresses of both."""

    def branches(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
        return [(x * 2 + 1).sigmoid().relu(), (y * 3 + 1).sigmoid().relu()]

    (refusal,) = lowered_regions(branches, on(0), on(1))
    assert "several GPUs" in str(refusal)
