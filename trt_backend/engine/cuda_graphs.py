"""An engine launched as one CUDA graph.

Rules:
  AGAIN   What comes once runs without a graph: to capture one takes longer than a run.
  DIRECT  Frameworks' allocators hand out the same blocks again and again. Memory with which a signature is called a
          second time gets a graph that works on it, and serves the calls that come with just this memory.
  STATIC  A signature that comes a second time with other memory gets a graph whose kernels read and write memory of its
          own. It begins with copies of the inputs to there, and ends with copies of the outputs from there to the
          caller's memory, so that they are the caller's to keep; a call moves the callers' ends of these copies, and
          one launch queues all of it. Weights that an engine reads as inputs are where they are, and not copied.
  KEY     A graph belongs to a signature and a stream: runs on two streams may overlap, and must not share memory.
  OWN     Each graph is captured on a stream of its own, and so with an execution context of its own: a later run of that
          context would change what the graph reads.
  BOUNDED At most `_MOST` graphs of each kind are kept for an engine; the one that was not used for the longest time goes.
          Where more than that take turns, captures end: after each `_MOST` graphs of a kind, what is to get one has to
          come twice as often as before.
  ORDER   What a capture runs waits, on the device, for what the caller's stream has to do, and that stream for it: the
          call that captures returns as early as others.
  OPTION  Where a graph cannot be captured the engine runs without.
"""

from __future__ import annotations

__all__ = ["CudaGraphEngine", "StreamedEngine"]

import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

from trt_backend.debug import log
from trt_backend.engine import cuda
from trt_backend.engine.base import CallShapes, Engine, Host, Memory
from trt_backend.errors import OutOfMemoryError, RunError
from trt_backend.ir.graph import Graph

_MOST = 16
_SEEN = 256  # AGAIN: keys remembered

_Places = tuple[int, ...]
"""The addresses of a call's inputs, and then of its outputs."""


class StreamedEngine(Engine, Protocol):
    """An engine that keeps something for each stream."""

    def forget(self, stream: int) -> None:
        """Let go what is kept for a stream, which nobody uses any more."""
        ...


class CudaGraphEngine:
    """Wraps an engine."""

    def __init__(self, engine: StreamedEngine, graph: Graph) -> None:
        self._engine = engine
        self._item_sizes = [value.dtype.numpy.itemsize for value in (*graph.inputs, *graph.outputs)]
        self._weights = [i for i, value in enumerate(graph.inputs) if value in graph.weights]
        self._direct = _Pool(engine)
        self._static = _Pool(engine)
        self._lock = Lock()

    def run(self, shapes: CallShapes, inputs: Sequence[int], outputs: Sequence[int], host: Host) -> None:
        """Queue the graph on the host's stream."""
        places = (*inputs, *outputs)
        # Threads that share a stream share its graph, whose copies belong together.
        with self._lock, host.turn:
            captured = self._direct.get((shapes, host.stream, places)) or self._find(shapes, places, host)
            if captured is not None:
                captured.run(places, host.stream)
                return
        self._engine.run(shapes, inputs, outputs, host)

    def _find(self, shapes: CallShapes, places: _Places, host: Host) -> _Captured | None:
        """Return a graph for a call that has none on its memory, captured where it is time to."""
        weights = tuple(places[i] for i in self._weights)
        direct, static = (shapes, host.stream, places), (shapes, host.stream, weights)
        return (
            self._direct.add(direct, lambda: self._capture(shapes, places, host, range(len(places))))
            or self._static.get(static)
            or self._static.add(static, lambda: self._capture(shapes, places, host, self._weights))
        )

    def _capture(self, shapes: CallShapes, places: _Places, host: Host, fixed: Sequence[int]) -> _Captured:
        """Capture a graph that works on the call's places with the positions `fixed`, and on memory of its own."""
        count = len(shapes.inputs)
        byte_counts = [
            size * math.prod(shape)
            for size, shape in zip(self._item_sizes, (*shapes.inputs, *shapes.outputs), strict=True)
        ]
        memory = {i: host.allocate(byte_counts[i]) for i in range(len(places)) if i not in fixed}
        own = tuple(memory[i].address if i in memory else place for i, place in enumerate(places))
        copied = [i for i in memory if byte_counts[i]]
        fetched, stored = [i for i in copied if i < count], [i for i in copied if i >= count]
        stream = cuda.Stream()
        lender = _Lender(host, stream.handle)

        def run() -> None:
            for i in fetched:
                cuda.copy_async(own[i], places[i], byte_counts[i], stream.handle)
            self._engine.run(shapes, own[:count], own[count:], lender)
            for i in stored:
                cuda.copy_async(places[i], own[i], byte_counts[i], stream.handle)

        cuda.wait_for(stream.handle, host.stream)  # where whoever had our memory before may still use it
        try:
            run()  # what TensorRT does once, at a context's first run, cannot be captured
            graph = cuda.capture(run, stream)
            fetches = _copies(graph, [(places[i], own[i]) for i in fetched])
            stores = _copies(graph, [(own[i], places[i]) for i in stored])
        except BaseException:
            cuda.synchronize(stream.handle)  # which may still write to memory that goes back now
            self._engine.forget(stream.handle)
            raise
        cuda.wait_for(host.stream, stream.handle)
        kept = [*memory.values(), *lender.memory]
        return _Captured(
            graph,
            list(zip(fetched, fetches, strict=True)),
            list(zip(stored, stores, strict=True)),
            kept,
            stream,
        )


