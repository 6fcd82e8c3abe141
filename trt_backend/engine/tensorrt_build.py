"""Building a TensorRT engine: the builder's settings, its log, its progress, and how it is interrupted.

Rules:
  DETACHED  The builder runs in a thread of its own: the caller logs its time, and may be interrupted. A builder that
            reports progress is then told to stop; an older one finishes in the background, to nobody's use. After a stop,
            TensorRT-RTX 1.7 crashes some processes as they end; what is built in a process of its own is killed with it.
"""

from __future__ import annotations

__all__ = ["Builder", "Logger", "failure", "lacks_memory", "make_logger", "required", "shared_timings"]

import re
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from trt_backend.debug import log
from trt_backend.emit.tensorrt import emit_network
from trt_backend.emit.tensorrt.network import NetworkWriter, dim_input, needs_dim_input
from trt_backend.emit.tensorrt.stacks import Stack
from trt_backend.engine import cuda
from trt_backend.engine.cache import EngineCache
from trt_backend.engine.profile import HIGHEST_SIZE, Profile
from trt_backend.errors import BuildError, OutOfMemoryError
from trt_backend.ir.dims import evaluate
from trt_backend.ir.graph import Graph
from trt_backend.ir.intervals import interval
from trt_backend.ir.types import is_static
from trt_backend.options import CompileOptions

T = TypeVar("T")

_LOG_SECONDS = 10.0
_BAR_SECONDS = 0.2
_AHEAD_OF_TIME = "SM89"
# The other sources are libraries, cuBLAS and cuDNN. TensorRT's own defaults leave them out since 8.6, and 11 has none.
_OWN_KERNELS = ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS")


class Logger(Protocol):
    """TensorRT's log, handed on to ours.

    Attributes:
        error: the last error of the calling thread, or the first that says that memory is used up. What may fail sets it
            to "" first; a build has a thread of its own.
    """

    error: str


def make_logger(trt: Any) -> Logger:
    """Return an `ILogger` that hands errors and warnings on to our log, at DEBUG: what matters becomes an exception."""
    errors = (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR)

    class ForwardingLogger(trt.ILogger):  # the base class is only known at run time
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self._of_thread = threading.local()

        @property
        def error(self) -> str:
            return getattr(self._of_thread, "error", "")

        @error.setter
        def error(self, message: str) -> None:
            self._of_thread.error = message

        def log(self, severity: Any, message: str) -> None:
            if severity in errors and not lacks_memory(self):
                self.error = message
            if severity in errors or severity == trt.ILogger.WARNING:
                log.debug("TensorRT: %s", message)

    return ForwardingLogger()


def lacks_memory(logger: Logger) -> bool:
    """Whether TensorRT logged that memory is used up, in its words or CUDA's."""
    return bool(re.search("out[ _]?of[ _]?memory|MemoryAllocation", logger.error, re.IGNORECASE))


def failure(what: str, logger: Logger) -> BuildError:
    """Return the error that says what failed, and what TensorRT logged last."""
    return (OutOfMemoryError if lacks_memory(logger) else BuildError)(f"{what}: {logger.error}")


def required(make: Callable[..., T | None], *arguments: Any) -> T:
    """Return what TensorRT makes.

    Raises:
        OutOfMemoryError: it made nothing (None, or pybind11's TypeError for a constructor that gave a null pointer),
            which happens where the device's memory is used up.
    """
    try:
        made = make(*arguments)
    except TypeError as error:
        raise OutOfMemoryError(f"TensorRT: {error}") from error
    if made is None:
        raise OutOfMemoryError(
            f"TensorRT made no {make.__name__.removeprefix('create_')}; is the device's memory used up?"
        )
    return made


