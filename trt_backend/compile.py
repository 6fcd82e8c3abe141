"""From a graph to an `Executable`: passes, build, load, at the first call."""

from __future__ import annotations

__all__ = ["build_engine", "compile_graph"]

import time

from trt_backend.debug import Dump, log
from trt_backend.engine.base import Engine, EngineProvider
from trt_backend.ir.graph import Graph
from trt_backend.options import CompileOptions
from trt_backend.passes.pipeline import run_passes
from trt_backend.report import RegionRecord
from trt_backend.runtime.executable import Executable
from trt_backend.runtime.weight_sets import WeightSets


def compile_graph(
    graph: Graph, provider: EngineProvider, options: CompileOptions, record: RegionRecord
) -> Executable:
    """Return the executable of a graph; nothing is built before its first call."""
    dump = Dump.of(options.dump_dir, graph.name)

    def build(variant: Graph) -> Engine:
        return build_engine(variant, provider, options, record, dump)

    def first_engine() -> Engine:
        frozen = provider.worth_freezing(graph) if options.freeze_weights else ()
        return WeightSets(graph, frozen, build, options.max_engines) if frozen else build(graph)

    return Executable(first_engine, record, strict=options.strict)


def build_engine(
    graph: Graph, provider: EngineProvider, options: CompileOptions, record: RegionRecord, dump: Dump
) -> Engine:
    """Run the passes, build the engine and load it (BuildError where one of them refuses)."""
    start = time.perf_counter()
    dump("lowered.ir", str(graph))
    legal, timings = run_passes(
        graph, support=provider.support, dump=lambda name, changed: dump(f"{name}.ir", str(changed))
    )
    for timing in timings:
        log.debug("%s: %s took %.1f ms", graph.name, timing.name, 1e3 * timing.seconds)
    engine = provider.load(provider.build(legal, options, dump), legal, options)
    seconds = time.perf_counter() - start
    record.count_build(seconds)
    log.info("%s: engine of %d ops built by %s in %.2f s", record.name, record.ops, record.provider, seconds)
    return engine
