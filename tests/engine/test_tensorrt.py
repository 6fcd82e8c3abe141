"""Execution contexts and CUDA graphs, with bindings and a driver that only note what they are told."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import count
from threading import Lock
from typing import Any

import pytest

pytest.importorskip("cuda.bindings")

from fake_driver import fake_driver
from trt_backend.engine import cuda
from trt_backend.engine import cuda_graphs as cuda_graphs_module
from trt_backend.engine.base import CallShapes, call_shapes
from trt_backend.engine.cuda_graphs import CudaGraphEngine
from trt_backend.engine.tensorrt import TensorRTEngine, _begin_thread
from trt_backend.errors import OutOfMemoryError, RunError
from trt_backend.ir.builder import Builder
from trt_backend.ir.dims import Dim, Symbol
from trt_backend.ir.graph import Graph
from trt_backend.ir.ops.elementwise import Unary, UnaryKind
from trt_backend.ir.ops.layout import Expand
from trt_backend.ir.types import DType, TensorType


class Context:
    def __init__(self, log: list[tuple[Any, ...]], number: int) -> None:
        self.log, self.number, self.device_memory = log, number, None
        self.refuses: str | None = None

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.log.append(("shape", self.number, name, shape))
        return name != self.refuses

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.log.append(("address", self.number, name, address))
        return True

    def execute_async_v3(self, stream: int) -> bool:
        self.log.append(("run", self.number, stream))
        return True


class Bindings:
    """An `ICudaEngine` of TensorRT 8.6, as far as it is used."""

    device_memory_size = 64

    def __init__(self, graph: Graph) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.contexts: list[Context] = []
        self.names = [value.name for value in graph.inputs] + [
            f"dim.{symbol.name}" for symbol in graph.symbols
        ]

    @property
    def num_io_tensors(self) -> int:
        return len(self.names)

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def create_execution_context_without_device_memory(self) -> Context:
        self.contexts.append(Context(self.log, len(self.contexts)))
        return self.contexts[-1]

    def told(self) -> list[tuple[Any, ...]]:
        """Return what was noted since the last time."""
        noted = self.log[:]
        self.log.clear()
        return noted


class Block:
    def __init__(self, address: int) -> None:
        self.address = address


class Stand:
    """A `Host` whose memory is numbers."""

    def __init__(self, stream: int, turn: Lock | None = None) -> None:
        self.stream = stream
        self.turn = turn or Lock()
        self._next = count(1000, 100)

    def scratch(self, byte_count: int) -> Block:
        return Block(500 + self.stream)

    def allocate(self, byte_count: int) -> Block:
        return Block(next(self._next))

    def weights_version(self) -> None:
        return None


class Quiet:
    error = "out of memory, in an earlier run"


def _graph() -> Graph:
    b = Builder()
    x = b.input("x", TensorType(DType.FLOAT32, (Dim.of(Symbol("n")), 3)))
    return b.build([b.add(Unary(UnaryKind.EXP), x)])


def _engine(graph: Graph) -> tuple[TensorRTEngine, Bindings]:
    bindings = Bindings(graph)
    return TensorRTEngine(object(), object(), bindings, graph, Quiet()), bindings


def test_a_context_is_told_only_what_changes() -> None:
    graph = _graph()
    engine, bindings = _engine(graph)
    two, five = (call_shapes(graph, {"n": n}) for n in (2, 5))
    engine.run(two, [10], [20], Stand(1))
    assert bindings.told() == [
        ("shape", 0, "x", (2, 3)),
        ("address", 0, "x", 10),
        ("address", 0, "output.0", 20),
        ("run", 0, 1),
    ]
    engine.run(two, [10], [20], Stand(1))
    assert bindings.told() == [("run", 0, 1)]
    engine.run(five, [10], [20], Stand(1))
    assert bindings.told() == [("shape", 0, "x", (5, 3)), ("run", 0, 1)]
    assert bindings.contexts[0].device_memory == 501


def test_a_stream_has_contexts_of_its_own() -> None:
    graph = _graph()
    engine, bindings = _engine(graph)
    shapes = call_shapes(graph, {"n": 2})
    for stream in (1, 2, 1, 2):
        engine.run(shapes, [10], [20], Stand(stream))
    assert [entry[1:] for entry in bindings.told() if entry[0] == "run"] == [(0, 1), (1, 2), (0, 1), (1, 2)]
    engine.forget(1)
    engine.run(shapes, [10], [20], Stand(1))
    assert ("run", 2, 1) in bindings.told()


@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_threads_on_one_stream_take_turns(
    cuda_graphs: bool, driver: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two engines share the stream's scratch memory: their kernels must not alternate."""
    queueing: list[bool] = []

    def queue(*_: Any) -> bool:
        queueing.append(True)
        time.sleep(0.001)  # other threads run, as the bindings let them
        queueing.pop()
        alone.append(not queueing)
        return True

    alone: list[bool] = []
    graph, turn = _graph(), Lock()
    shapes = call_shapes(graph, {"n": 2})
    plain, captured = _engine(graph)[0], CudaGraphEngine(_engine(graph)[0], graph)
    other = captured if cuda_graphs else _engine(graph)[0]
    for engine in (plain, other) * 2:  # its graph is there, also the one for this memory
        engine.run(shapes, [10], [20], Stand(1, turn))
    monkeypatch.setattr(Context, "execute_async_v3", queue)
    monkeypatch.setattr(cuda_graphs_module.cuda, "launch", queue)

    def work(i: int) -> None:
        (plain, other)[i % 2].run(shapes, [10], [20], Stand(1, turn))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(64)))
    assert len(alone) == 64
    assert all(alone)


