"""int8 engines: they watch activations while a calibration collects, and have its ranges afterwards."""

from __future__ import annotations

__all__ = ["CalibratedEngine"]

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from threading import Lock

import numpy as np
import xxhash

from trt_backend.calibration import Calibration
from trt_backend.debug import Dump, log
from trt_backend.engine.base import (
    CPU_HOST,
    CallShapes,
    Engine,
    EngineProvider,
    Host,
    LazyEngine,
    call_shapes,
)
from trt_backend.engine.profile import EVERYTHING
from trt_backend.engine.providers import load_provider
from trt_backend.errors import NotReadyError
from trt_backend.ir.graph import Graph, Value
from trt_backend.options import CompileOptions
from trt_backend.passes.pipeline import run_passes
from trt_backend.passes.quantize import activations, quantize
from trt_backend.report import RegionRecord


class CalibratedEngine:
    """An engine whose products compute in int8, once there are ranges; in floating point before.

    Args:
        graph: the graph.
        calibration: watches its calls, and knows the ranges.
        provider: of the engines.
        build: from a graph to an engine.
        record: learns why nothing is quantized.
    """

    def __init__(
        self,
        graph: Graph,
        calibration: Calibration,
        provider: EngineProvider,
        build: Callable[[Graph], LazyEngine],
        record: RegionRecord,
    ) -> None:
        self._graph = graph
        self._calibration = calibration
        self._provider = provider
        self._build = build
        self._record = record
        self._watched = dataclasses.replace(graph, outputs=tuple(activations(graph)))
        self._region = _identity(graph)
        self._lock = Lock()
        self._observer: Engine | None = None
        self._engine: tuple[int, LazyEngine] | None = None

    def run(
        self, shapes: CallShapes, inputs: Sequence[int], outputs: Sequence[int], host: Host = CPU_HOST
    ) -> None:
        """Run the engine (NotReadyError while the calibration collects: the call is watched, and runs natively)."""
        if self._calibration.collecting:
            self._observe(shapes, inputs)
            raise NotReadyError("its calibration collects")
        made = self._engine
        if made is None or made[0] != self._calibration.version:
            made = self._make()
        made[1].run(shapes, inputs, outputs, host)

    def prepare(self, shapes: CallShapes, inputs: Sequence[int], host: Host = CPU_HOST) -> None:
        """Build the engine for the ranges that are known (NotReadyError while the calibration collects)."""
        if self._calibration.collecting:
            raise NotReadyError("its calibration collects")
        self._make()[1].prepare(shapes, inputs, host)

    def _make(self) -> tuple[int, LazyEngine]:
        with self._lock:
            version = self._calibration.version
            if self._engine is None or self._engine[0] != version:
                self._engine = version, self._build(self._quantized())
            return self._engine

    def _quantized(self) -> Graph:
        thresholds = self._calibration.thresholds(self._region)
        known = {} if thresholds is None else dict(zip(self._watched.outputs, thresholds, strict=True))
        quantized = quantize(self._graph, known, self._provider.support)
        self._record.note = ""
        if quantized is self._graph and self._watched.outputs:
            self._record.note = f"computes in floating point: {self._why_not(known)}"
            log.warning("%s %s", self._graph.name, self._record.note)
        return quantized

    def _why_not(self, known: Mapping[Value, float]) -> str:
        """Return why no activation is quantized, in the words of any framework."""
        if not known:
            return "run the calibration inputs through it while its calibration collects"
        if not any(known.values()):
            return "its calibration saw no numbers but 0, NaN and infinities"
        dtypes = sorted({value.dtype.value for value in known})
        return f"{self._provider.name} does not quantize {', '.join(dtypes)}"

    def _observe(self, shapes: CallShapes, inputs: Sequence[int]) -> None:
        """Compute the activations on the CPU, from the inputs of a call."""
        watched = self._watched
        if not watched.outputs:  # the call counts, though it has nothing to show
            self._calibration.observe(self._region, [])
            return
        with self._lock:
            self._observer = self._observer or _cpu_engine(watched)
        given: list[np.ndarray] = []
        for address, value, sizes in zip(inputs, self._graph.inputs, shapes.inputs, strict=True):
            byte_count = math.prod(sizes) * value.dtype.numpy.itemsize
            memory = self._provider.read(address, byte_count) if byte_count else b""
            given.append(np.frombuffer(memory, value.dtype.numpy))
        seen = call_shapes(watched, shapes.symbols)
        results = [
            np.empty(sizes, v.dtype.numpy) for sizes, v in zip(seen.outputs, watched.outputs, strict=True)
        ]
        self._observer.run(
            seen, [array.ctypes.data for array in given], [array.ctypes.data for array in results], CPU_HOST
        )
        self._calibration.observe(self._region, results)


def _cpu_engine(graph: Graph) -> Engine:
    provider, options = load_provider("onnxruntime"), CompileOptions()
    legal, _ = run_passes(graph, support=provider.support)
    return provider.load(provider.build(legal, EVERYTHING, options, Dump(None)), graph, options)


def _identity(graph: Graph) -> str:
    """Return what tells a model's regions apart, whatever their batch size is: the shapes of their weights in products."""
    shapes = "\n".join(str(value.type) for value in activations(graph).values())
    return xxhash.xxh3_128_hexdigest(shapes.encode())
