"""The op that stands for a segment in a graph, `TRTEngineOp`, and its kernel: registered from Python, without a compiler.

Rules:
  NAME     TF-TRT's own name and attributes, so that graphs look as they always did. Where TensorFlow has that op itself
           (CUDA wheels up to 2.17), registering it again would abort the process: there ours has a name of its own.
  SHARED   Kernels come and go with the functions that TensorFlow instantiates; those of one segment share one engine.
  FRESH    A process that only loads a SavedModel lowers each segment from its native function, at the first call.
  FORGET   TensorFlow deletes its last kernels when the interpreter is gone, where a callback into Python would crash. So
           no deletion is announced to us: with each new kernel those go whose function was removed.
  ASSET    A saved model may bring engines along (`assets.py`); one that serves a call here is not built.
  EXIT     A thread of TensorFlow's that calls us when the interpreter ends is killed inside of C++, which aborts the process or
           hangs it. So iterators of `tf.data`, which call ahead, go before that: their end waits for their calls.
  NATIVE   What no engine can run, the ops of the native function run, one by one (`native.py` says why).
"""

# pyright: reportAttributeAccessIssue=false
# (Protobuf makes its classes when they are imported.)

from __future__ import annotations

__all__ = ["OP_NAME", "PRECISIONS", "EngineSegment", "GraphOfSegments", "adopt", "register"]

import atexit
import ctypes
import dataclasses
import functools
import gc
import math
import os
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from threading import Lock, RLock
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import node_def_pb2

from trt_backend.calibration import Calibration
from trt_backend.compile import compile_graph
from trt_backend.debug import log
from trt_backend.engine.base import EngineProvider
from trt_backend.engine.cache import EngineCache
from trt_backend.engine.shipped import ShippedEngine
from trt_backend.errors import Reason
from trt_backend.ir.types import DType
from trt_backend.options import CompileOptions
from trt_backend.report import GraphRecord, RegionRecord, open_graph
from trt_backend.runtime.answers import Difference, difference
from trt_backend.runtime.fallback import contain
from trt_backend_tf import assets, c_api
from trt_backend_tf.device import Copy, kernels, load_provider
from trt_backend_tf.internals import eager_context, iterator_ops, op_def_registry, ops
from trt_backend_tf.library import CALL_GRADIENT
from trt_backend_tf.native import NativeSegment, body_of, gradient, gradient_of_call, shaken
from trt_backend_tf.region import LoweredSegment, SegmentCall, Sizes, lower_segment
from trt_backend_tf.segment import IDLE, INPUTS, read_specs
from trt_backend_tf.types import DTYPES

_TYPES = "{bool, int8, uint8, int32, int64, float16, bfloat16, float32, float64}"
_ATTRIBUTES = (
    "serialized_segment: string = ''",
    "segment_func: func = {}",
    f"InT: list({_TYPES}) >= 0",
    f"OutT: list({_TYPES}) >= 1",
    "input_shapes: list(shape) = []",
    "output_shapes: list(shape) = []",
    "max_cached_engines_count: int = 1",
    "max_batch_size: int = 1",
    "workspace_size_bytes: int = 0",
    "precision_mode: {'FP32', 'FP16', 'BF16', 'INT8'} = 'FP32'",
    "calibration_data: string = ''",
    "use_calibration: bool = true",
    "segment_funcdef_name: string = ''",
    "cached_engine_batches: list(int) >= 0 = []",
    "fixed_input_size: bool = true",
    "static_engine: bool = true",
    "profile_strategy: string = ''",
    "use_explicit_precision: bool = false",
)
"""The attributes of TF-TRT's op, with more element types and fewer without a default (NAME)."""

OP_NAME = "TRTEngineOp" if op_def_registry.get("TRTEngineOp") is None else "TrtBackendEngineOp"


_GRAPH = "_trt_backend_graph"
"""The attribute with the identity that the conversion gave the graph."""

PRECISIONS = {"FP32": "auto", "FP16": "fp16", "BF16": "bf16", "INT8": "auto"}
"""The option `precision` for each `precision_mode`; a segment that is calibrated has its own."""


class GraphOfSegments:
    """The segments of one converted graph, and its record in the report; alive as long as one of them is."""

    def __init__(self, record: GraphRecord, options: CompileOptions, provider: EngineProvider) -> None:
        self.record = record
        self.options = options
        self.provider = provider


