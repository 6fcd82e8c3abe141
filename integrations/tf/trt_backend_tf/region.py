"""A segment as it runs: lowered from its function, called with TensorFlow's tensors by address, native otherwise."""

from __future__ import annotations

__all__ = ["LoweredSegment", "SegmentCall", "Tensors", "lower_segment"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import tensorflow as tf

from trt_backend.engine.base import CallShapes, CpuHost, Engine, call_shapes
from trt_backend.errors import NotReadyError, UnsupportedError
from trt_backend.ir.dims import DimLike, evaluate, symbols_of
from trt_backend.ir.graph import Graph, Value
from trt_backend.ir.intervals import interval
from trt_backend.ir.ops.contraction import MatrixMultiply
from trt_backend.ir.ops.elementwise import Elementwise, Select
from trt_backend.ir.symbols import SymbolSource, shape_sources
from trt_backend.ir.types import DType
from trt_backend.runtime.answers import Difference
from trt_backend.runtime.executable import Executable
from trt_backend_tf.host_graph import ordered
from trt_backend_tf.lower.context import Lowering, Operand
from trt_backend_tf.lowering import lower_constant, lower_op
from trt_backend_tf.segment import InputSpec

Sizes = tuple[int, ...]
_SIGNATURES_KEPT = 1024


@dataclass(frozen=True)
class LoweredSegment:
    """A segment's graph, and what its call needs to know.

    Attributes:
        graph: its inputs are those of the segment that it reads, its outputs those of the segment.
        inputs: the position in the call of each input of the graph.
        specs: what each argument of the call is promised to be.
        symbols: where the value of each symbol is found.
        equal: pairs of sizes that were taken to agree where operands broadcast; the first may be 1 as well.
        limits: numbers that must not be negative in a call: see `Lowering.limits`; sizes less 1 are among them.
    """

    graph: Graph
    inputs: tuple[int, ...]
    specs: tuple[InputSpec, ...]
    symbols: Mapping[str, SymbolSource]
    equal: tuple[tuple[DimLike, DimLike], ...]
    limits: tuple[DimLike, ...]


class Tensors(Protocol):
    """The tensors of one call of a kernel."""

    shapes: tuple[Sizes, ...]
    """Of the inputs."""

    def address(self, position: int) -> int:
        """Return where an input's elements are."""
        ...

    def allocate(self, position: int, sizes: Sizes, dtype: DType) -> int:
        """Allocate an output, and return where its elements are to be."""
        ...


def lower_segment(
    function: tf.Graph,
    places: Sequence[tf.Tensor],
    returned: Sequence[tf.Tensor],
    specs: Sequence[InputSpec],
    name: str,
    border: Callable[[DType], DType],
) -> LoweredSegment:
    """Lower the body of a segment's function.

    Args:
        function: the body.
        places: its arguments.
        returned: its results.
        specs: what each argument is.
        name: the graph's name.
        border: the element types that stand for others in an engine's inputs and outputs.

    Raises:
        UnsupportedError: the provider has no such tensors, or a symbol is no input's.
    """
    b = Lowering(name)
    env: dict[str, Operand] = {}
    used = {tensor.name for op in function.get_operations() for tensor in op.inputs}
    used |= {tensor.name for tensor in returned}
    positions: list[int] = []
    for position, (place, spec) in enumerate(zip(places, specs, strict=True)):
        if border(spec.type.dtype) is not spec.type.dtype:
            raise UnsupportedError(f"no engine input of {spec.type.dtype.value}")
        if spec.known is not None:
            env[place.name] = spec.known
        elif place.name in used:
            env[place.name] = b.input(f"input_{position}", spec.type, weight=spec.weight)
            positions.append(position)
    for op in ordered(function):
        if op.type == "Const":
            env[op.outputs[0].name] = lower_constant(b, op)
        elif op.type != "Placeholder":
            results = lower_op(b, op, [env[tensor.name] for tensor in op.inputs])
            b.limits += [size - 1 for result in results if isinstance(result, Value) for size in result.shape]
            env.update({tensor.name: result for tensor, result in zip(op.outputs, results, strict=True)})
    outputs = [b.value(env[tensor.name]) for tensor in returned]
    graph = b.build(outputs)
    symbols = shape_sources(spec.type.shape for spec in specs)
    limits = tuple(dict.fromkeys(limit for limit in b.limits if interval(limit)[0] < 0))
    needed = (*graph.symbols, *symbols_of(limits))
    missing = [symbol.name for symbol in needed if symbol.name not in symbols]
    if missing:
        raise UnsupportedError(f"no input of the segment has the size {', '.join(missing)}")
    return LoweredSegment(graph, tuple(positions), tuple(specs), symbols, _assumed_equal(graph), limits)


_HOST = CpuHost(lambda: "as converted")
"""The host of segments: their weights are the converted model's own, to which nothing writes."""


class SegmentCall:
    """Calls a segment's engine, or its native function.

    Args:
        segment: the lowered segment.
        executable: its engine.
        native: runs the function on a call's tensors and returns True.
        differences: compares the outputs of a call with native's.
        moves: compares native's with its own, for inputs that are shaken by so much of their largest element.
    """

    def __init__(
        self,
        segment: LoweredSegment,
        executable: Executable,
        native: Callable[[Any], bool],
        differences: Callable[[Any], Sequence[Difference]],
        moves: Callable[[Any, float], Sequence[Difference]],
    ) -> None:
        self._segment = segment
        self._executable = executable
        self._native = native
        self._answers = executable.answers
        self._differences = differences
        self._moves = moves
        self._signatures: dict[tuple[Sizes, ...], CallShapes] = {}
        self._dtypes = [value.dtype for value in segment.graph.outputs]

    def call(self, tensors: Tensors) -> None:
        """Compute the outputs of a call."""
        if any(0 in sizes for sizes in tensors.shapes):
            self._executable.call_natively(self._native, (tensors,))
        else:
            self._executable.call(self._run, self._native, (tensors,))

    def _run(self, engine: Engine, arguments: Sequence[Any]) -> bool:
        (tensors,) = arguments
        shapes = self._signatures.get(tensors.shapes) or self._signature(tensors.shapes)
        inputs = [tensors.address(position) for position in self._segment.inputs]
        outputs = [
            tensors.allocate(i, sizes, dtype)
            for i, (sizes, dtype) in enumerate(zip(shapes.outputs, self._dtypes, strict=True))
        ]
        engine.run(shapes, inputs, outputs, _HOST)
        if self._answers.due:
            self._answers.check(lambda: self._differences(tensors), lambda noise: self._moves(tensors, noise))
        return True

    def _signature(self, shapes: tuple[Sizes, ...]) -> CallShapes:
        """Return the shapes of a call (NotReadyError where they are none that the segment was lowered for)."""
        symbols = {
            name: source.symbol(shapes[source.position][source.axis or 0])
            for name, source in self._segment.symbols.items()
        }
        for spec, sizes in zip(self._segment.specs, shapes, strict=True):
            if sizes != tuple(evaluate(dim, symbols) for dim in spec.type.shape):
                raise NotReadyError(f"an input of the sizes {list(sizes)} is none of {spec.type}")
        for one, other in self._segment.equal:
            size = evaluate(one, symbols)
            if size not in (1, evaluate(other, symbols)):
                raise NotReadyError(f"{one} is {size}, and does not broadcast to {other}")
        if any(evaluate(limit, symbols) < 0 for limit in self._segment.limits):
            raise NotReadyError("a tensor has no elements, or TensorFlow refuses the sizes")
        made = call_shapes(self._segment.graph, symbols)
        if len(self._signatures) >= _SIGNATURES_KEPT:
            self._signatures.clear()
        return self._signatures.setdefault(shapes, made)


def _assumed_equal(graph: Graph) -> tuple[tuple[DimLike, DimLike], ...]:
    """Return the sizes of operands that a broadcast took for the result's, though only a call can tell.

    TensorFlow broadcasts by the sizes of the call: `[a, 4] + [b, 4]` has b rows where a is 1.
    """
    pairs: dict[tuple[DimLike, DimLike], None] = {}
    for node in graph.nodes:
        if not isinstance(node.op, (Elementwise, MatrixMultiply, Select)):
            continue
        result = node.outputs[0].shape
        batch = len(result) - 2 if isinstance(node.op, MatrixMultiply) else len(result)
        for operand in node.inputs:
            pairs.update(dict.fromkeys(_differing(operand, result, batch)))
    return tuple(pairs)


def _differing(operand: Value, result: Sequence[DimLike], count: int) -> list[tuple[DimLike, DimLike]]:
    dims = zip(operand.shape[:count], result[:count], strict=True)
    return [(dim, other) for dim, other in dims if dim not in (1, other)]
