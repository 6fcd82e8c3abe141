"""Every architecture of the zoo as TensorRT gets it: its RTX builder, which needs no GPU, makes engines of the graphs, static
and dynamic, and in each precision; the NumPy reference runs them, and gives what eager gives.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch_checks import assert_close

import models

pytest.importorskip("tensorrt_rtx")

import trt_backend.compile
import trt_backend_torch.backend
from tensorrt_checks import AheadOfTime
from trt_backend.errors import NotReadyError
from trt_backend.ir.ops.contraction import Attention, Convolution, Deconvolution, MatrixMultiply
from trt_backend.ir.types import DType
from trt_backend.runtime.profiled import ProfiledEngine

pytestmark = pytest.mark.cpu_only(reason="builds ahead of time, for a GPU that is not there")
TOLERANCE = {"auto": 1e-4, "fp16": 2e-2, "bf16": 1e-1}
"""Of the largest value that eager gives."""


ARCHITECTURES = [name for name in models.ZOO if name != "lstm"]


def _compile(name: str, stack: AheadOfTime, monkeypatch: pytest.MonkeyPatch, **how: Any) -> None:
    """Compile a model, call it, and compare with eager."""
    monkeypatch.setattr(trt_backend_torch.backend, "load_provider", lambda *_: stack)
    dynamic, precision = how.get("dynamic", False), how.get("precision", "auto")
    options = {"precision": precision, "build": how.get("build", "lazy")}
    model, make_inputs = models.ZOO[name]()
    inputs = make_inputs(2)
    if dynamic:
        for tensor in inputs:
            torch._dynamo.mark_dynamic(tensor, 0)
    with torch.no_grad():
        got = torch.compile(model, backend="trt", options=options)(*inputs)
        assert_close(got, model(*inputs), rtol=TOLERANCE[precision])
    assert len(stack.built) >= 1, "a region has gone to the builder"
    assert all(size > 1000 for _, _, size in stack.built)


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_builds(name: str, dynamic: bool, monkeypatch: pytest.MonkeyPatch, report: Any) -> None:
    stack = AheadOfTime()
    _compile(name, stack, monkeypatch, dynamic=dynamic)
    report.engines_ran(calls=1, share=0.98)
    assert not report.kinds() - {"region too small"}
    assert all(bool(graph.symbols) is bool(profile.ranges) for graph, profile, _ in stack.built)
    assert any(profile.ranges for _, profile, _ in stack.built) is dynamic


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_eager_builds_are_there_before_the_first_call(
    dynamic: bool, monkeypatch: pytest.MonkeyPatch, report: Any
) -> None:
    """With all weights in them, for the sizes that dynamo saw."""

    def refuse(*_: Any) -> Any:
        raise NotReadyError("a call needs an engine that was not built before it")

    monkeypatch.setattr(ProfiledEngine, "_engine_for", refuse)
    stack = AheadOfTime()
    _compile("resnet", stack, monkeypatch, dynamic=dynamic, build="eager")
    report.engines_ran(calls=1, exactly=True, share=0.98)
    ((graph, profile, _),) = stack.built
    assert not graph.weights
    assert [r.opt for _, r in profile.ranges] == [2] * dynamic


@pytest.mark.parametrize(("precision", "dtype"), [("fp16", DType.FLOAT16), ("bf16", DType.BFLOAT16)])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_low_precision(
    name: str, precision: str, dtype: DType, monkeypatch: pytest.MonkeyPatch, report: Any
) -> None:
    """Convolutions and products compute in it where TensorRT takes them, and the answers stay close."""
    stack = AheadOfTime()
    monkeypatch.setattr(trt_backend.compile, "low_precision", lambda options, _: dtype)
    _compile(name, stack, monkeypatch, precision=precision)
    report.engines_ran(calls=1, share=0.98)
    moved = 0
    for node in (node for graph, _, _ in stack.built for node in graph.nodes):
        if isinstance(node.op, (Convolution, Deconvolution, MatrixMultiply, Attention)):
            low = tuple(value.type.with_dtype(dtype) for value in node.inputs)
            moved += node.outputs[0].dtype is dtype
            assert node.outputs[0].dtype is dtype or stack.support(node.op, low) is not None, node
    assert moved