def test_a_context_that_failed_is_not_used_again() -> None:
    graph = _graph()
    engine, bindings = _engine(graph)
    shapes = call_shapes(graph, {"n": 2})
    engine.run(shapes, [10], [20], Stand(1))
    bindings.contexts[0].refuses = "x"
    with pytest.raises(RunError):
        engine.run(call_shapes(graph, {"n": 7}), [10], [20], Stand(1))
    bindings.told()
    engine.run(shapes, [10], [20], Stand(1))
    assert bindings.told()[-1] == ("run", 1, 1)


def test_a_refused_shape_is_a_run_error() -> None:
    graph = _graph()
    engine, bindings = _engine(graph)
    engine.run(call_shapes(graph, {"n": 2}), [10], [20], Stand(1))
    bindings.contexts[0].refuses = "x"
    with pytest.raises(RunError, match=r"refuses the shape \[7, 3\] of x") as raised:
        engine.run(call_shapes(graph, {"n": 7}), [10], [20], Stand(1))
    assert raised.type is RunError


def test_a_size_that_no_input_has_comes_as_the_shape_of_its_own() -> None:
    b = Builder()
    x = b.input("x", TensorType(DType.FLOAT32, (1,)))
    graph = b.build([b.add(Expand((Dim.of(Symbol("n")),)), x)])
    engine, bindings = _engine(graph)
    engine.run(call_shapes(graph, {"n": 7}), [10], [20], Stand(1))
    assert ("shape", 0, "dim.n", (7,)) in bindings.log
    assert ("address", 0, "dim.n", 20) in bindings.log, "some address: its elements are not read"
    bindings = Bindings(graph)
    bindings.names.remove("dim.n")  # passes found that nothing needs it
    TensorRTEngine(object(), object(), bindings, graph, Quiet()).run(
        call_shapes(graph, {"n": 7}), [10], [20], Stand(1)
    )
    assert not any("dim.n" in noted for noted in bindings.log)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Note the driver's calls; streams are numbered from 70 on."""
    noted: list[tuple[Any, ...]] = []
    handles = count(70)

    class Stream:
        def __init__(self) -> None:
            self.handle = next(handles)

    class Copy:
        def __init__(self, target: int, source: int) -> None:
            self.target, self.source = target, source

        def move(self, *, source: int, target: int) -> None:
            self.source, self.target = source, target
            noted.append(("move", source, target))

    class Graph:
        def __init__(self, name: str, copies: list[Copy]) -> None:
            self.name = name
            self.copies = lambda: copies

    def capture(work: Callable[[], None], stream: Stream) -> Graph:
        before = len(noted)
        work()
        copies = [Copy(*entry[1:3]) for entry in noted[before:] if entry[0] == "copy"]
        del noted[before:]
        return Graph(f"graph {stream.handle}", copies)

    monkeypatch.setattr(cuda_graphs_module.cuda, "Stream", Stream)
    monkeypatch.setattr(cuda_graphs_module.cuda, "capture", capture)
    monkeypatch.setattr(cuda_graphs_module.cuda, "synchronize", lambda stream: noted.append(("stop", stream)))
    monkeypatch.setattr(cuda_graphs_module.cuda, "synchronize_all", lambda: noted.append(("stop",)))
    monkeypatch.setattr(
        cuda_graphs_module.cuda, "wait_for", lambda *streams: noted.append(("wait", *streams))
    )
    monkeypatch.setattr(cuda_graphs_module.cuda, "copy_async", lambda *copy: noted.append(("copy", *copy)))
    monkeypatch.setattr(
        cuda_graphs_module.cuda, "launch", lambda graph, stream: noted.append(("launch", graph.name, stream))
    )
    return noted


