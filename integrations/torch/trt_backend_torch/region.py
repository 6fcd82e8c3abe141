"""A region of an inference graph: lowered, and called with torch tensors."""

from __future__ import annotations

__all__ = ["LoweredRegion", "RegionCall", "lower_region"]

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import compress
from operator import itemgetter
from typing import Any

import torch
from torch import fx
from torch.autograd import forward_ad

from trt_backend.engine.base import CPU_HOST, CallShapes, CpuHost, Engine, Host, call_shapes
from trt_backend.errors import OutOfMemoryError, ReasonKind, UnsupportedError
from trt_backend.ir.dims import DimLike, evaluate, symbols_of
from trt_backend.ir.graph import Graph, Value
from trt_backend.ir.symbols import SymbolSource
from trt_backend.ir.types import DType, TensorType, is_static
from trt_backend.runtime.answers import Difference
from trt_backend.runtime.choice import Choice
from trt_backend.runtime.executable import Executable
from trt_backend_torch.answers import differences, shaken
from trt_backend_torch.cuda_host import CudaHost, scratch_pool
from trt_backend_torch.fx import is_size
from trt_backend_torch.host_graph import Cut
from trt_backend_torch.lower.context import Lowering
from trt_backend_torch.lower.creation import UNINITIALIZED
from trt_backend_torch.lowering import Environment, lower_nodes
from trt_backend_torch.memory import (
    Addresses,
    Binding,
    Input,
    Layout,
    Sizes,
    address_of,
    allocating,
    row_major,
    with_strides,
)
from trt_backend_torch.native_graphs import NativeGraphs
from trt_backend_torch.symbols import hinted, sources_of, value_of
from trt_backend_torch.types import TORCH_DTYPES, dim_of, physical_order, tensor_type
from trt_backend_torch.weights import WeightWatch

_SIGNATURES_KEPT = 1024


@dataclass(frozen=True)
class LoweredRegion:
    """A region's graph, and what its call needs to know.

    Attributes:
        graph: its inputs and outputs are dense and row-major: dimensions in the order in which they lie in memory.
        inputs: the tensor arguments, in the order of the graph's inputs.
        outputs: the region's results: the layout of the next output of the graph, or a size that the host computes.
        symbols: where the value of each symbol is found.
        comparable: which results native gives each time: not what comes of `torch.empty`.
    """

    graph: Graph
    inputs: tuple[Input, ...]
    outputs: tuple[Layout | DimLike, ...]
    symbols: Mapping[str, SymbolSource]
    comparable: tuple[bool, ...]


def lower_region(
    cut: Cut,
    name: str,
    weights: frozenset[str],
    frozen: frozenset[str],
    border: Callable[[DType], DType],
) -> LoweredRegion:
    """Lower a region.

    Args:
        cut: the region.
        name: the graph's name.
        weights: the names of the inputs that are parameters or buffers.
        frozen: the names of those that engines may build in.
        border: the element types that stand for others in the engine's inputs and outputs.

    Raises:
        UnsupportedError: a symbolic size of the region is none of its inputs', or it has tensors on several GPUs.
    """
    b = Lowering(name)
    env: Environment = {}
    inputs: list[Input] = []
    for position, place in enumerate(cut.inputs):
        value = place.meta["val"]
        if is_size(place):
            env[place] = dim_of(value) if isinstance(value, torch.SymInt) else value
            continue
        is_weight = place.name in weights
        is_frozen = place.name in frozen and is_static(tensor_type(value).shape)
        dense, memory = _dense_input(b, place.name, value, is_weight, _itself if is_frozen else border)
        env[place] = b.widened(dense, tensor_type(value).dtype)
        inputs.append(Input(position, Layout.of(value), is_weight, TORCH_DTYPES[memory], value.is_neg()))
    lower_nodes(b, cut.nodes, env)
    outputs = tuple(env[node] if is_size(node) else Layout.of(node.meta["val"]) for node in cut.outputs)
    layouts = [place.layout for place in inputs] + [
        layout for layout in outputs if isinstance(layout, Layout)
    ]
    if len({layout.device for layout in layouts if layout.device.type == "cuda"}) > 1:
        raise UnsupportedError("its tensors are on several GPUs", ReasonKind.DEVICE)
    tensors = [node for node in cut.outputs if not is_size(node)]
    dense = [_dense_output(b, env[node], node.meta["val"]) for node in tensors]
    graph = b.build([b.cast(value, border(value.dtype)) for value in dense])
    comparable = _comparable(cut)
    sources = _needed_sources(graph, outputs, cut.inputs)
    return LoweredRegion(graph, tuple(inputs), outputs, sources, comparable)


