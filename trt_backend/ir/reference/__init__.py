"""The meaning of every op, in NumPy: the oracle for the emitters, and the constant folder.

Rules:
  WIDE   float16 and bfloat16 operands are computed in float32, and the results cast back.
  BOUND  symbolic attributes are replaced by their integers first, so a family's functions see none.
  QUIET  divisions by zero, overflows and invalid operations give what IEEE 754 says, without a warning.
"""

from __future__ import annotations

__all__ = ["REFERENCE", "evaluate", "evaluate_op"]

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from trt_backend.ir.dims import Dim
from trt_backend.ir.dims import evaluate as evaluate_dim
from trt_backend.ir.graph import Graph, Value
from trt_backend.ir.ops.base import Op
from trt_backend.ir.reference import contraction, elementwise, layout, reduction
from trt_backend.ir.types import DType, TensorType

Array = npt.NDArray[Any]

REFERENCE: dict[type[Op], Callable[..., Array | tuple[Array, ...]]] = {
    **elementwise.REFERENCE,
    **contraction.REFERENCE,
    **reduction.REFERENCE,
    **layout.REFERENCE,
}
"""For each op a function of the op and its operands that returns an array, or a tuple of them."""

_NARROW = frozenset({DType.FLOAT16.numpy, DType.BFLOAT16.numpy})
_NO_SYMBOLS: Mapping[str, int] = MappingProxyType({})


def evaluate(graph: Graph, inputs: Sequence[Array], symbols: Mapping[str, int] = _NO_SYMBOLS) -> list[Array]:
    """Return the graph's outputs for the given inputs and values of the symbols (by name)."""
    known: dict[Value, Array] = dict(zip(graph.inputs, inputs, strict=True))
    known.update((constant.value, constant.array) for constant in graph.constants)
    for node in graph.nodes:
        results = evaluate_op(node.op, [known[value] for value in node.inputs], symbols)
        known.update(zip(node.outputs, results, strict=True))
    return [known[value] for value in graph.outputs]


def evaluate_op(
    op: Op, inputs: Sequence[Array], symbols: Mapping[str, int] = _NO_SYMBOLS
) -> tuple[Array, ...]:
    """Return the outputs of one op, with the dtypes and shapes that it infers for these inputs."""
    bound = _bind(op, symbols)
    types = bound.infer(*(TensorType(DType.from_numpy(array.dtype), array.shape) for array in inputs))
    with np.errstate(all="ignore"):
        results = REFERENCE[type(op)](bound, *map(_widen, inputs))
        outputs: tuple[Array, ...] = results if isinstance(results, tuple) else (results,)
        return tuple(_as(array, type) for array, type in zip(outputs, types, strict=True))


def _bind(op: Op, symbols: Mapping[str, int]) -> Op:
    """Return the op with the integers that its symbolic attributes stand for (rule BOUND)."""

    def bind(attribute: Any) -> Any:
        if isinstance(attribute, tuple):
            return tuple(map(bind, attribute))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        return evaluate_dim(attribute, symbols) if isinstance(attribute, Dim) else attribute

    if not any(True for _ in op.dims()):
        return op
    bound: Any = op
    return dataclasses.replace(
        bound, **{name: bind(attribute) for name, attribute in op.attributes().items()}
    )


def _widen(array: Array) -> Array:
    return array.astype(np.float32) if array.dtype in _NARROW else array


def _as(array: Array, type: TensorType) -> Array:
    result = np.asarray(array, dtype=type.dtype.numpy)
    assert result.shape == type.shape, f"the reference made {result.shape} where {type} is inferred"
    return result
