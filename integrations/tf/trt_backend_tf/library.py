"""The functions of a graph, which its calls, loops and branches name: which of them XLA compiles, their names, their gradients."""

# pyright: reportAttributeAccessIssue=false
# (Protobuf makes its classes when they are imported.)

from __future__ import annotations

__all__ = [
    "CALL_GRADIENT",
    "WITHOUT_GRADIENT",
    "allow_inlining",
    "forget_functions",
    "is_compiled",
    "name_gradients",
    "needs_no_xla",
    "rename_functions",
    "restore_functions",
]

import uuid
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2, graph_pb2, node_def_pb2

from trt_backend_tf.internals import eager_context

_JITTED = "_XlaMustCompile"
"""The attribute of functions, and of their calls, that XLA is to compile."""

CALL_GRADIENT = "TrtBackendCall"
"""Under which the gradient of a function's call is registered: TensorFlow knows that of traced functions only."""

_AS_IN_XLA = frozenset(
    {
        "Add",
        "AddV2",
        "BatchMatMulV2",
        "BatchToSpaceND",
        "BiasAdd",
        "BiasAddV1",
        "Const",
        "Conv2D",
        "Conv3D",
        "DepthwiseConv2dNative",
        "Elu",
        "ExpandDims",
        "Identity",
        "MatMul",
        "Mul",
        "Neg",
        "NoOp",
        "Pad",
        "Relu",
        "Relu6",
        "Reshape",
        "Sigmoid",
        "SpaceToBatchND",
        "Squeeze",
        "Sub",
        "Tanh",
        "Transpose",
    }
)
"""Ops that XLA computes as TensorFlow does, but for rounding. Others differ: random numbers, casts and indices out of range."""

WITHOUT_GRADIENT = frozenset({"PreventGradient", "StopGradient"})
"""Ops that Grappler would take for identities: converted models have gradients."""


def is_compiled(attributes: Mapping[str, attr_value_pb2.AttrValue]) -> bool:
    """Whether XLA compiles the function, or the call, that has these attributes."""
    return _JITTED in attributes and attributes[_JITTED].b


def name_gradients(nodes: Iterable[node_def_pb2.NodeDef]) -> None:
    """Have the calls of functions use our gradient: not those in branches and loops, which could not be saved."""
    for node in nodes:
        if node.op in ("PartitionedCall", "StatefulPartitionedCall"):
            node.attr["_gradient_op_type"].s = CALL_GRADIENT.encode()


def allow_inlining(graph_def: graph_pb2.GraphDef) -> None:
    """Have functions inlined that XLA would compile, where TensorFlow computes the same: Keras' grouped convolutions."""
    functions = {function.signature.name: function for function in graph_def.library.function}
    for node in _all_nodes(graph_def):
        if _JITTED not in node.attr or "f" not in node.attr:
            continue
        function = functions[node.attr["f"].func.name]
        if not node.attr[_JITTED].b or all(map(needs_no_xla, function.node_def)):
            del node.attr[_JITTED]
            for name in {_JITTED, "_noinline"}.intersection(function.attr):
                del function.attr[name]


def needs_no_xla(node: node_def_pb2.NodeDef) -> bool:
    """Whether TensorFlow has a kernel for a node on the CPU, which computes what XLA does."""
    return node.op in _AS_IN_XLA and not (
        "data_format" in node.attr and node.attr["data_format"].s == b"NCDHW"
    )


def restore_functions(simplified: graph_pb2.GraphDef, original: graph_pb2.GraphDef) -> None:
    """Take back functions that Grappler should have left alone, and those that they call.

    They are those that XLA compiles, in which it folds constants by TensorFlow's kernels, and those without a gradient.
    """
    before = {function.signature.name: function for function in original.library.function}
    calls = [node for node in _all_nodes(simplified) if _JITTED in node.attr and "f" in node.attr]
    pending = [node.attr["f"].func.name for node in calls]
    stopping = _without_gradient(before.values())
    pending += [f.signature.name for f in simplified.library.function if f.signature.name in stopping]
    restored: dict[str, Any] = {}
    while pending:
        name = pending.pop()
        if name in before and name not in restored:
            restored[name] = before[name]
            for node in before[name].node_def:
                pending += _named(node)
    kept = [f for f in simplified.library.function if f.signature.name not in restored]
    simplified.library.ClearField("function")
    simplified.library.function.extend([*kept, *restored.values()])


def _without_gradient(functions: Collection[Any]) -> set[str]:
    """Return the names of ops without a gradient, and of the functions that have one inside, however deep."""
    found = set(WITHOUT_GRADIENT)
    size = 0
    while size != len(found):
        size = len(found)
        found |= {
            f.signature.name
            for f in functions
            if any(not found.isdisjoint(_named(node)) for node in f.node_def)
        }
    return found


def _all_nodes(graph_def: graph_pb2.GraphDef) -> list[node_def_pb2.NodeDef]:
    """Return the nodes of a graph and of its functions."""
    return [*graph_def.node, *(node for function in graph_def.library.function for node in function.node_def)]


def _named(node: node_def_pb2.NodeDef) -> list[str]:
    """Return what a node may call: its op, and the functions in its attributes."""
    return [node.op, *(f.name for value in node.attr.values() for f in _called(value))]


def rename_functions(graph_def: graph_pb2.GraphDef) -> None:
    """Give the functions of loops and branches new names: TensorFlow has the unfrozen ones under the old ones."""
    suffix = uuid.uuid4().hex[:8]
    names = {f.signature.name: f"{f.signature.name}_{suffix}" for f in graph_def.library.function}
    for function in graph_def.library.function:
        function.signature.name = names[function.signature.name]
    for node in _all_nodes(graph_def):
        node.op = names.get(node.op, node.op)
        for attribute in node.attr.values():
            for called in _called(attribute):
                called.name = names.get(called.name, called.name)


def forget_functions(graph: tf.Graph) -> None:
    """Take the functions of a frozen graph out of the eager context, which has them because the graph was wrapped."""
    context = eager_context.context()
    for name in graph._functions:  # type: ignore[attr-defined]
        while context.has_function(name):
            context.remove_function(name)


def _called(attribute: attr_value_pb2.AttrValue) -> list[attr_value_pb2.NameAttrList]:
    """Return the functions that an attribute names."""
    if attribute.HasField("func"):
        return [attribute.func]
    return list(attribute.list.func) if attribute.HasField("list") else []
