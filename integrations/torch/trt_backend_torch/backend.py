"""The dynamo backend: what AOTAutograd compiles for inference gets engines, all else runs natively."""

from __future__ import annotations

__all__ = ["explain", "trt"]

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func
from torch._guards import TracingContext
from torch.utils._pytree import tree_map_only

from trt_backend.debug import log
from trt_backend.engine.base import EngineProvider
from trt_backend.engine.providers import load_provider
from trt_backend.errors import ProviderUnavailableError
from trt_backend.options import CompileOptions
from trt_backend.report import GraphRecord, Report, open_graph
from trt_backend_torch.attention import keep_attention
from trt_backend_torch.gradients import ForwardWatch
from trt_backend_torch.inference import InferenceGraph, partition_only
from trt_backend_torch.interpolation import keep_interpolation


def trt(
    gm: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
    **_: Any,
) -> Callable[..., Any]:
    """Compile a dynamo graph, as `torch.compile(model, backend="trt", options={...})` asks for.

    Nothing is partitioned or built here: dynamo may call this twice for one frame, and with fake tensors. The first
    run does it. `build="eager"` does it here all the same.

    Args:
        gm: dynamo's graph.
        example_inputs: real or fake tensors; only their metadata is read, and by `build="eager"` the weights among them.
        options: the fields of `trt_backend.options.CompileOptions`.
        mode: Inductor's presets, which mean nothing here.

    Raises:
        OptionError: an unknown option or an illegal value.
        ProviderUnavailableError: the provider asked for is not installed.
    """
    settings = CompileOptions.from_mapping(options)
    provider = _provider(settings, example_inputs)
    if mode is not None:
        log.warning("mode=%r is a preset of Inductor and changes nothing here", mode)
    if provider.runs_on == "cpu" and settings.precision in ("tf32", "fp16", "bf16"):
        log.warning(
            "precision=%r is for GPUs: engines on the CPU compute in the model's types", settings.precision
        )

    compiled: list[InferenceGraph] = []

    def compile_inference(graph: fx.GraphModule, _: Sequence[Any]) -> Callable[..., Any]:
        compiled.append(InferenceGraph(graph, static_inputs(), provider, settings, open_graph("torch")))
        return compiled[-1]

    run = _autograd(compile_inference, lambda: open_graph("torch"))(gm, example_inputs)
    if settings.build == "eager":
        for graph in compiled:
            graph.prepare(example_inputs)
    return run


def explain(
    model: Callable[..., Any], *args: Any, options: Mapping[str, Any] | None = None, **kwargs: Any
) -> Report:
    """Return what `backend="trt"` would run where and why, without building an engine.

    Runs a copy of the model once, natively, without gradients, on copies of its arguments: what a call changes stays
    as it is.

    Args:
        model: a module or function.
        *args: its arguments.
        options: as for `torch.compile(model, backend="trt", options=...)`.
        **kwargs: its keyword arguments.
    """
    settings = CompileOptions.from_mapping(options)
    records: list[GraphRecord] = []

    def record() -> GraphRecord:
        records.append(open_graph("torch", listed=False))
        return records[-1]

    def compile_inference(graph: fx.GraphModule, inputs: Sequence[Any]) -> Callable[..., Any]:
        partition_only(graph, _provider(settings, inputs), settings, record())
        return make_boxed_func(graph.forward)

    # Where torch has it (2.13), `isolate_recompiles` keeps explanations out of the model's own few cache entries.
    known = inspect.signature(torch.compile).parameters
    isolated: dict[str, Any] = {"isolate_recompiles": True} if "isolate_recompiles" in known else {}
    compiled = torch.compile(copy.deepcopy(model), backend=_autograd(compile_inference, record), **isolated)
    args, kwargs = tree_map_only(torch.Tensor, lambda tensor: tensor.detach().clone(), (args, kwargs))
    with torch.no_grad(), torch.random.fork_rng():
        compiled(*args, **kwargs)
    return Report(tuple(records))


def static_inputs() -> frozenset[int]:
    """Return which inputs of the graph that AOTAutograd compiles right now are parameters and buffers.

    Those that the graph writes to are none: an engine that had a cache or a counter built in would not serve two calls.
    """
    context = TracingContext.try_get()
    metadata = context.fw_metadata if context is not None else None
    if metadata is None:
        return frozenset()
    written = {i for i, info in enumerate(metadata.input_info) if info.mutates_data}
    return frozenset(metadata.static_input_indices or ()) - written


def _provider(settings: CompileOptions, example_inputs: Sequence[Any]) -> EngineProvider:
    """Return the provider asked for; "auto" chooses by where the tensors are, and falls back to the CPU's."""
    devices = {value.device.type for value in example_inputs if isinstance(value, torch.Tensor)}
    try:
        return load_provider(settings.provider, "cuda" if "cuda" in devices else "cpu")
    except ProviderUnavailableError as error:
        if settings.provider != "auto":
            raise
        log.warning("graphs on the GPU run natively: %s", error)
        return load_provider("auto", "cpu")


def _needs_gradients(example_inputs: Sequence[Any]) -> bool:
    return torch.is_grad_enabled() and any(
        value.requires_grad for value in example_inputs if isinstance(value, torch.Tensor)
    )


def _autograd(
    compile_inference: Callable[[fx.GraphModule, Sequence[Any]], Callable[..., Any]],
    record: Callable[[], GraphRecord],
) -> Callable[[fx.GraphModule, Sequence[Any]], Callable[..., Any]]:
    """Return a backend that runs graphs with gradients natively, undecomposed, and hands on the others."""
    watch = ForwardWatch()

    def compile_forward(graph: fx.GraphModule, _: Sequence[Any]) -> Callable[..., Any]:
        return watch.forward(graph, record())

    def compile_backward(graph: fx.GraphModule, _: Sequence[Any]) -> Callable[..., Any]:
        return watch.backward(graph, record())

    def compile_graph(gm: fx.GraphModule, example_inputs: Sequence[Any]) -> Callable[..., Any]:
        keep_attention(gm)
        keep_interpolation(gm)
        aot = aot_autograd(
            fw_compiler=compile_forward,
            bw_compiler=compile_backward,
            inference_compiler=compile_inference,
            # Training graphs write to their inputs themselves. Written behind them, a running mean that a checkpoint
            # saves would be "modified by an inplace operation" for autograd.
            keep_inference_input_mutations=_needs_gradients(example_inputs),
        )
        return aot(gm, example_inputs)

    return compile_graph
