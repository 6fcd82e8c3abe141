"""From a signature to the graph that is partitioned: frozen, inlined, simplified by Grappler.

A graph ends at 2 GiB, protobuf's limit. Where a model has more weights than a graph should hold, the largest ones stay
variables: the graph has placeholders for their values.
"""

# pyright: reportAttributeAccessIssue=false
# (Protobuf makes its classes when they are imported.)

from __future__ import annotations

__all__ = ["Frozen", "freeze"]

import gc
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import graph_pb2
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, rewriter_config_pb2

from trt_backend_tf.internals import convert_to_constants, nest, resource, tf_optimizer, wrap_function
from trt_backend_tf.library import (
    WITHOUT_GRADIENT,
    allow_inlining,
    forget_functions,
    is_compiled,
    name_gradients,
    needs_no_xla,
    rename_functions,
    restore_functions,
)

_OPTIMIZERS = ("function", "pruning", "dependency", "constfold", "arithmetic", "common_subgraph_elimination")
"""Grappler's passes that make a graph smaller; those that make kernels of TensorFlow's own (remap, layout) are left out."""

_MOST_CONSTANT_BYTES = 1 << 28
"""Of weights in a graph, where others can stay variables: while it is converted, TensorFlow holds some 20 copies of it."""

_GRAPH_LIMIT_BYTES = 3 << 29
"""Of weights in a graph; protobuf ends at 2 GiB, and there is more in a graph than weights."""

_TABLES = frozenset({"HashTable", "HashTableV2", "MutableHashTable", "MutableHashTableV2"})
"""Ops that make lookup tables, which only graphs of TensorFlow 1 have inside."""

_STATE = _TABLES | {"ReadVariableOp", "VarHandleOp", "VariableV2"}
"""Ops that keep or read state, which freezing should have replaced."""


@dataclass(frozen=True)
class Frozen:
    """A function without variables, but for those that are too large.

    Attributes:
        graph_def: the graph, with the functions that its loops and branches call.
        inputs: the names of the tensors that are fed, in the order of the function's arguments.
        outputs: the names of the tensors that are returned.
        variables: what to feed besides, by the name of the placeholder: copies of the function's largest variables.
        tables: the lookup tables whose handles to feed besides, by the name of the placeholder.
    """

    graph_def: graph_pb2.GraphDef
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    variables: Mapping[str, tf.Variable]
    tables: Mapping[str, Any]


def freeze(function: Any) -> Frozen:
    """Freeze and simplify a concrete function.

    Args:
        function: a `ConcreteFunction`; its variables must be alive.

    Raises:
        ValueError: it still needs a variable or a table of its own, which a converted model would not have; or it
            has more weights than a graph can hold, and they are none that can be left out of it; or XLA compiles it as a
            whole, and may answer otherwise than TensorFlow.
    """
    if any(op.type in _TABLES for op in function.graph.get_operations()):
        raise ValueError(
            "lookup tables in a graph of TensorFlow 1 cannot be converted: convert the part of the model behind them, or "
            "save it anew with TensorFlow 2"
        )
    try:
        frozen, variables = _constants_for_variables(function)
    except tf.errors.FailedPreconditionError as error:
        raise ValueError(f"the model cannot be frozen, its checkpoint lacks a variable: {error}") from error
    except _TooLargeError:
        raise
    except (
        ValueError
    ) as error:  # it makes constants of variables that the model writes to, and then no graph of that
        raise ValueError(
            f"the model cannot be frozen, perhaps because it writes to variables: {error}"
        ) from error
    _check_compiled(function, frozen)
    tables = _tables(function)
    _check_frozen(frozen, tables)
    fed, outputs = (tuple(tensor.name for tensor in tensors) for tensors in (frozen.inputs, frozen.outputs))
    outputs = outputs[: _promised(function)]
    simplified = _simplified(frozen.graph, fed, outputs, variables)
    _strip_control_inputs(simplified, [*variables, *(name.partition(":")[0] for name in tables)])
    forget_functions(frozen.graph)
    inputs = tuple(name for name in fed if name not in tables)
    return Frozen(simplified, inputs, outputs, variables, tables)


