"""An AOTAutograd inference graph as the partitioner sees it, and its split along a partition."""

from __future__ import annotations

__all__ = ["FxHostGraph", "split"]

import operator
from collections.abc import Iterable, Sequence

from torch import fx
from torch.fx.passes.utils.fuser_utils import fuse_by_partitions

from trt_backend.partition import Region
from trt_backend_torch.fx import is_random

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

    def inputs(self, node: fx.Node) -> Iterable[fx.Node]:
        """Return the nodes whose values `node` takes."""
        return [_packed(source) for source in node.all_input_nodes]

    def after(self, node: fx.Node) -> Iterable[fx.Node]:
        """Return nothing: AOTAutograd's graphs are functional, order is data."""
        return ()

    def is_pure(self, node: fx.Node) -> bool:
        """Whether the node neither draws random numbers nor has a side effect."""
        return not (is_random(node) or node.is_impure())


def split(gm: fx.GraphModule, regions: Sequence[Region[fx.Node]]) -> tuple[fx.GraphModule, list[str]]:
    """Move each region to a submodule that returns a tuple; return the rest and the submodules' names."""
    members = [
        {member: None for node in region.nodes for member in (node, *_unpackers(node))} for region in regions
    ]
    outer = fuse_by_partitions(gm, members, prefix=_PREFIX, always_return_tuple=True)
    return outer, [f"{_PREFIX}{i}" for i in range(len(regions))]


def _unpacks(node: fx.Node) -> bool:
    return node.target is operator.getitem


def _packed(node: fx.Node) -> fx.Node:
    return node.args[0] if _unpacks(node) else node  # type: ignore[return-value]


def _unpackers(node: fx.Node) -> list[fx.Node]:
    return [user for user in node.users if _unpacks(user)]
