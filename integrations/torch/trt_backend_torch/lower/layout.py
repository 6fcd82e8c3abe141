"""Aten ops that move or make elements."""

from __future__ import annotations

__all__ = ["RULES"]

from trt_backend_torch.lower.rules import RuleTable

RULES = RuleTable()
