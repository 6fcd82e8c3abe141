"""The protocols of engines and their providers, and the shapes that go with a call."""

from __future__ import annotations

__all__ = ["CallShapes", "Engine", "EngineProvider", "call_shapes"]

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from trt_backend.debug import Dump
from trt_backend.errors import Reason
from trt_backend.ir.dims import evaluate
from trt_backend.ir.graph import Graph, Value
from trt_backend.ir.ops.base import Op
from trt_backend.ir.types import TensorType
from trt_backend.options import CompileOptions

Sizes = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class CallShapes:
    """The concrete shapes of one signature: the symbols' values by name, and every input's and output's shape.

    Compared by identity: who calls an engine keeps one object for a signature, so that an engine sees at a glance
    that nothing changed.
    """

    symbols: Mapping[str, int]
    inputs: tuple[Sizes, ...]
    outputs: tuple[Sizes, ...]


def call_shapes(graph: Graph, symbols: Mapping[str, int]) -> CallShapes:
    """Return the shapes of a call where the graph's symbols have these values."""

    def sizes(values: tuple[Value, ...]) -> tuple[Sizes, ...]:
        return tuple(tuple(evaluate(dim, symbols) for dim in value.shape) for value in values)

    return CallShapes(symbols, sizes(graph.inputs), sizes(graph.outputs))


class Engine(Protocol):
    """A loaded engine; safe to call from several threads."""

    def run(self, shapes: CallShapes, inputs: Sequence[int], outputs: Sequence[int]) -> None:
        """Run once.

        Args:
            shapes: the shapes of this call.
            inputs: the address of each input's first element, row-major and dense, in the graph's order.
            outputs: likewise for the outputs; the memory is the caller's and is overwritten.

        Raises:
            RunError: the engine failed; the outputs' contents are undefined.
        """
        ...


class EngineProvider(Protocol):
    """Builds and loads the engines of one stack.

    Attributes:
        name: as the option `provider` names it.
        device: the type of device whose memory engines read, "cpu" or "cuda".
    """

    name: str
    device: str

    def support(self, op: Op, inputs: tuple[TensorType, ...]) -> Reason | None:
        """Return None where the stack takes the op on these inputs, else why it does not."""
        ...

    def worth_freezing(self, graph: Graph) -> tuple[int, ...]:
        """Return the positions of the inputs, all weights of static shape, that an engine gains from as constants."""
        ...

    def build(self, graph: Graph, options: CompileOptions, dump: Dump) -> bytes:
        """Return a serialized engine for a legal graph (BuildError where the stack refuses it)."""
        ...

    def load(self, blob: bytes, graph: Graph, options: CompileOptions) -> Engine:
        """Return a runnable engine of what `build` returned for this graph (BuildError where it does not load)."""
        ...
