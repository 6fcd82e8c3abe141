"""An AOTAutograd inference graph as the partitioner sees it, and its split along a partition."""

from __future__ import annotations

__all__ = ["Cut", "FxHostGraph", "runner", "split"]

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from torch import fx
from torch._ops import OpOverload

from trt_backend.partition import Region
from trt_backend_torch.fx import is_random, is_size
from trt_backend_torch.symbols import missing_sizes


class FxHostGraph:
    """The calls of a functional FX graph.

    An op of several results and the `getitem`s that unpack it are one node, so that no region's border carries a tuple.
    """

    def __init__(self, gm: fx.GraphModule) -> None:
        self.nodes: Sequence[fx.Node] = [
            node for node in gm.graph.nodes if node.op == "call_function" and not _unpacks(node)
        ]
        self.outputs: Iterable[fx.Node] = [_packed(node) for node in gm.graph.output_node().all_input_nodes]
        effects = [node for node in self.nodes if _has_effect(node)]
        self._before = {later: [earlier] for earlier, later in pairwise(effects)}
        self._before |= {node: self.nodes[:i] for i, node in enumerate(self.nodes) if _writes(node)}

    def inputs(self, node: fx.Node) -> Iterable[fx.Node]:
        """Return the nodes whose values `node` takes."""
        return [_packed(source) for source in node.all_input_nodes]

    def after(self, node: fx.Node) -> Iterable[fx.Node]:
        """Return the last effect before `node` where that has one itself: random numbers are drawn in their order.

        Before a write it is all that the graph has before it: AOTAutograd writes to inputs once nobody reads them any more.
        All else is functional there: order is data.
        """
        return self._before.get(node, ())

    def is_pure(self, node: fx.Node) -> bool:
        """Whether the node neither draws random numbers nor has a side effect."""
        return _is_pure(node)


@dataclass(frozen=True, eq=False)
class Cut:
    """A region as it is cut out of a graph.

    Attributes:
        gm: the graph.
        inputs: the graph's nodes that the region is called with, in the graph's order: a region that is the whole graph
            thus takes the call's arguments as they are. Behind them are sizes that no other input tells.
        nodes: the region's own, in the graph's order.
        outputs: those of `nodes` that it returns, as a tuple.
    """

    gm: fx.GraphModule
    inputs: tuple[fx.Node, ...]
    nodes: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]

    @cached_property
    def module(self) -> fx.GraphModule:
        """The region as a module, made when somebody asks: most regions never run natively."""
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        for node in self.inputs:
            copies[node] = graph.placeholder(node.name)
            copies[node].meta = dict(node.meta)
        for node in self.nodes:
            copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.output(tuple(copies[node] for node in self.outputs))
        return fx.GraphModule(self.gm, graph)

    def run_natively(self, *arguments: Any) -> tuple[Any, ...]:
        """Return what the region's nodes compute with torch."""
        return self.module.forward(*arguments)


def split(
    gm: fx.GraphModule,
    schedule: Sequence[Region[fx.Node] | fx.Node],
    make_call: Callable[[int, Cut], Callable[[Sequence[Any]], Any]],
) -> fx.GraphModule:
    """Return the graph with each region replaced by one call.

    Args:
        gm: the graph; it is left as it was.
        schedule: a partition's; random numbers are drawn in its order.
        make_call: from a region's index and the region to what is called in its place, with one sequence of the graph's
            arguments.
    """
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}

    def copy_node(node: fx.Node) -> None:
        copies[node] = graph.node_copy(node, copies.__getitem__)
        for unpacker in _unpackers(node):
            copy_node(unpacker)

    position = {node: i for i, node in enumerate(gm.graph.nodes)}
    for node in position:
        if node.op not in ("call_function", "output"):
            copy_node(node)
    regions = 0
    for step in schedule:
        if isinstance(step, fx.Node):
            copy_node(step)
            continue
        cut = _cut(gm, step, position)
        # A function and no module: nn.Module's call costs as much as binding an engine's inputs.
        call = graph.call_function(make_call(regions, cut), (tuple(copies[node] for node in cut.inputs),))
        for i, node in enumerate(cut.outputs):
            copies[node] = graph.call_function(operator.getitem, (call, i))
            copies[node].meta = dict(node.meta)
        regions += 1
    graph.node_copy(gm.graph.output_node(), copies.__getitem__)
    return fx.GraphModule(gm, graph)


def _cut(gm: fx.GraphModule, region: Region[fx.Node], position: Mapping[fx.Node, int]) -> Cut:
    members = {member: None for node in region.nodes for member in (node, *_unpackers(node))}
    nodes = tuple(sorted(members, key=position.__getitem__))
    sources = {source for node in nodes for source in node.all_input_nodes if source not in members}
    inputs = tuple(sorted(sources, key=position.__getitem__))
    sizes = missing_sizes(inputs, nodes, gm.graph.find_nodes(op="placeholder"))
    outputs = tuple(node for node in nodes if any(user not in members for user in node.users))
    return Cut(gm, (*inputs, *sizes), nodes, outputs)


def runner(gm: fx.GraphModule) -> Callable[[Sequence[Any]], Any]:
    """Return what runs a graph on a sequence of arguments.

    Where the graph is one call, as of a region that is the whole graph, this is the call, without the generated code
    around it, which handles each of hundreds of weights twice.
    """
    places: list[Any] = list(gm.graph.find_nodes(op="placeholder"))
    results: list[Any] = list(gm.graph.output_node().args[0])  # type: ignore[arg-type]
    computed = [node for node in gm.graph.nodes if node.op not in ("placeholder", "output")]
    calls = [node for node in computed if not _unpacks(node)]
    if len(calls) == 1 and not isinstance(calls[0].target, OpOverload):
        (call,) = calls
        unpacked = {node.args[1]: node for node in _unpackers(call)}
        if results == [unpacked.get(i) for i in range(len(unpacked))]:
            needed: Any = call.args[0]
            if list(needed) == places:
                return call.target
            if len(needed) > 1:
                pick = operator.itemgetter(*map(places.index, needed))
                return lambda arguments: call.target(pick(arguments))
    return lambda arguments: gm.forward(*arguments)


def _has_effect(node: fx.Node) -> bool:
    return node.op == "call_function" and not (_unpacks(node) or _is_pure(node))


def _is_pure(node: fx.Node) -> bool:
    return not (is_random(node) or _writes(node)) if isinstance(node.target, OpOverload) else is_size(node)


def _writes(node: fx.Node) -> bool:
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def _unpacks(node: fx.Node) -> bool:
    return node.target is operator.getitem


def _packed(node: fx.Node) -> fx.Node:
    return node.args[0] if _unpacks(node) else node  # type: ignore[return-value]


def _unpackers(node: fx.Node) -> list[fx.Node]:
    return [user for user in node.users if _unpacks(user)]
