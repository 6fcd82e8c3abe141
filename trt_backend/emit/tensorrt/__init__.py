"""From an IR graph to a TensorRT network.

The network's inputs are the graph's, in their order and under their names, and after them a vector `dim.<symbol>`, whose
size alone matters, for each symbol that no input's shape gives. Its outputs are `output.0`, `output.1`, ...
"""

from __future__ import annotations

__all__ = ["emit_network", "support"]

from typing import Any

from trt_backend.emit.rules import op_label, working_dtypes
from trt_backend.emit.tensorrt import contraction, elementwise, layout, reduction
from trt_backend.emit.tensorrt.network import NetworkWriter, Tensor
from trt_backend.emit.tensorrt.rules import RULES
from trt_backend.emit.tensorrt.stacks import Stack
from trt_backend.errors import Reason, ReasonKind, UnsupportedError
from trt_backend.ir.dims import Dim
from trt_backend.ir.graph import Constant, Graph, Node, Value
from trt_backend.ir.ops.base import Op, Types
from trt_backend.ir.ops.contraction import MatrixMultiply
from trt_backend.ir.ops.elementwise import QuantizeDequantize
from trt_backend.ir.types import DType

FAMILIES = (contraction, elementwise, layout, reduction)
RULES.check_complete()

_MOST_DIMENSIONS = 8
_OUTGROW_INT32 = frozenset(
    {"Elementwise prod", "Elementwise pow", "Reduce sum", "Reduce prod", "CumulativeSum"}
)
"""What makes large integers of small ones: where int32 stands for int64, the answer might not fit."""


def support(stack: Stack, op: Op, types: Types) -> Reason | None:
    """Return why this TensorRT cannot run `op` on operands of these types, or None where it can."""
    label = op_label(op)
    if label in stack.lacks:
        return Reason(ReasonKind.UNSUPPORTED, label, f"{stack} has no such layer")
    for dtype in working_dtypes(op, types):
        if dtype not in stack.dtypes:
            return Reason(ReasonKind.DTYPE, label, f"{stack} has no {dtype.value}")
    if not stack.int64 and label in _OUTGROW_INT32 and types[0].dtype is DType.INT64:
        return Reason(ReasonKind.DTYPE, label, f"{stack} has no int64, and the result may need it")
    if (
        isinstance(op, QuantizeDequantize)
        and not stack.strongly_typed
        and types[0].dtype is not DType.FLOAT32
    ):
        return Reason(ReasonKind.DTYPE, label, f"{stack} quantizes f32")
    if isinstance(op, MatrixMultiply) and not stack.multiplies_rows and _are_rows(op, types):
        return Reason(ReasonKind.UNSUPPORTED, label, f"{stack} mistakes batches of one row")
    if any(t.rank > _MOST_DIMENSIONS for t in (*types, *op.infer(*types))):
        return Reason(ReasonKind.UNSUPPORTED, label, f"more than {_MOST_DIMENSIONS} dimensions")
    return RULES.support(op, types)


def _are_rows(op: MatrixMultiply, types: Types) -> bool:
    """Return whether a batch of rows is multiplied by matrices of more than one column."""
    *batch, rows, columns = op.infer(*types)[0].shape
    return rows == 1 != columns and any(size != 1 for size in batch)


def emit_network(graph: Graph, trt: Any, network: Any, stack: Stack) -> NetworkWriter:
    """Add a graph to an empty network; the writer that is returned holds the weights until the network is built.

    Args:
        graph: a graph that `support` takes.
        trt: the bindings, `tensorrt` or `tensorrt_rtx`.
        network: an `INetworkDefinition`.
        stack: what this TensorRT has.

    Raises:
        UnsupportedError: `support` refuses a node of the graph.
        BuildError: TensorRT refuses a layer.
    """
    floats = {value.dtype for value in graph.values() if value.dtype.is_float}
    m = NetworkWriter(trt, network, stack, floats)
    handles = {value: _input(m, value) for value in graph.inputs}
    m.bind_symbols(graph, handles)
    tensors = {value: _tensor(value, handle) for value, handle in handles.items()}
    tensors |= {constant.value: _constant(m, constant) for constant in graph.constants}
    for node in graph.nodes:
        _emit_node(m, node, tensors)
    for i, value in enumerate(graph.outputs):
        m.scope = f"output.{i}"
        _mark_output(m, tensors[value], f"output.{i}")
    return m


def _emit_node(m: NetworkWriter, node: Node, tensors: dict[Value, Tensor]) -> None:
    reason = support(m.stack, node.op, tuple(value.type for value in node.inputs))
    if reason:
        raise UnsupportedError(
            f"{reason.op}: {reason.detail}{f' [{node.source}]' if node.source else ''}", reason.kind
        )
    m.scope = node.outputs[0].name
    results: Any = RULES[type(node.op)](m, node.op, *(tensors[value] for value in node.inputs))
    handles = list(results) if len(node.outputs) > 1 else [results]
    for value, handle in zip(node.outputs, handles, strict=True):
        tensors[value] = _tensor(value, handle)


def _input(m: NetworkWriter, value: Value) -> Any:
    shape = tuple(-1 if isinstance(dim, Dim) else dim for dim in value.shape)
    return m.network.add_input(value.name, m.dtype(value.dtype), shape)


def _tensor(value: Value, handle: Any) -> Tensor:
    return Tensor(value.type, lambda: handle)


def _constant(m: NetworkWriter, constant: Constant) -> Tensor:
    return Tensor(constant.value.type, lambda: m.array(constant.array, constant.value.dtype), constant.array)


def _mark_output(m: NetworkWriter, tensor: Tensor, name: str) -> None:
    """Give an output a tensor of its own: inputs, constants and the values of other outputs are none."""
    handle = m.add(m.network.add_identity(tensor.handle), tensor.dtype)
    handle.name = name
    m.network.mark_output(handle)
    if not m.stack.strongly_typed:
        handle.dtype = m.dtype(tensor.dtype)
