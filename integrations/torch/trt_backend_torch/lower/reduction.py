"""Aten ops that look along axes: reductions, softmax, normalizations, pooling."""

from __future__ import annotations

__all__ = ["RULES"]

from trt_backend_torch.lower.rules import RuleTable

RULES = RuleTable()