class RegionCall:
    """Calls a region's engine on torch tensors, or the region's own FX graph.

    Under forward-mode differentiation a call is native: engines know nothing of tangents.
    What goes into the caller's own CUDA graph is native: that graph outlives engines, and reads the weights as they are
    when it is replayed.

    Args:
        region: the lowered region.
        executable: its engine.
        native: computes the region with torch.
        eager: likewise, for one call: nothing is compiled for it.
        watch: what tells whether weights may have changed; None where their contents are compared at each call.
        choice: what decides between engine and native; None where the engine always runs.
        cuda_graphs: whether native is launched as a CUDA graph where it is chosen.
    """

    def __init__(
        self,
        region: LoweredRegion,
        executable: Executable,
        native: Callable[..., Any],
        eager: Callable[..., Any],
        watch: WeightWatch | None,
        choice: Choice | None = None,
        *,
        cuda_graphs: bool = False,
    ) -> None:
        self._region = region
        self._executable = executable
        self._native = native
        self._eager = eager
        self._watch = watch
        self._answers = executable.answers
        self._choice = choice
        self._weights = _picker([place.position for place in region.inputs if place.weight])
        self._inputs = _picker([place.position for place in region.inputs])
        self._sources = list(region.symbols.items())
        self._signatures: dict[Sizes, _Signature] = {}
        devices = {place.layout.device for place in region.inputs} | {
            layout.device for layout in region.outputs if isinstance(layout, Layout)
        }
        self._device = next((device for device in devices if device.type == "cuda"), None)
        self._pool = scratch_pool(self._device) if self._device else None
        on_device = all(place.layout.device == self._device and place.layout.dense for place in region.inputs)
        self._graphs = (
            NativeGraphs(native, region.inputs, self._pool)
            if cuda_graphs and self._pool and on_device
            else None
        )
        self._plain = self._device is None and all(place.as_it_is for place in region.inputs)

    def call(self, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """Return what the region returns for its arguments, in memory that nobody else has."""
        if self._device is None or self._device.index == torch.cuda.current_device():
            return self._call(arguments)
        with torch.cuda.device(self._device):
            return self._call(arguments)

    def _call(self, arguments: Sequence[Any]) -> tuple[Any, ...]:
        if forward_ad._current_level >= 0:  # tensors may have tangents
            return self._executable.call_natively(self._native, arguments)
        if self._pool is not None and torch.cuda.is_current_stream_capturing():
            with self._pool.relaxed_capture():
                return self._executable.call_natively(self._native, arguments)
        if self._choice is None:
            return self._executable.call(self._run_checked, self._native, arguments)
        sizes = self._sizes(arguments)
        if self._choice.native_is_faster(sizes):
            return self._executable.call_natively(lambda *_: self._run_natively(sizes, arguments), arguments)
        result = self._executable.call(self._run_checked, self._native, arguments)
        self._choose(self._choice, sizes, arguments)
        return result

    def _run_natively(self, sizes: Sizes, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """Return native's answer, of which there may be many more."""
        return self._graphs.run(sizes, arguments) if self._graphs else self._native(*arguments)

    def _choose(self, choice: Choice, sizes: Sizes, arguments: Sequence[Any]) -> None:
        """Time engine and native where that is still to be done."""
        engine = self._executable.ready
        if engine is None or choice.native_is_faster(sizes) is not None:
            return
        choice.measure(
            sizes, lambda: self._run(engine, arguments), lambda: self._run_natively(sizes, arguments)
        )
        if self._graphs and not choice.native_is_faster(sizes):
            self._graphs.forget(sizes)

    def prepare(self, places: Sequence[fx.Node], weights: Mapping[str, Any]) -> None:
        """Build the engine for the sizes that dynamo saw; where not all weights are known, the first call does it.

        Args:
            places: the region's inputs.
            weights: real tensors by the names of placeholders.
        """
        if not all(places[place.position].name in weights for place in self._region.inputs if place.weight):
            return
        arguments = [weights.get(place.name, hinted(place.meta["val"])) for place in places]
        with torch.cuda.device(self._device) if self._device else nullcontext():
            signature = self._signature(arguments)
            inputs = Addresses(arguments, signature.binding)
            self._executable.prepare(signature.shapes, inputs, self._host(arguments))

    def _host(self, arguments: Sequence[Any]) -> Host:
        if self._pool is not None:
            return CudaHost(self._pool, lambda: self._weights_version(arguments))
        return CPU_HOST if self._watch is None else CpuHost(lambda: self._weights_version(arguments))

    def _run_checked(self, engine: Engine, arguments: Sequence[Any]) -> tuple[Any, ...]:
        result = self._run_in_room(engine, arguments)
        if self._answers.due:
            self._answers.check(
                lambda: self._differences(result, arguments),
                lambda noise: self._differences(self._eager(*shaken(arguments, noise)), arguments),
            )
        return result

    def _differences(self, results: Sequence[Any], arguments: Sequence[Any]) -> list[Difference]:
        """Return how far results are off eager's."""
        pairs = zip(results, self._eager(*arguments), strict=True)
        return differences(compress(pairs, self._region.comparable))

    def _run_in_room(self, engine: Engine, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """Run; where the GPU's memory is used up, once more without what torch keeps of it for later."""
        try:
            return self._run(engine, arguments)
        except OutOfMemoryError:
            if self._device is None:
                raise
        torch.cuda.empty_cache()
        return self._run(engine, arguments)

    def _run(self, engine: Engine, arguments: Sequence[Any]) -> tuple[Any, ...]:
        signature = self._signature(arguments)
        inputs = self._addresses(arguments, signature)
        memory = signature.allocate()
        outputs = list(map(address_of, memory))
        engine.run(signature.shapes, inputs, outputs, self._host(arguments))
        return tuple(memory) if signature.results is None else signature.results(memory)

    def _addresses(self, arguments: Sequence[Any], signature: _Signature) -> Sequence[int]:
        """Return the inputs' addresses: all at once on the CPU, where a call asks for all and copies none as a rule."""
        if self._plain:
            tensors = self._inputs(arguments)
            if list(map(torch.Tensor.stride, tensors)) == signature.input_strides:
                addresses = list(map(torch.Tensor.data_ptr, tensors))
                if all(addresses):
                    return addresses
        return Addresses(arguments, signature.binding)

    def _weights_version(self, arguments: Sequence[Any]) -> object | None:
        return self._watch.version(self._weights(arguments)) if self._watch else None

    def _sizes(self, arguments: Sequence[Any]) -> Sizes:
        """Return the values of the symbols, by which signatures are told apart."""
        return tuple([value_of(source, arguments) for _, source in self._sources])

    def _signature(self, arguments: Sequence[Any]) -> _Signature:
        key = self._sizes(arguments)
        signature = self._signatures.get(key)
        if signature is None:
            if len(self._signatures) >= _SIGNATURES_KEPT:
                self._signatures.clear()
            symbols = {name: size for (name, _), size in zip(self._sources, key, strict=True)}
            signature = self._signatures[key] = _Signature(self._region, symbols, self._device)
        return signature


class _Signature:
    """Everything about a call that follows from the sizes of its arguments."""

    def __init__(
        self, region: LoweredRegion, symbols: Mapping[str, int], device: torch.device | None
    ) -> None:
        def concrete(dims: Sequence[DimLike]) -> Sizes:
            return tuple(evaluate(dim, symbols) for dim in dims)

        self.shapes: CallShapes = call_shapes(region.graph, symbols)

        def dense(layout: Layout) -> Sizes:
            """Return the strides in which an engine reads or writes."""
            return concrete(layout.strides) if layout.dense else row_major(concrete(layout.sizes))

        self.input_strides = [dense(place.layout) for place in region.inputs]
        self.binding = Binding(region.inputs, self.input_strides, device)
        layouts = [output for output in region.outputs if isinstance(output, Layout)]
        self._memory: list[tuple[Sizes, Sizes, torch.dtype, torch.device]] = []
        plain = len(layouts) == len(region.outputs)
        for layout, value in zip(layouts, region.graph.outputs, strict=True):
            dtype = TORCH_DTYPES[value.dtype]
            self._memory.append((concrete(layout.sizes), dense(layout), dtype, layout.device))
            plain = plain and layout.dense and dtype is layout.dtype
        self.results = None if plain else self._rearrange
        self._outputs = [
            (concrete(output.strides), output.dtype)
            if isinstance(output, Layout)
            else evaluate(output, symbols)
            for output in region.outputs
        ]

    @allocating
    def allocate(self) -> list[torch.Tensor]:
        """Return memory for the engine's outputs (OutOfMemoryError where the device has none left)."""
        return [
            torch.empty_strided(sizes, strides, dtype=dtype, device=device)
            for sizes, strides, dtype, device in self._memory
        ]

    @allocating
    def _rearrange(self, memory: Sequence[torch.Tensor]) -> tuple[Any, ...]:
        """Return the results where some are sizes, of other types, or have gaps or overlaps that no engine writes."""
        tensors = iter(memory)
        return tuple(
            output if isinstance(output, int) else with_strides(next(tensors).to(output[1]), output[0])
            for output in self._outputs
        )


def _dense_input(
    b: Lowering, name: str, tensor: torch.Tensor, is_weight: bool, border: Callable[[DType], DType]
) -> tuple[Value, DType]:
    """Add an input in its memory's order, and return it in its logical order, and the element type of that memory.

    Where int32 stands for int64 the memory stays the caller's: the engine itself reads it as words of 32 bits.
    """
    logical = tensor_type(tensor)
    order = physical_order(tensor.shape, tensor.stride()) or tuple(range(logical.rank))
    shape = tuple(logical.shape[i] for i in order)
    if (logical.dtype, border(logical.dtype)) == (DType.INT64, DType.INT32):
        words = b.input(name, TensorType(DType.INT32, (*shape, 2)), weight=is_weight)
        stored, memory = b.from_words(words), DType.INT64
    else:
        memory = border(logical.dtype)
        stored = b.input(name, TensorType(memory, shape), weight=is_weight)
    return b.transpose(stored, [order.index(i) for i in range(logical.rank)]), memory


def _itself(dtype: DType) -> DType:
    return dtype


def _dense_output(b: Lowering, value: Value, tensor: torch.Tensor) -> Value:
    """Return a result in the order in which its memory is promised to lie."""
    return b.transpose(value, physical_order(tensor.shape, tensor.stride()) or range(value.type.rank))


def _needed_sources(
    graph: Graph, outputs: Sequence[Layout | DimLike], places: Sequence[fx.Node]
) -> dict[str, SymbolSource]:
    """Find an argument, or a dimension of one, for each symbol of the region."""
    needed = {symbol.name for symbol in graph.symbols}
    for output in outputs:
        dims = (*output.sizes, *output.strides) if isinstance(output, Layout) else (output,)
        needed |= {symbol.name for symbol in symbols_of(dims)}
    found = sources_of(places)
    missing = needed - set(found)
    if missing:
        raise UnsupportedError(f"no input of the region has the size {', '.join(sorted(missing))}")
    return {name: found[name] for name in sorted(needed)}


def _comparable(cut: Cut) -> tuple[bool, ...]:
    unknown: set[fx.Node] = set()
    for node in cut.nodes:
        if node.target in UNINITIALIZED or not unknown.isdisjoint(node.all_input_nodes):
            unknown.add(node)
    return tuple(node not in unknown for node in cut.outputs)


def _picker(positions: Sequence[int]) -> Callable[[Sequence[Any]], list[Any]]:
    """Return what picks the items at these positions: hundreds of weights at each call."""
    if len(positions) < 2:
        return lambda items: [items[i] for i in positions]
    pick = itemgetter(*positions)
    return lambda items: list(pick(items))
