"""What goes wrong on a GPU: no memory, an interrupted build, tensors that lie elsewhere. The program lives, and is told."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_checks import ReportChecks, assert_close, compile_trt, kind_of

import models
import trt_backend
from trt_backend.engine.providers import load_provider
from trt_backend.errors import BuildError, OutOfMemoryError, RunError
from trt_backend.runtime import pause

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("own_cache")]

MIB = 1 << 20


def cnn() -> nn.Module:
    return models.randomise(
        nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, padding=1), nn.SiLU())
    )


def image(seed: int = 0) -> Tensor:
    return models.randn(2, 3, 16, 16, seed=seed)


@pytest.fixture
def stack() -> Any:
    """Return the class of TensorRT's provider."""
    return type(load_provider("tensorrt"))


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def only_reason(report: ReportChecks) -> str:
    (region,) = report.data["regions"]
    assert region["reason"]
    return region["reason"]


# -- no memory --


def test_no_memory_for_a_build(stack: Any, monkeypatch: pytest.MonkeyPatch, report: ReportChecks) -> None:
    monkeypatch.setattr(stack, "build", raising(BuildError("out of memory")))
    model = cnn()
    compiled = compile_trt(model)
    with torch.no_grad():
        for i in range(3):
            assert_close(compiled(image(i)), model(image(i)))
    assert (report.total("engine_calls"), report.total("native_calls")) == (0, 3)
    assert kind_of(only_reason(report)) == "build failed"
    assert "out of memory" in only_reason(report)


def test_no_memory_for_a_run(stack: Any, monkeypatch: pytest.MonkeyPatch, report: ReportChecks) -> None:
    load = stack.load

    def load_broken(*args: Any, **kwargs: Any) -> Any:
        engine = load(*args, **kwargs)
        monkeypatch.setattr(type(engine), "run", raising(RunError("out of memory")))
        return engine

    monkeypatch.setattr(stack, "load", load_broken)
    model = cnn()
    compiled = compile_trt(model)
    with torch.no_grad():
        for i in range(3):
            assert_close(compiled(image(i)), model(image(i)))
    assert (report.total("engine_calls"), report.total("native_calls")) == (0, 3)
    assert kind_of(only_reason(report)) == "run failed"


def test_strict_raises_where_there_is_no_memory(stack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stack, "build", raising(BuildError("out of memory")))
    with torch.no_grad(), pytest.raises(BuildError, match="out of memory"):
        compile_trt(cnn(), options={"strict": True})(image())


def engine_or_reason(report: ReportChecks, calls: int) -> None:
    """Engines answered each call, or none did for a reason that is not ours."""
    if report.total("engine_calls"):
        report.engines_ran(calls=calls, exactly=True)
    else:
        assert report.total("native_calls") == calls
        assert kind_of(only_reason(report)) in {"build failed", "run failed", "out of memory"}


def test_a_workspace_of_one_byte(report: ReportChecks) -> None:
    """TensorRT finds kernels that need none, or gives up, with a reason."""
    model = cnn()
    compiled = compile_trt(model, options={"workspace_bytes": 1})
    with torch.no_grad():
        for i in range(3):
            assert_close(compiled(image(i)), model(image(i)))
    engine_or_reason(report, calls=3)


@contextlib.contextmanager
def hardly_any_memory(left: int) -> Iterator[None]:
    """Fill the GPU up to so many bytes."""
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    held = torch.empty(max(free - left, 0), dtype=torch.uint8)
    try:
        yield
    finally:
        del held
        torch.cuda.empty_cache()


@pytest.mark.exclusive
@pytest.mark.parametrize("left", [64 * MIB, 512 * MIB])
def test_a_build_while_others_fill_the_gpu(left: int, report: ReportChecks) -> None:
    """The builder has next to no memory: the answers are right, and a model after that has its engine."""
    model, other = cnn(), nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    with torch.no_grad():
        wanted = [model(image(i)) for i in range(3)]  # what eager loads is loaded
        with hardly_any_memory(left):
            compiled = compile_trt(model)
            got = [compiled(image(i)) for i in range(3)]
            engine_or_reason(report, calls=3)
        assert_close(got, wanted)  # what compares loads kernels, for which there was no room
        trt_backend.reset_report()
        assert_close(compile_trt(other)(image()), other(image()))
    report.engines_ran(calls=1, exactly=True)


