"""Collecting an ONNX model: nodes, initializers, and the arithmetic of symbolic dimensions."""

from __future__ import annotations

__all__ = ["IR_VERSION", "ONNXRUNTIME", "ONNX_DTYPE", "OPSET", "ModelWriter", "Tensor", "dim_input"]

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.helper
import onnx.numpy_helper

from trt_backend.ir.dims import Atom, Call, Dim, DimLike, Monomial, Symbol
from trt_backend.ir.types import DType, Shape, TensorType

Array = npt.NDArray[Any]

_onnx: Any = onnx  # untyped
_helper: Any = onnx.helper
_numpy_helper: Any = onnx.numpy_helper

OPSET = 23
"""The first opset with Attention."""
ONNXRUNTIME = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""
IR_VERSION = 11
"""The IR version that came with opset 23; ONNX Runtime 1.23 reads it."""

ONNX_DTYPE: dict[DType, int] = {
    DType.BOOL: _onnx.TensorProto.BOOL,
    DType.INT8: _onnx.TensorProto.INT8,
    DType.UINT8: _onnx.TensorProto.UINT8,
    DType.INT32: _onnx.TensorProto.INT32,
    DType.INT64: _onnx.TensorProto.INT64,
    DType.FLOAT16: _onnx.TensorProto.FLOAT16,
    DType.BFLOAT16: _onnx.TensorProto.BFLOAT16,
    DType.FLOAT32: _onnx.TensorProto.FLOAT,
    DType.FLOAT64: _onnx.TensorProto.DOUBLE,
}
"""The number that ONNX has for an element type."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of the model: its name there, and its IR type."""

    name: str
    type: TensorType

    @property
    def dtype(self) -> DType:
        """The dtype of the type."""
        return self.type.dtype

    @property
    def shape(self) -> Shape:
        """The shape of the type."""
        return self.type.shape


class ModelWriter:
    """Collects what becomes a model; names are unique because those of nodes are numbered.

    Attributes:
        scope: what the names of the next nodes and their outputs start with.
    """

    def __init__(self) -> None:
        self.scope = ""
        self._nodes: list[Any] = []
        self._initializers: dict[str, Any] = {}
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._known: dict[str, Array] = {}
        self._dims: dict[Dim, str] = {}
        self._shapes: dict[Shape, str] = {}

    def node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of one output, see `nodes`, and return the output's name; an input "" is left out."""
        (output,) = self.nodes(op_type, *inputs, outputs=1, **attributes)
        return output

    def nodes(
        self, op_type: str, *inputs: str, outputs: int, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node, of another domain perhaps than ONNX's own, and return the names of its outputs."""
        name = f"{self.scope}.{op_type}.{len(self._nodes)}"
        names = [f"{name}:{i}" for i in range(outputs)]
        self._nodes.append(_helper.make_node(op_type, inputs, names, name, domain=domain, **attributes))
        return names

    def identity(self, source: str, name: str) -> None:
        """Add a node that gives `source` the name `name`."""
        self._nodes.append(_helper.make_node("Identity", [source], [name], name))

    def initializer(self, name: str, array: Array) -> None:
        """Add a constant under a given name."""
        self._initializers[name] = _numpy_helper.from_array(array, name)
        self._known[name] = array

    def constant(self, value: npt.ArrayLike, dtype: DType) -> str:
        """Return the name of a small constant; equal ones are one."""
        array = np.asarray(value, dtype=dtype.numpy)
        key = dtype.value, array.shape, array.tobytes()
        if key not in self._constants:
            self._constants[key] = f"constant.{len(self._constants)}"
            self.initializer(self._constants[key], array)
        return self._constants[key]

    def known(self, tensor: Tensor) -> Array | None:
        """Return the elements of a constant, or None for what only the call knows."""
        return self._known.get(tensor.name)

    def dims(self, dims: Sequence[DimLike]) -> str:
        """Return the name of an int64 vector of the dimensions; equal vectors are computed once."""
        key = tuple(dims)
        if not any(isinstance(dim, Dim) for dim in key):
            return self.constant(np.array(key, np.int64), DType.INT64)
        if key not in self._shapes:
            parts = [self.dim(dim) for dim in key]
            self._shapes[key] = self.node("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]
        return self._shapes[key]

    def dim(self, dim: DimLike) -> str:
        """Return the name of an int64 vector of one element; each expression is computed once."""
        if isinstance(dim, int):
            return self.constant([dim], DType.INT64)
        if dim not in self._dims:
            terms = [self._term(monomial, coefficient) for monomial, coefficient in dim.terms]
            self._dims[dim] = self._fold("Add", terms)
        return self._dims[dim]

    def model(self, name: str, inputs: Iterable[Tensor], outputs: Iterable[Tensor]) -> Any:
        """Return the model of all that was added."""
        graph = _helper.make_graph(
            self._nodes,
            name,
            [_value_info(tensor) for tensor in inputs],
            [_value_info(tensor) for tensor in outputs],
        )
        opsets = [_helper.make_opsetid("", OPSET), _helper.make_opsetid(ONNXRUNTIME, 1)]
        model = _helper.make_model(
            graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="trt-backend"
        )
        model.graph.initializer.extend(self._initializers.values())  # last: `make_model` copies its graph
        return model

    def _term(self, monomial: Monomial, coefficient: int) -> str:
        factors = [self._atom(atom) for atom in monomial]
        if coefficient != 1 or not factors:
            factors.append(self.dim(coefficient))
        return self._fold("Mul", factors)

    def _atom(self, atom: Atom) -> str:
        if isinstance(atom, Symbol):
            return dim_input(atom)
        key = Dim((((atom,), 1),))
        if key not in self._dims:
            self._dims[key] = self._call(atom)
        return self._dims[key]

    def _call(self, call: Call) -> str:
        left, right = self.dim(call.left), self.dim(call.right)
        if call.function == "//" and not (_never_negative(call.left) and _never_negative(call.right)):
            left = self.node("Sub", left, self.node("Mod", left, right))  # Div truncates; Mod rounds down
        return self.node(_CALLS[call.function], left, right)

    def _fold(self, op_type: str, names: list[str]) -> str:
        first, *rest = names
        for name in rest:
            first = self.node(op_type, first, name)
        return first


_CALLS = {"//": "Div", "%": "Mod", "max": "Max", "min": "Min"}


def _never_negative(dim: DimLike) -> bool:
    if isinstance(dim, int):
        return dim >= 0
    return all(c >= 0 and all(isinstance(atom, Symbol) for atom in monomial) for monomial, c in dim.terms)


def dim_input(symbol: Symbol) -> str:
    """Return the name of the model's input that carries a symbol: an int64 vector of one element."""
    return f"dim.{symbol.name}"


def _value_info(tensor: Tensor) -> Any:
    """Describe an input or output; of symbolic dimensions only plain symbols are named."""
    shape = [dim if isinstance(dim, int) else dim.symbol and dim.symbol.name for dim in tensor.shape]
    return _helper.make_tensor_value_info(tensor.name, ONNX_DTYPE[tensor.dtype], shape)
