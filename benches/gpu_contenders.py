"""The contenders of the GPU benchmark: ways to run one model, each a function from a subject to what is timed."""

from __future__ import annotations

__all__ = ["CONTENDERS", "INDUCTOR", "NATIVE", "Made", "Plan", "default_contenders", "failure"]

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from gpu_rows import Row, Subject
from gpu_tensorrt import OPTIMIZATION_LEVEL, RawEngine
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func

from trt_backend import report
from trt_backend.report import Report

Tensor = torch.Tensor


@dataclass(frozen=True)
class Plan:
    """How a row is measured.

    Attributes:
        device: where.
        cache: the folder of engines and timings.
        rounds: how many turns each contender has; 2 or more.
        calls: synchronised calls a turn.
        pipelined: calls a turn with one synchronisation behind them.
        options: further options of `backend="trt"`.
    """

    device: torch.device
    cache: Path
    rounds: int
    calls: int
    pipelined: int
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Made:
    """A contender ready to be timed.

    Attributes:
        call: one inference.
        settled: called after the warm-up: what follows is timed.
        facts: called at the end: what goes into the record besides times.
    """

    call: Callable[[], Tensor]
    settled: Callable[[], None] = lambda: None
    facts: Callable[[], dict[str, Any]] = dict


def eager(subject: Subject, _: Plan) -> Made:
    """PyTorch, operation by operation."""
    return Made(lambda: subject.model(*subject.inputs))


def inductor(mode: str) -> Callable[[Subject, Plan], Made]:
    """Return the contender of one of Inductor's modes."""

    def make(subject: Subject, _: Plan) -> Made:
        compiled = torch.compile(subject.model, backend="inductor", mode=mode, dynamic=False)
        return Made(lambda: compiled(*subject.inputs))

    return make


def ours(**options: Any) -> Callable[[Subject, Plan], Made]:
    """Return the contender `torch.compile(model, backend="trt")`, on a GPU with CUDA graphs, with more options of ours."""

    def make(subject: Subject, plan: Plan) -> Made:
        before = report().graphs
        settings = {**_our_options(plan), **plan.options, **options}
        compiled = torch.compile(subject.model, backend="trt", options=settings, dynamic=False)
        settled: list[tuple[Report, int]] = []

        def settle() -> None:
            known = set(map(id, before))
            mine = Report(tuple(graph for graph in report().graphs if id(graph) not in known))
            settled.append((mine, _native_calls(mine)))

        def facts() -> dict[str, Any]:
            ((mine, native_before),) = settled
            native = _native_calls(mine) - native_before
            if settings.get("choose") != "measured":
                _check_engines(mine, native)
            totals = mine.to_dict()
            share = totals["ops_in_engines"] / totals["ops_total"]
            why = [f"; {region.reason}" for region in mine.regions if region.reason is not None]
            return {
                "regions": len(mine.regions),
                "ops_in_engines": share,
                "native_calls": native,
                "engine_build_seconds": sum(region.build_seconds for region in mine.regions),
                "note": f"{len(mine.regions)} regions, {share:.1%} of the ops in engines, {native} native calls"
                + "".join(why),
            }

        return Made(lambda: compiled(*subject.inputs), settle, facts)

    return make


def nothing(subject: Subject, _: Plan) -> Made:
    """A graph that computes nothing: what dynamo's guards and AOTAutograd's wrappers cost on this model.

    The first call runs natively; every later one returns what the first returned.
    """
    compiled = torch.compile(subject.model, backend=aot_autograd(fw_compiler=_compute_once), dynamic=False)
    return Made(lambda: compiled(*subject.inputs))


def raw(subject: Subject, plan: Plan) -> Made:
    """TensorRT without us: the ONNX parser's engine under one CUDA graph."""
    if plan.device.type != "cuda":
        raise RuntimeError("raw TensorRT needs a GPU")
    engine = RawEngine(subject, plan.cache, plan.options.get("tactic_sources"))

    def facts() -> dict[str, Any]:
        return {
            "engine_bytes": engine.engine_bytes,
            "scratch_bytes": engine.scratch_bytes,
            "engine_build_seconds": engine.build_seconds,
            "note": f"engine of {engine.engine_bytes / 2**20:.0f} MiB, "
            f"{engine.scratch_bytes / 2**20:.0f} MiB of scratch{', from the cache' if engine.cached else ''}",
        }

    return Made(engine, facts=facts)


def nothing_then_raw(subject: Subject, plan: Plan) -> Made:
    """The two in one call: what dynamo and AOTAutograd cost where the caches of the CPU are as cold as around an engine."""
    first, second = nothing(subject, plan), raw(subject, plan)

    def call() -> Tensor:
        first.call()
        return second.call()

    return Made(call)


INDUCTOR = ("inductor", "inductor-reduce-overhead", "inductor-max-autotune")
NATIVE = ("eager", *INDUCTOR)
CONTENDERS: dict[str, Callable[[Subject, Plan], Made]] = {
    "eager": eager,
    "inductor": inductor("default"),
    "inductor-reduce-overhead": inductor("reduce-overhead"),
    "inductor-max-autotune": inductor("max-autotune"),
    "ours": ours(),
    "ours-measured": ours(choose="measured", native="inductor"),
    "ours-cublas": ours(tactic_sources=["CUBLAS", "CUBLAS_LT", "EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"]),
    "nothing": nothing,
    "raw": raw,
    "nothing-then-raw": nothing_then_raw,
}

_ROWS_OF = {
    "inductor-max-autotune": {Row("resnet50", 1, "fp16")},  # it takes minutes
    # where TensorRT 8.6 is slower than PyTorch, or than Inductor
    "ours-measured": {Row("vit", 32, "fp16"), Row("efficientnet_b0", 1, "fp16"), Row("unet", 1, "fp16")},
    "ours-cublas": {Row("bert", 8, "fp16")},  # which is products, above all
}


def default_contenders(row: Row, device: torch.device) -> Sequence[str]:
    """Return who takes part where the command line names nobody; some are asked for in one row only."""
    if device.type != "cuda":
        return ("eager", "inductor", "ours", "nothing")
    return [name for name in CONTENDERS if row in _ROWS_OF.get(name, {row})]


def failure(error: Exception) -> str:
    """Return what ended a contender in a line; dynamo's first line names the backend, and only its second the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])}"[:300]


def _our_options(plan: Plan) -> dict[str, Any]:
    """Return the options that make ours comparable with raw: the same level, and the same timings."""
    if plan.device.type != "cuda":
        return {}
    return {
        "cuda_graphs": True,
        "cache_dir": str(plan.cache),
        "optimization_level": OPTIMIZATION_LEVEL,
    }


def _native_calls(mine: Report) -> int:
    return sum(region.native_calls for region in mine.regions)


def _check_engines(mine: Report, native_calls: int) -> None:
    """Refuse figures that are not those of engines."""
    engines = sum(region.engines for region in mine.regions)
    if not engines or native_calls:
        reasons = [str(region.reason) for region in mine.regions if region.reason is not None]
        reasons += [str(reason) for reason, _ in mine.native_ops()]
        why = reasons[0] if reasons else "the report gives no reason"
        raise RuntimeError(f"ours ran natively: {engines} engines, {native_calls} native calls; {why}")


def _compute_once(graph: torch.fx.GraphModule, _: Sequence[Any]) -> Callable[..., Any]:
    kept: list[Any] = []

    def run(*arguments: Any) -> list[Any]:
        if not kept:
            kept.extend(graph.forward(*arguments))
        return list(kept)

    return make_boxed_func(run)
