"""From an IR graph to an ONNX model that ONNX Runtime runs on a CPU.

The model's inputs are the graph's, in their order and under their names, weights included, and after them an int64
vector of one element, `dim.<symbol>`, for each of `graph.symbols`. Its outputs are `output.0`, `output.1`, ...
"""

from __future__ import annotations

__all__ = ["emit_onnx", "support"]

from collections import Counter
from typing import TYPE_CHECKING

from trt_backend.emit.onnx import contraction, elementwise, layout, reduction
from trt_backend.emit.onnx.gemm import Gemm, find_gemms
from trt_backend.emit.onnx.model import ModelWriter, Tensor, dim_input
from trt_backend.emit.onnx.rules import RULES
from trt_backend.errors import InvalidGraphError, Reason, UnsupportedError
from trt_backend.ir.graph import Graph, Node, Value
from trt_backend.ir.ops.base import Op, Types
from trt_backend.ir.types import DType, TensorType

if TYPE_CHECKING:
    import onnx

FAMILIES = (contraction, elementwise, layout, reduction)
RULES.check_complete()

_ONE_INDEX = TensorType(DType.INT64, (1,))


def support(op: Op, types: Types) -> Reason | None:
    """Return why ONNX Runtime cannot run `op` on operands of these types on a CPU, or None where it can."""
    return RULES.support(op, types)


def emit_onnx(graph: Graph) -> onnx.ModelProto:
    """Return the model of a graph.

    Raises:
        UnsupportedError: `support` refuses a node of the graph.
        InvalidGraphError: an input has a name that the model needs for itself.
    """
    writer = ModelWriter()
    tensors = {value: Tensor(value.name, value.type) for value in graph.inputs}
    inputs = [*tensors.values(), *(Tensor(dim_input(symbol), _ONE_INDEX) for symbol in graph.symbols)]
    outputs = [Tensor(f"output.{i}", value.type) for i, value in enumerate(graph.outputs)]
    _check_names(inputs + outputs)
    for constant in graph.constants:
        name = f"{constant.value.name}.constant"
        tensors[constant.value] = Tensor(name, constant.value.type)
        writer.initializer(name, constant.array)
    gemms = find_gemms(graph)
    for node in graph.nodes:
        _check_support(node)
        writer.scope = node.outputs[0].name
        if node.outputs[0] in gemms.by_result:
            tensors[node.outputs[0]] = _emit_gemm(
                writer, gemms.by_result[node.outputs[0]], node.outputs[0], tensors
            )
        elif node.outputs[0] not in gemms.covered:
            _emit_node(writer, node, tensors)
    for value, output in zip(graph.outputs, outputs, strict=True):
        writer.identity(tensors[value].name, output.name)
    return writer.model(graph.name, inputs, outputs)


def _check_support(node: Node) -> None:
    reason = support(node.op, tuple(value.type for value in node.inputs))
    if reason:
        raise UnsupportedError(
            f"{reason.op}: {reason.detail}{f' [{node.source}]' if node.source else ''}", reason.kind
        )


def _emit_gemm(writer: ModelWriter, gemm: Gemm, result: Value, tensors: dict[Value, Tensor]) -> Tensor:
    operands = [tensors[value].name for value in (gemm.a, gemm.b, gemm.bias) if value]
    name = writer.node("Gemm", *operands, transA=int(gemm.transpose_a), transB=int(gemm.transpose_b))
    return Tensor(name, result.type)


def _emit_node(writer: ModelWriter, node: Node, tensors: dict[Value, Tensor]) -> None:
    results = RULES[type(node.op)](writer, node.op, *(tensors[value] for value in node.inputs))
    names = (results,) if isinstance(results, str) else results
    for value, name in zip(node.outputs, names, strict=True):
        tensors[value] = Tensor(name, value.type)


def _check_names(tensors: list[Tensor]) -> None:
    taken = [name for name, uses in Counter(tensor.name for tensor in tensors).items() if uses > 1]
    if taken:
        raise InvalidGraphError(
            f"the inputs {', '.join(sorted(taken))} have names that the ONNX model needs; rename them"
        )