def _copies(graph: cuda.Graph, ends: list[tuple[int, int]]) -> list[cuda.GraphCopy]:
    """Return the copies from a source to a target each (RunError where the driver made something else of one)."""
    found = {(copy.source, copy.target): copy for copy in graph.copies()} if ends else {}
    if any(end not in found for end in ends):
        raise RunError("the graph does not show a copy that was captured")
    return [found[end] for end in ends]


class _Pool:
    """Graphs by what they serve, and what came too seldom to have one (AGAIN, BOUNDED)."""

    def __init__(self, engine: StreamedEngine) -> None:
        self._engine = engine
        self._captured: OrderedDict[Hashable, _Captured] = OrderedDict()
        self._seen: Counter[Hashable] = Counter()
        self._came_again = 0

    def get(self, key: Hashable) -> _Captured | None:
        """Return the graph for a key."""
        captured = self._captured.get(key)
        if captured is not None:
            self._captured.move_to_end(key)
        return captured

    def add(self, key: Hashable, capture: Callable[[], _Captured]) -> _Captured | None:
        """Return a graph for a key that has none, captured where it is time to; else None."""
        if not self._comes_again(key):
            return None
        try:
            captured = self._captured[key] = capture()
        except (OutOfMemoryError, RunError) as error:
            log.debug("no CUDA graph was captured: %s", error)
            return None
        while len(self._captured) > _MOST:
            _, oldest = self._captured.popitem(last=False)
            cuda.synchronize_all()  # another stream's may be under way, and needs its context
            self._engine.forget(oldest.stream.handle)
        return captured

    def _comes_again(self, key: Hashable) -> bool:
        """Note a key that has no graph, and return whether it came often enough for one."""
        if len(self._seen) >= _SEEN:
            self._seen.clear()
        self._seen[key] += 1
        if self._seen[key] < 2 << (self._came_again // _MOST):
            return False
        del self._seen[key]
        self._came_again += 1
        return True


class _Lender:
    """The caller's host on the stream of a capture.

    It lends the scratch memory of the caller's stream, whose turn it is, and the same again: a capture allocates nothing.
    """

    def __init__(self, host: Host, stream: int) -> None:
        self._host = host
        self.stream = stream
        self.turn = Lock()
        self.memory: list[Memory] = []

    def scratch(self, byte_count: int) -> Memory:
        if not self.memory:
            self.memory.append(self._host.scratch(byte_count))
            cuda.wait_for(self.stream, self._host.stream)  # see `_capture`
        return self.memory[0]

    def allocate(self, byte_count: int) -> Memory:
        return self._host.allocate(byte_count)

    def weights_version(self) -> object | None:
        return self._host.weights_version()


@dataclass(frozen=True)
class _Captured:
    """A graph, and the memory and the stream that it was captured with.

    Attributes:
        fetches: the copies of inputs, by the input's position among the call's places.
        stores: the copies of outputs, likewise.
    """

    graph: cuda.Graph
    fetches: list[tuple[int, cuda.GraphCopy]]
    stores: list[tuple[int, cuda.GraphCopy]]
    memory: list[Memory]
    stream: cuda.Stream

    def run(self, places: _Places, stream: int) -> None:
        for i, copy in self.fetches:
            copy.move(source=places[i], target=copy.target)
        for i, copy in self.stores:
            copy.move(source=copy.source, target=places[i])
        cuda.launch(self.graph, stream)
