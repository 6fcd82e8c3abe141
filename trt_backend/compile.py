"""From a graph to an `Executable`: passes, build, load, at the first call."""

from __future__ import annotations

__all__ = ["build_engine", "compile_graph"]

import functools
import time
from collections.abc import Callable
from pathlib import Path

import xxhash

from trt_backend import __version__
from trt_backend.debug import Dump, log
from trt_backend.engine.base import CallShapes, Engine, EngineProvider, LazyEngine
from trt_backend.engine.builder_process import build_apart
from trt_backend.engine.cache import EngineCache
from trt_backend.engine.profile import Profile
from trt_backend.engine.shipped import BuiltEngine, ShippedEngine
from trt_backend.errors import BuildError, NotReadyError, OutOfMemoryError
from trt_backend.ir.fingerprint import fingerprint
from trt_backend.ir.graph import Graph
from trt_backend.ir.ops.elementwise import QuantizeDequantize
from trt_backend.ir.types import DType, TensorType
from trt_backend.options import CompileOptions
from trt_backend.passes.pipeline import run_passes
from trt_backend.report import RegionRecord
from trt_backend.runtime.answers import AnswerCheck
from trt_backend.runtime.calibrated import CalibratedEngine
from trt_backend.runtime.executable import Executable
from trt_backend.runtime.profiled import ProfiledEngine
from trt_backend.runtime.weight_sets import WeightSets

_LOW_PRECISION = {"fp16": DType.FLOAT16, "bf16": DType.BFLOAT16, "int8": DType.FLOAT16}


def compile_graph(
    graph: Graph,
    provider: EngineProvider,
    options: CompileOptions,
    record: RegionRecord,
    shipped: ShippedEngine | None = None,
) -> Executable:
    """Return the executable of a graph; nothing is built before it is prepared or called.

    Args:
        graph: the graph.
        provider: whose engines are to run it.
        options: of the compilation.
        record: of the region.
        shipped: the engine that came with the region; it learns which one was built here.
    """
    dump = Dump.of(options.dump_dir, graph.name)
    came = shipped or ShippedEngine()
    answers = AnswerCheck(record.name, graph, options)

    def profiled(variant: Graph) -> LazyEngine:
        return ProfiledEngine(
            lambda profile, beside: build_engine(
                variant,
                profile,
                provider,
                options,
                record,
                dump,
                came,
                answers,
                apart=beside and provider.cached,
            ),
            _profile_of(variant, provider, options, came),
            background=options.build == "background",
            carry=provider.carry,
        )

    def fresh(variant: Graph) -> LazyEngine:
        frozen = provider.worth_freezing(variant) if options.freeze_weights else ()
        if not frozen:
            return profiled(variant)
        live = provider.device == "cpu"
        return WeightSets(variant, frozen, profiled, provider.read, options.max_engines, live=live)

    def first_engine() -> LazyEngine:
        if options.precision != "int8" or options.calibration is None:
            return fresh(graph)
        return CalibratedEngine(graph, options.calibration, provider, fresh, record)

    return Executable(first_engine, record, answers, strict=options.strict)


def build_engine(
    graph: Graph,
    profile: Profile,
    provider: EngineProvider,
    options: CompileOptions,
    record: RegionRecord,
    dump: Dump,
    shipped: ShippedEngine,
    answers: AnswerCheck,
    *,
    apart: bool = False,
) -> Engine:
    """Return the engine of a graph for a profile: the shipped one, from the cache, or built.

    `apart` builds in a process of its own, and dumps no model. `answers` learns of an engine that gave none before.

    Raises:
        BuildError: a step refuses, or there is none and none may be built.
    """
    start = time.perf_counter()
    dump("lowered.ir", graph)

    def build() -> bytes:
        if provider.cached and not shipped.may_build:
            raise BuildError(
                "the saved model has no engine for this machine, and says that none may be built"
            )
        legal = _legal(graph, provider, options, dump)
        if apart:
            return build_apart(provider, legal, profile, options)
        return provider.build(legal, profile, options, dump)

    def load(blob: bytes) -> Engine:
        return provider.load(blob, graph, options)

    if not provider.cached:
        engine = load(build())
        answers.expect()
    else:
        key = _key(graph, profile, provider, options)
        engine = _load_shipped(shipped, key, load, record.name)
        if engine is not None:
            answers.expect()
        else:
            cache = EngineCache.of_user(options.cache_dir)
            engine, blob = _load_cached(cache, key, build, load)
            if not cache.is_checked(key, blob):
                answers.expect(cache.checked(key, blob))
        shipped.built = BuiltEngine(key, profile, provider.identity(options))
    seconds = time.perf_counter() - start
    record.count_build(seconds)
    log.info("%s: engine of %d ops built by %s in %.2f s", record.name, record.ops, record.provider, seconds)
    return engine


