"""Engines with frozen weights that are never stale.

Rules:
  CONTENT  What the weights are decides, not who changed them: XXH3 over their memory.
  VERSION  Where the host can tell that nothing may have changed since the last look, the contents are not read again.
           Looking takes a while for hundreds of weights, so a call first queues the engine that served the last one with
           the same first weight, and looks while that runs; where something did change, the result is computed again.
  KNOWN    Contents that an engine was built for are served by that engine.
  AGAIN    Other contents are served by the live engine, which reads the weights as inputs (natively, where there is no
           such engine), until they come a second time; only then is an engine built for them. Weights in training
           never do. The very first contents need not wait: most weights never change.
  ROOM     At most `capacity` frozen engines are kept. The one that was not used for the longest time goes, unless all
           are in use; then the new contents are served as under AGAIN.
"""

from __future__ import annotations

__all__ = ["WeightSets"]

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import numpy as np
import xxhash

from trt_backend.engine.base import CPU_HOST, Buffer, CallShapes, Host, LazyEngine
from trt_backend.errors import NotReadyError
from trt_backend.ir.graph import Graph, Value
from trt_backend.passes.freeze import freeze

_IN_USE = 64  # ROOM: calls; an engine that served one of the last so many is in use
_SEEN = 256  # AGAIN: digests remembered


Read = Callable[[int, int], Buffer]
"""From address and byte count to the contents."""


class WeightSets:
    """An engine that serves every set of weights, each in time from an engine that has it frozen.

    Args:
        graph: the graph with its weights as inputs.
        frozen: the positions of the inputs to freeze; of static shape.
        build: from a graph to an engine.
        read: reads the memory of a weight.
        capacity: how many frozen engines to keep.
        live: whether an engine can read the weights as inputs.
    """

    def __init__(
        self,
        graph: Graph,
        frozen: Sequence[int],
        build: Callable[[Graph], LazyEngine],
        read: Read,
        capacity: int,
        *,
        live: bool,
    ) -> None:
        self._graph = graph
        self._frozen = [(i, graph.inputs[i].type.byte_count) for i in frozen]
        self._kept = tuple(i for i in range(len(graph.inputs)) if i not in frozen)
        self._build = build
        self._read = read
        self._capacity = capacity
        self._lock = Lock()
        self._live: LazyEngine | None = None
        self._has_live = live
        self._engines: dict[bytes, LazyEngine] = {}
        self._used: dict[bytes, int] = {}
        self._seen: dict[bytes, None] = {}
        self._calls = 0
        self._last: dict[int, tuple[object, LazyEngine, bytes]] = {}  # by the address of the first weight

    def run(
        self, shapes: CallShapes, inputs: Sequence[int], outputs: Sequence[int], host: Host = CPU_HOST
    ) -> None:
        """Run once, with the weights as they are now."""
        self._calls += 1
        first, _ = self._frozen[0]
        place = inputs[first]
        last = self._last.get(place)
        if last is not None:
            version, engine, digest = last
            self._run_frozen(engine, shapes, inputs, outputs, host)
            if host.weights_version() is version:
                self._used[digest] = self._calls
                return
        version = host.weights_version()
        contents = self._contents(inputs)
        digest = _digest(contents)
        engine = self._engines.get(digest) or self._new_contents(digest, contents)
        self._last.pop(place, None)
        if engine is None:
            self._live_engine().run(shapes, inputs, outputs, host)
            return
        self._used[digest] = self._calls
        self._run_frozen(engine, shapes, inputs, outputs, host)
        if version is not None:
            if len(self._last) >= self._capacity:
                self._last.clear()
            self._last[place] = version, engine, digest

    def prepare(self, shapes: CallShapes, inputs: Sequence[int], host: Host = CPU_HOST) -> None:
        """Build the engine for the weights as they are now."""
        contents = self._contents(inputs)
        digest = _digest(contents)
        engine = self._engines.get(digest) or self._new_contents(digest, contents)
        if engine is None:
            self._live_engine().prepare(shapes, inputs, host)
        else:
            engine.prepare(shapes.part(self._kept), (), host)

    def _run_frozen(
        self,
        engine: LazyEngine,
        shapes: CallShapes,
        inputs: Sequence[int],
        outputs: Sequence[int],
        host: Host,
    ) -> None:
        engine.run(shapes.part(self._kept), [inputs[i] for i in self._kept], outputs, host)

    def _contents(self, inputs: Sequence[int]) -> list[Buffer]:
        return [self._read(inputs[i], byte_count) for i, byte_count in self._frozen]

    def _new_contents(self, digest: bytes, contents: list[Buffer]) -> LazyEngine | None:
        """Return an engine for contents that had none, or None where the live one serves them (AGAIN, ROOM)."""
        with self._lock:
            if digest in self._engines:
                return self._engines[digest]
            first = not self._seen
            if (digest not in self._seen and not first) or not self._make_room():
                self._seen[digest] = None
                self._forget_seen()
                return None
            self._seen[digest] = None
            copies = [_own(buffer) for buffer in contents]
            if _digest(copies) != digest:  # somebody writes at this moment
                return None
            values = [self._graph.inputs[i] for i, _ in self._frozen]
            arrays = {value: _array(value, copy) for value, copy in zip(values, copies, strict=True)}
            engine = self._build(freeze(self._graph, arrays))
            self._used[digest] = self._calls
            self._engines[digest] = engine
            return engine

    def _make_room(self) -> bool:
        if len(self._engines) < self._capacity:
            return True
        oldest = min(self._engines, key=lambda digest: self._used[digest])
        if self._calls - self._used[oldest] < _IN_USE:
            return False
        del self._engines[oldest], self._used[oldest]
        return True

    def _forget_seen(self) -> None:
        while len(self._seen) > _SEEN:
            del self._seen[next(iter(self._seen))]

    def _live_engine(self) -> LazyEngine:
        if not self._has_live:
            raise NotReadyError("the weights changed, and may change again")
        with self._lock:
            if self._live is None:
                self._live = self._build(self._graph)
            return self._live


def _digest(contents: Sequence[Buffer]) -> bytes:
    hasher = xxhash.xxh3_128()
    for buffer in contents:
        hasher.update(buffer)
    return hasher.digest()


def _own(buffer: Buffer) -> Buffer:
    """Return contents that nobody else writes to: these, where they are a copy of a device's memory already."""
    flags = getattr(buffer, "flags", None)  # an array's
    return buffer if flags is not None and flags.owndata else bytes(buffer)


def _array(value: Value, buffer: Buffer) -> np.ndarray[Any, Any]:
    array = np.frombuffer(buffer, value.dtype.numpy)
    return array.reshape([size for size in value.shape if isinstance(size, int)])
