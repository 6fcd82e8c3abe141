"""Cut a host graph into as few regions as possible, in time linear in nodes and edges.

Every node gets a position on a line, which the rules below name. A *source* is a supported, pure node that
waits for nothing (a constant, an arange), a *candidate* any other supported, pure node; all else is native.

LINE      Even positions hold regions (2k is region k), odd ones the native nodes between them. No edge leads
          down the line. So contracting each region leaves no cycle, and position order is a schedule.
LABEL     Each node takes the lowest position above its inputs: the number of alternations on the longest path
          to it. That path crosses every region below with native nodes between, and no acyclic partition has
          two of its stretches in one region. So this is the fewest regions, and no two of them can merge.
PULL      From the last node back, a candidate moves up to the highest region below its users if one of them
          is there, to take the edge inside. The longest path has no room to move, so LABEL's claim holds on.
DISSOLVE  Regions of too few compute nodes become native, the rest close ranks.
JOIN      A dissolved candidate enters a region that lies above its inputs and below its users. The longest
          path orders all regions, so any other choice closes a cycle: who stays outside can join no region.
          In topological order once is enough, for each join only narrows the room of the others.
SOURCE    A source goes where its first user is, if its other users allow. It makes no region, and does not
          count in one.
FUEL      Only the first regions are kept, the others run natively. Nothing moves, so wrong answers bisect.
"""

from __future__ import annotations

__all__ = ["Partition", "Region", "partition"]

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic

from trt_backend.errors import Reason, ReasonKind
from trt_backend.partition.host_graph import Guard, HostGraph, Node

_REGION, _NATIVE = 0, 1  # LINE: the parity of a position


@dataclass(frozen=True)
class Region(Generic[Node]):
    """Supported nodes that become one engine, in topological order, and the values that cross its border."""

    name: str
    nodes: tuple[Node, ...]
    inputs: tuple[Node, ...]
    """The outside nodes whose values it takes, in the order of first use."""
    outputs: tuple[Node, ...]
    """The nodes whose values are used outside or returned by the graph, in topological order."""


@dataclass(frozen=True)
class Partition(Generic[Node]):
    """Where every node of a graph runs."""

    regions: tuple[Region[Node], ...]
    native: Mapping[Node, Reason]
    """Why each node outside the regions is there, in the graph's order."""
    schedule: tuple[Region[Node] | Node, ...]
    """Regions and native nodes in an order that keeps `inputs` and `after`."""


def partition(
    graph: HostGraph[Node],
    guard: Guard[Node],
    min_block_size: int = 1,
    *,
    compute_ops: Callable[[Node], int] = lambda _: 1,
    describe: Callable[[Node], tuple[str, str]] = lambda node: (str(node), ""),
    fuel: int | None = None,
) -> Partition[Node]:
    """Cut `graph` into the fewest regions of pure nodes that `guard` lets pass, without cycles between them.

    The answer depends on the order of nodes and edges alone. Independent components may share a region.

    Args:
        graph: what to cut.
        guard: asked once about every node; None means supported.
        min_block_size: the fewest compute ops that are worth an engine.
        compute_ops: how many a node stands for: none where it moves no data (layout, views), several where it is fused.
        describe: a node's op and source line, for the reasons found here.
        fuel: how many regions to keep, to bisect a wrong answer; None keeps all.

    Raises:
        ValueError: `graph.nodes` is not in topological order.
    """
    nodes = tuple(graph.nodes)
    takes = [tuple(dict.fromkeys(graph.inputs(node))) for node in nodes]
    line = _Line(_predecessors(graph, nodes, takes))
    reasons = [guard(node) for node in nodes]

    def refuse(v: int, kind: ReasonKind, detail: str) -> None:
        op, source = describe(nodes[v])
        reasons[v] = Reason(kind, op, detail, source)

    for v, node in enumerate(nodes):
        if reasons[v] is None and not graph.is_pure(node):
            refuse(v, ReasonKind.UNSUPPORTED, "it has a side effect")
    sources = [reason is None and not (takes[v] or line.before[v]) for v, reason in enumerate(reasons)]
    candidates = [reason is None and not sources[v] for v, reason in enumerate(reasons)]

    # In this order: SOURCE wants the final regions, and FUEL must not change what the others do.
    _label(line, candidates)
    _pull(line)
    _dissolve(
        line, [compute_ops(n) if c else 0 for c, n in zip(candidates, nodes, strict=True)], min_block_size
    )
    _join(line, candidates)
    _place_sources(line, sources)

    for v, position in enumerate(line.at):
        if reasons[v] is not None:
            continue
        if position & 1 == _NATIVE:
            missing = (
                "no user in a region"
                if sources[v]
                else f"fewer than {min_block_size} compute ops in a row that an engine takes (min_block_size={min_block_size})"
            )
            refuse(v, ReasonKind.TOO_SMALL, missing)
        elif fuel is not None and position // 2 >= fuel:  # FUEL
            refuse(v, ReasonKind.FUEL, f"region_{position // 2} with fuel for {fuel}")
    return _collect(nodes, takes, line.at, reasons, set(graph.outputs))