def _profile_of(
    graph: Graph, provider: EngineProvider, options: CompileOptions, shipped: ShippedEngine
) -> Callable[[CallShapes, Profile | None], Profile]:
    """Return what chooses the profile of an engine for a call: that of the shipped one, if it serves the call."""

    @functools.cache
    def came() -> Profile | None:
        if not provider.cached:
            return None
        return shipped.profile(
            provider.identity(options), lambda profile: _key(graph, profile, provider, options)
        )

    def choose(shapes: CallShapes, former: Profile | None) -> Profile:
        profile = came()
        if profile is not None and profile.covers(shapes.symbols):
            return profile
        if profile is not None and not shipped.may_build:
            raise NotReadyError(
                f"the saved model has an engine for {profile} only, and no other may be built"
            )
        return provider.profile(graph, shapes, former)

    return choose


def _load_shipped(
    shipped: ShippedEngine, key: str, load: Callable[[bytes], Engine], name: str
) -> Engine | None:
    """Load the engine that came with the region, if it is the one; one that does not load is as if it were not there."""
    blob = shipped.read(key)
    if blob is None:
        return None
    try:
        return load(blob)
    except OutOfMemoryError:  # nothing is wrong with it
        raise
    except BuildError as error:
        log.warning("%s: the engine that came with the saved model does not load: %s", name, error)
        return None


def _legal(graph: Graph, provider: EngineProvider, options: CompileOptions, dump: Dump) -> Graph:
    legal, timings = run_passes(
        graph,
        support=provider.support,
        precision=low_precision(options, provider),
        dump=lambda name, changed: dump(f"{name}.ir", changed),
    )
    for timing in timings:
        log.debug("%s: %s took %.1f ms", graph.name, timing.name, 1e3 * timing.seconds)
    return legal


def low_precision(options: CompileOptions, provider: EngineProvider) -> DType | None:
    """Return the element type to compute float32 in; None for float32 itself, the only one that is fast on a CPU.

    Beside int8 it is float16, unless the stack chooses by itself where to compute in that (8.6, for what it quantizes).
    """
    found = _LOW_PRECISION.get(options.precision) if provider.runs_on == "cuda" else None
    if options.precision == "int8" and found is not None:
        refused = provider.support(QuantizeDequantize((1.0,)), (TensorType(found, (1,)),))
        return None if refused else found
    return found


@functools.cache
def _sources() -> str:
    """Return a digest of the code that makes engines, which changes between two releases."""
    hasher = xxhash.xxh3_128()
    for folder in ("ir", "passes", "emit", "engine"):
        for path in sorted(Path(__file__).with_name(folder).rglob("*.py")):
            hasher.update(path.read_bytes())
    return hasher.hexdigest()


def _key(graph: Graph, profile: Profile, provider: EngineProvider, options: CompileOptions) -> str:
    """Return the name of an engine: everything that it depends on."""
    prints = fingerprint(graph)
    names = [value.name for value in graph.inputs]  # an engine knows its tensors by name
    parts = (
        __version__,
        _sources(),
        prints.structure,
        prints.weights,
        names,
        profile,
        provider.identity(options),
    )
    return xxhash.xxh3_128_hexdigest(repr(parts).encode())


def _load_cached(
    cache: EngineCache, key: str, build: Callable[[], bytes], load: Callable[[bytes], Engine]
) -> tuple[Engine, bytes]:
    """Load an engine from the cache, and return its bytes as well; one that does not load is built again, once."""
    blob = cache.get_or_build(key, build)
    try:
        return load(blob), blob
    except OutOfMemoryError:  # nothing is wrong with it
        raise
    except BuildError as error:
        cache.discard(key, blob, str(error))
        again = cache.get_or_build(key, build)
        if again == blob:  # a folder that is not ours to write
            again = build()
        return load(again), again
