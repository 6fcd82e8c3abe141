"""The protocols of engines and their providers, and the shapes that go with a call."""

from __future__ import annotations

__all__ = [
    "CPU_HOST",
    "Buffer",
    "CallShapes",
    "CpuHost",
    "Engine",
    "EngineProvider",
    "Host",
    "LazyEngine",
    "Memory",
    "call_shapes",
]

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from trt_backend.debug import Dump
from trt_backend.engine.profile import Profile
from trt_backend.errors import Reason
from trt_backend.ir.dims import evaluate
from trt_backend.ir.graph import Graph, Value
from trt_backend.ir.ops.base import Op
from trt_backend.ir.types import DType, TensorType
from trt_backend.options import CompileOptions

Sizes = tuple[int, ...]
Buffer = Any
"""Contiguous memory of the host: whatever `bytes()` and XXH3 take."""


@dataclass(frozen=True, eq=False)
class CallShapes:
    """The concrete shapes of one signature: the symbols' values by name, and every input's and output's shape.

    Compared by identity: who calls an engine keeps one object for a signature, so that an engine sees at a glance
    that nothing changed.
    """

    symbols: Mapping[str, int]
    inputs: tuple[Sizes, ...]
    outputs: tuple[Sizes, ...]
    _parts: dict[Sizes, CallShapes] = field(default_factory=dict[Sizes, "CallShapes"], init=False, repr=False)

    def part(self, inputs: tuple[int, ...]) -> CallShapes:
        """Return the shapes of the inputs at these positions, and of all outputs; one object each time."""
        found = self._parts.get(inputs)
        if found is None:
            shapes = CallShapes(self.symbols, tuple(self.inputs[i] for i in inputs), self.outputs)
            found = self._parts.setdefault(inputs, shapes)
        return found


def call_shapes(graph: Graph, symbols: Mapping[str, int]) -> CallShapes:
    """Return the shapes of a call where the graph's symbols have these values."""

    def sizes(values: tuple[Value, ...]) -> tuple[Sizes, ...]:
        return tuple(tuple(evaluate(dim, symbols) for dim in value.shape) for value in values)

    return CallShapes(symbols, sizes(graph.inputs), sizes(graph.outputs))


class Memory(Protocol):
    """Device memory for as long as somebody holds it."""

    @property
    def address(self) -> int:
        """The address of its first byte."""
        ...


class Host(Protocol):
    """What a framework lends an engine for one call.

    Attributes:
        stream: the handle of the caller's stream; 0 on the CPU.
    """

    stream: int

    @property
    def turn(self) -> AbstractContextManager[object]:
        """Held while a run is queued on the stream, so that threads that share it queue one run after the other.

        Runs whose kernels alternated would write to scratch memory that they share.
        """
        ...

    def scratch(self, byte_count: int) -> Memory:
        """Return memory that whatever is queued on this stream later may overwrite."""
        ...

    def allocate(self, byte_count: int) -> Memory:
        """Return memory of the framework's allocator."""
        ...

    def weights_version(self) -> object | None:
        """Return an object that is another one once a weight may have changed; None where nobody can tell."""
        ...


class CpuHost:
    """The host of engines on the CPU, which need nothing.

    Args:
        weights_version: see `Host`; by default contents are compared.
    """

    stream = 0
    turn = nullcontext()

    def __init__(self, weights_version: Callable[[], object | None] = lambda: None) -> None:
        self.weights_version = weights_version

    def scratch(self, byte_count: int) -> Memory:
        """Never called."""
        raise NotImplementedError

    def allocate(self, byte_count: int) -> Memory:
        """Never called."""
        raise NotImplementedError


CPU_HOST = CpuHost()


class Engine(Protocol):
    """A loaded engine; safe to call from several threads."""

    def run(self, shapes: CallShapes, inputs: Sequence[int], outputs: Sequence[int], host: Host) -> None:
        """Run once, or queue a run on the host's stream.

        Args:
            shapes: the shapes of this call.
            inputs: the address of each input's first element, row-major and dense, in the graph's order.
            outputs: likewise for the outputs; the memory is the caller's and is overwritten.
            host: the framework's stream and memory.

        Raises:
            RunError: the engine failed; the outputs' contents are undefined.
            NotReadyError: it is still being built; the call runs natively.
        """
        ...


class LazyEngine(Engine, Protocol):
    """An engine that is built when it is needed."""

    def prepare(self, shapes: CallShapes, inputs: Sequence[int], host: Host) -> None:
        """Build what `run` would build for these arguments, and wait for it.

        Of the inputs only the addresses of weights are asked for.

        Raises:
            BuildError: it cannot be built.
            NotReadyError: it would not be built yet.
        """
        ...


class EngineProvider(Protocol):
    """Builds and loads the engines of one stack.

    Attributes:
        name: as the option `provider` names it.
        device: the type of device whose memory engines read, "cpu" or "cuda".
        runs_on: the type of device that they compute on, likewise.
        cached: whether building takes so long that engines are kept on disk, and are built in a process of their own
            where calls run natively meanwhile; such a provider pickles.
    """

    name: str
    device: str
    runs_on: str
    cached: bool

    def support(self, op: Op, inputs: tuple[TensorType, ...]) -> Reason | None:
        """Return None where the stack takes the op on these inputs, else why it does not."""
        ...

    def border(self, dtype: DType) -> DType:
        """Return the element type that stands for `dtype` in inputs and outputs, where the stack has no such tensors.

        Outputs are only of types that `support` takes: int32 may stand for int64 there, but no float32 for float64.
        """
        ...

    def worth_freezing(self, graph: Graph) -> tuple[int, ...]:
        """Return the positions of the inputs, all weights of static shape, that an engine gains from as constants."""
        ...

    def read(self, address: int, byte_count: int) -> Buffer:
        """Return the contents of memory, after all that any stream was to write there."""
        ...

    def carry(self) -> Callable[[], None]:
        """Return what a thread or process that builds for the caller calls first, so that it works on the caller's device."""
        ...

    def profile(self, graph: Graph, shapes: CallShapes, wider_than: Profile | None) -> Profile:
        """Return the sizes that an engine is to serve, which are those of a call and of a former profile."""
        ...

    def identity(self, options: CompileOptions) -> str:
        """Return what an engine depends on beside its graph and profile: versions, the device, options."""
        ...

    def build(self, graph: Graph, profile: Profile, options: CompileOptions, dump: Dump) -> bytes:
        """Return a serialized engine for a legal graph (BuildError where the stack refuses it)."""
        ...

    def load(self, blob: bytes, graph: Graph, options: CompileOptions) -> Engine:
        """Return a runnable engine of what `build` returned for this graph (BuildError where it does not load)."""
        ...
