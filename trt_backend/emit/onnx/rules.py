"""The table of the ONNX rules, and the sets of element types that they declare.

Declared is what ONNX Runtime 1.23 has a kernel for, the oldest that we run on (and the last for Python 3.10), or what
it computes in float32 between casts of its own where the type is float16. Later versions know a few more.
"""

from __future__ import annotations

__all__ = ["ALL", "FLOATS", "INTEGERS", "RULES", "SINGLE", "WIDE_INTEGERS"]

from collections.abc import Callable
from typing import Any

from trt_backend.emit.rules import RuleTable
from trt_backend.ir.types import DType

RULES: RuleTable[Callable[..., Any]] = RuleTable("ONNX Runtime on CPU")
"""A rule takes the model's writer, the op and its operands (`Tensor`), and returns the name of each result."""

ALL = frozenset(DType)
SINGLE = frozenset({DType.FLOAT32, DType.FLOAT16})
FLOATS = SINGLE | {DType.FLOAT64}
WIDE_INTEGERS = frozenset({DType.INT32, DType.INT64})
INTEGERS = WIDE_INTEGERS | {DType.INT8, DType.UINT8}
