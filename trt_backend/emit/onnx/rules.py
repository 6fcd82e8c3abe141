"""The table of the ONNX rules, and the sets of element types that they declare."""

from __future__ import annotations

__all__ = ["ALL", "FLOATS", "INTEGERS", "RULES", "SINGLE"]

from collections.abc import Callable
from typing import Any

from trt_backend.emit.rules import RuleTable
from trt_backend.ir.types import DType

RULES: RuleTable[Callable[..., Any]] = RuleTable("ONNX Runtime on CPU")
"""A rule takes the model's writer, the op and its operands (`Tensor`), and returns the name of each result."""

ALL = frozenset(DType)
SINGLE = frozenset({DType.FLOAT32, DType.FLOAT16})
FLOATS = SINGLE | {DType.FLOAT64}
INTEGERS = frozenset({DType.INT8, DType.UINT8, DType.INT32, DType.INT64})
