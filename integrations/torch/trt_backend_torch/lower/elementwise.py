"""Elementwise aten ops: arithmetic, comparisons, activations, casts."""

from __future__ import annotations

__all__ = ["RULES"]

from trt_backend_torch.lower.rules import RuleTable

RULES = RuleTable()
