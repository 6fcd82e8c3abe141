"""Running ONNX models in tests."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

import ml_dtypes
import numpy as np
import onnx
import onnxruntime

from trt_backend.emit.onnx import emit_onnx
from trt_backend.ir.graph import Graph

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def session(model: onnx.ModelProto, optimized: str = "") -> onnxruntime.InferenceSession:
    """Load a model on one thread; `optimized` is a path for the graph that ONNX Runtime makes of it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    if optimized:
        options.optimized_model_filepath = optimized
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run_model(
    model: onnx.ModelProto, inputs: Sequence[np.ndarray], symbols: Mapping[str, int] | None = None
) -> list[np.ndarray]:
    """Run a model that `emit_onnx` made."""
    loaded = session(model)
    given = [*inputs, *(np.array([symbols[name]]) for name in sorted(symbols or {}) if symbols)]
    binding = loaded.io_binding()
    for argument, array in zip(loaded.get_inputs(), given, strict=True):
        binding.bind_ortvalue_input(argument.name, _ort_value(array))
    for result in loaded.get_outputs():
        binding.bind_output(result.name)
    loaded.run_with_iobinding(binding)
    return [_array(value) for value in binding.get_outputs()]


def run_graph(
    graph: Graph, inputs: Sequence[np.ndarray], symbols: Mapping[str, int] | None = None
) -> list[np.ndarray]:
    """Emit a graph and run it."""
    model = emit_onnx(graph)
    onnx.checker.check_model(model)
    return run_model(model, inputs, symbols)


def _ort_value(array: np.ndarray) -> onnxruntime.OrtValue:
    contiguous = np.ascontiguousarray(array).reshape(array.shape)
    if array.dtype == _BFLOAT16:
        bits = contiguous.view(np.uint16)
        return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, onnx.TensorProto.BFLOAT16)
    return onnxruntime.OrtValue.ortvalue_from_numpy(contiguous)


def _array(value: onnxruntime.OrtValue) -> np.ndarray:
    if value.data_type() != "tensor(bfloat16)":
        return value.numpy()
    data = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.frombuffer(data, _BFLOAT16).reshape(value.shape())
