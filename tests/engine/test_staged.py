"""Engines on a GPU for tensors of the host, with a driver that only pretends, and ONNX Runtime as the GPU's engines."""

from __future__ import annotations

import gc
import inspect
import pickle
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cuda.bindings")

import cuda.bindings.driver as real  # pyright: ignore

from fake_driver import FakeDriver, QueuedEngine, fake_driver
from fake_provider import FakeProvider, Region, example_graph
from trt_backend.compile import low_precision
from trt_backend.debug import Dump
from trt_backend.engine import staged
from trt_backend.engine.base import CPU_HOST, Engine, call_shapes
from trt_backend.engine.profile import EVERYTHING
from trt_backend.engine.staged import StagedProvider
from trt_backend.errors import OutOfMemoryError, ReasonKind, RunError
from trt_backend.ir.builder import Builder
from trt_backend.ir.dims import Dim, Symbol
from trt_backend.ir.graph import Graph
from trt_backend.ir.ops.elementwise import Elementwise, ElementwiseKind
from trt_backend.ir.types import DType, TensorType
from trt_backend.options import CompileOptions


@pytest.fixture
def driver() -> Iterator[FakeDriver]:
    with fake_driver() as fake:
        yield fake


@dataclass(frozen=True)
class GpuProvider(FakeProvider):
    """The fake provider, whose engines read the memory of the fake driver's device."""

    driver: Any = None
    scratch: int = 0
    device = runs_on = "cuda"

    def load(self, blob: bytes, graph: Graph, options: CompileOptions) -> Engine:
        return QueuedEngine(super().load(blob, graph, options), self.driver, self.scratch)

    def identity(self, options: CompileOptions) -> str:
        return f"fake in context {self.driver.stack[-1]}"


@pytest.fixture
def provider(driver: FakeDriver, tmp_path: Path) -> StagedProvider:
    return StagedProvider(GpuProvider("well", tmp_path, cached=False, driver=driver, scratch=1000))


def sums(dtype: DType = DType.FLOAT32) -> Graph:
    """Return x + y, of any length."""
    b = Builder("sums")
    length = Dim.of(Symbol("n", 1))
    x, y = (b.input(name, TensorType(dtype, (length,))) for name in "xy")
    return b.build([b.add(Elementwise(ElementwiseKind.SUM), x, y)])


def load(provider: StagedProvider, graph: Graph) -> Engine:
    options = CompileOptions()
    return provider.load(provider.build(graph, EVERYTHING, options, Dump(None)), graph, options)


