"""Aten ops that contract: matrix products, convolutions, attention."""

from __future__ import annotations

__all__ = ["RULES"]

from trt_backend_torch.lower.rules import RuleTable

RULES = RuleTable()
