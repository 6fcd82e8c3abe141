"""Collecting an `INetworkDefinition`: layers, constants, and the arithmetic of symbolic dimensions."""

from __future__ import annotations

__all__ = ["NetworkWriter", "Tensor", "dim_input", "needs_dim_input"]

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from trt_backend.emit.tensorrt.stacks import Stack
from trt_backend.errors import BuildError, ReasonKind, UnsupportedError
from trt_backend.ir.dims import Atom, Dim, DimLike, Monomial, Symbol
from trt_backend.ir.graph import Graph, Value
from trt_backend.ir.symbols import SymbolSource, shape_sources
from trt_backend.ir.types import DType, Shape, TensorType

Array = npt.NDArray[Any]
Handle = Any
"""An `ITensor`; the bindings have no types."""

_NAMES = {
    DType.BOOL: "BOOL",
    DType.INT32: "INT32",
    DType.INT64: "INT64",
    DType.FLOAT16: "HALF",
    DType.BFLOAT16: "BF16",
    DType.FLOAT32: "FLOAT",
}
_INT32 = np.iinfo(np.int32)
_CALLS = {"//": "FLOOR_DIV", "max": "MAX", "min": "MIN"}


@dataclass(frozen=True)
class Tensor:
    """A tensor of the network, its IR type, and its elements where it is a constant (its layer is made when asked for)."""

    type: TensorType
    make: Callable[[], Handle]
    array: Array | None = None

    @cached_property
    def handle(self) -> Handle:
        """The `ITensor`."""
        return self.make()

    @property
    def dtype(self) -> DType:
        """The dtype of the type."""
        return self.type.dtype

    @property
    def shape(self) -> Shape:
        """The shape of the type."""
        return self.type.shape


