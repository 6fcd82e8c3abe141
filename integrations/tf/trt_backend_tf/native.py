"""A segment run by TensorFlow's own kernels, one after the other, in the thread that asks for it.

A kernel that waited for a function of TensorFlow would hold one of its few threads while the function waits for one:
with as many calls as threads, for ever. Single ops run where they are called.
"""

from __future__ import annotations

__all__ = ["NativeSegment", "body_of", "gradient", "gradient_of_call", "shaken"]

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from trt_backend_tf.host_graph import ordered
from trt_backend_tf.internals import (
    eager_context,
    execute,
    function_def_to_graph,
    op_def_registry,
    tensor_util,
)
from trt_backend_tf.library import is_compiled, name_gradients


@dataclass(frozen=True)
class _Step:
    """One op: what it takes and gives, by the tensors' names."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[Any, ...]


def body_of(function: str, shapes: Sequence[Any]) -> tuple[tf.Graph, list[tf.Tensor], list[tf.Tensor]]:
    """Return the body of a function that TensorFlow knows, its arguments and its results.

    Args:
        function: its name.
        shapes: of the arguments, as TensorShapeProto.
    """
    definition = eager_context.context().get_function_def(function)
    body, renamed = function_def_to_graph.function_def_to_graph_def(definition, input_shapes=list(shapes))
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(body, name="")
    places = [graph.get_tensor_by_name(f"{arg.name}:0") for arg in definition.signature.input_arg]
    returned = [
        graph.get_tensor_by_name(renamed[definition.ret[arg.name]]) for arg in definition.signature.output_arg
    ]
    return graph, places, returned


def shaken(x: tf.Tensor, noise: float) -> tf.Tensor:
    """Return a tensor with each element moved by up to `noise` of the largest one, where it is of floating point."""
    array = x.numpy()
    largest = float(np.abs(array).max(initial=0)) or 1.0 if x.dtype.is_floating else math.inf
    if not math.isfinite(largest):
        return x
    moves = np.random.default_rng(0).uniform(-1, 1, array.shape) * (noise * largest)
    return tf.constant((array + moves).astype(array.dtype))


def gradient(op: tf.Operation, *received: tf.Tensor | None) -> list[tf.Tensor | None]:
    """Return the gradients of a segment's node: those of its function, which is computed anew in the current graph.

    Args:
        op: the node.
        received: the gradients of its outputs.
    """
    return _gradients(op.get_attr("segment_func").name, op.inputs, received)


def gradient_of_call(op: tf.Operation | None, *received: tf.Tensor | None) -> list[tf.Tensor | None]:
    """Return the gradients of a function's call, as those of a segment's node; XLA compiles them if it does the call."""
    if op is None:  # TensorFlow saves a model, and would save gradients along that it cannot register anew
        return []
    compute = partial(_gradients, op.get_attr("f").name)
    return tf.function(compute, autograph=False, jit_compile=is_compiled(op.node_def.attr) or None)(
        list(op.inputs), received
    )


def _gradients(
    function: str, inputs: Sequence[tf.Tensor], received: Sequence[tf.Tensor | None]
) -> list[tf.Tensor | None]:
    definition = eager_context.context().get_function_def(function)
    with tf.init_scope():  # where the functions that it calls are known
        body, renamed = function_def_to_graph.function_def_to_graph_def(
            definition, include_library_functions=True
        )
    inputs = [tf.identity(tensor) for tensor in inputs]
    places = {node.name: node for node in body.node if node.op == "Placeholder"}
    fed = {}
    for arg, tensor in zip(definition.signature.input_arg, inputs, strict=True):
        place = places[arg.name]  # XLA refuses placeholders, also where they are not used
        place.Clear()
        place.name, place.op, place.attr["T"].type = arg.name, "Identity", tensor.dtype.as_datatype_enum
        place.input.append(f"given/{arg.name}")
        fed[f"given/{arg.name}:0"] = tensor
    name_gradients(body.node)
    names = [renamed[definition.ret[arg.name]] for arg in definition.signature.output_arg]
    results = tf.graph_util.import_graph_def(body, fed, names)
    known = [(result, given) for result, given in zip(results, received, strict=True) if given is not None]
    return tf.gradients([result for result, _ in known], inputs, [given for _, given in known])


class NativeSegment:
    """A segment's function, taken apart into single ops.

    Args:
        function: its name.
        shapes: of its arguments, as TensorShapeProto.
    """

    def __init__(self, function: str, shapes: Sequence[Any]) -> None:
        graph, places, returned = body_of(function, shapes)
        self._places = [place.name for place in places]
        self._returned = [tensor.name for tensor in returned]
        ops = [op for op in ordered(graph) if op.type != "Placeholder"]
        with tf.init_scope(), tf.device("CPU:0"):
            self._constants = {
                op.outputs[0].name: tf.constant(
                    tensor_util.MakeNdarray(op.get_attr("value")), op.outputs[0].dtype
                )
                for op in ops
                if op.type == "Const"
            }
        self._steps = [_step(op) for op in ops if op.type != "Const"]

    def __call__(self, inputs: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Return the results for eager tensors (OpError where an op refuses them)."""
        context = eager_context.context()
        values: dict[str, tf.Tensor] = dict(zip(self._places, inputs, strict=True))
        values.update(self._constants)
        with tf.device("CPU:0"):
            for step in self._steps:
                results = execute.execute(
                    step.op.encode(),
                    len(step.outputs),
                    inputs=[values[name] for name in step.inputs],
                    attrs=step.attributes,
                    ctx=context,
                )
                values.update(zip(step.outputs, results, strict=True))
        return [values[name] for name in self._returned]


def _step(op: tf.Operation) -> _Step:
    definition = op_def_registry.get(op.type)
    assert definition is not None
    attributes: list[Any] = []
    for attribute in definition.attr:
        attributes += [attribute.name, _attribute(op.get_attr(attribute.name))]
    inputs, outputs = (tuple(tensor.name for tensor in tensors) for tensors in (op.inputs, op.outputs))
    return _Step(op.type, inputs, outputs, tuple(attributes))


def _attribute(value: Any) -> Any:
    """Return an attribute as the eager runtime takes it."""
    if isinstance(value, list):
        return [_attribute(item) for item in value]
    if isinstance(value, tf.DType):
        return value.as_datatype_enum
    if hasattr(value, "unknown_rank"):  # TensorShapeProto
        return None if value.unknown_rank else [dim.size for dim in value.dim]
    return value