class Builder:
    """Builds one engine."""

    def __init__(self, trt: Any, stack: Stack, logger: Any, options: CompileOptions) -> None:
        self._trt = trt
        self._stack = stack
        self._logger = logger
        self._options = options
        self._cancelled = threading.Event()
        self._phase = _Phase()

    def build(self, graph: Graph, profile: Profile) -> bytes:
        """Return the serialized engine (BuildError where TensorRT refuses)."""
        result: list[bytes | BaseException] = []
        context = cuda.current_context() if cuda.has_device() else None

        def work() -> None:
            try:
                if context is not None:
                    cuda.make_current(context)
                    cuda.relax_captures()
                result.append(self._build(graph, profile))
            except BaseException as error:  # noqa: BLE001  handed to the caller's thread, and raised there
                result.append(error)

        thread = threading.Thread(target=work, name=f"build of {graph.name}", daemon=True)
        thread.start()
        try:
            self._wait(thread, graph.name)
        except BaseException:
            self._cancelled.set()
            raise
        (outcome,) = result
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _wait(self, thread: threading.Thread, name: str) -> None:
        """Show a bar on a terminal, which pulses where the builder does not report; log the time otherwise."""
        console = Console(stderr=True)
        start = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(f"{name}: TensorRT is building", total=None)
            while thread.is_alive():
                thread.join(_BAR_SECONDS if console.is_terminal else _LOG_SECONDS)
                bar.update(task, completed=self._phase.done, total=self._phase.steps or None)
                if thread.is_alive() and not console.is_terminal:
                    log.info("%s: TensorRT has been building for %.0f s", name, time.monotonic() - start)

    def _build(self, graph: Graph, profile: Profile) -> bytes:
        trt = self._trt
        builder = required(trt.Builder, self._logger)
        network = required(builder.create_network, self._network_flags())
        writer = emit_network(graph, trt, network, self._stack)
        config = required(builder.create_builder_config)
        self._configure(config, writer)
        if graph.symbols:
            config.add_optimization_profile(_trt_profile(builder, graph, profile))
        if not self._stack.timing_cache:
            return self._serialized(builder, network, config)
        with shared_timings(trt, config, EngineCache.of_user(self._options.cache_dir)):
            return self._serialized(builder, network, config)

    def _serialized(self, builder: Any, network: Any, config: Any) -> bytes:
        plan = builder.build_serialized_network(network, config)
        if plan is None:
            if self._cancelled.is_set():
                raise BuildError(f"TensorRT {self._trt.__version__} makes no engine: the build was cancelled")
            raise failure(f"TensorRT {self._trt.__version__} makes no engine", self._logger)
        return bytes(plan)

    def _network_flags(self) -> int:
        flags = self._trt.NetworkDefinitionCreationFlag
        if self._stack.strongly_typed:
            return 1 << int(flags.STRONGLY_TYPED)
        return 1 << int(flags.EXPLICIT_BATCH)

    def _configure(self, config: Any, writer: NetworkWriter) -> None:
        trt, options = self._trt, self._options
        if options.precision == "tf32":
            config.set_flag(trt.BuilderFlag.TF32)
        else:
            config.clear_flag(trt.BuilderFlag.TF32)
        if not self._stack.strongly_typed:
            if writer.has_half or writer.has_int8:
                config.set_flag(trt.BuilderFlag.FP16)
            if writer.has_int8:
                config.set_flag(trt.BuilderFlag.INT8)
            if writer.hold_float32:
                flags = trt.BuilderFlag  # between dequantizations and quantizations, int8 is what is wanted
                config.set_flag(
                    flags.PREFER_PRECISION_CONSTRAINTS
                    if writer.has_int8
                    else flags.OBEY_PRECISION_CONSTRAINTS
                )
        if options.workspace_bytes is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_bytes)
        if options.optimization_level is not None:
            config.builder_optimization_level = options.optimization_level
        self._set_tactic_sources(config)
        if self._stack.ahead_of_time and not cuda.has_device():
            config.num_compute_capabilities = 1
            config.set_compute_capability(getattr(trt.ComputeCapability, _AHEAD_OF_TIME), 0)
        if not self._stack.shares_profiles:
            config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)
        if self._stack.progress:
            config.progress_monitor = _make_monitor(trt, self._cancelled, self._phase)

    def _set_tactic_sources(self, config: Any) -> None:
        trt, names = self._trt, self._options.tactic_sources
        if names is None:
            names = _OWN_KERNELS
        known: dict[str, Any] = trt.TacticSource.__members__
        if unknown := sorted(set(names) - set(known)):
            raise BuildError(
                f"{trt.__name__} {trt.__version__} has no tactic source {', '.join(unknown)}; it has {', '.join(known)}"
            )
        config.set_tactic_sources(sum(1 << int(known[name]) for name in set(names)))
        if self._stack.shuts_libraries_out and not set(names) <= set(_OWN_KERNELS):
            config.set_preview_feature(
                trt.PreviewFeature.DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805, False
            )


