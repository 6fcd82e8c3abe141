"""An engine launched as one CUDA graph.

Rules:
  STATIC  A graph's kernels read and write memory of its own. It begins with copies of the inputs to there, and ends with
          copies of the outputs from there to the caller's memory, so that they are the caller's to keep; a call moves
          the callers' ends of these copies, and one launch queues all of it.
  KEY     A graph belongs to a signature and a stream: runs on two streams may overlap, and must not share memory.
  OWN     Each graph is captured on a stream of its own, and so with an execution context of its own: a later run of that
          context would change what the graph reads.
  BOUNDED At most `_MOST` graphs are kept for an engine; the one that was not used for the longest time goes.
"""

from __future__ import annotations

__all__ = ["CudaGraphEngine", "StreamedEngine"]

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Protocol

from trt_backend.engine import cuda
from trt_backend.engine.base import CallShapes, Engine, Host, Memory
from trt_backend.ir.graph import Graph

_MOST = 16


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
        self._captured: OrderedDict[tuple[CallShapes, int], _Captured] = OrderedDict()
        self._lock = Lock()

    def run(self, shapes: CallShapes, inputs: Sequence[int], outputs: Sequence[int], host: Host) -> None:
        """Queue the graph on the host's stream."""
        # Threads that share a stream share its graph, whose copies belong together.
        with self._lock, host.turn:
            key = shapes, host.stream
            captured = self._captured.get(key)
            if captured is None:
                captured = self._captured[key] = self._capture(shapes, inputs, outputs, host)
                self._make_room()
            self._captured.move_to_end(key)
            captured.run(inputs, outputs, host.stream)

    def _make_room(self) -> None:
        while len(self._captured) > _MOST:
            _, oldest = self._captured.popitem(last=False)
            self._engine.forget(oldest.stream.handle)

    def _capture(
        self, shapes: CallShapes, inputs: Sequence[int], outputs: Sequence[int], host: Host
    ) -> _Captured:
        shapes_of_all = (*shapes.inputs, *shapes.outputs)
        byte_counts = [
            size * math.prod(shape) for size, shape in zip(self._item_sizes, shapes_of_all, strict=True)
        ]
        memory = [host.allocate(byte_count) for byte_count in byte_counts]
        own = [block.address for block in memory]
        own_inputs, own_outputs = own[: len(inputs)], own[len(inputs) :]
        copied_inputs = [i for i, count in enumerate(byte_counts[: len(inputs)]) if count]
        copied_outputs = [i for i, count in enumerate(byte_counts[len(inputs) :]) if count]
        inputs, outputs = list(inputs), list(outputs)  # asked for now: the framework may queue a copy of one
        stream = cuda.Stream()
        lender = _Lender(host, stream.handle)

        def run() -> None:
            for i in copied_inputs:
                cuda.copy_async(own_inputs[i], inputs[i], byte_counts[i], stream.handle)
            self._engine.run(shapes, own_inputs, own_outputs, lender)
            for i in copied_outputs:
                cuda.copy_async(outputs[i], own_outputs[i], byte_counts[len(inputs) + i], stream.handle)

        cuda.synchronize(host.stream)  # on which whoever had our memory before may still use it
        try:
            run()  # what TensorRT does once, at a context's first run, cannot be captured
            cuda.synchronize(stream.handle)
            graph = cuda.capture(run, stream)
        except BaseException:
            cuda.synchronize(stream.handle)  # which may still write to memory that goes back now
            self._engine.forget(stream.handle)
            raise
        found = {(copy.source, copy.target): copy for copy in graph.copies()}
        fetches = [(i, found[inputs[i], own_inputs[i]]) for i in copied_inputs]
        stores = [(i, found[own_outputs[i], outputs[i]]) for i in copied_outputs]
        return _Captured(graph, fetches, stores, [*memory, *lender.memory], stream)


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
            cuda.synchronize(self._host.stream)  # see `_capture`
        return self.memory[0]

    def allocate(self, byte_count: int) -> Memory:
        return self._host.allocate(byte_count)

    def weights_version(self) -> object | None:
        return self._host.weights_version()


@dataclass(frozen=True)
class _Captured:
    """A graph, and the memory and the stream that it was captured with.

    Attributes:
        fetches: the copies of inputs, by the position of the input.
        stores: the copies of outputs, by the position of the output.
    """

    graph: cuda.Graph
    fetches: list[tuple[int, cuda.GraphCopy]]
    stores: list[tuple[int, cuda.GraphCopy]]
    memory: list[Memory]
    stream: cuda.Stream

    def run(self, inputs: Sequence[int], outputs: Sequence[int], stream: int) -> None:
        for i, copy in self.fetches:
            copy.move(source=inputs[i], target=copy.target)
        for i, copy in self.stores:
            copy.move(source=copy.source, target=outputs[i])
        cuda.launch(self.graph, stream)
