"""An AOTAutograd inference graph as the partitioner sees it, and its split along a partition."""

from __future__ import annotations

__all__ = ["FxHostGraph", "runner", "split"]

import operator
from collections.abc import Callable, Iterable, Sequence
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import Any

from torch import fx
from torch._ops import OpOverload
from torch.fx.passes.utils.fuser_utils import fuse_by_partitions

from trt_backend.partition import Region
from trt_backend_torch.fx import is_random, is_size
from trt_backend_torch.symbols import pass_symbols

_PREFIX = "region_"


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
        self._before = {later: earlier for earlier, later in pairwise(effects)}

    def inputs(self, node: fx.Node) -> Iterable[fx.Node]:
        """Return the nodes whose values `node` takes."""
        return [_packed(source) for source in node.all_input_nodes]

    def after(self, node: fx.Node) -> Iterable[fx.Node]:
        """Return the last effect before `node` where that has one itself: random numbers are drawn in their order.

        All else is functional in AOTAutograd's graphs: order is data.
        """
        return (self._before[node],) if node in self._before else ()

    def is_pure(self, node: fx.Node) -> bool:
        """Whether the node neither draws random numbers nor has a side effect."""
        return _is_pure(node)


def split(
    gm: fx.GraphModule,
    regions: Sequence[Region[fx.Node]],
    make_call: Callable[[int, fx.GraphModule], Callable[[Sequence[Any]], Any]],
) -> fx.GraphModule:
    """Return the graph with each region replaced by one call.

    Args:
        gm: the graph; it is left as it was.
        regions: a partition's regions.
        make_call: from a region's index and its own graph, which returns a tuple, to what is called in its place, with
            one sequence of the graph's arguments.
    """
    copies: dict[fx.Node, fx.Node] = {}
    graph = fx.Graph()
    graph.output(graph.graph_copy(gm.graph, copies))
    outer = fx.GraphModule(gm, graph)
    members: list[dict[fx.Node, int | None]] = [
        {copies[member]: None for node in region.nodes for member in (node, *_unpackers(node))}
        for region in regions
    ]
    effects = [copy.name for node, copy in copies.items() if _has_effect(node)]
    outer = fuse_by_partitions(outer, members, prefix=_PREFIX, always_return_tuple=True)
    _keep_order(outer.graph, effects)
    for i in range(len(regions)):
        (module,) = outer.graph.find_nodes(op="call_module", target=f"{_PREFIX}{i}")
        native = outer.get_submodule(f"{_PREFIX}{i}")
        assert isinstance(native, fx.GraphModule)
        _order_inputs(module, native)
        symbols = pass_symbols(native, outer.graph.find_nodes(op="placeholder"))
        with outer.graph.inserting_before(module):
            # A function and no module: nn.Module's call costs as much as binding an engine's inputs.
            call = outer.graph.call_function(make_call(i, native), ((*module.args, *symbols),))
        module.replace_all_uses_with(call)
        outer.graph.erase_node(module)
    outer.delete_all_unused_submodules()
    outer.recompile()
    return outer


def _order_inputs(module: fx.Node, native: fx.GraphModule) -> None:
    """Give a region its inputs in the graph's order: what is fused has them in that of a set.

    A region that is the whole graph then takes the call's arguments as they are; and its engine's key is the same in each
    process.
    """
    position = {node: i for i, node in enumerate(module.graph.nodes)}
    places = list(native.graph.find_nodes(op="placeholder"))
    pairs = sorted(zip(module.args, places, strict=True), key=lambda pair: position[pair[0]])  # type: ignore[index]
    module.args = tuple(argument for argument, _ in pairs)
    body = next(node for node in native.graph.nodes if node.op != "placeholder")
    for _, place in pairs:
        body.prepend(place)
    native.recompile()


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


def _keep_order(graph: fx.Graph, effects: Sequence[str]) -> None:
    """Run `effects` (names) in the given order, for which the partition left room; torch sorts by inputs alone."""
    if len(effects) < 2:
        return
    before: dict[fx.Node, list[fx.Node]] = {node: list(node.all_input_nodes) for node in graph.nodes}
    named = {node.name: node for node in before}
    for earlier, later in pairwise(named[name] for name in effects):
        before[later].append(earlier)
    output = graph.output_node()
    for node in TopologicalSorter(before).static_order():
        if node.op not in ("placeholder", "output"):
            output.prepend(node)


def _has_effect(node: fx.Node) -> bool:
    return node.op == "call_function" and not (_unpacks(node) or _is_pure(node))


def _is_pure(node: fx.Node) -> bool:
    if isinstance(node.target, OpOverload):
        return not (is_random(node) or node.target._schema.is_mutable)
    return is_size(node)


def _unpacks(node: fx.Node) -> bool:
    return node.target is operator.getitem


def _packed(node: fx.Node) -> fx.Node:
    return node.args[0] if _unpacks(node) else node  # type: ignore[return-value]


def _unpackers(node: fx.Node) -> list[fx.Node]:
    return [user for user in node.users if _unpacks(user)]