class EngineSegment:
    """A segment in this process: its record, and what runs it (made at its first call)."""

    def __init__(
        self,
        node: node_def_pb2.NodeDef,
        graph: GraphOfSegments,
        record: RegionRecord,
        *,
        loaded: bool = False,
    ) -> None:
        self._node = node
        self._loaded = loaded
        self._graph = graph
        self.record = record
        self.name = node.name.rpartition("/")[2]  # TensorFlow puts callers' names before it
        self.graph_identity = node.attr[_GRAPH].s
        self.identity = f"{node.attr[_GRAPH].s.decode()}/{self.name}"
        self.shipped = ShippedEngine()
        self.calibration = _calibration_of(node)
        self.function = node.attr["segment_func"].func.name
        self._outputs = list(node.attr["OutT"].list.type)
        self._shapes = list(node.attr["input_shapes"].list.shape)
        self._lock = RLock()
        self._native_ops: NativeSegment | None = None
        self._run: Callable[[_Call], None] | None = None

    def __call__(self, call: _Call) -> None:
        """Compute a call's outputs."""
        (self._run or self._first_run())(call)

    def _first_run(self) -> Callable[[_Call], None]:
        with self._lock:
            if self._run is None:
                self._run = self._prepare()
            return self._run

    def _prepare(self) -> Callable[[_Call], None]:
        strict = self._graph.options.strict
        lowered = contain(self._lower, self.record.name, strict=strict, failed=self._failed)
        if lowered is None:
            return self._count_native
        if self._loaded:
            self.shipped = self._brought()
        executable = compile_graph(
            lowered.graph, self._graph.provider, self._options(), self.record, self.shipped
        )
        return SegmentCall(lowered, executable, self._native, self._differences, self._moves).call

    def _options(self) -> CompileOptions:
        options = self._graph.options
        options = dataclasses.replace(options, threads=options.threads or _threads())
        if self.calibration is None:
            return options
        return dataclasses.replace(options, precision="int8", calibration=self.calibration)

    def _brought(self) -> ShippedEngine:
        """Return the engine that the saved model brings along, and whether it allows others (ASSET)."""
        may_build = self._node.attr.get("_allow_build_at_runtime")
        return ShippedEngine(assets.path_of(self.identity), may_build=may_build is None or may_build.b)

    def write_engine(self, folder: Path) -> Path | None:
        """Write the engine that was built last, as TF-TRT names it; None where no engine is kept (ASSET)."""
        path = folder / f"trt-serialized-engine.{self.name}"
        cache = EngineCache.of_user(self._graph.options.cache_dir)
        return path if self.shipped.write(path, cache) else None

    def _failed(self, reason: Reason) -> None:
        self.record.reason = reason

    def _count_native(self, call: _Call) -> None:
        self._native(call)
        self.record.count_native_call()

    def _lower(self) -> LoweredSegment:
        """Lower the native function (FRESH)."""
        graph, places, returned = body_of(self.function, self._shapes)
        specs = read_specs(self._node.attr[INPUTS].s.decode())
        return lower_segment(graph, places, returned, specs, self.record.name, self._graph.provider.border)

    def _native(self, call: _Call) -> bool:
        """Run the native function (NATIVE)."""
        calibrates = self.calibration is not None and self.calibration.collecting
        if not calibrates and not _is_native_allowed():
            raise tf.errors.AbortedError(
                None, None, f"User disallowed engine native segment execution: {self.record.name}"
            )
        for i, result in enumerate(self._native_results(call)):
            call.copy_out(i, result, self._outputs[i])
        return True

    def _native_results(self, call: _Call, noise: float = 0.0) -> list[np.ndarray[Any, Any]]:
        inputs = [call.as_eager(i, kind) for i, kind in enumerate(self._node.attr["InT"].list.type)]
        if noise:
            inputs = [shaken(x, noise) for x in inputs]
        with self._lock:
            if self._native_ops is None:
                self._native_ops = NativeSegment(self.function, self._shapes)
        return [np.asarray(result.numpy()) for result in self._native_ops(inputs)]

    def _differences(self, call: _Call) -> list[Difference]:
        """Return how far the outputs of a call are off (none where native is not allowed)."""
        native = self._native_results(call) if _is_native_allowed() else []
        return self._compared([call.output(i, result.dtype) for i, result in enumerate(native)], native)

    def _moves(self, call: _Call, noise: float) -> list[Difference]:
        """Return how far native's results move where the inputs are shaken."""
        return self._compared(self._native_results(call, noise), self._native_results(call))

    def _compared(
        self, results: Sequence[np.ndarray[Any, Any]], native: Sequence[np.ndarray[Any, Any]]
    ) -> list[Difference]:
        pairs = zip(results, native, self._outputs, strict=False)
        return [difference(a, b) for a, b, kind in pairs if DTYPES[kind].is_float and b.size]


