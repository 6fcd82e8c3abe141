"""Values, nodes, constants and the immutable graph."""

from __future__ import annotations

__all__ = ["Constant", "Graph", "Node", "Value"]

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import xxhash

from trt_backend.ir.dims import DimLike, Symbol, symbols_of
from trt_backend.ir.ops.base import Op
from trt_backend.ir.types import DType, TensorType, volume

Array = npt.NDArray[Any]

_SHOWN_ELEMENTS = 8


@dataclass(frozen=True)
class Value:
    """One tensor of a graph: a name, unique in the graph, and a type."""

    name: str
    type: TensorType

    @property
    def shape(self) -> tuple[DimLike, ...]:
        """The shape of the type."""
        return self.type.shape

    @property
    def dtype(self) -> DType:
        """The dtype of the type."""
        return self.type.dtype

    def __str__(self) -> str:
        return f"%{self.name}"


@dataclass(frozen=True)
class Node:
    """One op applied to values; `source` is the user's line, for messages only."""

    op: Op
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    source: str = field(default="", compare=False)

    def __str__(self) -> str:
        outputs = ", ".join(map(str, self.outputs))
        attributes = ", ".join(f"{k}={_attribute_text(v)}" for k, v in self.op.attributes().items())
        types = ", ".join(str(output.type) for output in self.outputs)
        braces = f" {{{attributes}}}" if attributes else ""
        return f"{outputs} = {type(self.op).__name__}({', '.join(map(str, self.inputs))}){braces} : {types}"


@dataclass(frozen=True, eq=False)
class Constant:
    """A value known before the call: its array is read, and hashed, only when somebody asks.

    `known_digest` spares the hashing where the digest is already known (from the text form, which elides the array).
    """

    value: Value
    read: Callable[[], Array]
    known_digest: str = ""

    @cached_property
    def array(self) -> Array:
        """The array, of the value's shape and dtype, C-contiguous."""
        shape, dtype = self.value.shape, self.value.dtype.numpy
        array = np.asarray(self.read())
        if array.shape != shape or array.dtype != dtype:
            raise ValueError(
                f"constant {self.value} is {self.value.type}, not {array.dtype}{list(array.shape)}"
            )
        return np.ascontiguousarray(array).reshape(array.shape)

    @cached_property
    def digest(self) -> str:
        """The XXH3-128 hash of the contents, in hex."""
        return self.known_digest or xxhash.xxh3_128_hexdigest(self.array.reshape(-1).view(np.uint8))

    def __str__(self) -> str:
        """Return the text form: small constants with their elements, others with their digest."""
        elements = volume(self.value.shape)
        small = isinstance(elements, int) and elements <= _SHOWN_ELEMENTS and not self.known_digest
        content = self.array.reshape(-1).tolist() if small else f"#{self.digest}"
        return f"{self.value} = constant {content} : {self.value.type}"


@dataclass(frozen=True, eq=False)
class Graph:
    """An immutable dataflow graph.

    Attributes:
        inputs: tensors that the caller gives, in the order of the call.
        weights: those of `inputs` that seldom change from call to call (parameters and buffers). An engine may read
            them at each call, or freeze them and watch for changes; it never treats them as constants unwatched.
        constants: values known when the graph was made.
        nodes: in an order in which every value is defined before its use.
        outputs: what a call returns; a value may stand here twice, and inputs and constants may stand here too.
    """

    name: str
    inputs: tuple[Value, ...]
    constants: tuple[Constant, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Value, ...]
    weights: frozenset[Value] = frozenset()

    def values(self) -> Iterator[Value]:
        """Yield every value once, in the order of definition."""
        yield from self.inputs
        for constant in self.constants:
            yield constant.value
        for node in self.nodes:
            yield from node.outputs

    @cached_property
    def symbols(self) -> tuple[Symbol, ...]:
        """Every symbol that a type or an attribute of the graph uses, sorted by name."""
        in_types = [dim for value in self.values() for dim in value.shape]
        in_attributes = [dim for node in self.nodes for dim in node.op.dims()]
        return symbols_of(in_types + in_attributes)

    def __str__(self) -> str:
        """Return the text form: stable, without weights, and readable by `ir.text.parse_graph`."""
        arguments = ", ".join(
            f"{'weight ' if value in self.weights else ''}{value}: {value.type}" for value in self.inputs
        )
        lines = [f"graph {self.name}({arguments}) {{"]
        lines += [
            f"  symbol {s.name} in [{s.min}, {'inf' if s.max is None else s.max}]" for s in self.symbols
        ]
        lines += [f"  {constant}" for constant in self.constants]
        lines += [f"  {node}" for node in self.nodes]
        lines += [f"  return {', '.join(map(str, self.outputs))}", "}"]
        return "\n".join(lines) + "\n"


def _attribute_text(value: object) -> str:
    if isinstance(value, tuple):
        items = cast("tuple[object, ...]", value)
        return f"[{', '.join(map(_attribute_text, items))}]"
    if isinstance(value, Enum):
        return value.value
    return repr(value) if isinstance(value, float) else str(value)
