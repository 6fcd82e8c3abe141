"""Engines launched as CUDA graphs, on a driver that only pretends: what a call forgets to wait for is missing from its answer."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from random import Random
from threading import Lock
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cuda.bindings")

from fake_driver import FakeDriver, QueuedEngine, fake_driver
from trt_backend.engine import cuda
from trt_backend.engine.base import CallShapes, Host, call_shapes
from trt_backend.engine.cuda_graphs import CudaGraphEngine
from trt_backend.ir.builder import Builder
from trt_backend.ir.dims import Dim, Symbol
from trt_backend.ir.graph import Graph
from trt_backend.ir.ops.elementwise import Elementwise, ElementwiseKind, Unary, UnaryKind
from trt_backend.ir.types import DType, TensorType


@pytest.fixture
def driver() -> Iterator[FakeDriver]:
    with fake_driver() as fake, cuda.on_device(0):
        yield fake


def graph() -> Graph:
    b = Builder()
    x = b.input("x", TensorType(DType.FLOAT32, (Dim.of(Symbol("n")),)))
    return b.build([b.add(Unary(UnaryKind.NEG), x)])


def floats(address: int, count: int) -> Any:
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(address))


class Negation:
    """An engine of the host's memory."""

    def run(self, shapes: CallShapes, inputs: Sequence[int], outputs: Sequence[int], host: Host) -> None:
        (count,) = shapes.inputs[0]
        floats(outputs[0], count)[:] = -floats(inputs[0], count)


class Caller:
    """A framework on one stream: a `Host`, and memory that it hands out again."""

    def __init__(self, driver: FakeDriver) -> None:
        self.driver = driver
        self.own = cuda.Stream()
        self.stream = self.own.handle
        self.turn = Lock()
        self.block = cuda.DeviceMemory(64)
        self.answers: list[tuple[Any, Any]] = []

    def scratch(self, byte_count: int) -> cuda.DeviceMemory:
        return self.block

    def allocate(self, byte_count: int) -> cuda.DeviceMemory:
        return cuda.DeviceMemory(byte_count)

    def weights_version(self) -> None:
        return None

    def call(
        self,
        engine: CudaGraphEngine,
        shapes: CallShapes,
        given: cuda.DeviceMemory,
        taken: cuda.DeviceMemory,
        *weights: cuda.DeviceMemory,
        factor: int = -1,
    ) -> None:
        """Write an input, call, and keep the answer, which is to be that times a factor: all of it queued."""
        (count,) = shapes.inputs[0]
        numbers = np.random.default_rng(len(self.answers)).standard_normal(count, np.float32)
        kept = np.empty_like(numbers)
        self.driver.queue(self.stream, lambda: np.copyto(floats(given.address, count), numbers))
        inputs = [memory.address for memory in (given, *weights)]
        engine.run(shapes, inputs, [taken.address], self)
        self.driver.queue(self.stream, lambda: np.copyto(kept, floats(taken.address, count)))
        self.answers.append((kept, factor * numbers))

    def check(self) -> None:
        """Compare the answers, once the driver is through."""
        for kept, wanted in self.answers:
            np.testing.assert_array_equal(kept, wanted)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("streams", "scratch"), [(1, 0), (2, 64)])
@pytest.mark.parametrize("blocks", [2, 3, 6])
def test_answers_come_in_the_streams_order_and_no_call_waits(
    blocks: int, streams: int, scratch: int, seed: int, driver: FakeDriver
) -> None:
    network, random = graph(), Random(seed)
    engine = CudaGraphEngine(QueuedEngine(Negation(), driver, scratch), network)
    shapes = [call_shapes(network, {"n": n}) for n in (3, 8)]
    callers = [Caller(driver) for _ in range(streams)]
    memory = [[cuda.DeviceMemory(32) for _ in range(blocks)] for _ in callers]
    driver.told()
    for i in range(60):
        given, taken = random.sample(memory[i % streams], 2)
        callers[i % streams].call(engine, random.choice(shapes), given, taken)
    told = driver.told()
    assert not {"cuStreamSynchronize", "cuCtxSynchronize"} & set(told)
    assert told.count("cuGraphLaunch") > 30
    driver.finish(random)
    for caller in callers:
        caller.check()


def scaled_graph() -> Graph:
    b = Builder()
    type_ = TensorType(DType.FLOAT32, (4,))
    x, w = b.input("x", type_), b.input("w", type_, weight=True)
    return b.build([b.add(Elementwise(ElementwiseKind.PROD), x, w)])


