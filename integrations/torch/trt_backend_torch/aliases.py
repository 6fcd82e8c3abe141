"""Results that share memory: their views are taken natively, so that they share it as in eager."""

from __future__ import annotations

__all__ = ["SHARED", "mark_shared_views"]

import operator
from collections import defaultdict

from torch import fx

from trt_backend_torch.fx import is_view

SHARED = "trt_shared_view"
"""The key in a node's `meta` that keeps it out of engines: an engine's outputs never share memory."""


def mark_shared_views(gm: fx.GraphModule) -> None:
    """Give results that share memory views of their own, marked to run natively, in place.

    AOTAutograd takes views of inputs itself once more, but where a size is symbolic from what the graph returned: the
    offset of that. One view of an intermediate needs nothing: whoever holds it cannot tell it from a copy with its strides.
    """
    output = gm.graph.output_node()
    sharing: dict[fx.Node, list[fx.Node]] = defaultdict(list)
    for result in output.all_input_nodes:
        sharing[_root(result)].append(result)
    for root, results in sharing.items():
        if root.op == "placeholder" or len(results) > 1:
            _replace_views(gm.graph, output, root, results)


def _replace_views(graph: fx.Graph, output: fx.Node, root: fx.Node, results: list[fx.Node]) -> None:
    copies = {root: root}
    for result in results:
        if SHARED in result.meta:  # an attempt before this one, which `strict` stopped
            continue
        chain: list[fx.Node] = []
        place = result
        while place not in copies:
            chain.append(place)
            place = place.all_input_nodes[0]
        for view in reversed(chain):
            with graph.inserting_before(output):
                copies[view] = graph.node_copy(view, lambda source: copies.get(source, source))
            copies[view].meta[SHARED] = True
        output.replace_input_with(result, copies[result])
        for view in chain:  # sizes that only these had would stay those of a region
            if not view.users:
                graph.erase_node(view)


def _root(node: fx.Node) -> fx.Node:
    """Return the node whose memory `node` is a view of: itself where it is none."""
    while node.op == "call_function" and (is_view(node) or node.target is operator.getitem):
        source = node.all_input_nodes[0]
        if node.target is operator.getitem and not is_view(source):
            return node
        node = source
    return node