def _promised(function: Any) -> int:
    """Return how many outputs a function has: to those of its graph TensorFlow adds what second derivatives need."""
    flat = nest.flatten(function.graph.structured_outputs, expand_composites=True)
    return sum(item is not None for item in flat)


class _TooLargeError(ValueError):
    """The graph would be too large."""


class _StandIn:
    """Has the type and shape of a variable's value; as an array it is one zero, which TensorFlow repeats."""

    nbytes = 0

    def __init__(self, variable: tf.Variable) -> None:
        self.variable = variable
        self.dtype = np.dtype(variable.dtype.as_numpy_dtype)
        self.shape = tuple(variable.shape.as_list())

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        return np.zeros((), dtype or self.dtype)


class _Variables(convert_to_constants._FunctionConverterDataInEager):
    """A function's variables and their values: those it captures, and those whose handles are nodes of its graph.

    A SavedModel that is loaded as one of version 1 has the latter, if it was not written as one: then nothing in it
    lists its variables (the collection `variables`), from which TensorFlow would make Python objects for captures.

    The largest variables get a stand-in, if all together are too large for a graph.
    """

    def _eval(self, tensor: Any) -> Any:
        if any(tensor is variable for variable in _too_large(self._func.graph.variables)):
            return _StandIn(tensor)
        return super()._eval(tensor)

    def _build_tensor_data(self) -> None:
        super()._build_tensor_data()
        self._add_own_variables()
        total = sum(data.numpy.nbytes for data in self.tensor_data.values())
        if total > _GRAPH_LIMIT_BYTES:
            raise _TooLargeError(
                f"the model has {total / 2**30:.2f} GiB of weights that would have to be constants of its graph, which "
                f"holds {_GRAPH_LIMIT_BYTES / 2**30:.2f} GiB (protobuf ends at 2 GiB): variables of a SavedModel "
                "that is loaded as one of version 1 cannot be left out of it; save the model anew with TensorFlow 2"
            )

    def _add_own_variables(self) -> None:
        function = self._func
        if not isinstance(function, wrap_function.WrappedFunction):  # only version 1 is loaded as such
            return
        own = {op.name for op in function.graph.get_operations() if op.type == "VarHandleOp"}
        handles = [node for node in self.graph_def.node if node.op == "VarHandleOp" and node.name in own]
        if not handles:
            return
        with function.graph.as_default():
            reads = [
                tf.raw_ops.ReadVariableOp(
                    resource=function.graph.get_tensor_by_name(f"{node.name}:0"),
                    dtype=tf.dtypes.as_dtype(node.attr["dtype"].type),
                )
                for node in handles
            ]
        for node, value in zip(handles, function.prune([], reads)(), strict=True):
            self.tensor_data[node.name] = convert_to_constants._TensorData(
                numpy=value.numpy(), dtype=node.attr["dtype"].type, index=None
            )


def _constants_for_variables(function: Any) -> tuple[Any, dict[str, tf.Variable]]:
    """Do as `convert_variables_to_constants_v2` does, with more variables.

    Returns:
        The frozen function, and copies of the variables that have a stand-in in it, by the name of that constant.
    """
    variables = _Variables(function, lower_control_flow=False, aggressive_inlining=True)
    graph_def, captures = convert_to_constants._replace_variables_by_constants(variables)
    rename_functions(graph_def)
    frozen = convert_to_constants._construct_concrete_function(function, graph_def, captures)
    left_out = {
        name: tf.Variable(
            data.numpy.variable, trainable=False
        )  # shares its memory until one of them is written
        for name, data in variables.tensor_data.items()
        if isinstance(data.numpy, _StandIn)
    }
    return frozen, left_out


