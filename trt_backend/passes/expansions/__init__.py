"""How an op is said in other ops, by family; `EXPANSIONS` is the table that `legalize` reads."""

from __future__ import annotations

__all__ = ["EXPANSIONS"]

from trt_backend.ir.ops.base import Op
from trt_backend.passes.expansions import contraction, elementwise, layout, reduction
from trt_backend.passes.expansions.base import Expansion

EXPANSIONS: dict[type[Op], Expansion] = {
    **elementwise.EXPANSIONS,
    **contraction.EXPANSIONS,
    **reduction.EXPANSIONS,
    **layout.EXPANSIONS,
}
