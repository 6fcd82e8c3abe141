"""Inference graphs: partitioned at the first call, each region an `Executable`."""

from __future__ import annotations

__all__ = ["InferenceGraph", "partition_only"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any

import torch
from torch import fx
from torch._subclasses import FakeTensor

from trt_backend.compile import compile_graph
from trt_backend.debug import log
from trt_backend.engine.base import EngineProvider
from trt_backend.errors import Reason, ReasonKind, UnsupportedError
from trt_backend.options import CompileOptions
from trt_backend.partition import Partition, partition
from trt_backend.report import GraphRecord, RegionRecord
from trt_backend.runtime.choice import Choice
from trt_backend.runtime.fallback import contain
from trt_backend_torch.aliases import mark_shared_views
from trt_backend_torch.fx import compute_ops, is_compute, op_name, source_line
from trt_backend_torch.host_graph import Cut, FxHostGraph, runner, split
from trt_backend_torch.lowering import unsupported
from trt_backend_torch.promises import keep_strides, mark_mistyped
from trt_backend_torch.region import LoweredRegion, RegionCall, lower_region
from trt_backend_torch.scalars import convert_scalars, mark_numbers, move_scalars, wrap_quotients
from trt_backend_torch.tf32 import follow_torch
from trt_backend_torch.weights import WeightWatch


class InferenceGraph:
    """A compiled inference graph, called with AOTAutograd's list of arguments."""

    _boxed_call = True

    def __init__(
        self,
        graph: fx.GraphModule,
        weights: frozenset[int],
        provider: EngineProvider,
        options: CompileOptions,
        record: GraphRecord,
    ) -> None:
        self._graph = graph
        self._weights = weights
        self._provider = provider
        self._options = replace(options, threads=options.threads or torch.get_num_threads())
        self._record = record
        self._lock = Lock()
        self._run: Callable[[Sequence[Any]], Any] | None = None

    def __call__(self, arguments: list[Any]) -> Any:
        """Run the graph."""
        run = self._run or self._first_run()
        return run(arguments)

    def prepare(self, example_inputs: Sequence[Any]) -> None:
        """Build the engines, for inputs like dynamo's: AOTAutograd keeps their order, unless it adds or drops some."""
        places = self._graph.graph.find_nodes(op="placeholder")
        pairs = enumerate(zip(places, example_inputs, strict=False))
        self._first_run(
            {
                place.name: tensor
                for i, (place, tensor) in pairs
                if i in self._weights and _is_real(tensor, place.meta["val"])
            }
        )

    def _first_run(self, weights: Mapping[str, Any] | None = None) -> Callable[[Sequence[Any]], Any]:
        """Return what runs the graph; build its engines, too, where the weights are given."""
        with self._lock:
            if self._run is None:
                strict = self._options.strict
                split_graph = contain(
                    lambda: self._split(weights), self._record.name, strict=strict, failed=self._give_up
                )
                self._run = runner(split_graph or self._graph)
            return self._run

    def _give_up(self, reason: Reason) -> None:
        calls = [node for node in self._graph.graph.nodes if is_compute(node)]
        self._record.regions = []
        self._record.ops_total = len(calls)
        self._record.native = [replace(reason, op=op_name(node), source=source_line(node)) for node in calls]

    def _split(self, known: Mapping[str, Any] | None) -> fx.GraphModule:
        """Partition the graph and put a `RegionCall` in the place of each region, prepared where weights are known."""
        places = self._graph.graph.find_nodes(op="placeholder")
        weights = frozenset(place.name for i, place in enumerate(places) if i in self._weights)
        parts = partition_only(self._graph, self._provider, self._options, self._record)
        records = self._record.regions
        return split(
            self._graph,
            parts.schedule,
            lambda i, cut: self._region_call(cut, records[i], weights, known),
        )

    def _region_call(
        self,
        cut: Cut,
        record: RegionRecord,
        weights: frozenset[str],
        known: Mapping[str, Any] | None,
    ) -> Callable[[Sequence[Any]], Any]:
        """Return what calls a region's engine; the native region where it cannot be lowered."""

        def failed(reason: Reason) -> None:
            record.reason = reason

        def lowered() -> tuple[LoweredRegion, CompileOptions]:
            frozen = weights if self._options.freeze_weights else frozenset[str]()
            region = lower_region(cut, record.name, weights, frozen, self._provider.border)
            on_gpu = self._provider.runs_on == "cuda"
            return region, follow_torch(region.graph, self._options) if on_gpu else self._options

        made = contain(lowered, record.name, strict=self._options.strict, failed=failed)
        if made is None:
            return _counted(cut, record)
        region, options = made
        executable = compile_graph(region.graph, self._provider, options, record)
        run_natively = torch.compile(cut.module) if self._options.native == "inductor" else cut.run_natively
        choice = Choice(record, _synchronize) if self._options.choose == "measured" else None
        watch = self._weight_watch()
        call = RegionCall(
            region,
            executable,
            run_natively,
            cut.run_natively,
            watch,
            choice,
            cuda_graphs=options.cuda_graphs,
        )
        if known is not None:
            call.prepare(cut.inputs, known)
        return call.call

    def _weight_watch(self) -> WeightWatch | None:
        """Return what tells changed weights; None where their contents are compared, as on the CPU, unless none change."""
        check = self._options.weight_check
        if check == "contents" or (check == "signals" and self._provider.device == "cpu"):
            return None
        return WeightWatch(writes=check == "signals")


def _is_real(tensor: Any, promised: torch.Tensor) -> bool:
    """Whether this is a tensor with memory, of static sizes, and as AOTAutograd promises it."""
    return (
        isinstance(tensor, torch.Tensor)
        and not isinstance(tensor, FakeTensor)
        and all(isinstance(size, int) for size in promised.shape)
        and (tensor.shape, tensor.dtype, tensor.device) == (promised.shape, promised.dtype, promised.device)
    )


def _synchronize() -> None:
    """Wait for the current device, where there is a GPU in use."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _counted(cut: Cut, record: RegionRecord) -> Callable[[Sequence[Any]], Any]:
    """Return a region that always runs natively."""

    def run(arguments: Sequence[Any]) -> Any:
        record.count_native_call()
        return cut.run_natively(*arguments)

    return run


def partition_only(
    graph: fx.GraphModule, provider: EngineProvider, options: CompileOptions, record: GraphRecord
) -> Partition[fx.Node]:
    """Partition an inference graph and note in `record` what would run where, and why."""
    keep_strides(graph)
    mark_shared_views(graph)
    mark_mistyped(graph)
    wrap_quotients(graph)
    convert_scalars(graph)
    mark_numbers(graph)
    move_scalars(graph)

    def guard(node: fx.Node) -> Reason | None:
        failures: list[Reason] = []
        answer = contain(
            lambda: (unsupported(node, provider),),
            op_name(node),
            strict=options.strict,
            failed=failures.append,
        )
        return answer[0] if answer else replace(failures[0], source=source_line(node))

    def describe(node: fx.Node) -> tuple[str, str]:
        return op_name(node), source_line(node)

    parts = partition(
        FxHostGraph(graph),
        guard,
        options.min_block_size,
        compute_ops=compute_ops,
        describe=describe,
        fuel=options.fuel,
    )
    if options.strict:
        _require_engines(parts)
    record.ops_total = sum(is_compute(node) for node in graph.graph.nodes)
    record.native = [reason for node, reason in parts.native.items() if is_compute(node)]
    record.regions = [
        RegionRecord(
            f"{record.name}.{region.name}",
            "torch",
            provider.name,
            tuple(describe(node) for node in region.nodes if is_compute(node)),
        )
        for region in parts.regions
    ]
    share = f"{sum(region.ops for region in record.regions)} of {record.ops_total} ops"
    log.info("%s: %d regions with %s", record.name, len(record.regions), share)
    return parts


def _require_engines(parts: Partition[fx.Node]) -> None:
    """Raise for the first op that no engine takes; what the options keep out of engines is no failure."""
    chosen = (ReasonKind.TOO_SMALL, ReasonKind.FUEL)
    for node, reason in parts.native.items():
        if is_compute(node) and reason.kind not in chosen:
            raise UnsupportedError(str(reason), reason.kind)