def test_torch_has_no_memory_for_the_output(monkeypatch: pytest.MonkeyPatch, report: ReportChecks) -> None:
    """Eager has none either: its error is the user's, and after a pause the engine is back."""

    def fn(x: Tensor) -> Tensor:
        return (x * 2 + 1).sigmoid()

    compiled, x = compile_trt(fn), models.randn(64, 1024, 256)
    with torch.no_grad():
        assert_close(compiled(x), fn(x))
        torch.cuda.empty_cache()
        _, total = torch.cuda.mem_get_info()
        torch.cuda.set_per_process_memory_fraction(torch.cuda.memory_reserved() / total)
        try:
            with pytest.raises(torch.cuda.OutOfMemoryError):
                compiled(x)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        monkeypatch.setattr(pause, "monotonic", lambda: time.monotonic() + 3600)
        with report.engines_run():
            assert_close(compiled(x), fn(x))
    assert not report.data["regions"][0]["reason"]


def test_what_torch_keeps_for_later_is_given_to_the_engine(
    stack: Any, monkeypatch: pytest.MonkeyPatch, report: ReportChecks
) -> None:
    torch.cuda.empty_cache()
    room = torch.cuda.memory_reserved() + 64 * MIB  # other tests' tensors may still live
    load, kept = stack.load, models.randn(64, MIB // 4)
    del kept

    def load_where_there_is_room(*args: Any, **kwargs: Any) -> Any:
        if torch.cuda.memory_reserved() >= room:
            raise OutOfMemoryError("torch has it")
        return load(*args, **kwargs)

    monkeypatch.setattr(stack, "load", load_where_there_is_room)
    model = cnn()
    compiled = compile_trt(model)
    with torch.no_grad():
        assert_close(compiled(image()), model(image()))
    report.engines_ran(calls=1, exactly=True)


# -- an interrupted build --


def test_a_build_that_is_interrupted_may_be_tried_again(
    stack: Any, monkeypatch: pytest.MonkeyPatch, report: ReportChecks
) -> None:
    """Ctrl-C in a notebook ends the call, not the model."""
    model = cnn()
    compiled = compile_trt(model)
    with torch.no_grad():
        with monkeypatch.context() as patch:
            patch.setattr(stack, "build", raising(KeyboardInterrupt()))
            with pytest.raises(KeyboardInterrupt):
                compiled(image())
        for i in range(3):
            assert_close(compiled(image(i)), model(image(i)))
    report.engines_ran(calls=3, exactly=True)


def test_a_builder_that_is_interrupted_leaves_the_process_usable(
    stack: Any, monkeypatch: pytest.MonkeyPatch, report: ReportChecks
) -> None:
    """The signal comes while TensorRT times its kernels."""
    layers = [nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.SiLU()) for _ in range(12)]
    model, x = models.randomise(nn.Sequential(*layers)), models.randn(2, 16, 32, 32)
    compiled = compile_trt(model, options={"optimization_level": 3})
    main = threading.main_thread().ident
    assert main is not None
    timer, build = threading.Timer(0.2, signal.pthread_kill, (main, signal.SIGINT)), stack.build

    def timed_build(*args: Any, **kwargs: Any) -> Any:
        timer.start()
        return build(*args, **kwargs)

    def call() -> None:
        compiled(x)
        time.sleep(5)  # where the build was quicker than the signal

    with torch.no_grad():
        with monkeypatch.context() as patch:
            patch.setattr(stack, "build", timed_build)
            with pytest.raises(KeyboardInterrupt):
                call()
        timer.join()
        for _ in range(3):
            assert_close(compiled(x), model(x))
        other = cnn()
        with report.engines_run():
            assert_close(compile_trt(other)(image()), other(image()))
    assert not report.reasons()


# -- tensors that lie elsewhere --


def test_a_model_on_the_cpu_of_a_machine_with_a_gpu(report: ReportChecks) -> None:
    pytest.importorskip("onnxruntime")
    model, x = cnn().cpu(), image().cpu()
    compiled = compile_trt(model)
    with torch.no_grad():
        for _ in range(2):
            assert_close(compiled(x), model(x))
    report.engines_ran(calls=2, exactly=True)
    assert [region["provider"] for region in report.data["regions"]] == ["onnxruntime"]


def test_a_cpu_scalar_among_cuda_tensors(report: ReportChecks) -> None:
    """Eager takes tensors of no dimension from the CPU."""

    def fn(x: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return ((x + 1).exp() * scale).relu() + 2, scale + 1

    compiled = compile_trt(fn)
    with torch.no_grad():
        for value in (2.5, -1.0):
            scale = torch.tensor(value, device="cpu")
            assert_close(compiled(image(), scale), fn(image(), scale))
    report.engines_ran(calls=2)
