"""Raw TensorRT: the ONNX parser's engine of a model under one CUDA graph, the figure that `trtexec` gives.

Inputs and outputs stay where they are, so that a call is one replay of the graph.
"""

from __future__ import annotations

__all__ = ["OPTIMIZATION_LEVEL", "RawEngine"]

import importlib
import io
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from gpu_rows import Subject

from trt_backend.engine.cache import EngineCache
from trt_backend.engine.tensorrt_build import shared_timings

Tensor = torch.Tensor

OPTIMIZATION_LEVEL = 3  # TensorRT's default
_OPSET = 17
_TORCH_DTYPES = {
    "HALF": torch.float16,
    "FLOAT": torch.float32,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "BOOL": torch.bool,
}


class RawEngine:
    """The engine of a subject, from the cache or built, ready to run.

    Attributes:
        engine_bytes: the size of the serialized engine.
        scratch_bytes: what its execution context needs for activations.
        cached: whether the engine was found in the cache.
        build_seconds: how long export, parsing and building took; None if it was cached.
    """

    def __init__(self, subject: Subject, cache: Path, tactic_sources: Sequence[str] | None = None) -> None:
        trt: Any = importlib.import_module("tensorrt")
        logger = trt.Logger(trt.Logger.WARNING)
        start = time.perf_counter()
        path = _engine_path(subject, cache, trt.__version__, tactic_sources)
        self.cached = path.exists()
        plan = path.read_bytes() if self.cached else build(trt, logger, subject, cache, tactic_sources)
        self.build_seconds = None if self.cached else time.perf_counter() - start
        if not self.cached:
            _write(path, plan)
        runtime = trt.Runtime(logger)
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise RuntimeError(f"TensorRT cannot load {path}; delete it to build it again")
        self.engine_bytes = len(plan)
        self.scratch_bytes = int(
            engine.device_memory_size_v2
            if hasattr(engine, "device_memory_size_v2")
            else engine.device_memory_size
        )
        self._context = engine.create_execution_context()
        self._tensors = _bind(trt, engine, self._context, subject)
        self.output = self._tensors[-1]
        self._graph = self._capture()
        self._keep = (logger, runtime, engine)  # TensorRT wants them to outlive the context

    def __call__(self) -> Tensor:
        """Replay the graph and return the static output."""
        self._graph.replay()
        return self.output

    def _capture(self) -> torch.cuda.CUDAGraph:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            self._enqueue(stream)  # what TensorRT does once, it must not do in the capture
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            self._enqueue(stream)
        return graph

    def _enqueue(self, stream: torch.cuda.Stream) -> None:
        if not self._context.execute_async_v3(stream.cuda_stream):
            raise RuntimeError("TensorRT did not enqueue the engine; its log says why")


def build(
    trt: Any, logger: Any, subject: Subject, cache: Path, tactic_sources: Sequence[str] | None
) -> bytes:
    """Export, parse and build; return the serialized engine.

    Raises:
        RuntimeError: the parser or the builder refuses the model.
    """
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(export(subject, group_norm_as_primitives=_major(trt) < 10)):
        raise RuntimeError(f"TensorRT's ONNX parser: {parser.get_error(0).desc()}")
    config = builder.create_builder_config()
    configure(trt, config, subject.row.dtype, tactic_sources)
    with shared_timings(trt, config, EngineCache(cache)):  # with ours: what both measure is measured once
        plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise RuntimeError("TensorRT built no engine; its log says why")
    return bytes(plan)


def configure(trt: Any, config: Any, dtype: str, tactic_sources: Sequence[str] | None) -> None:
    """Set the builder up as ours is: the same level and tactics, and single precision that is single."""
    config.builder_optimization_level = OPTIMIZATION_LEVEL
    names = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS") if tactic_sources is None else tactic_sources
    config.set_tactic_sources(sum(1 << int(getattr(trt.TacticSource, name)) for name in names))
    if tactic_sources is not None and _major(trt) < 10:  # where libraries are left out by default
        config.set_preview_feature(trt.PreviewFeature.DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805, False)
    config.clear_flag(trt.BuilderFlag.TF32)
    if dtype == "fp16" and not _strongly_typed(trt):
        config.set_flag(trt.BuilderFlag.FP16)


def export(subject: Subject, *, group_norm_as_primitives: bool) -> bytes:
    """Return the subject's ONNX model, its weights inside.

    Args:
        subject: the model and its inputs, in their precision.
        group_norm_as_primitives: TensorRT 8.6 parses InstanceNormalization, the exporter's choice for group norm,
            into a plugin that needs cuDNN. Primitives need nothing and can be fused.
    """
    file = io.BytesIO()
    names = [f"input{i}" for i in range(len(subject.inputs))]
    group_norm = _group_norm if group_norm_as_primitives else torch.nn.functional.group_norm
    with patch.object(torch.nn.functional, "group_norm", group_norm), torch.no_grad():
        torch.onnx.export(
            subject.model,
            subject.inputs,
            file,  # pyright: ignore[reportArgumentType]: the exporter that traces takes any file
            opset_version=_OPSET,
            dynamo=False,
            input_names=names,
            output_names=["output"],
        )
    return file.getvalue()


def _network_flags(trt: Any) -> int:
    flags = trt.NetworkDefinitionCreationFlag
    names = ("STRONGLY_TYPED",) if _strongly_typed(trt) else ("EXPLICIT_BATCH",)
    return sum(1 << int(getattr(flags, name)) for name in names)


def _strongly_typed(trt: Any) -> bool:
    return hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")


def _major(trt: Any) -> int:
    return int(trt.__version__.partition(".")[0])


def _engine_path(subject: Subject, cache: Path, version: str, tactic_sources: Sequence[str] | None) -> Path:
    device = torch.cuda.get_device_name()
    parts = (
        "raw",
        str(subject.row),
        f"torch{torch.__version__}",
        f"trt{version}",
        device,
        *(tactic_sources or ()),
    )
    return cache / (re.sub(r"[^\w.]+", "-", "-".join(parts)) + ".engine")


def _write(path: Path, content: bytes) -> None:
    """Write all of a file or nothing: a lease may end at any time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    partial.replace(path)


def _bind(trt: Any, engine: Any, context: Any, subject: Subject) -> list[Tensor]:
    """Give the context static inputs (the subject's values, in the engine's dtypes) and outputs; return them all."""
    values = {f"input{i}": x for i, x in enumerate(subject.inputs)}
    tensors: list[Tensor] = []
    for name in map(engine.get_tensor_name, range(engine.num_io_tensors)):
        dtype = _TORCH_DTYPES[engine.get_tensor_dtype(name).name]
        if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT:
            tensor = values[name].to(dtype).contiguous()
            tensors.insert(0, tensor)
        else:
            shape = tuple(engine.get_tensor_shape(name))
            tensor = torch.empty(shape, dtype=dtype, device=subject.reference.device)
            tensors.append(tensor)
        context.set_tensor_address(name, tensor.data_ptr())
    return tensors


def _group_norm(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Compute `torch.nn.functional.group_norm` from means and elementwise operations."""
    grouped = x.reshape(x.shape[0], groups, -1)
    centred = grouped - grouped.mean(2, keepdim=True)
    normal = centred / ((centred * centred).mean(2, keepdim=True) + eps).sqrt()
    channels = (-1, *[1] * (x.dim() - 2))
    return normal.reshape(x.shape) * weight.reshape(channels) + bias.reshape(channels)
