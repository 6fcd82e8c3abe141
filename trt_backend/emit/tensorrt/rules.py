"""The table of the TensorRT rules, and the sets of element types that they declare.

Declared is what the newest TensorRT takes; `support` takes away what an older one lacks.
"""

from __future__ import annotations

__all__ = ["ALL", "FLOATS", "INTEGERS", "NUMBERS", "RULES", "axes_mask"]

from collections.abc import Callable, Iterable
from typing import Any

from trt_backend.emit.rules import RuleTable
from trt_backend.ir.types import DType

RULES: RuleTable[Callable[..., Any]] = RuleTable("TensorRT")
"""A rule takes the network's writer, the op and its operands (`Tensor`), and returns the handle of each result."""

FLOATS = frozenset({DType.FLOAT16, DType.BFLOAT16, DType.FLOAT32})
INTEGERS = frozenset({DType.INT32, DType.INT64})
NUMBERS = FLOATS | INTEGERS
ALL = NUMBERS | {DType.BOOL}


def axes_mask(axes: Iterable[int]) -> int:
    """Return axes as the set of bits that TensorRT takes."""
    return sum(1 << axis for axis in axes)
