"""Engines with frozen weights that are never stale.

Rules:
  CONTENT  A call looks at what the weights are, not at who changed them: XXH3 over their memory, as fast as it is read.
  KNOWN    Contents that an engine was built for are served by that engine.
  AGAIN    Other contents are served by the live engine, which reads the weights as inputs, until they come a second
           time; only then is an engine built for them. Weights in training never do. The very first contents need not
           wait: most weights never change.
  ROOM     At most `capacity` frozen engines are kept. The one that was not used for the longest time goes, unless all
           are in use; then the new contents stay with the live engine.
"""

from __future__ import annotations

__all__ = ["WeightSets"]

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import xxhash

from trt_backend.engine.base import CallShapes, Engine
from trt_backend.ir.graph import Graph, Value
from trt_backend.passes.freeze import freeze

_IN_USE = 64  # ROOM: calls; an engine that served one of the last so many is in use
_SEEN = 256  # AGAIN: digests remembered


@dataclass(frozen=True)
class _Memory:
    """Views of the weights at these addresses."""

    addresses: list[int]
    views: list[Any]

    def digest(self) -> bytes:
        """Return the XXH3-128 digest of all contents."""
        hasher = xxhash.xxh3_128()
        for view in self.views:
            hasher.update(view)
        return hasher.digest()


class WeightSets:
    """An engine that serves every set of weights, each in time from an engine that has it frozen.

    Args:
        graph: the graph with its weights as inputs.
        frozen: the positions of the inputs to freeze; of static shape.
        build: from a graph to an engine.
        capacity: how many frozen engines to keep.
    """

    def __init__(
        self, graph: Graph, frozen: Sequence[int], build: Callable[[Graph], Engine], capacity: int
    ) -> None:
        self._graph = graph
        self._frozen = list(frozen)
        self._kept = [i for i in range(len(graph.inputs)) if i not in frozen]
        self._build = build
        self._capacity = capacity
        self._lock = Lock()
        self._live: Engine | None = None
        self._engines: dict[bytes, Engine] = {}
        self._used: dict[bytes, int] = {}
        self._seen: dict[bytes, None] = {}
        self._calls = 0
        self._memory = _Memory([], [])
        self._kept_shapes: WeakKeyDictionary[CallShapes, CallShapes] = WeakKeyDictionary()

    def run(self, shapes: CallShapes, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Run once, with the weights as they are now."""
        memory = self._memory_at([inputs[i] for i in self._frozen])
        digest = memory.digest()
        self._calls += 1
        engine = self._engines.get(digest) or self._new_contents(digest, memory)
        if engine is None:
            self._live_engine().run(shapes, inputs, outputs)
        else:
            self._used[digest] = self._calls
            engine.run(self._without_frozen(shapes), [inputs[i] for i in self._kept], outputs)

    def _memory_at(self, addresses: list[int]) -> _Memory:
        memory = self._memory
        if memory.addresses != addresses:
            values = (self._graph.inputs[i] for i in self._frozen)
            views = [
                (ctypes.c_char * value.type.byte_count).from_address(address)
                for value, address in zip(values, addresses, strict=True)
            ]
            memory = self._memory = _Memory(addresses, views)
        return memory

    def _new_contents(self, digest: bytes, memory: _Memory) -> Engine | None:
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
            arrays = {
                self._graph.inputs[i]: _copy(self._graph.inputs[i], view)
                for i, view in zip(self._frozen, memory.views, strict=True)
            }
            if memory.digest() != digest:  # somebody writes at this moment
                return None
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

    def _live_engine(self) -> Engine:
        with self._lock:
            if self._live is None:
                self._live = self._build(self._graph)
            return self._live

    def _without_frozen(self, shapes: CallShapes) -> CallShapes:
        kept = self._kept_shapes.get(shapes)
        if kept is None:
            inputs = tuple(shapes.inputs[i] for i in self._kept)
            kept = self._kept_shapes[shapes] = CallShapes(shapes.symbols, inputs, shapes.outputs)
        return kept


def _copy(value: Value, view: Any) -> np.ndarray[Any, Any]:
    array = np.frombuffer(bytes(view), value.dtype.numpy)
    return array.reshape([size for size in value.shape if isinstance(size, int)])