class NetworkWriter:
    """Adds layers to a network.

    Attributes:
        trt: the bindings, `tensorrt` or `tensorrt_rtx`.
        network: the `INetworkDefinition`.
        stack: what this TensorRT has.
        scope: what the names of the next layers start with.
        has_half: whether the graph computes in float16.
        has_int8: whether it quantizes.
        hold_float32: whether layers that read or make float32 are held to it, as a weakly typed builder needs it beside
            float16. Those of float16 are not: computed in float32 they lose nothing, and TensorRT 8.6 builds no engine of
            transformers that are held to both.
    """

    def __init__(self, trt: Any, network: Any, stack: Stack, floats: Collection[DType]) -> None:
        self.trt = trt
        self.network = network
        self.stack = stack
        self.scope = ""
        self.has_half = DType.FLOAT16 in floats
        self.has_int8 = False
        self.hold_float32 = not stack.strongly_typed and len(floats) > 1
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Handle] = {}
        self._held: list[Array] = []
        self._symbols: dict[Symbol, Handle] = {}
        self._dims: dict[Dim, Handle] = {}
        self._serial = 0

    def dtype(self, dtype: DType) -> Any:
        """Return TensorRT's DataType; int64 is INT32 where there is no other (UnsupportedError for what it has not)."""
        if dtype not in self.stack.dtypes:
            raise UnsupportedError(f"{self.stack} has no {dtype.value}", ReasonKind.DTYPE)
        name = "INT32" if dtype is DType.INT64 and not self.stack.int64 else _NAMES[dtype]
        return getattr(self.trt.DataType, name)

    @property
    def index(self) -> DType:
        """The element type of shape tensors."""
        return DType.INT64 if self.stack.int64 else DType.INT32

    def add(self, layer: Any, *dtypes: DType, reads: DType | None = None) -> Handle:
        """Name a new layer, and return its first output.

        Args:
            layer: what the network made.
            dtypes: the element types of its outputs (see `hold_float32`).
            reads: the element type that it computes in, where its outputs may have another.

        Raises:
            BuildError: TensorRT made no layer.
        """
        if layer is None:
            raise BuildError(f"TensorRT {self.trt.__version__} refuses the layer of {self.scope}")
        layer.name = f"{self.scope}.{self._serial}"
        self._serial += 1
        if self.hold_float32 and DType.FLOAT32 in (reads, *dtypes):
            layer.precision = self.dtype(DType.FLOAT32)
            for i, dtype in enumerate(dtypes):
                if dtype is DType.FLOAT32:
                    layer.set_output_type(i, self.dtype(dtype))
        return layer.get_output(0)

    def weights(self, array: Array | None, dtype: DType) -> Any:
        """Return `Weights` over the memory of an array, which stays alive until the network is built; none without one.

        Raises:
            UnsupportedError: an int64 does not fit into the int32 that stands for it.
        """
        if array is None:
            return self.trt.Weights(self.dtype(dtype))
        if dtype is DType.INT64 and not self.stack.int64:
            if array.size and (array.min() < _INT32.min or array.max() > _INT32.max):
                raise UnsupportedError(
                    f"TensorRT {self.trt.__version__} has no int64, and a constant needs it"
                )
            array = array.astype(np.int32)
        array = np.ascontiguousarray(array)
        self._held.append(array)
        if not self.stack.typed_weights:
            # TensorRT knows NumPy's own dtype objects only, not the equal ones of arrays that were pickled.
            return self.trt.Weights(array.view(array.dtype.type))
        return self.trt.Weights(self.dtype(dtype), array.ctypes.data, array.size)

    def array(self, array: Array, dtype: DType) -> Handle:
        """Add a constant."""
        return self.add(self.network.add_constant(array.shape, self.weights(array, dtype)))

    def constant(self, value: npt.ArrayLike, dtype: DType) -> Handle:
        """Return a small constant; equal ones are one."""
        array = np.asarray(value, dtype=dtype.numpy)
        key = dtype.value, array.shape, array.tobytes()
        if key not in self._constants:
            self._constants[key] = self.array(array, dtype)
        return self._constants[key]

    def filled(self, value: float, like: Tensor) -> Handle:
        """Return a constant of one element that broadcasts to a tensor, of its element type."""
        return self.constant(np.full((1,) * like.type.rank, value), like.dtype)

    def handle_where(self, x: Tensor, condition: Callable[[], Handle]) -> Handle:
        """Return the handle of a tensor that is read where a condition holds.

        There, kernels make an infinity that they cannot hold (`Stack.writes_infinity`).
        """
        array = None if self.stack.writes_infinity or not x.dtype.is_float else x.array
        if array is None or array.size != 1 or not np.isinf(array).all():
            return x.handle
        handle = self.cast(condition(), DType.FLOAT32)
        for factor in (3e38, math.copysign(3e38, array.item())):
            large = self.constant(np.full((1,) * x.type.rank, factor), DType.FLOAT32)
            handle = self.binary("PROD", handle, large, DType.FLOAT32)
        return handle if x.dtype is DType.FLOAT32 else self.cast(handle, x.dtype)

    def binary(
        self, operation: str, left: Handle, right: Handle, *dtypes: DType, reads: DType | None = None
    ) -> Handle:
        """Add an elementwise layer, by the name of its operation."""
        kind = getattr(self.trt.ElementWiseOperation, operation)
        return self.add(self.network.add_elementwise(left, right, kind), *dtypes, reads=reads)

    def reshape(self, x: Handle, shape: Sequence[int], *dtypes: DType) -> Handle:
        """Add a reshape to a static shape."""
        layer = self.network.add_shuffle(x)
        layer.reshape_dims = tuple(shape)
        return self.add(layer, *dtypes)

    def cast(self, x: Handle, dtype: DType, reads: DType | None = None) -> Handle:
        """Add a cast."""
        return self.add(self.network.add_cast(x, self.dtype(dtype)), dtype, reads=reads)

    def quantize_dequantize(self, x: Handle, scales: Handle, axis: int, dtype: DType) -> Handle:
        """Add a quantization to int8 and back; `scales` is a scalar, or a vector along `axis`."""
        self.has_int8 = True
        typed = self.stack.strongly_typed
        quantize = self.network.add_quantize(x, scales, *([self.trt.DataType.INT8] if typed else []))
        quantized = self.add(quantize)
        dequantize = self.network.add_dequantize(quantized, scales, *([self.dtype(dtype)] if typed else []))
        quantize.axis = dequantize.axis = axis
        return self.add(dequantize)

    def bind_symbols(self, graph: Graph, handles: dict[Value, Handle]) -> None:
        """Say where the network finds each symbol: in the shape of an input, or in that of an input of its own.

        A shape is known to the host before a run, so that sizes can follow from it; the elements of an input of its own
        are never read.
        """
        found = _sources(graph)
        for symbol in graph.symbols:
            self.scope = f"dim.{symbol.name}"
            if symbol.name in found:
                source = found[symbol.name]
                handle = handles[graph.inputs[source.position]]
            else:
                source = SymbolSource(position=-1, axis=0, scale=1, offset=0)
                handle = self.network.add_input(dim_input(symbol), self.dtype(DType.INT32), (-1,))
            size = self._element(self.add(self.network.add_shape(handle)), source.axis or 0)
            if source.offset:
                size = self.binary("SUB", size, self.constant([source.offset], self.index))
            if source.scale != 1:
                size = self.binary("FLOOR_DIV", size, self.constant([source.scale], self.index))
            self._symbols[symbol] = size

    def dims(self, dims: Sequence[DimLike]) -> Handle:
        """Return a shape tensor of the dimensions."""
        if not any(isinstance(dim, Dim) for dim in dims):
            return self.constant(np.array(dims, np.int64), self.index)
        parts = [self.dim(dim) for dim in dims]
        if len(parts) == 1:
            return parts[0]
        layer = self.network.add_concatenation(parts)
        layer.axis = 0
        return self.add(layer)

    def dim(self, dim: DimLike) -> Handle:
        """Return a shape tensor of one element; each expression is computed once."""
        if isinstance(dim, int):
            return self.constant([dim], self.index)
        if dim not in self._dims:
            terms = [self._term(monomial, coefficient) for monomial, coefficient in dim.terms]
            self._dims[dim] = self._fold("SUM", terms)
        return self._dims[dim]

    def _element(self, vector: Handle, i: int) -> Handle:
        return self.add(self.network.add_slice(vector, (i,), (1,), (1,)))

    def _term(self, monomial: Monomial, coefficient: int) -> Handle:
        factors = [self._atom(atom) for atom in monomial]
        if coefficient != 1 or not factors:
            factors.append(self.dim(coefficient))
        return self._fold("PROD", factors)

    def _atom(self, atom: Atom) -> Handle:
        if isinstance(atom, Symbol):
            return self._symbols[atom]
        left, right = self.dim(atom.left), self.dim(atom.right)
        if atom.function != "%":
            return self.binary(_CALLS[atom.function], left, right)
        quotient = self.binary("FLOOR_DIV", left, right)
        return self.binary("SUB", left, self.binary("PROD", quotient, right))

    def _fold(self, operation: str, handles: list[Handle]) -> Handle:
        first, *rest = handles
        for handle in rest:
            first = self.binary(operation, first, handle)
        return first


def dim_input(symbol: Symbol) -> str:
    """Return the name of the network's input whose size is a symbol that no other input's shape gives."""
    return f"dim.{symbol.name}"


def needs_dim_input(graph: Graph) -> tuple[Symbol, ...]:
    """Return the symbols that no input's shape gives."""
    found = _sources(graph)
    return tuple(symbol for symbol in graph.symbols if symbol.name not in found)


def _sources(graph: Graph) -> dict[str, SymbolSource]:
    return shape_sources(value.shape for value in graph.inputs)
