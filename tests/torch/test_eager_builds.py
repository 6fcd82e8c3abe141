"""`build="eager"`: engines are there before the first call, and failures are told where they happen."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch._dynamo.exc import BackendCompilerFailed
from torch_checks import assert_close, chain, graphs_compiled, needs_trt, provider

import models
from trt_backend.engine.providers import load_provider
from trt_backend.errors import BuildError, NotReadyError
from trt_backend.runtime.profiled import ProfiledEngine

pytestmark = [needs_trt, pytest.mark.usefixtures("own_cache")]


def cnn() -> nn.Module:
    """Its weights are built in, on the CPU too."""
    return models.randomise(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.SiLU()))


def mlp() -> nn.Module:
    return models.randomise(nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 3)))


@pytest.fixture
def no_later_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls find their engine, or run natively."""

    def refuse(*_: Any) -> Any:
        raise NotReadyError("a call needs an engine that was not built before it")

    monkeypatch.setattr(ProfiledEngine, "_engine_for", refuse)


@pytest.mark.usefixtures("no_later_build")
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize(("make", "shape"), [(cnn, (3, 8, 8)), (mlp, (6,))], ids=["cnn", "mlp"])
def test_the_first_call_finds_its_engine(make, shape, dynamic, compile_trt, report):
    model, x = make(), models.randn(2, *shape)
    if dynamic:
        torch._dynamo.mark_dynamic(x, 0, min=2, max=8)
    compiled = compile_trt(model, options={"build": "eager"})
    with torch.no_grad():
        assert_close(compiled(x), model(x))
        if dynamic:
            x = models.randn(5, *shape)
            assert_close(compiled(x), model(x))
    report.engines_ran(calls=1 + dynamic, exactly=True)
    assert report.total("engines") == 1


@pytest.mark.usefixtures("no_later_build")
def test_each_region_has_its_engine(compile_trt, report):
    """What the second one reads is no tensor that anybody has yet."""

    def fn(x: torch.Tensor, n: int) -> torch.Tensor:
        return torch.linalg.qr(x.sin() * n + 1)[1].cos() * 2 - 1

    compiled = compile_trt(fn, options={"build": "eager"}, dynamic=True)
    with torch.no_grad():
        for n in (3, 4):
            x = models.randn(4 + n, 4 + n)
            assert_close(compiled(x, n), fn(x, n))
    report.engines_ran(calls=4, exactly=True)


@pytest.mark.usefixtures("no_later_build")
def test_the_weights_of_the_first_call_are_those_of_the_compilation(compile_trt, report):
    """Shared weights, buffers, and inputs that come before them: the right memory goes into the engine."""

    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
            self.two = nn.Conv2d(3, 3, 3, padding=1)
            self.two.weight = self.one.weight

        def forward(self, scale: torch.Tensor, x: torch.Tensor, n: int) -> torch.Tensor:
            return self.two(self.norm(self.one(x * scale))) * n

    model = models.randomise(Shared()).eval()
    compiled = compile_trt(model, options={"build": "eager"}, dynamic=True)
    with torch.no_grad():
        for n in (4, 3):  # inside the profile of an engine for 4
            arguments = models.randn(3, 1, 1), models.randn(n, 3, 8, 8), n
            assert_close(compiled(*arguments), model(*arguments))
    report.engines_ran(calls=2, exactly=True)
    assert report.total("engines") == graphs_compiled() == 1


def test_a_failed_build_runs_natively(compile_trt, monkeypatch, report):
    monkeypatch.setattr(type(load_provider(provider())), "build", _refuse)
    model, x = mlp(), models.randn(2, 6)
    with torch.no_grad():
        assert_close(compile_trt(model, options={"build": "eager"})(x), model(x))
    report.no_engine_ran("build failed")


def test_strict_raises_in_the_compilation(compile_trt, monkeypatch):
    monkeypatch.setattr(type(load_provider(provider())), "build", _refuse)
    compiled = compile_trt(mlp(), options={"build": "eager", "strict": True})
    with torch.no_grad(), pytest.raises(BackendCompilerFailed) as failed:
        compiled(models.randn(2, 6))
    assert any(isinstance(error, BuildError) and "not today" in str(error) for error in chain(failed.value))


def _refuse(*_: Any, **__: Any) -> Any:
    raise BuildError("not today")
