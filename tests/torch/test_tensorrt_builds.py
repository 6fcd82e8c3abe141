"""TensorRT-RTX's builder, which needs no GPU, makes engines of every architecture of the zoo, static and dynamic."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

import models

pytest.importorskip("tensorrt_rtx")

import trt_backend_torch.backend
from trt_backend.engine.onnxruntime import provider as onnxruntime_provider
from trt_backend.engine.profile import Profile
from trt_backend.engine.tensorrt import provider as tensorrt_provider
from trt_backend.errors import NotReadyError
from trt_backend.ir.graph import Graph

pytestmark = pytest.mark.cpu_only(reason="builds ahead of time, for a GPU that is not there")
RTX = tensorrt_provider("tensorrt_rtx")


class AheadOfTime:
    """TensorRT-RTX for the CPU's tensors: builds, and then says that the engine is not ready."""

    device = "cpu"
    cached = False
    name = RTX.name
    support, border, worth_freezing = RTX.support, RTX.border, RTX.worth_freezing
    profile, identity, carry = RTX.profile, RTX.identity, RTX.carry
    read = staticmethod(onnxruntime_provider().read)

    def __init__(self) -> None:
        self.built: list[tuple[Graph, Profile, int]] = []

    def build(self, graph: Graph, profile: Profile, options: Any, dump: Any) -> bytes:
        quick = dataclasses.replace(options, optimization_level=0)
        blob = RTX.build(graph, profile, quick, dump)
        self.built.append((graph, profile, len(blob)))
        return blob

    def load(self, blob: bytes, graph: Graph, options: Any) -> Any:
        raise NotReadyError("there is no GPU")


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", [name for name in models.ZOO if name != "lstm"])
def test_builds(name: str, dynamic: bool, monkeypatch: pytest.MonkeyPatch, report: Any) -> None:
    stack = AheadOfTime()
    monkeypatch.setattr(trt_backend_torch.backend, "load_provider", lambda *_: stack)
    model, make_inputs = models.ZOO[name]()
    inputs = make_inputs(2)
    if dynamic:
        for tensor in inputs:
            torch._dynamo.mark_dynamic(tensor, 0)
    with torch.no_grad():
        expected = model(*inputs)
        torch.testing.assert_close(torch.compile(model, backend="trt")(*inputs), expected)
    assert len(stack.built) >= 1, "a region has gone to the builder"
    assert all(size > 1000 for _, _, size in stack.built)
    assert report.data["ops_in_engines"] >= 0.98 * report.data["ops_total"] > 0
    assert not report.kinds() - {"region too small"}
    assert all(bool(graph.symbols) is bool(profile.ranges) for graph, profile, _ in stack.built)
    assert any(profile.ranges for _, profile, _ in stack.built) is dynamic