class _Call:
    """One call of a kernel: its inputs, and the outputs that were allocated so far."""

    def __init__(self, context: int, status: c_api.Status, inputs: int, copy: Copy) -> None:
        self._context = context
        self._status = status
        self._copy = copy
        tensors = [c_api.input_tensor(context, i, status) for i in range(inputs)]
        self._held = [tensor for tensor, _, _ in tensors]
        self._addresses = [address for _, address, _ in tensors]
        self.shapes: tuple[Sizes, ...] = tuple(sizes for _, _, sizes in tensors)
        self._outputs: dict[int, tuple[Sizes, int]] = {}

    def address(self, position: int) -> int:
        """Return where an input's elements are."""
        return self._addresses[position]

    def allocate(self, position: int, sizes: Sizes, dtype: DType) -> int:
        """Allocate an output, and return where its elements are to be."""
        return self._allocate(position, sizes, _ENUMS[dtype], dtype.numpy.itemsize)

    def _allocate(self, position: int, sizes: Sizes, kind: int, item_size: int) -> int:
        made = self._outputs.get(position)
        if made is not None and made[0] == sizes:  # by a run of the engine that failed
            return made[1]
        byte_count = item_size * math.prod(sizes)
        tensor, address = c_api.allocate_output(
            self._context, position, kind, sizes, byte_count, self._status
        )
        self._held.append(tensor)
        self._outputs[position] = (sizes, address)
        return address

    def output(self, position: int, dtype: np.dtype[Any]) -> np.ndarray[Any, Any]:
        """Return a copy of an output's elements."""
        sizes, address = self._outputs[position]
        array = np.empty(sizes, dtype)
        self._copy(array.ctypes.data, address, array.nbytes)
        return array

    def as_eager(self, position: int, kind: int) -> tf.Tensor:
        """Return an input as an eager tensor, for the length of the call: if possible, over the same memory."""
        dtype = DTYPES[kind].numpy
        sizes, address = self.shapes[position], self._addresses[position]
        is_usable = address and address % _ALIGNMENT == 0 and DTYPES[kind] is not DType.BFLOAT16
        if is_usable and self._copy is ctypes.memmove:
            memory = (ctypes.c_char * (math.prod(sizes) * dtype.itemsize)).from_address(address)
            return tf.experimental.dlpack.from_dlpack(
                np.frombuffer(memory, dtype).reshape(sizes).__dlpack__()
            )
        array = np.empty(sizes, dtype)
        if array.nbytes:
            self._copy(array.ctypes.data, address, array.nbytes)
        return tf.constant(array, dtype=tf.dtypes.as_dtype(kind))

    def copy_out(self, position: int, array: np.ndarray[Any, Any], kind: int) -> None:
        """Give an output its elements."""
        dense = np.ascontiguousarray(array).reshape(array.shape)
        address = self._allocate(position, dense.shape, kind, dense.itemsize)
        if dense.nbytes:
            self._copy(address, dense.ctypes.data, dense.nbytes)

    def release(self) -> None:
        """Give all tensors back to TensorFlow."""
        for tensor in self._held:
            c_api.release(tensor)


_ALIGNMENT = 64
"""Of memory that TensorFlow's kernels take without looking: elsewhere, they abort the process."""

_ENUMS = {dtype: kind for kind, dtype in DTYPES.items()}

_lock = Lock()
_segments: WeakValueDictionary[str, EngineSegment] = WeakValueDictionary()
"""By the name of the native function (SHARED)."""
_graphs: WeakValueDictionary[str, GraphOfSegments] = WeakValueDictionary()
"""By the identity that the conversion gave the graph."""
_kernels: dict[int, tuple[EngineSegment, int]] = {}
"""By handle: the segment, and how many inputs it has."""
_handles = count(1)


def _threads() -> int:
    """Return how many threads an op of TensorFlow's may use.

    A number of its own choice would have ONNX Runtime bind each thread to a core, also where that is another program's.
    """
    return tf.config.threading.get_intra_op_parallelism_threads() or len(os.sched_getaffinity(0))


def _calibration_of(node: node_def_pb2.NodeDef) -> Calibration | None:
    """Return the ranges that a node brings along, or none yet where it is to be calibrated; None where it is not."""
    if node.attr["precision_mode"].s != b"INT8" or not node.attr["use_calibration"].b:
        return None
    found = node.attr["calibration_data"].s.decode()
    return Calibration.loads(found) if found else Calibration()


def adopt(node: node_def_pb2.NodeDef, graph: GraphOfSegments, record: RegionRecord) -> EngineSegment:
    """Make a segment that this process converted known to its kernels; it lives as long as the result does."""
    segment = EngineSegment(node, graph, record)
    with _lock:
        _segments[node.attr["segment_func"].func.name] = segment
    return segment


def _segment_of(node: node_def_pb2.NodeDef) -> EngineSegment:
    name = node.attr["segment_func"].func.name
    with _lock:
        segment = _segments.get(name)
        if segment is not None and segment.graph_identity != node.attr[_GRAPH].s:
            raise RuntimeError(f"{name} is another model's in this process")
        if segment is None:
            graph = _graph_of(node)
            record = RegionRecord(
                f"{graph.record.name}.{node.name}", "tensorflow", graph.provider.name, _members(node)
            )
            graph.record.regions.append(record)
            graph.record.ops_total += record.ops
            segment = _segments[name] = EngineSegment(node, graph, record, loaded=True)
        return segment


