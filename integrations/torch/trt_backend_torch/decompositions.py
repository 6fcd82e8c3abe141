"""Torch's own decompositions, one op at a time, for ops that have no lowering rule.

The graph itself is never decomposed: an op that stays native runs as the user wrote it.
"""

from __future__ import annotations

__all__ = ["decompose"]

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import fx
from torch._decomp import core_aten_decompositions
from torch._guards import detect_fake_mode
from torch._ops import OpOverload
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg


@cache
def _table() -> dict[OpOverload, Callable[..., Any]]:
    return dict(core_aten_decompositions())  # type: ignore[arg-type]


def decompose(node: fx.Node) -> fx.GraphModule | None:
    """Return a graph that computes `node` with other ops, or None where torch knows none.

    Its placeholders are `node.all_input_nodes` in their order. None too where the decomposition looks at the value of a
    symbolic size: the guard that it leaves may come too late for the caller's graph.
    """
    target = node.target
    if not isinstance(target, OpOverload) or target not in _table():
        return None
    inputs = node.all_input_nodes
    fakes = [place.meta["val"] for place in inputs]
    mode = detect_fake_mode((*fakes, node.meta["val"]))
    if mode is None or any(isinstance(fake, (tuple, list)) for fake in fakes):
        return None

    def call(*values: Any) -> Any:
        given = dict(zip(inputs, values, strict=True))
        args, kwargs = map_arg((node.args, node.kwargs), given.__getitem__)
        return target(*args, **kwargs)

    known = mode.shape_env.guards if mode.shape_env is not None else []
    before = len(known)
    with mode, torch.no_grad():
        tracing = "fake" if mode.shape_env is None else "symbolic"
        graph = make_fx(call, decomposition_table=_table(), tracing_mode=tracing)(*fakes)
    return graph if len(known) == before else None