class Recorder:
    """An engine that notes where it runs."""

    def __init__(self) -> None:
        self.runs: list[tuple[Any, ...]] = []
        self.forgotten: list[int] = []

    def run(self, shapes: CallShapes, inputs: Any, outputs: Any, host: Any) -> None:
        host.scratch(64)
        self.runs.append((list(inputs), list(outputs), host.stream))

    def forget(self, stream: int) -> None:
        self.forgotten.append(stream)


def _graphs(engine: Recorder) -> tuple[CudaGraphEngine, Callable[[int], CallShapes]]:
    graph = _graph()
    return CudaGraphEngine(engine, graph), lambda n: call_shapes(graph, {"n": n})


def test_what_comes_once_runs_without_a_graph(driver: list[tuple[Any, ...]]) -> None:
    engine = Recorder()
    graphs, shapes = _graphs(engine)
    graphs.run(shapes(2), [10], [20], Stand(1))
    assert (engine.runs, driver) == ([([10], [20], 1)], [])


def test_memory_that_comes_again_gets_a_graph_without_copies(driver: list[tuple[Any, ...]]) -> None:
    engine, host = Recorder(), Stand(1)
    graphs, shapes = _graphs(engine)
    two = shapes(2)
    for _ in range(2):
        graphs.run(two, [10], [20], host)
    assert engine.runs[1:] == [([10], [20], 70)] * 2, "once to settle, once captured, on a stream of its own"
    assert driver == [("wait", 70, 1), ("wait", 70, 1), ("wait", 1, 70), ("launch", "graph 70", 1)]
    driver.clear()
    graphs.run(two, [10], [20], host)
    assert driver == [("launch", "graph 70", 1)]
    assert len(engine.runs) == 3


def test_other_memory_gets_a_graph_of_its_own_memory_which_hands_the_outputs_over(
    driver: list[tuple[Any, ...]],
) -> None:
    engine, host = Recorder(), Stand(1)
    graphs, shapes = _graphs(engine)
    two = shapes(2)
    graphs.run(two, [10], [20], host)
    graphs.run(two, [11], [21], host)
    assert engine.runs[1:] == [([1000], [1100], 70)] * 2
    settled = [("wait", 70, 1), ("copy", 1000, 11, 24, 70), ("wait", 70, 1), ("copy", 21, 1100, 24, 70)]
    assert driver == [
        *settled,
        ("wait", 1, 70),
        ("move", 11, 1000),
        ("move", 1100, 21),
        ("launch", "graph 70", 1),
    ]
    driver.clear()
    graphs.run(two, [12], [22], host)
    assert driver == [("move", 12, 1000), ("move", 1100, 22), ("launch", "graph 70", 1)]
    driver.clear()
    for memory in (11, 11, 13):
        graphs.run(two, [memory], [memory + 10], host)
    direct, copied = ("launch", "graph 71", 1), [("move", 13, 1000), ("move", 1100, 23)]
    assert [call for call in driver if call[0] != "wait"] == [
        direct,
        direct,
        *copied,
        ("launch", "graph 70", 1),
    ]


def test_a_graph_belongs_to_its_signature_and_stream(driver: list[tuple[Any, ...]]) -> None:
    engine, host = Recorder(), Stand(1)
    graphs, shapes = _graphs(engine)
    two, three = shapes(2), shapes(3)
    for _ in range(2):
        for each, stream in ((two, 1), (three, 1), (two, 2)):
            host.stream = stream
            graphs.run(each, [10], [20], host)
    assert [run[2] for run in engine.runs] == [1, 1, 2, 70, 70, 71, 71, 72, 72]


def test_a_graph_does_not_keep_its_first_caller(driver: list[tuple[Any, ...]]) -> None:
    """Whose host knows all arguments of that call."""
    host = Stand(1)
    graphs, shapes = _graphs(Recorder())
    two = shapes(2)
    for memory in (10, 10, 11):
        graphs.run(two, [memory], [20], host)
    alive = weakref.ref(host)
    del host
    gc.collect()
    assert alive() is None


@pytest.mark.parametrize("error", [OutOfMemoryError("no context"), RunError("refused")])
@pytest.mark.parametrize("settled", [False, True])
def test_where_no_graph_can_be_captured_the_engine_runs_without(
    settled: bool, error: Exception, driver: list[tuple[Any, ...]]
) -> None:
    class Refusing(Recorder):
        def run(self, shapes: CallShapes, inputs: Any, outputs: Any, host: Any) -> None:
            if host.stream >= 70 and (not settled or self.runs[-1][2] == host.stream):
                raise error
            super().run(shapes, inputs, outputs, host)

    engine, host = Refusing(), Stand(1)
    graphs, shapes = _graphs(engine)
    two = shapes(2)
    for _ in range(2):
        graphs.run(two, [10], [20], host)
    assert engine.runs[-1] == ([10], [20], 1)
    assert engine.forgotten == [70, 71], "neither kind leaves a context behind"
    assert not any(call[0] == "launch" for call in driver)


