"""Building TensorRT networks in tests, and running them where there is a GPU."""

from __future__ import annotations

import ctypes
import dataclasses
import importlib.util
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from trt_backend.debug import Dump
from trt_backend.engine.base import CallShapes, Host, call_shapes
from trt_backend.engine.onnxruntime import provider as onnxruntime_provider
from trt_backend.engine.profile import Profile
from trt_backend.engine.tensorrt import TensorRTProvider, provider
from trt_backend.ir.builder import Builder
from trt_backend.ir.graph import Graph, Value
from trt_backend.ir.ops.elementwise import Elementwise, ElementwiseKind, Select
from trt_backend.ir.reference import evaluate
from trt_backend.ir.types import DType, TensorType
from trt_backend.options import CompileOptions

QUICK = CompileOptions(optimization_level=0)
READ_INFINITY = tuple(
    ElementwiseKind[name] for name in ("EQUAL", "GREATER", "LESS", "MAX", "MIN", "SUM", "SUB", "PROD", "DIV")
)


def installed() -> str | None:
    """Return the TensorRT that is there: the full one before TensorRT-RTX."""
    found = [name for name in ("tensorrt", "tensorrt_rtx") if importlib.util.find_spec(name)]
    return found[0] if found else None


def build(
    stack: TensorRTProvider, graph: Graph, symbols: Mapping[str, int], options: CompileOptions = QUICK
) -> tuple[bytes, CallShapes]:
    """Build a graph for the sizes of one call."""
    shapes = call_shapes(graph, symbols)
    profile = stack.profile(graph, shapes, None)
    return stack.build(graph, profile, options, Dump(None)), shapes


def run_graph(
    stack: TensorRTProvider, graph: Graph, inputs: Sequence[np.ndarray], symbols: Mapping[str, int]
) -> list[np.ndarray]:
    """Build a graph and run it on the GPU."""
    import torch

    from trt_backend_torch.cuda_host import CudaHost, ScratchPool

    blob, shapes = build(stack, graph, symbols)
    engine = stack.load(blob, graph, QUICK)
    device = torch.device("cuda", 0)

    def on_device(array: np.ndarray) -> Any:
        return torch.from_numpy(np.ascontiguousarray(array).reshape(-1).view(np.uint8).copy()).to(device)

    given = [
        on_device(array.astype(stack.border(value.dtype).numpy))
        for array, value in zip(inputs, graph.inputs, strict=True)
    ]
    dtypes = [stack.border(value.dtype).numpy for value in graph.outputs]
    blank = [np.zeros(shape, dtype) for shape, dtype in zip(shapes.outputs, dtypes, strict=True)]
    results = [on_device(array) for array in blank]
    host = CudaHost(ScratchPool(device), lambda: None)
    engine.run(shapes, [t.data_ptr() for t in given], [t.data_ptr() for t in results], host)
    torch.cuda.synchronize()
    return [
        result.cpu().numpy().view(array.dtype).reshape(array.shape).astype(value.dtype.numpy)
        for result, array, value in zip(results, blank, graph.outputs, strict=True)
    ]


def load(name: str | None = None) -> TensorRTProvider:
    """Return the provider of a TensorRT that is installed."""
    chosen = name or installed()
    assert chosen is not None, "no TensorRT is installed"
    return provider(chosen)


class ReferenceEngine:
    """Runs a graph that TensorRT was given."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def run(self, shapes: CallShapes, inputs: Sequence[int], outputs: Sequence[int], host: Host) -> None:
        def memory(value: Value, shape: tuple[int, ...], address: int) -> np.ndarray[Any, Any]:
            count = math.prod(shape) * value.dtype.numpy.itemsize
            buffer = (ctypes.c_char * count).from_address(address) if count else bytearray()
            return np.frombuffer(buffer, value.dtype.numpy).reshape(shape)

        given = [memory(*place) for place in zip(self._graph.inputs, shapes.inputs, inputs, strict=True)]
        results = evaluate(self._graph, given, shapes.symbols)
        for result, *place in zip(results, self._graph.outputs, shapes.outputs, outputs, strict=True):
            np.copyto(memory(*place), result)


class AheadOfTime:
    """TensorRT-RTX for the CPU's tensors: its builder, which needs no GPU, builds, and the NumPy reference runs."""

    device = "cpu"
    runs_on = "cpu"
    cached = False
    read = staticmethod(onnxruntime_provider().read)

    def __init__(self) -> None:
        stack = load("tensorrt_rtx")
        self._stack = stack
        self.name = stack.name
        self.support, self.border, self.worth_freezing = stack.support, stack.border, stack.worth_freezing
        self.profile, self.identity, self.carry = stack.profile, stack.identity, stack.carry
        self.built: list[tuple[Graph, Profile, int]] = []

    def build(self, graph: Graph, profile: Profile, options: Any, dump: Any) -> bytes:
        quick = dataclasses.replace(options, optimization_level=0)
        blob = self._stack.build(graph, profile, quick, dump)
        self.built.append((graph, profile, len(blob)))
        return blob

    def load(self, blob: bytes, graph: Graph, options: Any) -> ReferenceEngine:
        return ReferenceEngine(self.built[-1][0])


def infinities(constant: float, dtype: DType, size: int = 1) -> Graph:
    """Return a graph of one input [7] and an infinite constant [size], as ops read it."""
    b = Builder("infinities")
    x, infinity = b.input("x", TensorType(dtype, (7,))), b.constant([constant] * size, dtype)
    positive = b.add(Elementwise(ElementwiseKind.GREATER), x, b.constant([0], dtype))
    outputs = [
        *(b.add(Elementwise(kind), x, infinity) for kind in READ_INFINITY),
        *(b.add(Elementwise(kind), infinity, x) for kind in READ_INFINITY),
        b.add(Select(), positive, x, infinity),
        b.add(Select(), positive, infinity, x),
    ]
    return b.build(outputs)
