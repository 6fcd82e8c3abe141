"""One conversion: freeze, partition, cut, and the function that runs the result."""

# pyright: reportAttributeAccessIssue=false
# (Protobuf makes its classes when they are imported.)

from __future__ import annotations

__all__ = ["Conversion", "convert"]

import os
import uuid
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any
from weakref import finalize

import tensorflow as tf
from tensorflow.core.framework import graph_pb2

from trt_backend.debug import log
from trt_backend.engine.base import EngineProvider
from trt_backend.errors import Reason
from trt_backend.options import CompileOptions
from trt_backend.partition import Partition, partition
from trt_backend.passes.legalize import legalize
from trt_backend.report import GraphRecord, RegionRecord, open_graph
from trt_backend_tf.engine_op import OP_NAME, EngineSegment, GraphOfSegments, adopt
from trt_backend_tf.freeze import Frozen, freeze
from trt_backend_tf.host_graph import TfHostGraph, ordered
from trt_backend_tf.internals import concrete_function, eager_context, nest, wrap_function
from trt_backend_tf.lowering import Analysis, analyze, is_compute
from trt_backend_tf.segment import Segment, cut

_sequence = count()


@dataclass
class Conversion:
    """A converted function.

    Attributes:
        function: a `ConcreteFunction` with the signature of the original.
        graph_def: its graph.
        segments: what runs in engines.
        record: what runs where, and why.
        engines: the segments as this process runs them, which live as long as this does.
        variables: those of the function: weights that are too large for a graph.
        tables: the lookup tables that it captures.
    """

    function: Any
    graph_def: graph_pb2.GraphDef
    segments: tuple[Segment, ...]
    record: GraphRecord
    engines: tuple[EngineSegment, ...]
    variables: tuple[tf.Variable, ...]
    tables: tuple[Any, ...]
    _rebuilt: Callable[[graph_pb2.GraphDef], Any]

    @contextmanager
    def calibration(self) -> Generator[None]:
        """Have the segments watch the calls inside, and write what they saw into the graph (INT8)."""
        nodes = {node.name: node for node in self.graph_def.node}
        with ExitStack() as watched:
            for engine in self.engines:
                if engine.calibration is not None:
                    watched.enter_context(engine.calibration.collect())
            yield
        for engine in self.engines:
            if engine.calibration is not None:
                nodes[engine.name].attr["calibration_data"].s = engine.calibration.dumps().encode()
        self.function = self._rebuilt(self.graph_def)


def convert(
    function: Any, provider: EngineProvider, options: CompileOptions, attributes: Mapping[str, Any]
) -> Conversion:
    """Convert a concrete function; nothing is built before its first call.

    Args:
        function: a `ConcreteFunction`, whose variables are frozen.
        provider: whose engines are to run it.
        options: of the compilation.
        attributes: further attributes of the nodes that call engines.
    """
    frozen = freeze(function)
    graph = tf.Graph()
    with graph.as_default():
        tf.graph_util.import_graph_def(frozen.graph_def, name="")
    _tell_shapes(graph)
    returned = [graph.get_tensor_by_name(name) for name in frozen.outputs]
    record = open_graph("tensorflow")
    analysis, parts = _partition(graph, returned, provider, options)
    _note(record, graph, analysis, parts, provider)
    sequence = next(_sequence)
    names = [f"TRTEngineOp_{sequence:03d}_{i:03d}" for i in range(len(parts.regions))]
    shared = {**attributes, "_trt_backend_graph": uuid.uuid4().hex}
    graph_def, segments, outputs = cut(
        graph, parts.regions, names, returned, analysis, frozen.variables, shared
    )
    for node in graph_def.node:
        if node.name in names:
            node.op = OP_NAME
    together = GraphOfSegments(record, options, provider)
    nodes = {node.name: node for node in graph_def.node}
    functions = _Functions(graph_def.library.function)
    engines = tuple(
        adopt(nodes[segment.name], together, region)
        for segment, region in zip(segments, record.regions, strict=True)
    )

    def rebuilt(changed: graph_pb2.GraphDef) -> Any:
        made = _function(changed, frozen, outputs, function)
        functions.keep_for(made.graph)
        return made

    variables, tables = tuple(frozen.variables.values()), tuple(frozen.tables.values())
    return Conversion(rebuilt(graph_def), graph_def, segments, record, engines, variables, tables, rebuilt)


