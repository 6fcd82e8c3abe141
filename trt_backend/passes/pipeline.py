"""The order of the passes, and the driver that verifies, times and dumps each of them."""

from __future__ import annotations

__all__ = ["PIPELINE", "PassTiming", "run_passes"]

import functools
import time
from collections.abc import Callable
from dataclasses import dataclass

from trt_backend.errors import InvalidGraphError
from trt_backend.ir.graph import Graph
from trt_backend.ir.types import DType
from trt_backend.ir.verify import verify
from trt_backend.passes.dedupe import dedupe
from trt_backend.passes.eliminate_dead import eliminate_dead
from trt_backend.passes.fold_constants import fold_constants
from trt_backend.passes.fuel import Fuel
from trt_backend.passes.legalize import Support, legalize
from trt_backend.passes.precision import lower_precision
from trt_backend.passes.quantize import quantize_weights
from trt_backend.passes.simplify import simplify
from trt_backend.passes.sink_slices import sink_slices

_CLEAN = ("simplify", "fold_constants", "dedupe", "eliminate_dead")

PIPELINE: tuple[tuple[str, ...], ...] = (
    # Before legalize: what folds away need not be legal (arithmetic on constant shapes in int64, say). simplify goes
    # before fold_constants, which would turn the Expand of a scalar into a large constant that hides `x * 1`.
    # eliminate_dead goes last: simplify leaves behind what it bypasses, which legalize would refuse for nothing.
    # sink_slices goes behind all of them: it looks at who reads what.
    (*_CLEAN, "sink_slices"),
    # After weights have folded into one constant each. Before lower_precision, which casts around what is quantized.
    ("quantize_weights",),
    # Before legalize: an op in another precision may be one that the target refuses, and Attention is lowered whole.
    ("lower_precision",),
    # After the first clean-up, which needs the whole ops: a BatchNorm in pieces is harder to recognise.
    ("legalize",),
    # Expansions repeat scalars, reshape constants and multiply by 1.
    _CLEAN,
    # Again, and last: a simpler op may be one that the target refuses. Whatever comes out is legal.
    ("legalize", "eliminate_dead"),
)
"""Stages, each repeated until none of its passes changes the graph (at most `_MAX_ROUNDS` times)."""

_MAX_ROUNDS = 16


@dataclass(frozen=True)
class PassTiming:
    """One run of one pass: how long it took, and how many rewrites took fuel (legalize and dead code take none)."""

    name: str
    seconds: float
    rewrites: int = 0


def run_passes(
    graph: Graph,
    *,
    support: Support,
    precision: DType | None = None,
    fuel: int | None = None,
    dump: Callable[[str, Graph], None] | None = None,
) -> tuple[Graph, tuple[PassTiming, ...]]:
    """Run `PIPELINE` and return the graph, legal for the target, with what each pass took.

    Args:
        graph: a well-formed graph.
        support: what the target takes; see `legalize`.
        precision: the element type to compute float32 in (FLOAT16, BFLOAT16); see `lower_precision`.
        fuel: a cap on the number of optional rewrites. To bisect a wrong answer: without a cap, the sum of
            `PassTiming.rewrites` is how many there are; the smallest cap that gives the wrong answer is the culprit.
        dump: called with the pass's name and its result, for each pass that changed the graph.

    Raises:
        UnsupportedError: the target refuses an op that has no expansion.
        InvalidGraphError: a pass broke a rule of the IR or the graph's signature; names the pass.
    """
    tank = Fuel(fuel)
    passes: dict[str, Callable[[Graph], Graph]] = {
        "simplify": functools.partial(simplify, fuel=tank),
        "fold_constants": functools.partial(fold_constants, fuel=tank),
        "dedupe": functools.partial(dedupe, fuel=tank),
        "eliminate_dead": eliminate_dead,
        "sink_slices": functools.partial(sink_slices, fuel=tank),
        "legalize": functools.partial(legalize, support=support),
        "quantize_weights": quantize_weights,
        "lower_precision": functools.partial(_lowered, dtype=precision, support=support),
    }
    timings: list[PassTiming] = []
    for stage in PIPELINE:
        for _ in range(_MAX_ROUNDS):
            before_round = graph
            for name in stage:
                before, spent, start = graph, tank.spent, time.perf_counter()
                graph = passes[name](graph)
                timings.append(PassTiming(name, time.perf_counter() - start, tank.spent - spent))
                if graph is not before:
                    _check(name, before, graph)
                    if dump is not None:
                        dump(name, graph)
            if graph is before_round:
                break
    return graph, tuple(timings)


def _lowered(graph: Graph, dtype: DType | None, support: Support) -> Graph:
    return graph if dtype is None else lower_precision(graph, dtype, support)


def _check(name: str, before: Graph, after: Graph) -> None:
    """Verify what a pass made, and that callers need not notice."""
    try:
        verify(after)
    except InvalidGraphError as error:
        raise InvalidGraphError(f"the pass {name} made an invalid graph: {error}") from error
    same_inputs = before.inputs == after.inputs and before.weights == after.weights
    if not same_inputs or [v.type for v in before.outputs] != [v.type for v in after.outputs]:
        raise InvalidGraphError(f"the pass {name} changed the graph's inputs or the types of its outputs")
