"""Engines of ONNX Runtime on the CPU: the default that needs no GPU.

Weights that are inputs are bound by their address: an engine reads the live parameter memory at each call, so it has
nothing that could be stale.

Forks: a child has none of its parent's threads, and what waits for one waits for ever. ONNX Runtime's telemetry (1.31)
has one from the import on, and sessions have theirs, which freeing them waits for. So the one is switched off, unless the
user says otherwise, and a child keeps its parent's sessions; it can run them.
"""

from __future__ import annotations

__all__ = ["OnnxRuntimeEngine", "OnnxRuntimeProvider", "provider"]

import ctypes
import importlib
import os
import re
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from trt_backend.debug import Dump
from trt_backend.emit.onnx import emit_onnx, support
from trt_backend.emit.onnx.model import ONNX_DTYPE, dim_input
from trt_backend.engine.base import CPU_HOST, Buffer, CallShapes, Host
from trt_backend.engine.profile import EVERYTHING, Profile
from trt_backend.errors import BuildError, OutOfMemoryError, Reason, RunError
from trt_backend.ir.graph import Graph, Value
from trt_backend.ir.ops.base import Op
from trt_backend.ir.ops.contraction import Convolution, Deconvolution
from trt_backend.ir.ops.elementwise import BatchNorm, QuantizeDequantize
from trt_backend.ir.types import DType, TensorType, is_static
from trt_backend.options import CompileOptions

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import: see above
_ort: Any = importlib.import_module("onnxruntime")
_state: Any = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
_ERRORS: tuple[type[Exception], ...] = (
    _state.Fail,
    _state.InvalidArgument,
    _state.InvalidGraph,
    _state.InvalidProtobuf,
    _state.NotImplemented,
    _state.RuntimeException,
    RuntimeError,
)
_FOLDED = (Convolution, Deconvolution, BatchNorm)
# Bytes of weights: a serialized model ends at 2 GiB (protobuf), and it holds more than weights.
_MODEL_LIMIT = 3 << 29
# ONNX Runtime fuses a sum with the layer norm after it into one node, whose kernel is several times slower than the two:
# 0.54 ms against 0.13 ms for 512 rows of 384 (MiniLM, version 1.31, 2 cores).
_DISABLED = ["SkipLayerNormFusion"]
# 1.23 fuses x * sigmoid(x) into what it has no such kernel for.
_DISABLED_IN_FLOAT64 = [*_DISABLED, "QuickGeluFusion"]
_SILENT = 4  # the log level "fatal": errors reach the user as exceptions


class OnnxRuntimeProvider:
    """Builds ONNX models and loads them into CPU sessions."""

    name = "onnxruntime"
    device = "cpu"
    runs_on = "cpu"
    cached = False  # a session is made from a model about as fast as from a file

    def support(self, op: Op, inputs: tuple[TensorType, ...]) -> Reason | None:
        """Return None where the CPU execution provider runs the op on these inputs, else why not."""
        return support(op, inputs)

    def border(self, dtype: DType) -> DType:
        """Return the element type itself."""
        return dtype

    def worth_freezing(self, graph: Graph) -> tuple[int, ...]:
        """Return the weights of convolutions and batch norms, which ONNX Runtime blocks and folds when constant.

        Those of matrix products stay live unless they are to be quantized: packing them ahead gains less than comparing their contents costs (ADR 2).
        """
        fixed: dict[Value, frozenset[Value]] = {value: frozenset((value,)) for value in graph.weights}
        fixed |= {constant.value: frozenset() for constant in graph.constants}
        found: set[Value] = set()
        quantized: set[Value] = set()
        for node in graph.nodes:
            if node.inputs and all(value in fixed for value in node.inputs):
                sources = frozenset[Value]().union(*(fixed[value] for value in node.inputs))
                fixed |= dict.fromkeys(node.outputs, sources)
            elif isinstance(node.op, _FOLDED) or quantized.intersection(node.inputs):
                found |= {source for value in node.inputs for source in fixed.get(value, frozenset())}
            if isinstance(node.op, QuantizeDequantize):
                quantized.update(node.outputs)
        positions = tuple(
            i for i, value in enumerate(graph.inputs) if value in found and is_static(value.shape)
        )
        total = sum(graph.inputs[i].type.byte_count for i in positions)
        return positions if total <= _MODEL_LIMIT else ()

    def read(self, address: int, byte_count: int) -> Buffer:
        """Return a view of the memory."""
        return (ctypes.c_char * byte_count).from_address(address)

    def carry(self) -> Callable[[], None]:
        """Return nothing to do: threads share the CPU."""
        return lambda: None

    def profile(self, graph: Graph, shapes: CallShapes, wider_than: Profile | None) -> Profile:
        """Return the profile of sessions, which serve every size."""
        return EVERYTHING

    def identity(self, options: CompileOptions) -> str:
        """Return the version."""
        return f"{self.name} {_ort.__version__}"

    def build(self, graph: Graph, profile: Profile, options: CompileOptions, dump: Dump) -> bytes:
        """Return the serialized model."""
        blob = emit_onnx(graph).SerializeToString()
        dump("model.onnx", blob)
        return blob

    def load(self, blob: bytes, graph: Graph, options: CompileOptions) -> OnnxRuntimeEngine:
        """Return a session over the model."""
        settings = _ort.SessionOptions()
        settings.log_severity_level = _SILENT
        settings.intra_op_num_threads = options.threads or 0
        settings.enable_mem_pattern = not graph.symbols  # it keeps a pattern for every size, for ever
        # Workers spin for their next piece of a run, which is far quicker than waking them, but not after it: they would
        # take the cores from the framework, whose own workers run in between. And not for long: where other programs want the
        # cores, a worker that waits actively keeps the one that it waits for from running.
        settings.add_session_config_entry("session.intra_op.allow_spinning", "1")
        settings.add_session_config_entry("session.intra_op.spin_duration_us", "50")
        settings.add_session_config_entry("session.force_spinning_stop", "1")
        doubles = any(value.dtype is DType.FLOAT64 for value in graph.values())
        disabled = _DISABLED_IN_FLOAT64 if doubles else _DISABLED
        try:
            session = _ort.InferenceSession(
                blob, settings, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
            )
        except _ERRORS as error:
            raise BuildError(f"ONNX Runtime {_ort.__version__} refuses the model: {error}") from error
        _sessions.add(session)
        return OnnxRuntimeEngine(session, graph)


