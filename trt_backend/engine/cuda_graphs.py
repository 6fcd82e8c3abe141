"""An engine launched as one CUDA graph.

Rules:
  STATIC  A graph reads and writes memory of its own: a call copies its inputs there, and the outputs from there to the
          caller's memory, so that they are the caller's to keep.
  KEY     A graph belongs to a signature and a stream: runs on two streams may overlap, and must not share memory.
  BOUNDED At most `_MOST` graphs are kept for an engine; the one that was not used for the longest time goes.
"""

from __future__ import annotations

__all__ = ["CudaGraphEngine"]

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

from trt_backend.engine import cuda
from trt_backend.engine.base import CallShapes, Engine, Host, Memory
from trt_backend.ir.graph import Graph

_MOST = 16


class CudaGraphEngine:
    """Wraps an engine."""

    def __init__(self, engine: Engine, graph: Graph) -> None:
        self._engine = engine
        self._sizes = [value.dtype.numpy.itemsize for value in (*graph.inputs, *graph.outputs)]
        self._captured: OrderedDict[tuple[CallShapes, int], _Captured] = OrderedDict()
        self._lock = Lock()
        self._side = cuda.Stream()

    def run(self, shapes: CallShapes, inputs: Sequence[int], outputs: Sequence[int], host: Host) -> None:
        """Queue the copies and the graph on the host's stream."""
        with self._lock:  # threads that share a stream share its graph, whose copies belong together
            key = shapes, host.stream
            captured = self._captured.get(key) or self._capture(key, shapes, inputs, outputs, host)
            self._captured.move_to_end(key)
            captured.run(inputs, outputs, host.stream)

    def _capture(
        self,
        key: tuple[CallShapes, int],
        shapes: CallShapes,
        inputs: Sequence[int],
        outputs: Sequence[int],
        host: Host,
    ) -> _Captured:
        self._engine.run(
            shapes, inputs, outputs, host
        )  # what TensorRT does once, at a first run, is not captured
        byte_counts = [
            size * _volume(shape)
            for size, shape in zip(self._sizes, (*shapes.inputs, *shapes.outputs), strict=True)
        ]
        memory = [host.allocate(count) for count in byte_counts]
        addresses = [block.address for block in memory]
        held = _Held(host, self._side.handle)
        graph = cuda.capture(
            lambda: self._engine.run(shapes, addresses[: len(inputs)], addresses[len(inputs) :], held),
            self._side,
        )
        captured = _Captured(graph, memory, held.memory, addresses, byte_counts, len(inputs))
        self._captured[key] = captured
        if len(self._captured) > _MOST:
            self._captured.popitem(last=False)
        return captured


class _Held:
    """The caller's host on the stream of a capture; the graph keeps the scratch memory that it was captured with."""

    def __init__(self, host: Host, stream: int) -> None:
        self._host = host
        self.stream = stream
        self.memory: list[Memory] = []

    def scratch(self, byte_count: int) -> Memory:
        self.memory.append(self._host.scratch(byte_count))
        return self.memory[-1]

    def allocate(self, byte_count: int) -> Memory:
        return self._host.allocate(byte_count)

    def weights_version(self) -> object | None:
        return self._host.weights_version()


@dataclass
class _Captured:
    """A graph, its memory, and how to get tensors in and out."""

    graph: cuda.Graph
    memory: list[Memory]
    scratch: list[Memory]
    addresses: list[int]
    byte_counts: list[int]
    inputs: int

    def run(self, inputs: Sequence[int], outputs: Sequence[int], stream: int) -> None:
        n = self.inputs
        for target, source, count in zip(self.addresses[:n], inputs, self.byte_counts[:n], strict=True):
            cuda.copy_async(target, source, count, stream)
        cuda.launch(self.graph, stream)
        for target, source, count in zip(outputs, self.addresses[n:], self.byte_counts[n:], strict=True):
            cuda.copy_async(target, source, count, stream)


def _volume(shape: tuple[int, ...]) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
