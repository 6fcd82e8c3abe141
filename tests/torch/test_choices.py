"""The options `choose`, `native` and `build` on real graphs."""

from __future__ import annotations

import time

import pytest
import torch
from torch_checks import assert_close


def _model() -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.LayerNorm(32), torch.nn.Linear(32, 4)
    ).eval()


@pytest.mark.parametrize("native", ["eager", "inductor"])
def test_measured_keeps_the_faster_and_gives_the_same_answers(native, compile_trt, report):
    model, x = _model(), torch.randn(3, 16)
    compiled = compile_trt(model, options={"choose": "measured", "native": native})
    with torch.no_grad():
        for _ in range(3):
            assert_close(compiled(x), model(x))
    (region,) = report.data["regions"]
    assert region["engine_calls"] + region["native_calls"] == 3
    assert region["engine_calls"] >= 1, "the first call runs and times the engine"
    slower = region["reason"] is not None
    assert (region["native_calls"] == 2) is slower, "the others go to whichever was faster"
    assert not slower or "slower than native" in region["reason"]


def test_regions_without_an_engine_run_in_inductor(compile_trt, monkeypatch, report):
    from trt_backend.errors import BuildError
    from trt_backend.runtime.profiled import ProfiledEngine

    def refuse(self, shapes):
        raise BuildError("not today")

    monkeypatch.setattr(ProfiledEngine, "_engine_for", refuse)
    model, x = _model(), torch.randn(3, 16)
    compiled = compile_trt(model, options={"native": "inductor"})
    with torch.no_grad():
        assert_close(compiled(x), model(x))
    assert report.kinds() == {"build failed"}


def test_a_background_build_serves_natively_meanwhile(compile_trt, report):
    model, x = _model(), torch.randn(3, 16)
    compiled = compile_trt(model, options={"build": "background"})
    deadline = time.monotonic() + 120
    with torch.no_grad():
        assert_close(compiled(x), model(x))
        assert report.total("native_calls") == 1, "the first call does not wait"
        while report.total("engine_calls") == 0 and time.monotonic() < deadline:
            assert_close(compiled(x), model(x))
            time.sleep(0.01)
    assert report.total("engine_calls") >= 1
    assert report.total("engines") == 1
    assert not report.kinds() - {"region too small"}
