"""Freezing: weights that were inputs become constants."""

from __future__ import annotations

__all__ = ["freeze"]

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy.typing as npt

from trt_backend.ir.graph import Constant, Graph, Value


def freeze(graph: Graph, arrays: Mapping[Value, npt.NDArray[Any]]) -> Graph:
    """Return the graph with the inputs in `arrays` as constants of these contents; the other inputs keep their order."""
    constants = tuple(_constant(value, array) for value, array in arrays.items())
    inputs = tuple(value for value in graph.inputs if value not in arrays)
    weights = graph.weights - set(arrays)
    return replace(graph, inputs=inputs, weights=weights, constants=graph.constants + constants)


def _constant(value: Value, array: npt.NDArray[Any]) -> Constant:
    return Constant(value, lambda: array)