_sessions: weakref.WeakSet[Any] = weakref.WeakSet()


def _keep_sessions() -> None:
    """Keep the parent's sessions, in a fork, until the process ends without freeing them."""
    for session in list(_sessions):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_sessions)


def provider(name: str = "onnxruntime") -> OnnxRuntimeProvider:
    """Return the provider; there is one."""
    return OnnxRuntimeProvider()


class OnnxRuntimeEngine:
    """A session and a pool of bindings, one for each call that is under way."""

    def __init__(self, session: Any, graph: Graph) -> None:
        self._session = session
        self._inputs = [(value.name, ONNX_DTYPE[value.dtype]) for value in graph.inputs]
        self._outputs = [(f"output.{i}", ONNX_DTYPE[value.dtype]) for i, value in enumerate(graph.outputs)]
        known = {node.name for node in session.get_inputs()}  # less those of symbols that passes got rid of
        self._symbols = [symbol.name for symbol in graph.symbols if dim_input(symbol) in known]
        self._bindings: list[_Binding] = []

    def run(
        self, shapes: CallShapes, inputs: Sequence[int], outputs: Sequence[int], host: Host = CPU_HOST
    ) -> None:
        """Run once over the caller's memory, without a copy."""
        try:
            binding = self._bindings.pop()
        except IndexError:
            binding = _Binding(self._session, self._symbols)
        try:
            binding.bind(shapes, self._inputs, inputs, self._outputs, outputs)
            self._session.run_with_iobinding(binding.io)
        except _ERRORS as error:
            lack = re.search("failed to allocate memory|bad.?alloc", str(error), re.IGNORECASE)
            kind = OutOfMemoryError if lack else RunError
            raise kind(f"ONNX Runtime {_ort.__version__} failed: {error}") from error
        self._bindings.append(binding)


class _Binding:
    """An IO binding that remembers what is bound, so that a call binds only what changed."""

    def __init__(self, session: Any, symbols: Sequence[str]) -> None:
        self.io = session.io_binding()
        self._shapes: CallShapes | None = None
        self._addresses: list[int] = []
        self._symbols = symbols
        self._sizes = np.zeros((len(symbols), 1), np.int64)
        self._empty = np.zeros(1)
        self._nowhere = self._empty.ctypes.data  # what has no elements may have no address
        for name, cell in zip(symbols, self._sizes, strict=True):
            self.io.bind_input(f"dim.{name}", "cpu", 0, np.int64, (1,), cell.ctypes.data)

    def bind(
        self,
        shapes: CallShapes,
        input_specs: Sequence[tuple[str, int]],
        inputs: Sequence[int],
        output_specs: Sequence[tuple[str, int]],
        outputs: Sequence[int],
    ) -> None:
        """Point every input and output at its address, and give the symbols their values."""
        if shapes is not self._shapes:
            self._sizes[:, 0] = [shapes.symbols[name] for name in self._symbols]
            self._addresses = [-1] * len(inputs)
        addresses = list(inputs)
        if addresses != self._addresses:
            for i, address in enumerate(addresses):
                if address != self._addresses[i]:
                    name, dtype = input_specs[i]
                    self.io.bind_input(name, "cpu", 0, dtype, shapes.inputs[i], address or self._nowhere)
        for (name, dtype), shape, address in zip(output_specs, shapes.outputs, outputs, strict=True):
            self.io.bind_output(name, "cpu", 0, dtype, shape, address or self._nowhere)
        self._shapes, self._addresses = shapes, addresses
