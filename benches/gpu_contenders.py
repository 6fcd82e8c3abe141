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

import trt_backend

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


def ours(subject: Subject, plan: Plan) -> Made:
    """`torch.compile(model, backend="trt")`, on a GPU with CUDA graphs."""
    trt_backend.reset_report()
    options = {**_our_options(plan), **plan.options}
    compiled = torch.compile(subject.model, backend="trt", options=options, dynamic=False)
    settled: dict[str, int] = {}

    def settle() -> None:
        settled["native"] = _native_calls()

    def facts() -> dict[str, Any]:
        report = trt_backend.report().to_dict()
        native = _native_calls() - settled["native"]
        if options.get("choose") != "measured":
            _check_engines(report, native)
        share = report["ops_in_engines"] / report["ops_total"]
        regions = report["regions"]
        return {
            "regions": len(regions),
            "ops_in_engines": share,
            "native_calls": native,
            "engine_build_seconds": sum(region["build_seconds"] for region in regions),
            "note": f"{len(regions)} regions, {share:.1%} of the ops in engines, {native} native calls",
        }

    return Made(lambda: compiled(*subject.inputs), settle, facts)


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
    engine = RawEngine(subject, plan.cache)

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
    "ours": ours,
    "nothing": nothing,
    "raw": raw,
    "nothing-then-raw": nothing_then_raw,
}


def default_contenders(row: Row, device: torch.device) -> Sequence[str]:
    """Return who takes part where the command line names nobody; max-autotune takes minutes, so one row has it."""
    if device.type != "cuda":
        return ("eager", "inductor", "ours", "nothing")
    slow = () if row == Row("resnet50", 1, "fp16") else ("inductor-max-autotune",)
    return [name for name in CONTENDERS if name not in slow]


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


def _native_calls() -> int:
    return sum(region["native_calls"] for region in trt_backend.report().to_dict()["regions"])


def _check_engines(report: dict[str, Any], native_calls: int) -> None:
    """Refuse figures that are not those of engines."""
    engines = sum(region["engines"] for region in report["regions"])
    if not engines or native_calls:
        reasons = [region["reason"] for region in report["regions"] if region["reason"]]
        reasons += [native["reason"] for native in report["native_ops"]]
        why = reasons[0] if reasons else "the report gives no reason"
        raise RuntimeError(f"ours ran natively: {engines} engines, {native_calls} native calls; {why}")


def _compute_once(graph: torch.fx.GraphModule, _: Sequence[Any]) -> Callable[..., Any]:
    kept: list[Any] = []

    def run(*arguments: Any) -> list[Any]:
        if not kept:
            kept.extend(graph.forward(*arguments))
        return list(kept)

    return make_boxed_func(run)
