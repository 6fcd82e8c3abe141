"""The builder's progress, cancellation and errors, with TensorRT-RTX's real builder, which needs no GPU."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from enum import IntEnum
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock, call

import numpy as np
import pytest

pytest.importorskip("tensorrt_rtx")

from tensorrt_checks import QUICK, build, load
from trt_backend.debug import Dump
from trt_backend.emit.tensorrt.stacks import stack_of
from trt_backend.engine import tensorrt_build
from trt_backend.engine.builder_process import build_apart
from trt_backend.engine.cache import EngineCache
from trt_backend.engine.profile import EVERYTHING
from trt_backend.engine.tensorrt import TensorRTProvider
from trt_backend.engine.tensorrt_build import Builder, failure, make_logger, required, shared_timings
from trt_backend.errors import BuildError, OutOfMemoryError, UnsupportedError
from trt_backend.ir.builder import Builder as GraphBuilder
from trt_backend.ir.dims import Dim, Symbol
from trt_backend.ir.graph import Graph
from trt_backend.ir.ops.contraction import Convolution
from trt_backend.ir.ops.elementwise import Activation, ActivationKind
from trt_backend.ir.ops.reduction import Normalization
from trt_backend.ir.types import DType, TensorType
from trt_backend.options import CompileOptions

STACK = load("tensorrt_rtx")


def _graph(layers: int = 4) -> Graph:
    b = GraphBuilder()
    x = b.input("x", TensorType(DType.FLOAT32, (1, 8, 16, 16)))
    for i in range(layers):
        kernel = b.constant(np.random.default_rng(i).random((8, 8, 3, 3), np.float32))
        x = b.add(Convolution((1, 1), (1, 1), (1, 1), (1, 1)), x, kernel)
        x = b.add(Activation(ActivationKind.RELU), x)
    return b.build([x])


def _builder() -> Builder:
    return Builder(STACK._trt, STACK._stack, STACK._logger, QUICK)


def _profile(graph: Graph):
    from trt_backend.engine.base import call_shapes

    return STACK.profile(graph, call_shapes(graph, {}), None)


def test_the_builder_reports_its_progress() -> None:
    graph, builder = _graph(), _builder()
    assert len(builder.build(graph, _profile(graph))) > 1000
    assert builder._phase.name
    assert 0 < builder._phase.done <= builder._phase.steps


def test_a_build_that_takes_long_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tensorrt_build, "_LOG_SECONDS", 0.001)
    with caplog.at_level("INFO", "trt_backend"):
        build(STACK, _graph(), {})
    assert any("TensorRT has been building for" in record.message for record in caplog.records)


def test_an_interrupted_build_stops_and_the_next_one_works(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, builder = _graph(8), _builder()
    threads: list[threading.Thread] = []

    def interrupted(self: Builder, thread: threading.Thread, name: str) -> None:
        threads.append(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Builder, "_wait", interrupted)
        with pytest.raises(KeyboardInterrupt):
            builder.build(graph, _profile(graph))
    threads[0].join(60)
    assert not threads[0].is_alive()
    assert len(build(STACK, graph, {})[0]) > 1000


def test_a_process_of_its_own_builds_the_same() -> None:
    graph = _graph()
    engine = build_apart(STACK, graph, _profile(graph), QUICK)
    assert len(engine) == len(build(STACK, graph, {})[0]) > 1000
    with pytest.raises(UnsupportedError, match=r"tensorrt_rtx 1\.7 has no f64"):
        build_apart(STACK, _refused(), EVERYTHING, QUICK)


def test_a_cancelled_build_is_a_build_error() -> None:
    graph, builder = _graph(), _builder()
    builder._cancelled.set()
    with pytest.raises(BuildError, match="the build was cancelled"):
        builder.build(graph, _profile(graph))


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ("Error Code 2: OutOfMemory (Requested size was 64 bytes.)", OutOfMemoryError),
        ("Error Code 1: Cuda Runtime (out of memory)", OutOfMemoryError),
        ("CUDA error: CUDA_ERROR_OUT_OF_MEMORY", OutOfMemoryError),
        ("cudaErrorMemoryAllocation", OutOfMemoryError),
        ("Error Code 4: Internal Error (no idea)", BuildError),
    ],
)
def test_a_lack_of_memory_is_told_from_what_tensorrt_logs(said: str, error: type[BuildError]) -> None:
    logger: Any = make_logger(STACK._trt)
    for message in (said, "Error Code 10: Internal Error (no implementation)"):
        logger.log(STACK._trt.ILogger.ERROR, message)
    assert type(failure("TensorRT makes no engine", logger)) is error


def test_a_lack_of_memory_is_that_of_its_thread_and_operation() -> None:
    ilogger = STACK._trt.ILogger
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda blob: None)
    trt = SimpleNamespace(ILogger=ilogger, Runtime=lambda logger: runtime, __version__="1.7.1")
    stack = TensorRTProvider(trt, STACK._stack)
    logger: Any = stack._logger
    thread = threading.Thread(target=logger.log, args=(ilogger.ERROR, "out of memory"))
    thread.start()
    thread.join()
    assert logger.error == ""
    logger.log(ilogger.ERROR, "out of memory")
    with pytest.raises(BuildError, match="cannot load the engine") as raised:
        stack.load(b"", _graph(), QUICK)
    assert raised.type is BuildError


def test_what_tensorrt_does_not_make_is_a_lack_of_memory() -> None:
    def create_network() -> None:
        pass

    with pytest.raises(OutOfMemoryError, match=r"made no network; is the device's memory used up\?"):
        required(create_network)


def _refused() -> Graph:
    b = GraphBuilder()
    x = b.input("x", TensorType(DType.FLOAT64, (2, 3)))
    return b.build([b.add(Normalization(1, 1e-5), x)])


def test_tactic_sources_are_tensorrts_by_name() -> None:
    graph, options = _graph(1), CompileOptions(tactic_sources=["CUBLAS", "JIT_CONVOLUTIONS"])
    with pytest.raises(
        BuildError, match="no tactic source CUBLAS; it has EDGE_MASK_CONVOLUTIONS, JIT_CONVOLUTIONS"
    ):
        STACK.build(graph, _profile(graph), options, Dump(None))
    fewer = CompileOptions(tactic_sources=["JIT_CONVOLUTIONS"])
    assert len(STACK.build(graph, _profile(graph), fewer, Dump(None))) > 1000
    assert len({STACK.identity(choice) for choice in (options, fewer, CompileOptions())}) == 3


@pytest.mark.parametrize("names", [None, ("JIT_CONVOLUTIONS",), ("CUBLAS_LT", "JIT_CONVOLUTIONS")])
def test_8_6_takes_kernels_of_libraries_only_if_asked(names: tuple[str, ...] | None) -> None:
    class TacticSource(IntEnum):
        CUBLAS, CUBLAS_LT, CUDNN, EDGE_MASK_CONVOLUTIONS, JIT_CONVOLUTIONS = range(5)

    stack = stack_of("tensorrt", "8.6.0")
    assert stack is not None
    config, trt = MagicMock(), MagicMock(TacticSource=TacticSource)
    Builder(trt, stack, MagicMock(), CompileOptions(tactic_sources=names))._set_tactic_sources(config)
    wanted = names or ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")
    config.set_tactic_sources.assert_called_once_with(sum(1 << TacticSource[name] for name in wanted))
    feature = trt.PreviewFeature.DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805
    assert config.set_preview_feature.mock_calls == ([call(feature, False)] if "CUBLAS_LT" in wanted else [])


@pytest.mark.parametrize(("factor", "n"), [(1, 2**30 + 1), (1, 2**31 - 1), (2, 2**29 + 1)])
def test_profiles_end_at_the_highest_size(factor: int, n: int) -> None:
    assert len(build(STACK, _vector(factor), {"n": n})[0]) > 1000


def test_a_size_above_the_highest_is_a_build_error() -> None:
    with pytest.raises(BuildError, match=r"x has the shape \[2147483648\]: TensorRT takes sizes up to"):
        build(STACK, _vector(2), {"n": 2**30})


def _vector(factor: int) -> Graph:
    b = GraphBuilder()
    x = b.input("x", TensorType(DType.FLOAT32, (factor * Dim.of(Symbol("n")),)))
    return b.build([b.add(Activation(ActivationKind.RELU), x)])


class Timings:
    """What an `IBuilderConfig` does with timing caches, which are bytes here."""

    def __init__(self, refused: list[bytes], measured: bytes | None) -> None:
        self.refused, self.measured, self.taken = refused, measured, False

    def create_timing_cache(self, blob: bytes) -> bytes | None:
        return None if blob == b"broken" else blob

    def set_timing_cache(self, timings: bytes | None, ignore_mismatch: bool) -> bool:
        assert timings is not None, "the bindings raise"
        self.taken = timings not in self.refused
        return self.taken

    def get_timing_cache(self) -> Timings | None:
        return self if self.taken else None

    def serialize(self) -> bytes | None:
        return self.measured


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize(
    ("stored", "refused", "measured", "kept"),
    [
        (b"old", [], b"new", b"new"),
        (b"broken", [], b"new", b"new"),
        (b"old", [b"old"], b"new", b"new"),
        (b"old", [b"old", b""], b"new", b"old"),
        (b"old", [], None, b"old"),
    ],
)
def test_timings_cost_no_engine(
    stored: bytes,
    refused: list[bytes],
    measured: bytes | None,
    kept: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    fails: bool,
) -> None:
    monkeypatch.setattr(tensorrt_build.cuda, "device_name", lambda: "gpu")
    cache, trt = EngineCache(tmp_path), SimpleNamespace(__name__="tensorrt", __version__="8.6.0")
    cache.merge_timings("tensorrt_8_6_0_gpu", lambda _: stored)
    cancelled = BuildError("cancelled")
    expected = pytest.raises(BuildError) if fails else nullcontext()
    with expected, shared_timings(trt, Timings(refused, measured), cache):
        if fails:
            raise cancelled
    assert cache.timings("tensorrt_8_6_0_gpu") == kept


def test_what_support_refuses_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedError, match=r"tensorrt_rtx 1\.7 has no f64"):
        build(STACK, _refused(), {})
