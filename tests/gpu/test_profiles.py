"""Sizes outside of what an engine was built for: right answers at once, and soon from a wider engine; few are built."""

from __future__ import annotations

import time
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_checks import ReportChecks, assert_close, compile_trt, graphs_compiled

import models

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("own_cache")]

PATIENCE = 120.0  # seconds; such an engine is built in a few


def mlp() -> nn.Module:
    return models.randomise(nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 3)))


def rows(n: int) -> Tensor:
    return models.randn(n, 6, seed=n)


def call_until_an_engine_answers(
    compiled: Any, reference: Any, report: ReportChecks, *inputs: Tensor
) -> None:
    """Every call gives the right answer, whoever gives it."""
    deadline = time.monotonic() + PATIENCE
    with torch.no_grad():
        want = reference(*inputs)
        while time.monotonic() < deadline:
            before = report.total("engine_calls")
            assert_close(compiled(*inputs), want)
            if report.total("engine_calls") > before:
                return
            time.sleep(0.05)
    pytest.fail(f"no engine in {PATIENCE} s: {report.data}")


def engines(report: ReportChecks) -> int:
    (region,) = report.data["regions"]
    assert not region["reason"]
    return region["engines"]


@pytest.mark.parametrize("build", ["lazy", "background"])
def test_a_batch_outside_the_profile_gets_a_wider_engine(build: str, report: ReportChecks) -> None:
    model = mlp()
    compiled = compile_trt(model, dynamic=True, options={"build": build})
    for n in (4, 64):
        call_until_an_engine_answers(compiled, model, report, rows(n))
    assert engines(report) == 2
    with torch.no_grad(), report.engines_run():  # inside the wider profile, the old one among it
        for n in (4, 3, 64, 33):
            assert_close(compiled(rows(n)), model(rows(n)))
    assert engines(report) == 2
    assert graphs_compiled() == 1


def test_a_lazy_engine_answers_the_first_call(report: ReportChecks) -> None:
    model = mlp()
    with torch.no_grad():
        assert_close(compile_trt(model, dynamic=True)(rows(4)), model(rows(4)))
    report.engines_ran(calls=1, exactly=True)


def test_a_background_build_leaves_the_first_call_native(report: ReportChecks) -> None:
    model = mlp()
    compiled = compile_trt(model, options={"build": "background"})
    with torch.no_grad():
        assert_close(compiled(rows(4)), model(rows(4)))
    assert (report.total("engine_calls"), report.total("native_calls")) == (0, 1)
    call_until_an_engine_answers(compiled, model, report, rows(4))
    assert engines(report) == 1


def test_a_marked_range_is_one_engine(report: ReportChecks) -> None:
    model = mlp()
    compiled = compile_trt(model)
    with torch.no_grad():
        for n in (4, 16, 2, 9):
            x = rows(n)
            torch._dynamo.mark_dynamic(x, 0, min=2, max=16)
            assert_close(compiled(x), model(x))
    report.engines_ran(calls=4, exactly=True)
    assert engines(report) == 1


def test_few_engines_serve_many_sizes(report: ReportChecks) -> None:
    """A profile reaches to the next power of two: 2, 4, 8, 16, 32, 64."""
    model = mlp()
    compiled = compile_trt(model, dynamic=True)
    for n in range(2, 41):
        call_until_an_engine_answers(compiled, model, report, rows(n))
    assert engines(report) <= 6
    assert graphs_compiled() == 1


def test_two_sizes_grow_one_after_the_other(report: ReportChecks) -> None:
    def fn(x: Tensor, y: Tensor) -> Tensor:
        return (x.exp() @ y.sin()).relu() + 1

    compiled = compile_trt(fn, dynamic=True)
    for m, n in ((4, 5), (20, 5), (20, 40), (4, 40), (4, 5)):
        x, y = models.randn(m, 7, seed=m), models.randn(7, n, seed=n)
        call_until_an_engine_answers(compiled, fn, report, x, y)
    assert engines(report) == 3