def _graph_of(node: node_def_pb2.NodeDef) -> GraphOfSegments:
    """Return the graph of a node that this process loaded (FRESH)."""
    identity = node.attr[_GRAPH].s.decode()
    graph = _graphs.get(identity)
    if graph is None:
        options = CompileOptions(
            max_engines=max(node.attr["max_cached_engines_count"].i, 1),
            min_block_size=1,
            precision=PRECISIONS[node.attr["precision_mode"].s.decode() or "FP32"],
            workspace_bytes=node.attr["workspace_size_bytes"].i or None,
        )
        graph = GraphOfSegments(open_graph("tensorflow"), options, load_provider())
        _graphs[identity] = graph
    return graph


def _members(node: node_def_pb2.NodeDef) -> tuple[tuple[str, str], ...]:
    """Return the compute ops of a node's native function."""
    definition = eager_context.context().get_function_def(node.attr["segment_func"].func.name)
    idle = {name.decode() for name in node.attr[IDLE].list.s}
    return tuple((op.op, op.name) for op in definition.node_def if op.op != "Const" and op.name not in idle)


def _create(construction: int) -> int:
    try:
        node = c_api.node_def(construction)
        _forget_removed()
        segment = _segment_of(node)
        handle = next(_handles)
        _kernels[handle] = (segment, len(node.attr["InT"].list.type))
    except Exception as error:  # noqa: BLE001  an exception cannot leave a callback; TensorFlow raises it
        log.exception("a kernel of %s could not be made", OP_NAME)
        c_api.construction_failed(construction, f"{type(error).__name__}: {error}")
        return 0
    return handle


def _compute(handle: int, context: int, copy: Copy) -> None:
    c_api.keep_thread()
    with c_api.Status() as status:
        call = None
        try:
            segment, inputs = _kernels[handle]
            call = _Call(context, status, inputs, copy)
            segment(call)
        except (
            tf.errors.OpError
        ) as error:  # of the native function: the caller's mistake, told as TensorFlow does
            c_api.failed(context, error.message, error.error_code)
        except Exception as error:  # noqa: BLE001  an exception cannot leave a callback; TensorFlow raises it
            c_api.failed(context, f"{OP_NAME}: {type(error).__name__}: {error}")
        finally:
            if call is not None:
                call.release()


def _is_native_allowed() -> bool:
    """Whether segments may run natively, which TF-TRT too reads from the environment."""
    allowed = os.environ.get("TF_TRT_ALLOW_ENGINE_NATIVE_SEGMENT_EXECUTION", "true")
    return allowed.lower() not in ("0", "false")


def _forget_removed() -> None:
    """Forget the kernels of functions that TensorFlow has no more (FORGET)."""
    context = eager_context.context()
    with _lock:
        _release_loaded()
        for handle, (segment, _) in list(_kernels.items()):
            if not context.has_function(segment.function):
                del _kernels[handle]


def _release_loaded() -> None:
    """Take functions with our op out of the global default graph.

    When TensorFlow loads a function with an op of that name it puts it there as well, for the sake of TF-TRT, and so keeps
    it for ever (`function_deserialization`, which calls it a leak).
    """
    if not ops.executing_eagerly_outside_functions():  # that graph is the user's own
        return
    graph = ops._default_graph_stack._GetGlobalDefaultGraph()
    for name, function in list(graph._functions.items()):
        nodes = [node for node in function.cached_definition.node_def if node.op == OP_NAME]
        held = [name, *(node.attr["segment_func"].func.name for node in nodes)] if nodes else []
        for kept in filter(graph._is_function, held):
            graph._remove_function(kept)


def _release_iterators() -> None:
    """Have the iterators of `tf.data` end (EXIT)."""
    for found in gc.get_objects() if _kernels else ():
        if issubclass(type(found), iterator_ops.OwnedIterator):
            found._iterator_resource = None


@functools.cache
def register() -> None:
    """Register the op, its gradient and its kernels, once a process."""
    atexit.register(_release_iterators)
    c_api.register_op(OP_NAME, _ATTRIBUTES, ("in_tensor: InT",), ("out_tensor: OutT",))
    tf.RegisterGradient(OP_NAME)(gradient)
    tf.RegisterGradient(CALL_GRADIENT)(gradient_of_call)
    for device, copy in kernels().items():
        compute = c_api.ComputeFunction(functools.partial(_compute, copy=copy))
        c_api.register_kernel(OP_NAME, device, c_api.CreateFunction(_create), compute)