def _too_large(variables: Iterable[tf.Variable]) -> list[tf.Variable]:
    """Return the largest variables, without which the others fit into a graph."""
    by_size = sorted(variables, key=_byte_count)
    total = sum(map(_byte_count, by_size))
    found: list[tf.Variable] = []
    while total > _MOST_CONSTANT_BYTES:
        found.append(by_size.pop())
        total -= _byte_count(found[-1])
    return found


def _byte_count(variable: tf.Variable) -> int:
    return (variable.shape.num_elements() or 0) * variable.dtype.size


def _tables(function: Any) -> dict[str, Any]:
    """Return the lookup tables that a function captures, by the name of the placeholder inside.

    A function has only their handles; the tables are needed to save what captures these.
    """
    variables = {id(variable.handle) for variable in function.graph.variables}
    wanted = {
        id(handle): inside.name
        for handle, inside in function.graph.captures
        if handle.dtype == tf.resource and id(handle) not in variables
    }
    return {
        wanted[id(found._resource_handle)]: found
        for found in (gc.get_objects() if wanted else ())
        if issubclass(type(found), resource.CapturableResource) and id(found._resource_handle) in wanted
    }


def _check_compiled(function: Any, frozen: Any) -> None:
    if not is_compiled(function.function_def.attr):
        return
    for op in frozen.graph.get_operations():
        if op.type != "Placeholder" and not needs_no_xla(op.node_def):
            raise ValueError(
                f"the function to convert has jit_compile=True, and engines cannot answer as XLA where that differs from "
                f"TensorFlow, perhaps in {op.name} ({op.type}): convert it without jit_compile, as in "
                "tf.function(function.python_function, input_signature=...)"
            )


def _check_frozen(frozen: Any, tables: Collection[str]) -> None:
    left = [f"{op.name} ({op.type})" for op in frozen.graph.get_operations() if op.type in _STATE]
    left += [t.name for t in frozen.inputs if t.dtype == tf.resource and t.name not in tables]
    if left:
        raise ValueError(
            f"{len(left)} variables or other resources of the model cannot be frozen, the first is {left[0]}: "
            "the model writes to them, or it is a SavedModel of a version whose variables TensorFlow does not find"
        )


def _simplified(
    graph: tf.Graph, inputs: tuple[str, ...], outputs: tuple[str, ...], variables: Iterable[str]
) -> graph_pb2.GraphDef:
    """Return the graph as Grappler's passes leave it, with placeholders for variables."""
    graph_def = graph.as_graph_def(add_shapes=True)
    for node in graph_def.node:
        node.device = ""
        if node.name in variables:
            node.op = "Placeholder"
            node.attr["shape"].shape.CopyFrom(node.attr["value"].tensor.tensor_shape)
            del node.attr["value"]
    if not graph_def.node:
        return graph_def
    allow_inlining(graph_def)
    meta_graph = meta_graph_pb2.MetaGraphDef()
    meta_graph.graph_def.CopyFrom(graph_def)
    kept = meta_graph.collection_def["train_op"].node_list.value
    kept.extend(dict.fromkeys(name.partition(":")[0] for name in (*inputs, *outputs)))
    kept.extend(node.name for node in graph_def.node if node.op in WITHOUT_GRADIENT)
    config = config_pb2.ConfigProto()
    rewrite = config.graph_options.rewrite_options
    rewrite.optimizers.extend(_OPTIMIZERS)
    rewrite.min_graph_nodes = -1
    rewrite.meta_optimizer_iterations = rewriter_config_pb2.RewriterConfig.TWO
    simplified = tf_optimizer.OptimizeGraph(config, meta_graph, graph_id=b"tf_graph")
    restore_functions(simplified, graph_def)
    name_gradients(simplified.node)
    return simplified


def _strip_control_inputs(graph_def: graph_pb2.GraphDef, placeholders: Iterable[str]) -> None:
    """Have no node wait for placeholders that the converted graph will not have: inlining made some that do."""
    stripped = {f"^{name}" for name in placeholders}
    for node in graph_def.node:
        inputs = [name for name in node.input if name not in stripped]
        node.ClearField("input")
        node.input.extend(inputs)
