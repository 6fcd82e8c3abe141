"""The ops, in families; `OPS` is every op by the name that the text form uses."""

from __future__ import annotations

__all__ = ["OPS"]

from trt_backend.ir.ops import contraction, elementwise, layout, reduction
from trt_backend.ir.ops.base import Op

_FAMILIES = (elementwise, contraction, reduction, layout)
_PUBLIC = [getattr(family, name) for family in _FAMILIES for name in family.__all__]

OPS: dict[str, type[Op]] = {item.__name__: item for item in _PUBLIC if issubclass(item, Op)}
