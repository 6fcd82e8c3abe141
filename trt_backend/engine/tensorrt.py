"""Engines of TensorRT (8.6 to 11) and TensorRT-RTX.

Rules:
  CONTEXTS  A stream has an execution context of its own: what is queued there has not run yet when the call returns.
            Threads that share the stream take turns.
  SCRATCH   Contexts own no memory: what a run needs beside its tensors is the framework's, shared by all engines of a
            stream, whose runs follow each other.
  CHANGES   A context is told only those shapes and addresses that differ from its last call's.
  BESIDE    On the default stream TensorRT has the CPU wait for the GPU ("Using default stream in enqueueV3() may lead to
            performance issues", as it logs). What is meant for that runs on a stream of the engine's own, which waits for
            it on the device, and it for that.
  EMPTY     An engine has no run where it has nothing to write. Else tensors of no elements are somewhere: TensorRT takes
            no null pointer for an output.
"""

from __future__ import annotations

__all__ = ["TensorRTEngine", "TensorRTProvider", "provider"]

import importlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from threading import Lock
from typing import Any

from trt_backend.debug import Dump
from trt_backend.emit.tensorrt import support
from trt_backend.emit.tensorrt.network import dim_input, needs_dim_input
from trt_backend.emit.tensorrt.stacks import Stack, stack_of
from trt_backend.engine import cuda
from trt_backend.engine.base import Buffer, CallShapes, Engine, Host
from trt_backend.engine.cuda_graphs import CudaGraphEngine
from trt_backend.engine.profile import Profile, profile_for
from trt_backend.engine.tensorrt_build import Builder, Logger, failure, lacks_memory, make_logger, required
from trt_backend.errors import OutOfMemoryError, ProviderUnavailableError, Reason, RunError
from trt_backend.ir.graph import Graph
from trt_backend.ir.ops.base import Op
from trt_backend.ir.types import DType, TensorType, is_static
from trt_backend.options import CompileOptions


class TensorRTProvider:
    """Builds networks into engines and loads them."""

    device = "cuda"
    runs_on = "cuda"
    cached = True

    def __init__(self, trt: Any, stack: Stack) -> None:
        self.name = stack.package
        self._trt = trt
        self._stack = stack
        self._logger: Logger = make_logger(trt)

    def __reduce__(self) -> tuple[Any, ...]:
        return provider, (self.name,)

    def support(self, op: Op, inputs: tuple[TensorType, ...]) -> Reason | None:
        """Return None where this TensorRT takes the op on these inputs, else why not."""
        return support(self._stack, op, inputs)

    def border(self, dtype: DType) -> DType:
        """Return float32 for float64, which no TensorRT has, and int32 for int64 where this one has none."""
        if dtype is DType.FLOAT64:
            return DType.FLOAT32
        return DType.INT32 if dtype is DType.INT64 and not self._stack.int64 else dtype

    def worth_freezing(self, graph: Graph) -> tuple[int, ...]:
        """Return all weights of static shape: TensorRT lays them out, folds them and chooses kernels for them."""
        return tuple(
            i for i, value in enumerate(graph.inputs) if value in graph.weights and is_static(value.shape)
        )

    def read(self, address: int, byte_count: int) -> Buffer:
        """Return a copy of the memory, after all that any stream was to write there."""
        return cuda.read(address, byte_count)

    def carry(self) -> Callable[[], None]:
        """Return what makes the caller's device another thread's or process's."""
        return partial(_begin_thread, cuda.current_device()) if cuda.has_device() else _no_device

    def profile(self, graph: Graph, shapes: CallShapes, wider_than: Profile | None) -> Profile:
        """Return the profile of an engine that serves these shapes, and those of a former profile."""
        return profile_for(graph.symbols, shapes.symbols, wider_than)

    def identity(self, options: CompileOptions) -> str:
        """Return what an engine depends on beside its graph: versions, the device, and the builder's options."""
        device = cuda.device_name() if cuda.has_device() else "ahead of time"
        sources = None if options.tactic_sources is None else sorted(options.tactic_sources)
        settings = (options.precision, options.workspace_bytes, options.optimization_level, sources)
        return f"{self.name} {self._trt.__version__} on {device} {settings}"

    def build(self, graph: Graph, profile: Profile, options: CompileOptions, dump: Dump) -> bytes:
        """Return the serialized engine (BuildError where TensorRT refuses)."""
        return Builder(self._trt, self._stack, self._logger, options).build(graph, profile)

    def load(self, blob: bytes, graph: Graph, options: CompileOptions) -> Engine:
        """Return a runnable engine (BuildError where the blob is of another version or device)."""
        self._logger.error = ""
        runtime = required(self._trt.Runtime, self._logger)
        engine = runtime.deserialize_cuda_engine(blob)
        if engine is None:
            raise failure(f"TensorRT {self._trt.__version__} cannot load the engine", self._logger)
        loaded = TensorRTEngine(self._trt, runtime, engine, graph, self._logger)
        return CudaGraphEngine(loaded, graph) if options.cuda_graphs else loaded