def _tell_shapes(graph: tf.Graph) -> None:
    """Note the shapes of what tables give, which TensorFlow's inference does not know."""
    for op in graph.get_operations():
        if op.type == "LookupTableFindV2":
            _, keys, default = op.inputs
            op.outputs[0].set_shape(keys.shape.concatenate(default.shape))


class _Functions:
    """The functions of a converted graph, which leave TensorFlow's eager context when no graph needs them any more.

    Args:
        definitions: as FunctionDef; their names are no other graph's.
    """

    def __init__(self, definitions: Iterable[Any]) -> None:
        self._definitions = {definition.signature.name: definition for definition in definitions}
        self._context = eager_context.context()
        finalize(self, _remove, self._context, tuple(self._definitions)).atexit = False

    def keep_for(self, graph: Any) -> None:
        """Keep them as long as a graph, which whatever calls it keeps."""
        graph._trt_backend_functions = self
        for name, definition in self._definitions.items():  # the context counts how often each was added
            while self._context.has_function(name):
                self._context.remove_function(name)
            self._context.add_function_def(definition)


def _remove(context: Any, names: Iterable[str]) -> None:
    for name in filter(context.has_function, names):
        context.remove_function(name)


def _partition(
    graph: tf.Graph, returned: Sequence[tf.Tensor], provider: EngineProvider, options: CompileOptions
) -> tuple[Analysis, Partition[tf.Operation]]:
    denied = frozenset(filter(None, os.environ.get("TF_TRT_OP_DENYLIST", "").split(",")))
    analysis = analyze(
        ordered(graph),
        lambda candidate: legalize(candidate, provider.support),
        strict=options.strict,
        denied=denied,
    )

    def guard(op: tf.Operation) -> Reason | None:
        return analysis.reasons.get(op)

    parts = partition(
        TfHostGraph(graph, returned),
        guard,
        options.min_block_size,
        compute_ops=lambda op: is_compute(op, analysis.facts),
        describe=lambda op: (op.type, op.name),
        fuel=options.fuel,
    )
    return analysis, parts


def _note(
    record: GraphRecord,
    graph: tf.Graph,
    analysis: Analysis,
    parts: Partition[tf.Operation],
    provider: EngineProvider,
) -> None:
    """Write down what would run where, and why."""
    record.ops_total = sum(is_compute(op, analysis.facts) for op in graph.get_operations())
    record.native = [reason for op, reason in parts.native.items() if is_compute(op, analysis.facts)]
    record.regions = [
        RegionRecord(
            f"{record.name}.{region.name}",
            "tensorflow",
            provider.name,
            tuple((op.type, op.name) for op in region.nodes if is_compute(op, analysis.facts)),
        )
        for region in parts.regions
    ]
    share = f"{sum(region.ops for region in record.regions)} of {record.ops_total} ops"
    log.info("%s: %d regions with %s", record.name, len(record.regions), share)


def _function(graph_def: graph_pb2.GraphDef, frozen: Frozen, outputs: Sequence[str], original: Any) -> Any:
    """Return a function with the structured signature of the original."""

    def import_graph() -> None:
        with tf.name_scope("trt_weights"):
            values = {f"{name}:0": variable.read_value() for name, variable in frozen.variables.items()}
        values |= {
            name: tf.compat.v1.get_default_graph().capture(table._resource_handle)
            for name, table in frozen.tables.items()
        }
        tf.graph_util.import_graph_def(graph_def, input_map=values, name="")

    whole = wrap_function.wrap_function(import_graph, [])
    inputs, returned = (
        [whole.graph.as_graph_element(name) for name in names] for names in (frozen.inputs, outputs)
    )
    # The pruned function returns a list, whatever its structured outputs are.
    graph = whole.prune(inputs, returned).graph
    tensors = iter(graph.outputs)
    structured = original.graph.structured_outputs
    flat = [None if item is None else next(tensors) for item in nest.flatten(structured)]
    for tensor, promised in zip(graph.outputs, original.outputs[: len(graph.outputs)], strict=True):
        tensor.set_shape(promised.shape)
    graph.structured_outputs = nest.pack_sequence_as(structured, flat)
    graph.structured_input_signature = original.structured_input_signature
    function = concrete_function.ConcreteFunction.from_func_graph(graph, original.function_type, attrs={})
    # TF-TRT's functions take their arguments by position as well, which signatures do not.
    function._arg_keywords = original._arg_keywords or [name.partition(":")[0] for name in frozen.inputs]
    function._num_positional_args = len(frozen.inputs)
    return function
