"""The lowering rules, in the families of the IR's ops."""

from __future__ import annotations

__all__ = ["RULES"]

from trt_backend_torch.lower import contraction, elementwise, layout, reduction
from trt_backend_torch.lower.rules import RuleTable

RULES = RuleTable([elementwise.RULES, contraction.RULES, reduction.RULES, layout.RULES])