def _predecessors(
    graph: HostGraph[Node], nodes: Sequence[Node], takes: Sequence[tuple[Node, ...]]
) -> list[list[int]]:
    """List for every node the indices of the nodes that come before it."""
    index = {node: v for v, node in enumerate(nodes)}
    before: list[list[int]] = []
    for v, node in enumerate(nodes):
        earlier = dict.fromkeys((*takes[v], *graph.after(node)))
        before.append([index[other] for other in earlier if other in index])
        if index[node] != v or max(before[v], default=-1) >= v:
            raise ValueError(f"nodes are not in topological order: {node} repeats or precedes an input")
    return before


class _Line:
    """The nodes' positions `at` the LINE, and the bounds that its neighbours set to each.

    A sweep forwards leaves native nodes as low as they go, a sweep backwards as high; a sweep thus meets
    both bounds at their widest: the neighbours behind it are from this sweep, those ahead from the last.
    """

    def __init__(self, before: list[list[int]]) -> None:
        self.before = before
        self.users: list[list[int]] = [[] for _ in before]
        for v, earlier in enumerate(before):
            for u in earlier:
                self.users[u].append(v)
        self.at = [-1] * len(before)
        self.end = -1  # the odd position above all regions

    def low(self, v: int, parity: int) -> int:
        """Return the lowest position for `v` that no input is above."""
        bound = max([self.at[u] for u in self.before[v]], default=-1)
        return bound + ((bound ^ parity) & 1)

    def high(self, v: int, parity: int) -> int:
        """Return the highest position for `v` that no user is below."""
        bound = min([self.at[u] for u in self.users[v]], default=self.end)
        return bound - ((bound ^ parity) & 1)

    def has_user_at(self, v: int, position: int) -> bool:
        """Tell whether a user of `v` stands at `position`."""
        return any(self.at[u] == position for u in self.users[v])

    def is_native(self, v: int) -> bool:
        """Tell whether `v` stands between regions."""
        return self.at[v] & 1 == _NATIVE


def _label(line: _Line, candidates: Sequence[bool]) -> None:
    """LABEL every node."""
    for v, candidate in enumerate(candidates):
        line.at[v] = line.low(v, _REGION if candidate else _NATIVE)
        if candidate:
            line.end = max(line.end, line.at[v] + 1)


def _pull(line: _Line) -> None:
    """PULL candidates, and with them native nodes, towards their users."""
    for v in reversed(range(len(line.at))):
        high = line.high(v, line.at[v] & 1)
        if line.is_native(v) or line.has_user_at(v, high):
            line.at[v] = high


def _dissolve(line: _Line, ops: Sequence[int], min_block_size: int) -> None:
    """DISSOLVE the regions of fewer than `min_block_size` compute ops."""
    sizes = dict.fromkeys(range(0, line.end, 2), 0)
    for position, count in zip(line.at, ops, strict=True):
        if count:
            sizes[position] += count
    kept = [position for position, size in sizes.items() if size >= min_block_size]
    moved = {position: 2 * rank for rank, position in enumerate(kept)}
    line.end = 2 * len(kept) - 1
    for v in reversed(range(len(line.at))):
        line.at[v] = moved[line.at[v]] if line.at[v] in moved else line.high(v, _NATIVE)


def _join(line: _Line, candidates: Sequence[bool]) -> None:
    """JOIN what DISSOLVE left outside to the regions that it kept."""
    for v, candidate in enumerate(candidates):
        if not line.is_native(v):
            continue
        low, high = line.low(v, _REGION), line.high(v, _REGION)
        if candidate and low <= high:
            line.at[v] = high if line.has_user_at(v, high) else low
        else:
            line.at[v] = line.low(v, _NATIVE)


def _place_sources(line: _Line, sources: Sequence[bool]) -> None:
    """Move each SOURCE to its first user."""
    for v in reversed(range(len(line.at))):
        high = line.high(v, _REGION)
        if line.is_native(v):
            joins = sources[v] and line.has_user_at(v, high)
            line.at[v] = high if joins else line.high(v, _NATIVE)


def _collect(
    nodes: Sequence[Node],
    takes: Sequence[tuple[Node, ...]],
    at: Sequence[int],
    reasons: Sequence[Reason | None],
    returned: set[Node],
) -> Partition[Node]:
    """Gather the nodes by position, and find what crosses the borders of the regions."""
    home = {node: at[v] for v, node in enumerate(nodes) if reasons[v] is None}
    members: dict[int, list[int]] = {}
    crossing = set(returned)
    for v, node in enumerate(nodes):
        if node in home:
            members.setdefault(at[v], []).append(v)
        crossing.update(n for n in takes[v] if n in home and home[n] != home.get(node))
    regions = {
        position: Region(
            name=f"region_{position // 2}",
            nodes=tuple(nodes[v] for v in inside),
            inputs=tuple(dict.fromkeys(n for v in inside for n in takes[v] if home.get(n) != position)),
            outputs=tuple(nodes[v] for v in inside if nodes[v] in crossing),
        )
        for position, inside in sorted(members.items())
    }
    order = sorted(range(len(nodes)), key=at.__getitem__)  # stable, so topological at each position
    steps = [
        regions[at[v]] if nodes[v] in home else nodes[v]
        for v in order
        if nodes[v] not in home or v == members[at[v]][0]
    ]
    native = {node: reason for node, reason in zip(nodes, reasons, strict=True) if reason is not None}
    return Partition(tuple(regions.values()), native, tuple(steps))