def provider(package: str) -> TensorRTProvider:
    """Return the provider of an installed TensorRT.

    Raises:
        ProviderUnavailableError: its version is older than what we know.
    """
    trt = importlib.import_module(package)
    stack = stack_of(package, trt.__version__)
    if stack is None:
        raise ProviderUnavailableError(
            f"{package} {trt.__version__} is too old: install {package} 8.6 or later"
        )
    return TensorRTProvider(trt, stack)


def _begin_thread(device: int) -> None:
    cuda.use_device(device)
    cuda.relax_captures()


def _no_device() -> None:
    """Make no device the calling thread's: engines are built ahead of time."""


class TensorRTEngine:
    """An engine and its execution contexts."""

    def __init__(self, trt: Any, runtime: Any, engine: Any, graph: Graph, logger: Logger) -> None:
        self._runtime = runtime  # which must outlive the engine
        self._engine = engine
        self._trt = trt
        self._logger = logger
        self._inputs = [value.name for value in graph.inputs]
        self._outputs = [f"output.{i}" for i in range(len(graph.outputs))]
        known = {engine.get_tensor_name(i) for i in range(engine.num_io_tensors)}
        symbols = {dim_input(symbol): symbol.name for symbol in needs_dim_input(graph)}
        self._symbols = {
            name: symbol for name, symbol in symbols.items() if name in known
        }  # passes got rid of others
        self._contexts: dict[int, _Context] = {}
        self._making = Lock()  # TensorRT does not say that threads may make contexts at the same time
        self._beside = cuda.Stream()
        # The name says since 10.3 that this is a 64-bit number; 8.6 and 10.0 have the older one only.
        newer = hasattr(engine, "device_memory_size_v2")
        self._scratch_bytes: int = engine.device_memory_size_v2 if newer else engine.device_memory_size

    def run(self, shapes: CallShapes, inputs: Sequence[int], outputs: Sequence[int], host: Host) -> None:
        """Queue one run on the host's stream."""
        if not any(outputs):
            return
        stream = host.stream or self._beside.handle
        with host.turn:
            self._logger.error = ""
            context = self._contexts.pop(stream, None) or self._new_context()
            # Held until the run is queued: the framework would reuse a block let go.
            scratch = host.scratch(self._scratch_bytes) if self._scratch_bytes else None
            if scratch is not None:
                context.set_scratch(scratch.address, self._scratch_bytes)
            context.bind(shapes, inputs, outputs)
            with nullcontext() if host.stream else cuda.in_turn(stream, host.stream):
                context.queue(stream)
            self._contexts[stream] = context  # one that failed is not used again

    def forget(self, stream: int) -> None:
        """Let the context of a stream go, which nobody uses any more."""
        self._contexts.pop(stream, None)

    def _new_context(self) -> _Context:
        with self._making:
            if hasattr(self._engine, "create_execution_context_without_device_memory"):
                context = self._engine.create_execution_context_without_device_memory()
            else:
                strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
                context = self._engine.create_execution_context(strategy)
        if context is None:
            raise OutOfMemoryError("TensorRT made no execution context; is the device's memory used up?")
        return _Context(context, self._inputs, self._outputs, self._symbols, self._logger)


class _Context:
    """An execution context that remembers what it was told (rule CHANGES)."""

    def __init__(
        self,
        context: Any,
        inputs: Sequence[str],
        outputs: Sequence[str],
        symbols: Mapping[str, str],
        logger: Logger,
    ) -> None:
        self._context = context
        self._logger = logger
        self._inputs = inputs
        self._outputs = outputs
        self._symbols = symbols
        self._shapes: CallShapes | None = None
        self._addresses: list[int] = []
        self._scratch = -1

    def set_scratch(self, address: int, byte_count: int) -> None:
        if address != self._scratch:
            if hasattr(self._context, "set_device_memory"):
                self._context.set_device_memory(address, byte_count)
            else:
                self._context.device_memory = address
            self._scratch = address

    def bind(self, shapes: CallShapes, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        somewhere = max(outputs)
        if shapes is not self._shapes:
            for name, shape in zip(self._inputs, shapes.inputs, strict=True):
                if not self._context.set_input_shape(name, shape):
                    raise self._error(f"refuses the shape {list(shape)} of {name}")
            for name, symbol in self._symbols.items():
                self._context.set_input_shape(name, (shapes.symbols[symbol],))
                self._set_address(name, somewhere)  # it is not read
            self._shapes = shapes
        addresses = [*inputs, *outputs]
        if addresses != self._addresses:
            for name, address in zip((*self._inputs, *self._outputs), addresses, strict=True):
                self._set_address(name, address or somewhere)
            self._addresses = addresses

    def queue(self, stream: int) -> None:
        if not self._context.execute_async_v3(stream):
            raise self._error("could not queue the engine")

    def _set_address(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise self._error(f"refuses the address of {name}")

    def _error(self, what: str) -> RunError:
        """Return the error that says what TensorRT did, and what it logged last."""
        kind = OutOfMemoryError if lacks_memory(self._logger) else RunError
        return kind(f"TensorRT {what}: {self._logger.error}")
