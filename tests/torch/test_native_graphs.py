"""Native regions in CUDA graphs: a pretended GPU records the calls of a capture, and a launch makes them again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from trt_backend_torch.cuda_host import CapturedWork
from trt_backend_torch.memory import Input, Layout
from trt_backend_torch.native_graphs import _MOST, NativeGraphs

WEIGHT, INPUT = 0, 1


class Recorder(TorchDispatchMode):
    """Keeps the calls of ops, and what they returned."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., Any], tuple[Any, ...], Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, result))
        return result

    @torch.inference_mode()
    def replay(self) -> None:
        for func, args, result in self.calls:
            if not func.is_view:
                result.copy_(func(*args))


@dataclass
class PretendedGpu:
    """Stands for `ScratchPool`."""

    current_stream: int = 7
    captures: int = 0
    launches: int = 0
    failure: Exception | None = field(default=None)

    def capture(self, work: Callable[[], object]) -> CapturedWork:
        self.captures += 1
        if self.failure:
            raise self.failure
        with Recorder() as recorder:
            work()

        def launch() -> None:
            self.launches += 1
            recorder.replay()

        return CapturedWork(launch, ())


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> PretendedGpu:
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    return PretendedGpu()


def scaled(weight: Tensor, x: Tensor) -> tuple[Tensor, Tensor, int]:
    """A tensor, one whose elements lie in the same place, and a size."""
    y = torch.mul(x, weight)
    return y, torch.add(y.sum(), 1).expand(2, 3), x.shape[0]


def graphs_of(gpu: PretendedGpu, native: Callable[..., Any] = scaled) -> NativeGraphs:
    places = [Input(i, Layout.of(torch.empty(3)), i == WEIGHT, torch.float32, False) for i in (WEIGHT, INPUT)]
    return NativeGraphs(native, places, gpu)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def check(graphs: NativeGraphs, weight: Tensor, x: Tensor) -> tuple[Any, ...]:
    """Return a call's results, which are native's."""
    results, expected = graphs.run((x.shape[0],), [weight, x]), scaled(weight, x)
    for result, wanted in zip(results, expected, strict=True):
        torch.testing.assert_close(result, wanted, rtol=0, atol=0)
        assert not isinstance(wanted, Tensor) or result.stride() == wanted.stride()
    return results


def test_results_are_the_callers_to_keep(gpu: PretendedGpu) -> None:
    graphs, weight = graphs_of(gpu), torch.randn(3)
    inputs = [torch.randn(3) for _ in range(6)]
    kept = [check(graphs, weight, x) for x in inputs]
    for x, (y, *_) in zip(inputs, kept, strict=True):
        torch.testing.assert_close(y, x * weight)
    assert (gpu.captures, gpu.launches) == (1, 5), "the first call runs as it is"


def test_weights_are_read_where_they_lie(gpu: PretendedGpu) -> None:
    graphs, weight, x = graphs_of(gpu), torch.randn(3), torch.randn(3)
    for _ in range(3):
        check(graphs, weight, x)
        weight.mul_(2)
    assert gpu.captures == 1
    other = torch.randn(6)[::2]
    for _ in range(3):
        check(graphs, other, x)
    assert gpu.captures == 2, "a graph belongs to the place of its weights"


def test_a_stream_has_graphs_of_its_own(gpu: PretendedGpu) -> None:
    graphs, weight, x = graphs_of(gpu), torch.randn(3), torch.randn(3)
    for gpu.current_stream in (1, 2, 1, 2, 1, 2):
        check(graphs, weight, x)
    assert (gpu.captures, gpu.launches) == (2, 4)


def test_the_last_used_are_kept(gpu: PretendedGpu) -> None:
    graphs, weight = graphs_of(gpu), torch.randn(1)
    for size in range(1, _MOST + 2):
        for _ in range(2):
            check(graphs, weight, torch.randn(size))
    check(graphs, weight, torch.randn(2))
    assert gpu.captures == _MOST + 1
    check(graphs, weight, torch.randn(1))
    assert gpu.captures == _MOST + 2, "the first one had to go"
    graphs.forget((2,))
    check(graphs, weight, torch.randn(_MOST))
    assert gpu.captures == _MOST + 2
    check(graphs, weight, torch.randn(2))
    assert gpu.captures == _MOST + 3, "and this one was let go"


def test_what_cannot_be_captured_is_tried_once(gpu: PretendedGpu) -> None:
    graphs, weight = graphs_of(gpu), torch.randn(3)
    gpu.failure = RuntimeError("it waits for the device")
    for _ in range(4):
        check(graphs, weight, torch.randn(3))
    assert (gpu.captures, gpu.launches) == (1, 0)


def test_captured_in_inference_mode_and_called_outside_of_it(gpu: PretendedGpu) -> None:
    graphs, weight = graphs_of(gpu), torch.randn(3)
    with torch.inference_mode():
        for _ in range(2):
            graphs.run((3,), [weight, torch.randn(3)])
    check(graphs, weight, torch.randn(3))
    assert (gpu.captures, gpu.launches) == (1, 2)