class Product:
    """An engine that reads its weight as an input."""

    def run(self, shapes: CallShapes, inputs: Sequence[int], outputs: Sequence[int], host: Host) -> None:
        floats(outputs[0], 4)[:] = floats(inputs[0], 4) * floats(inputs[1], 4)


def test_weights_are_read_where_they_are(driver: FakeDriver) -> None:
    network, caller, random = scaled_graph(), Caller(driver), Random(0)
    engine = CudaGraphEngine(QueuedEngine(Product(), driver), network)
    memory = [cuda.DeviceMemory(16) for _ in range(6)]
    weights, shapes = [cuda.DeviceMemory(16) for _ in range(2)], call_shapes(network, {})
    for i, weight in enumerate(weights):
        floats(weight.address, 4)[:] = 1 + i
    driver.told()
    for i in range(60):
        k = i // 30  # then another set, of a block of the same structure
        caller.call(engine, shapes, *random.sample(memory, 2), weights[k], factor=1 + k)
    static = engine._static._captured.values()
    assert [[i for i, _ in captured.fetches] for captured in static] == [[0], [0]]
    assert [len(captured.memory) for captured in static] == [2, 2]
    driver.finish(random)
    caller.check()


def test_an_engine_runs_without_a_graph_that_does_not_show_its_copies(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda.Graph, "copies", lambda _: [])
    network, caller, random = graph(), Caller(driver), Random(0)
    engine = CudaGraphEngine(QueuedEngine(Negation(), driver), network)
    memory = [cuda.DeviceMemory(32) for _ in range(6)]
    shapes = call_shapes(network, {"n": 8})
    driver.told()
    for _ in range(20):
        caller.call(engine, shapes, *random.sample(memory, 2))
    assert driver.told().count("cuStreamEndCapture") > 1
    assert not engine._static._captured
    driver.finish(random)
    caller.check()


def test_a_graph_has_kernels_for_small_memsets(driver: FakeDriver) -> None:
    """That they keep their place is shown above: a count that does not begin at 0 fails there."""
    memory, stream = cuda.DeviceMemory(1 << 17), cuda.Stream()

    def work() -> None:
        for start, count in ((0, 1), (4, 1 << 14), (8, 1 + (1 << 14)), (2, 1)):
            driver.cuMemsetD32Async(memory.address + start, 7, count, stream.handle)

    captured = cuda.capture(work, stream)
    memset = driver.CUgraphNodeType.CU_GRAPH_NODE_TYPE_MEMSET
    assert [node.filled for node in cuda._nodes(captured._captured, memset)] == [
        (7, memory.address + 8, 1 + (1 << 14)),  # too many
        (7, memory.address + 2, 1),  # no words
    ]
    cuda.launch(captured, stream.handle)
    cuda.synchronize(stream.handle)
    words = np.ctypeslib.as_array((ctypes.c_uint16 * (1 << 16)).from_address(memory.address))
    np.testing.assert_array_equal(words[:8], [7, 7, 0, 0, 7, 0, 7, 0])


@pytest.mark.parametrize("call", ["cuModuleLoadData", "cuGraphAddDependencies"])
def test_memsets_stay_where_the_driver_does_not_take_the_kernel(call: str, driver: FakeDriver) -> None:
    driver.fails[call] = driver.CUresult.CUDA_ERROR_NOT_SUPPORTED
    memory, stream = cuda.DeviceMemory(4), cuda.Stream()

    def work() -> None:
        driver.cuMemsetD32Async(memory.address, 7, 1, stream.handle)
        driver.cuMemcpyDtoDAsync(memory.address, memory.address, 4, stream.handle)

    captured = cuda.capture(work, stream)
    assert len(captured._captured) == 2
    cuda.launch(captured, stream.handle)
    cuda.synchronize(stream.handle)
    assert ctypes.c_uint32.from_address(memory.address).value == 7


def test_memsets_stay_where_the_driver_is_older_than_a_call(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: Any) -> None:
        raise RuntimeError("Function cuGraphNodeGetDependencies_v2 not found")

    monkeypatch.setattr(FakeDriver, "cuGraphNodeGetDependencies_v2", missing, raising=False)
    memory, stream = cuda.DeviceMemory(4), cuda.Stream()
    captured = cuda.capture(lambda: driver.cuMemsetD32Async(memory.address, 7, 1, stream.handle), stream)
    assert [node.filled for node in captured._captured] == [(7, memory.address, 1)]
