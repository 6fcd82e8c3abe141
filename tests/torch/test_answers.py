"""The first answer of each engine is compared with native's."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_checks import ReportChecks, assert_close, compile_trt, needs_trt

from trt_backend.engine.base import CallShapes, Engine, Host
from trt_backend.engine.providers import load_provider
from trt_backend.errors import WrongAnswerError
from trt_backend.ir.graph import Graph
from trt_backend.ir.text import parse_graph

pytestmark = [pytest.mark.wrong_answers, needs_trt]
EVERYTHING = {"min_block_size": 1}


@pytest.fixture
def replace_in_builds(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Have every engine built from a graph in which one word is another: a compiler's mistake."""

    def replace(word: str, other: str) -> None:
        kind = type(load_provider("auto", torch.get_default_device().type))
        build: Any = kind.build

        def build_another(self: Any, graph: Graph, *rest: Any) -> bytes:
            assert word in str(graph)
            return build(self, parse_graph(str(graph).replace(word, other)), *rest)

        monkeypatch.setattr(kind, "build", build_another)

    return replace


def summed(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    return torch.relu(x) * 2, torch.relu(x + y) * 2


def test_an_engine_that_is_wrong_is_given_up(
    replace_in_builds: Callable[[str, str], None], report: ReportChecks
) -> None:
    replace_in_builds("kind=sum", "kind=prod")
    x, y = torch.randn(2, 4, 5).unbind()
    compiled = compile_trt(summed, options=EVERYTHING)
    with torch.no_grad():
        for _ in range(3):
            assert_close(compiled(x, y), summed(x, y))
    assert report.kinds() == {"wrong answer"}
    assert (report.total("engine_calls"), report.total("native_calls")) == (0, 3)


def test_an_engine_that_makes_nan_is_given_up(
    replace_in_builds: Callable[[str, str], None], report: ReportChecks
) -> None:
    """No relu: those of TensorRT make 0 of NaN."""

    def fn(x: Tensor, y: Tensor) -> Tensor:
        return (x + y) * 2

    replace_in_builds("kind=sum", "kind=div")
    x = torch.zeros(4, 5)
    with torch.no_grad():
        assert_close(compile_trt(fn, options=EVERYTHING)(x, x), fn(x, x))
    assert report.kinds() == {"wrong answer"}


def test_what_is_not_finite_natively_may_be_anything(
    replace_in_builds: Callable[[str, str], None], report: ReportChecks
) -> None:
    replace_in_builds("kind=sum", "kind=prod")
    x = torch.full((4, 5), math.inf)
    with torch.no_grad():
        compile_trt(lambda a, b: torch.exp(a + b) * 2, options=EVERYTHING)(x, torch.zeros_like(x))
    report.engines_ran(calls=1)


def test_strict_raises(replace_in_builds: Callable[[str, str], None]) -> None:
    replace_in_builds("kind=sum", "kind=prod")
    x, y = torch.randn(2, 4, 5).unbind()
    with torch.no_grad(), pytest.raises(WrongAnswerError, match="of the largest number off"):
        compile_trt(summed, options={**EVERYTHING, "strict": True})(x, y)


def test_never_compares_nothing(replace_in_builds: Callable[[str, str], None], report: ReportChecks) -> None:
    replace_in_builds("kind=sum", "kind=prod")
    x, y = torch.randn(2, 4, 5).unbind()
    with torch.no_grad():
        _, got = compile_trt(summed, options={**EVERYTHING, "answer_check": "never"})(x, y)
    report.engines_ran(calls=1)
    assert_close(got, torch.relu(x * y) * 2)


def test_indices_may_differ(replace_in_builds: Callable[[str, str], None], report: ReportChecks) -> None:
    replace_in_builds("kind=sum", "kind=sub")
    x, y = torch.randn(2, 4, 5).unbind()
    with torch.no_grad():
        compile_trt(lambda a, b: torch.argmax(a + b, 1), options=EVERYTHING)(x, y)
    report.engines_ran(calls=1)


def partly(x: Tensor) -> Tensor:
    buffer = x.new_empty(3, 8)
    buffer[:, :4] = x
    return buffer


CORRECT: dict[str, tuple[Callable[..., Any], Callable[[], tuple[Tensor, ...]]]] = {
    "equal scores": (
        lambda scores, boxes: boxes.gather(1, scores.relu().topk(3, 1).indices) * 2,
        lambda: (torch.zeros(1, 50), torch.randn(1, 50)),
    ),
    "what is left of a constant": (
        lambda x: (x - x.mean(0)) / (x.std(0) + 1e-8),
        lambda: (torch.full((6, 5), 0.1),),
    ),
    "a pole": (
        lambda a, b: 1 / (a @ b - (a[:, ::2] @ b[::2] + a[:, 1::2] @ b[1::2])),
        lambda: tuple(torch.randn(2, 8, 8)),
    ),
    "phases": (lambda x, w: torch.sin((x @ w) * 1e6), lambda: tuple(torch.randn(2, 16, 16))),
    "a buffer that is partly written": (partly, lambda: (torch.randn(3, 4),)),
    "a view of nothing": (
        lambda x: (torch.empty_like(x).view(-1)[:3], torch.empty(3, 4).double(), x * 2),
        lambda: (torch.randn(3, 4),),
    ),
}


@pytest.mark.parametrize("name", CORRECT)
def test_what_hangs_on_roundings_is_no_wrong_answer(name: str, report: ReportChecks) -> None:
    function, inputs = CORRECT[name]
    state = torch.get_rng_state()
    torch.randn(1000)  # memory that is not zero
    torch.set_rng_state(state)
    with torch.no_grad():
        compile_trt(function, options={**EVERYTHING, "strict": True})(*inputs())
    assert not report.kinds() & {"wrong answer", "run failed"}


class ZerosEngine:
    """Runs nothing, and writes zeros."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def run(self, shapes: CallShapes, inputs: Sequence[int], outputs: Sequence[int], host: Host) -> None:
        for address, sizes, value in zip(outputs, shapes.outputs, self._graph.outputs, strict=True):
            ctypes.memset(address, 0, math.prod(sizes) * value.dtype.numpy.itemsize)


@pytest.mark.cpu_only(reason="the engine of zeros writes to the CPU's memory")
def test_each_engine_is_checked(monkeypatch: pytest.MonkeyPatch, report: ReportChecks) -> None:
    """The second set of weights gets an engine of its own."""
    model, x = (
        nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)).eval(),
        torch.randn(1, 3, 8, 8),
    )
    compiled = compile_trt(model, options=EVERYTHING)
    kind = type(load_provider("auto"))
    load: Any = kind.load
    with torch.no_grad():
        assert_close(compiled(x), model(x))
        report.engines_ran(calls=1)

        def load_zeros(self: Any, blob: bytes, graph: Graph, options: Any) -> Engine:
            load(self, blob, graph, options)
            return ZerosEngine(graph)

        monkeypatch.setattr(kind, "load", load_zeros)
        for weight in model.parameters():
            weight.mul_(2)
        for _ in range(4):
            assert_close(compiled(x), model(x))
    assert report.kinds() == {"wrong answer"}


@pytest.mark.cpu_only(reason="engines of TensorRT are kept anyway")
@pytest.mark.usefixtures("own_cache")
def test_an_engine_from_the_cache_was_compared_by_who_built_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from trt_backend_torch import region

    compared: list[int] = []

    def count(*_: Any) -> list[tuple[float, float]]:
        compared.append(1)
        return []

    monkeypatch.setattr(type(load_provider("auto")), "cached", True)
    monkeypatch.setattr(region, "differences", count)
    x, y = torch.randn(2, 4, 5).unbind()
    with torch.no_grad():
        for _ in range(3):
            torch._dynamo.reset()
            assert_close(compile_trt(summed, options=EVERYTHING)(x, y), summed(x, y))
    assert len(compared) == 1


def test_a_native_call_that_fails_is_nothing_against_the_engine(
    monkeypatch: pytest.MonkeyPatch, report: ReportChecks
) -> None:
    from trt_backend_torch import region

    def fail(*_: Any) -> None:
        raise torch.OutOfMemoryError("none left")

    monkeypatch.setattr(region, "differences", fail)
    x, y = torch.randn(2, 4, 5).unbind()
    compiled = compile_trt(summed, options=EVERYTHING)
    with torch.no_grad():
        for _ in range(2):
            assert_close(compiled(x, y), summed(x, y))
    report.engines_ran(calls=2)