def test_graphs_are_bounded_and_take_their_contexts_along(driver: list[tuple[Any, ...]]) -> None:
    engine, host = Recorder(), Stand(1)
    graphs, shapes = _graphs(engine)
    many = [shapes(n) for n in range(1, 21)]
    for each in many * 4:
        graphs.run(each, [10], [20], host)
    assert engine.forgotten == [70, 71, 72, 73], "16 of 20 are kept"
    assert driver.count(("stop",)) == 4, "graphs of other streams may be under way"
    before = len(engine.runs)
    graphs.run(many[-1], [10], [20], host)
    assert len(engine.runs) == before


def test_what_changes_all_the_time_is_captured_ever_more_seldom(driver: list[tuple[Any, ...]]) -> None:
    engine, host = Recorder(), Stand(1)
    graphs, shapes = _graphs(engine)
    many = [shapes(n) for n in range(1, 41)]
    captures: list[int] = []
    for _ in range(3):
        for i in range(4000):
            graphs.run(many[i % 40], [i % 7], [20], host)
        captures.append(sum(run[2] >= 70 for run in engine.runs) // 2)
    first, second, third = captures
    assert first < 240
    assert third - second < 80
    assert len(engine.forgotten) == third - 2 * 16


def test_what_is_meant_for_the_default_stream_runs_beside_it(driver: list[tuple[Any, ...]]) -> None:
    """TensorRT would have the CPU wait there."""
    graph = _graph()
    engine, bindings = _engine(graph)
    shapes = call_shapes(graph, {"n": 2})
    for _ in range(2):
        engine.run(shapes, [10], [20], Stand(0))
        assert [entry for entry in bindings.told() if entry[0] == "run"] == [("run", 0, 70)]
        assert driver == [("wait", 70, 0), ("wait", 0, 70)]
        driver.clear()
    bindings.contexts[0].execute_async_v3 = lambda stream: False
    with pytest.raises(RunError, match="could not queue"):
        engine.run(shapes, [10], [20], Stand(0))
    assert driver == [("wait", 70, 0), ("wait", 0, 70)], (
        "what was queued may write to memory that is used again"
    )


def test_tensors_of_no_elements_are_somewhere() -> None:
    """TensorRT takes no null pointer for an output."""
    b = Builder()
    x = b.input("x", TensorType(DType.FLOAT32, (Dim.of(Symbol("n")), 3)))
    one = b.input("one", TensorType(DType.FLOAT32, (1,)))
    graph = b.build([b.add(Unary(UnaryKind.EXP), x), b.add(Expand((Dim.of(Symbol("m")),)), one)])
    engine, bindings = _engine(graph)
    shapes = call_shapes(graph, {"n": 0, "m": 7})
    engine.run(shapes, [0, 10], [0, 30], Stand(1))
    assert [entry[2:] for entry in bindings.told() if entry[0] == "address"] == [
        ("dim.m", 30),
        ("x", 30),
        ("one", 10),
        ("output.0", 30),
        ("output.1", 30),
    ]
    engine.run(shapes, [0, 10], [0, 0], Stand(1))
    assert bindings.told() == [], "nothing is to be written"


def test_who_waits_for_the_device_waits_for_a_capture() -> None:
    """Else both fail: the device's streams are not to be waited for while one of them is captured."""
    with fake_driver(), cuda.on_device(0), ThreadPoolExecutor() as threads:
        waits: list[Future[None]] = []

        def wait() -> None:
            with cuda.on_device(0):
                cuda.synchronize_all()

        def work() -> None:
            waits.append(threads.submit(wait))
            assert futures.wait(waits, timeout=0.2).not_done

        cuda.capture(work, cuda.Stream())
        waits[0].result(10)


def test_builder_threads_do_not_end_captures_of_others() -> None:
    with fake_driver() as fake, cuda.on_device(0):
        _begin_thread(0)
        assert fake.capture_mode == fake.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED


def test_captures_are_relaxed_for_a_block() -> None:
    with fake_driver() as fake:
        strict, seen = fake.capture_mode, []

        def native() -> None:
            seen.append(fake.capture_mode)
            raise RunError("it failed")

        with pytest.raises(RunError), cuda.relaxed_capture():
            native()
        assert seen == [fake.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED]
        assert fake.capture_mode == strict