def _trt_profile(builder: Any, graph: Graph, profile: Profile) -> Any:
    made = builder.create_optimization_profile()

    def set_shape(name: str, least: Sequence[int], opt: Sequence[int], most: Sequence[int]) -> None:
        if max(opt) > HIGHEST_SIZE:
            raise BuildError(f"{name} has the shape {list(opt)}: TensorRT takes sizes up to {HIGHEST_SIZE}")
        made.set_shape(name, tuple(least), tuple(opt), tuple(min(size, HIGHEST_SIZE) for size in most))

    ranges = dict(profile.ranges)
    bounds = {name: (r.min, r.max) for name, r in ranges.items()}
    usual = {name: r.opt for name, r in ranges.items()}
    for value in graph.inputs:
        if not is_static(value.shape):
            least, most = zip(*(interval(dim, bounds) for dim in value.shape), strict=True)
            opt = [evaluate(dim, usual) for dim in value.shape]
            set_shape(value.name, [max(int(size), 0) for size in least], opt, [int(size) for size in most])
    for symbol in needs_dim_input(graph):
        of = ranges[symbol.name]
        set_shape(dim_input(symbol), [of.min], [of.opt], [of.max])
    return made


@contextmanager
def shared_timings(trt: Any, config: Any, cache: EngineCache) -> Generator[None]:
    """Have the build of a block use what earlier ones measured on this device, and keep what it measures, even if it fails.

    Timings that TensorRT refuses are replaced; where it shares none, the build goes on without.
    """
    name = re.sub(r"\W", "_", f"{trt.__name__} {trt.__version__} {cuda.device_name()}")
    known = cache.timings(name)
    if not any(_begins_with(config, timings) for timings in (known, b"")):
        log.debug("TensorRT takes no timing cache, the timings of this build are lost")
        yield
        return
    try:
        yield
    finally:  # minutes of measuring, where a build was cancelled
        try:
            cache.merge_timings(name, lambda stored: _merged(config, known, stored))
        except (OutOfMemoryError, RuntimeError) as error:
            log.debug("the timings of this build are lost: %s", error)


def _begins_with(config: Any, timings: bytes) -> bool:
    made = config.create_timing_cache(timings)
    return made is not None and config.set_timing_cache(made, ignore_mismatch=False)


def _merged(config: Any, known: bytes, stored: bytes) -> bytes:
    """Return the timings of this build, which began with `known`, and those that others have stored since."""
    timings = required(config.get_timing_cache)
    if stored != known:
        timings.combine(required(config.create_timing_cache, stored), ignore_mismatch=True)
    return bytes(required(timings.serialize))


@dataclass
class _Phase:
    """The outermost phase that the builder is in: how many steps it has, and how many are done."""

    name: str = ""
    steps: int = 0
    done: int = 0


def _make_monitor(trt: Any, cancelled: threading.Event, phase: _Phase) -> Any:
    """Return an `IProgressMonitor` that notes the outermost phase, and stops the build once `cancelled` is set."""

    class Monitor(trt.IProgressMonitor):  # the base class is only known at run time
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            if parent_phase is None:
                phase.name, phase.steps, phase.done = phase_name, num_steps, 0

        def step_complete(self, phase_name: str, step: int) -> bool:
            if phase_name == phase.name:
                phase.done = step + 1
            return not cancelled.is_set()

        def phase_finish(self, phase_name: str) -> None:
            pass

    return Monitor()