def add(engine: Engine, graph: Graph, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    out = np.full_like(x, 77)
    shapes = call_shapes(graph, {"n": len(x)})
    engine.run(shapes, [x.ctypes.data, y.ctypes.data], [out.ctypes.data], CPU_HOST)
    return out


def check_sum(engine: Engine, graph: Graph, length: int = 6, seed: int = 0) -> None:
    x, y = np.random.default_rng(seed).random((2, length), np.float32)
    np.testing.assert_array_equal(add(engine, graph, x, y), x + y)


def test_the_order_of_a_call_and_what_the_next_one_uses_again(
    driver: FakeDriver, provider: StagedProvider
) -> None:
    graph = sums()
    engine = load(provider, graph)
    driver.told()
    check_sum(engine, graph)
    copied = [("copy", "in", 24), ("copy", "in", 24)]
    assert [call for call in driver.told() if call != "cuCtxGetCurrent"] == [
        "cuStreamCreate", "cuMemAlloc", *copied, "cuMemAlloc", "run", ("copy", "out", 24),
        "cuStreamSynchronize", "cuStreamSynchronize",
    ]  # fmt: skip
    check_sum(engine, graph, seed=1)
    again = [*copied, "run", ("copy", "out", 24), "cuStreamSynchronize", "cuStreamSynchronize"]
    assert driver.told() == again, "no memory, no stream"
    assert not driver.stack, "the thread is as it was"


def test_memory_grows_with_the_largest_call_and_goes_with_the_last_engine(
    driver: FakeDriver, tmp_path: Path
) -> None:
    provider = StagedProvider(GpuProvider("well", tmp_path, cached=False, driver=driver))
    graph = sums()
    engine = load(provider, graph)
    sizes = []
    for length in (6, 1 << 20, 6):
        check_sum(engine, graph, length)
        sizes.append([len(block) for block in driver.blocks.values()])
    assert sizes == [[2 << 20], [12 << 20], [12 << 20]]
    del provider
    check_sum(engine, graph)
    del engine
    gc.collect()
    assert (driver.blocks, driver.streams) == ({}, {})


def test_sixteen_threads(driver: FakeDriver, provider: StagedProvider) -> None:
    graph = sums()
    engine = load(provider, graph)
    with ThreadPoolExecutor(16) as threads:
        seeds = range(320)
        list(threads.map(lambda seed: check_sum(engine, graph, 1 + seed % 50, seed), seeds))
    assert driver.calls.count("run") == 320
    assert 1 <= len(driver.streams) <= staged._MOST
    assert len(driver.blocks) <= 2 * staged._MOST, "the tensors and the scratch memory of each lane"


def test_more_calls_than_lanes_wait(driver: FakeDriver, provider: StagedProvider) -> None:
    graph = sums()
    engine = load(provider, graph)
    open_lanes = [provider._lanes.lane() for _ in range(staged._MOST)]
    for lane in open_lanes:
        lane.__enter__()
    waiting = threading.Thread(target=check_sum, args=(engine, graph))
    waiting.start()
    time.sleep(0.05)
    assert waiting.is_alive()
    for lane in reversed(open_lanes):
        lane.__exit__(None, None, None)
    waiting.join(60)
    assert not waiting.is_alive()
    assert driver.calls.count("run") == 1


ILLEGAL = real.CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
FULL = real.CUresult.CUDA_ERROR_OUT_OF_MEMORY


@pytest.mark.parametrize(
    ("call", "status", "error"),
    [
        ("cuDevicePrimaryCtxRetain", FULL, OutOfMemoryError),
        ("cuCtxPushCurrent", ILLEGAL, RunError),
        ("cuStreamCreate", FULL, OutOfMemoryError),
        ("cuMemAlloc", FULL, OutOfMemoryError),
        ("cuMemcpyAsync", ILLEGAL, RunError),
        ("cuStreamSynchronize", ILLEGAL, RunError),
    ],
)
def test_a_failing_driver_leaves_nothing_behind(
    call: str, status: Any, error: type[RunError], driver: FakeDriver, provider: StagedProvider
) -> None:
    graph = sums()
    engine = load(provider, graph)
    staged.cuda._primary_context.cache_clear()
    driver.fails[call] = status
    with pytest.raises(error, match=status.name):
        check_sum(engine, graph)
    gc.collect()
    assert (driver.blocks, driver.streams, driver.stack) == ({}, {}, [])
    for seed in range(2 * staged._MOST):  # the lane that failed is free for others
        check_sum(engine, graph, seed=seed)
    assert len(driver.streams) == 1


def test_a_failing_engine_is_waited_for(driver: FakeDriver, provider: StagedProvider) -> None:
    """Copies are under way when the engine refuses; the caller's memory may go as soon as the call is over."""
    graph = sums()
    engine = load(provider, graph)

    def refuse(*_: Any) -> None:
        assert any(driver.streams.values())
        raise RunError("no")

    engine._engine.run = refuse  # type: ignore[attr-defined]
    with pytest.raises(RunError, match="no"):
        check_sum(engine, graph)
    gc.collect()
    assert (driver.blocks, driver.streams) == ({}, {})


@pytest.mark.parametrize("call", ["cuMemAlloc", "cuMemcpyAsync", "cuStreamSynchronize"])
def test_native_answers_where_the_driver_fails_and_says_why(
    call: str, driver: FakeDriver, provider: StagedProvider, tmp_path: Path
) -> None:
    region = _region(provider, tmp_path)
    assert region.call() == "engine"
    provider._lanes._idle.clear()
    driver.fails[call] = real.CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
    assert [region.call(), region.call()] == ["native", "native"]
    assert region.record.reason is not None
    assert region.record.reason.kind is ReasonKind.RUN_FAILED
    assert "CUDA_ERROR_ILLEGAL_ADDRESS" in region.record.reason.detail


def _region(provider: StagedProvider, folder: Path, **options: Any) -> Region:
    return Region(provider, folder, **options)


def test_engines_are_kept_for_the_next_process(driver: FakeDriver, tmp_path: Path) -> None:
    inner = GpuProvider("well", tmp_path, driver=driver)
    for _ in range(2):
        assert _region(StagedProvider(inner), tmp_path).call() == "engine"
    assert len(list((tmp_path / "cache").glob("*.engine"))) == 1
    assert len(list(tmp_path.glob("built-*"))) == 1
    assert StagedProvider(inner).identity(CompileOptions()) == "fake in context 7000"


def test_a_build_beside_native_calls(provider: StagedProvider, tmp_path: Path) -> None:
    region = _region(provider, tmp_path, build="background")
    assert region.call() == "native"
    deadline = time.monotonic() + 60
    while region.call() != "engine":
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert region.record.reason is None


def test_a_process_that_builds_gets_the_same_provider(driver: FakeDriver, tmp_path: Path) -> None:
    copied = pickle.loads(pickle.dumps(StagedProvider(FakeProvider("well", tmp_path), shared=True)))
    assert isinstance(copied, StagedProvider)
    assert (copied._provider, copied._shared) == (FakeProvider("well", tmp_path), True)
    assert copied.build(example_graph(), EVERYTHING, CompileOptions(), Dump(None))


@dataclass(frozen=True)
class Narrow(GpuProvider):
    """A stack without int64, as TensorRT 8.6."""

    def border(self, dtype: DType) -> DType:
        return DType.INT32 if dtype is DType.INT64 else dtype

    def load(self, blob: bytes, graph: Graph, options: CompileOptions) -> Engine:
        return super().load(blob, sums(DType.INT32), options)


@pytest.mark.parametrize("shared", [False, True])
def test_elements_that_the_stack_does_not_know_are_converted(
    shared: bool, driver: FakeDriver, tmp_path: Path
) -> None:
    inner = Narrow("well", tmp_path, cached=False, driver=driver)
    provider = StagedProvider(inner, shared=shared)
    assert provider.border(DType.INT64) is DType.INT64
    graph = sums(DType.INT64)
    engine = load(provider, graph)
    x, y = np.array([3, -5, 1 << 40, -(1 << 40)]), np.array([-8, 2, 0, 0])
    assert add(engine, graph, x, y).tolist() == [-5, -3, 2**31 - 1, -(2**31)]
    assert [call[2] for call in driver.told() if call[0] == "copy"] == [16, 16, 16]


def test_tensors_on_the_device_are_waited_for(driver: FakeDriver, tmp_path: Path) -> None:
    """Another stream has yet to write the input: a call reads it after that, and not before."""
    provider = StagedProvider(GpuProvider("well", tmp_path, cached=False, driver=driver), shared=True)
    graph = sums()
    engine = load(provider, graph)
    x, y = np.zeros(4, np.float32), np.ones(4, np.float32)
    with staged.cuda.on_device(0):
        other = staged.cuda.Stream()
        driver.queue(other.handle, lambda: x.fill(5))
    np.testing.assert_array_equal(add(engine, graph, x, y), np.full(4, 6, np.float32))


def test_the_fake_has_the_names_and_parameters_of_the_drivers_bindings() -> None:
    for name, function in vars(FakeDriver).items():
        if name.startswith("cu"):
            (declared,) = re.findall(rf"^{name}\((.*)\)", getattr(real, name).__doc__)
            names = [
                re.split("[:=]", part)[0].split()[-1].lstrip("*") for part in declared.split(",") if part
            ]
            assert list(inspect.signature(function).parameters)[1:] == names, name


def test_precision_is_that_of_the_device(provider: StagedProvider) -> None:
    assert low_precision(CompileOptions(precision="fp16"), provider) is DType.FLOAT16
