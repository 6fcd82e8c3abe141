"""Engines run on the caller's stream, for several streams and threads at once, and no call waits for the device."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch_checks import ReportChecks, assert_close, compile_trt, in_threads

import models

pytestmark = pytest.mark.gpu

A_WHILE = 400_000_000  # GPU cycles: some 0.2 s, far longer than a call takes


def cnn() -> nn.Module:
    return models.randomise(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.SiLU(),
            nn.Flatten(),
            nn.Linear(8 * 16 * 16, 5),
        )
    )


def image(seed: int) -> Tensor:
    return models.randn(4, 3, 16, 16, seed=seed)


def warm_up(compiled: nn.Module, stream: torch.cuda.Stream) -> None:
    """Let dynamo compile, the engine be built, and all memory that a call on this stream needs be there."""
    torch.cuda.synchronize()
    with torch.no_grad(), torch.cuda.stream(stream):
        for x in [image(99) for _ in range(3)]:  # all alive: memory of each call's own
            compiled(x)
    torch.cuda.synchronize()


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_two_streams_at_once(cuda_graphs: bool, report: ReportChecks) -> None:
    """Queued in turns on two streams that run at the same time: each call has its own answer."""
    model, streams = cnn(), [torch.cuda.Stream() for _ in range(2)]
    compiled = compile_trt(model, options={"cuda_graphs": cuda_graphs})
    inputs = [[image(20 * s + i) for i in range(20)] for s in range(2)]
    with torch.no_grad():
        wanted = [[model(x) for x in some] for some in inputs]
    for stream in streams:
        warm_up(compiled, stream)
    got: list[list[Tensor]] = [[], []]
    with torch.no_grad():
        for stream in streams:
            with torch.cuda.stream(stream):
                torch.cuda._sleep(A_WHILE // 4)  # so that all is queued before anything runs
        for i in range(20):
            for s, stream in enumerate(streams):
                with torch.cuda.stream(stream):
                    got[s].append(compiled(inputs[s][i]))
    torch.cuda.synchronize()
    assert_close(got, wanted)
    report.engines_ran(calls=40 + 6, exactly=True)


@pytest.mark.parametrize("cuda_graphs", [False, True])
@pytest.mark.parametrize("make_stream", [torch.cuda.default_stream, torch.cuda.Stream])
def test_a_call_is_queued_behind_its_input_and_returns(
    make_stream: Callable[[], torch.cuda.Stream], cuda_graphs: bool, report: ReportChecks
) -> None:
    """The input is written by the stream only after the call came back: no call may read early, or wait."""
    model, stream = cnn(), make_stream()
    compiled = compile_trt(model, options={"cuda_graphs": cuda_graphs})
    x, later = torch.zeros(4, 3, 16, 16), image(1)
    warm_up(compiled, stream)
    with torch.no_grad():
        with report.engines_run(), torch.cuda.stream(stream):
            torch.cuda._sleep(A_WHILE)
            x.copy_(later)
            y = compiled(x)
            done = torch.cuda.Event()
            done.record()
            assert not done.query(), "the call waited for the device"
        stream.synchronize()
        assert_close(y, model(later))


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_eight_threads_on_streams_of_their_own(cuda_graphs: bool, report: ReportChecks) -> None:
    """Right answers for everyone, from one engine."""
    model = cnn()
    compiled = compile_trt(model, options={"cuda_graphs": cuda_graphs})
    inputs = [image(i) for i in range(8)]
    with torch.no_grad():
        wanted = [model(x) for x in inputs]
    warm_up(compiled, torch.cuda.current_stream())

    def work(i: int) -> None:
        stream = torch.cuda.Stream()
        with torch.no_grad(), torch.cuda.stream(stream):
            got = [compiled(inputs[i]) for _ in range(50)]
        stream.synchronize()
        assert_close(got, [wanted[i]] * 50)

    in_threads(8, work)
    report.engines_ran(calls=8 * 50 + 3, exactly=True)
    assert [region["engines"] for region in report.data["regions"]] == [1]


def test_eight_threads_on_one_stream_with_sizes_of_their_own(report: ReportChecks) -> None:
    """One engine for a range of sizes serves threads that each have another size."""
    model = models.randomise(nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 3)))
    compiled = compile_trt(model)
    inputs = [models.randn(3 + i, 6, seed=i) for i in range(8)]
    for x in inputs:
        torch._dynamo.mark_dynamic(x, 0, min=2, max=16)
    with torch.no_grad():
        wanted = [model(x) for x in inputs]
        compiled(inputs[0])

    def work(i: int) -> None:
        with torch.no_grad():
            got = [compiled(inputs[i]) for _ in range(50)]
        assert_close(got, [wanted[i]] * 50)

    in_threads(8, work)
    report.engines_ran(calls=8 * 50 + 1, exactly=True)
    assert [region["engines"] for region in report.data["regions"]] == [1]
