"""The lowering rules, in the families of the IR's ops; a large family has files of its own for parts of it."""

from __future__ import annotations

__all__ = ["RULES"]

from trt_backend_torch.lower import (
    activation,
    contraction,
    creation,
    elementwise,
    indexing,
    layout,
    normalization,
    pooling,
    reduction,
    resizing,
    transformer,
    unary,
)
from trt_backend_torch.lower.rules import RuleTable

_ELEMENTWISE = (elementwise, unary, activation)
_CONTRACTION = (contraction, transformer)
_REDUCTION = (reduction, normalization, pooling)
_LAYOUT = (layout, creation, indexing, resizing)

RULES = RuleTable([family.RULES for family in (*_ELEMENTWISE, *_CONTRACTION, *_REDUCTION, *_LAYOUT)])
