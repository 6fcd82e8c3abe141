"""The partitioner: golden small graphs, properties against brute force, and work counted at scale."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trt_backend.errors import Reason, ReasonKind
from trt_backend.partition import Partition, Region, partition
from trt_backend.partition.regions import _Line

Edges = dict[Any, tuple[Any, ...]]
UNSUPPORTED = Reason(ReasonKind.NO_RULE, "op")


@dataclass
class Graph:
    """A host graph from tables, that counts the questions asked about it."""

    edges: Edges
    outputs: tuple[Hashable, ...] = ()
    control: Edges = field(default_factory=dict)
    unsupported: frozenset[Hashable] = frozenset()
    impure: frozenset[Hashable] = frozenset()
    calls: Counter[str] = field(default_factory=Counter)

    @property
    def nodes(self) -> Sequence[Hashable]:
        self.calls["nodes"] += 1
        return list(self.edges)

    def inputs(self, node: Hashable) -> Iterable[Hashable]:
        self.calls["inputs"] += 1
        return self.edges[node]

    def after(self, node: Hashable) -> Iterable[Hashable]:
        self.calls["after"] += 1
        return self.control.get(node, ())

    def is_pure(self, node: Hashable) -> bool:
        self.calls["is_pure"] += 1
        return node not in self.impure

    def guard(self, node: Hashable) -> Reason | None:
        self.calls["guard"] += 1
        return UNSUPPORTED if node in self.unsupported else None

    def before(self, node: Hashable) -> tuple[Hashable, ...]:
        return (*self.edges[node], *self.control.get(node, ()))

    def candidates(self) -> list[Hashable]:
        return [n for n in self.edges if n not in self.unsupported | self.impure and self.before(n)]

    def sources(self) -> list[Hashable]:
        return [n for n in self.edges if n not in self.unsupported | self.impure and not self.before(n)]


def parse(text: str, outputs: str = "") -> Graph:
    """Read nodes like `a(x y)`, `W!(x; a)` or `s`: `W` is no supported op, has an effect, is after a."""
    found = re.findall(r"(\w)(!?)(?:\(([\w ]*);?([\w ]*)\))?", text)
    return Graph(
        {name: tuple(inputs.split()) for name, _, inputs, _ in found},
        tuple(outputs.split()),
        {name: tuple(after.split()) for name, _, _, after in found},
        frozenset(name for name, *_ in found if name.isupper()),
        frozenset(name for name, effect, *_ in found if effect),
    )


def cut(graph: Graph, min_block_size: int = 1, **options: Any) -> Partition[Hashable]:
    """Partition with the graph's own guard."""
    return partition(graph, graph.guard, min_block_size, **options)


def names(found: Partition[Hashable]) -> list[str]:
    """Write each region as its nodes' names in a row."""
    return ["".join(map(str, region.nodes)) for region in found.regions]


GOLDENS = {
    # name: (graph, regions); `x` is an input of the graph and no node
    "empty": ("", []),
    "all native": ("A(x) B(A)", []),
    "all supported": ("a(x) b(a) c(b)", ["abc"]),
    "residual diamond": ("a(x) b(a) c(b) d(a c)", ["abcd"]),
    "native on one arm of a diamond": ("a(x) b(a) N(a) d(b N)", ["a", "bd"]),
    "native in the middle of a chain": ("a(x) b(a) N(b) c(N) d(c)", ["ab", "cd"]),
    "native side branch does not split": ("a(x) N(a) b(a) c(b) M(N)", ["abc"]),
    "native that joins from the side does not split": ("a(x) N(x) b(a) c(b N)", ["abc"]),
    "parallel branches share a region": ("a(x) b(x) c(a) d(b)", ["abcd"]),
    "branches of unequal depth": ("a(x) N(a) b(N) c(x) d(c) e(b d)", ["a", "bcde"]),
    "side chain goes to its consumer": ("a(x) p(x) q(p) N(a) b(N q)", ["a", "pqb"]),
    "output without consumer stays with its inputs": ("a(x) b(a) N(a) c(N)", ["ab", "c"]),
    "source goes to its consumer": ("s a(x) N(a) b(N s)", ["a", "sb"]),
    "source goes to the first of two consumers": ("s a(x) N(a s) b(N s) c(a s)", ["sac", "b"]),
    "source needed by a native before its consumer": ("s N(s) b(N s)", ["b"]),
    "source that must wait is like any other": ("a(x) N(a) s(; N) b(s)", ["a", "sb"]),
    "lone source makes no region": ("s N(s)", []),
    "source makes no second region": ("s N(s) a(x) b(a) M(b) c(M) d(b N)", ["abd", "c"]),
    "effect is native": ("a(x) b!(a) c(b)", ["a", "c"]),
}


@pytest.mark.parametrize("name", GOLDENS)
def test_golden(name: str) -> None:
    """Small graphs give the regions that one would draw by hand."""
    text, expected = GOLDENS[name]
    assert names(cut(parse(text))) == expected


def test_control_edge_orders_but_crosses_no_border() -> None:
    """A read before the write that overwrites it, which a later region follows, splits but is no output."""
    found = cut(parse("a(x) W!(x; a) b(a W)", outputs="b"))
    assert [(r.nodes, r.inputs, r.outputs) for r in found.regions] == [
        (("a",), ("x",), ("a",)),
        (("b",), ("a", "W"), ("b",)),
    ]
    assert cut(parse("a(x) W!(x; a)")).regions[0].outputs == ()


def test_border_is_ordered_and_deduplicated() -> None:
    """Inputs come in the order of first use, outputs in topological order, each once."""
    found = cut(parse("N(x) a(y x y) b(N a x) c(b) M(b a b)", outputs="c a"))
    assert found.regions == (Region("region_0", ("a", "b", "c"), ("y", "x", "N"), ("a", "b", "c")),)
    assert found.schedule == ("N", found.regions[0], "M")


def test_views_do_not_pay_for_an_engine() -> None:
    """Only compute nodes count, and a dissolved node joins the region that its inputs are in."""
    graph = parse("a(x) b(a) c(b) N(c) p(b) v(N p) w(v)")
    assert names(cut(graph, 3)) == ["abc", "pvw"]
    found = cut(graph, 3, compute_ops=lambda n: n not in "vw", describe=lambda n: (f"op_{n}", "m.py:1"))
    assert names(found) == ["abcp"]
    assert found.native["v"] == Reason(
        ReasonKind.TOO_SMALL,
        "op_v",
        "fewer than 3 compute ops in a row that an engine takes (min_block_size=3)",
        "m.py:1",
    )
    assert list(found.native) == ["N", "v", "w"]
    assert names(cut(parse("a(x) b(a)"), compute_ops=lambda _: False)) == []
    assert names(cut(parse("a(x)"), 3, compute_ops=lambda _: 3)) == ["a"]


def test_dissolved_node_joins_its_consumer() -> None:
    """Of the two regions that `v` can join when its own dissolves, it takes the one that uses it."""
    graph = parse("a(x) b(a) c(b) d(c) N(d) v(x) w(N v) q(N) M(q) e(M v) f(e) g(f) h(g)")
    assert names(cut(graph)) == ["abcd", "vwq", "efgh"]
    assert names(cut(graph, 4)) == ["abcd", "vwefgh"]


def test_fuel_keeps_the_first_regions_unchanged() -> None:
    """Less fuel only takes regions away from the end."""
    graph = parse("s a(x) N(a) b(N s) M(b) c(M)")
    full = cut(graph)
    for fuel in range(4):
        found = cut(graph, fuel=fuel)
        assert [r.nodes for r in found.regions] == [r.nodes for r in full.regions[:fuel]]
        lost = {n for r in full.regions[fuel:] for n in r.nodes}
        assert {n for n, r in found.native.items() if r.kind is ReasonKind.FUEL} == lost


def test_reason_for_an_effect_that_the_guard_lets_pass() -> None:
    """The partitioner speaks up where the guard does not."""
    reason = cut(parse("a!(x)")).native["a"]
    assert (reason.kind, reason.detail) == (ReasonKind.UNSUPPORTED, "it has a side effect")


@pytest.mark.parametrize("text", ["b(a) a(x)", "a(a)"])
def test_order_is_checked(text: str) -> None:
    """Nodes out of topological order are the caller's mistake."""
    with pytest.raises(ValueError, match="topological"):
        cut(parse(text))


# Properties --------------------------------------------------------------------------------------------


@st.composite
def graphs(draw: st.DrawFn, max_nodes: int = 24) -> Graph:
    """Draw a graph in which some nodes are unsupported, impure, sources, returned or ordered only."""
    size = draw(st.integers(0, max_nodes))
    edges: Edges = {}
    control: Edges = {}
    for v in range(size):
        earlier = st.lists(st.integers(max(-1, v - 8), v - 1), max_size=3)
        edges[v] = tuple(draw(earlier))
        if v and draw(st.integers(0, 7)) == 0:
            control[v] = (draw(st.integers(0, v - 1)),)
    subset = st.sets(st.sampled_from(range(size))) if size else st.just(set[int]())
    rare = st.sets(st.sampled_from(range(size)), max_size=2) if size else st.just(set[int]())
    return Graph(edges, tuple(draw(subset)), control, frozenset(draw(subset)), frozenset(draw(rare)))


SIZES = st.integers(0, 4)


def is_acyclic(graph: Graph, regions: Iterable[Iterable[Hashable]]) -> bool:
    """Contract the regions and peel off vertices without predecessors until none is left."""
    vertex: dict[Hashable, Hashable] = {n: n for n in graph.edges}
    vertex |= {n: ("region", i) for i, region in enumerate(regions) for n in region}
    edges = {(vertex[u], vertex[v]) for v in graph.edges for u in graph.before(v) if u in vertex}
    edges = {(u, v) for u, v in edges if u != v}
    left = set(vertex.values())
    while free := left - {v for u, v in edges if u in left}:
        left -= free
    return not left


@given(graphs(), SIZES)
def test_cut_is_legal(graph: Graph, min_block_size: int) -> None:
    """Regions are disjoint, supported and pure; every node is somewhere; the quotient is acyclic."""
    found = cut(graph, min_block_size)
    inside = [n for region in found.regions for n in region.nodes]
    assert Counter([*inside, *found.native]) == Counter(list(graph.edges))
    assert not set(inside) & (graph.unsupported | graph.impure)
    assert is_acyclic(graph, [r.nodes for r in found.regions])
    order = {n: i for i, n in enumerate(graph.edges)}
    for region in found.regions:
        assert list(region.nodes) == sorted(region.nodes, key=order.__getitem__)
        assert sum(n in graph.candidates() for n in region.nodes) >= max(min_block_size, 1)
    assert list(found.native) == sorted(found.native, key=order.__getitem__)


@given(graphs(), SIZES)
def test_schedule_runs(graph: Graph, min_block_size: int) -> None:
    """Each step of the schedule has what it waits for, and the borders are all that crosses."""
    found = cut(graph, min_block_size)
    done: set[Hashable] = {-1}  # -1 is an input of the graph
    values: set[Hashable] = {-1}
    for step in found.schedule:
        nodes = step.nodes if isinstance(step, Region) else (step,)
        assert {u for n in nodes for u in graph.before(n)} <= done | set(nodes)
        taken = dict.fromkeys(u for n in nodes for u in graph.edges[n] if u not in nodes)
        assert set(taken) <= values
        assert not isinstance(step, Region) or step.inputs == tuple(taken)
        done |= set(nodes)
        values |= set(step.outputs) if isinstance(step, Region) else set(nodes)
    assert len(done) == len(graph.edges) + 1
    assert set(graph.outputs) <= values
    for region in found.regions:
        outside = {u for n in graph.edges if n not in region.nodes for u in graph.edges[n]}
        assert set(region.outputs) == set(region.nodes) & (outside | set(graph.outputs))


@given(graphs(), SIZES, st.randoms(use_true_random=False))
def test_cut_ignores_names(graph: Graph, min_block_size: int, rng: random.Random) -> None:
    """Renamed nodes, with other hashes, are cut the same."""
    labels = rng.sample(range(10**6), len(graph.edges))
    new: dict[Any, Any] = {-1: "x"} | {n: f"node_{labels[i]}" for i, n in enumerate(graph.edges)}

    def rename(nodes: Iterable[Hashable]) -> tuple[Hashable, ...]:
        return tuple(new[n] for n in nodes)

    renamed = Graph(
        {new[n]: rename(us) for n, us in graph.edges.items()},
        rename(graph.outputs),
        {new[n]: rename(us) for n, us in graph.control.items()},
        frozenset(rename(graph.unsupported)),
        frozenset(rename(graph.impure)),
    )
    before, after = cut(graph, min_block_size), cut(renamed, min_block_size)
    assert after.regions == tuple(
        replace(r, nodes=rename(r.nodes), inputs=rename(r.inputs), outputs=rename(r.outputs))
        for r in before.regions
    )
    assert list(after.native) == list(rename(before.native))
    assert cut(graph, min_block_size) == before


@given(graphs(), SIZES)
def test_no_merge_is_left(graph: Graph, min_block_size: int) -> None:
    """Merging any two regions, or adding any node left outside, closes a cycle."""
    regions = [set(r.nodes) for r in cut(graph, min_block_size).regions]
    inside = set[Hashable]().union(*regions)
    for i, region in enumerate(regions):
        others = regions[:i] + regions[i + 1 :]
        for j, other in enumerate(others):
            rest = others[:j] + others[j + 1 :]
            assert not is_acyclic(graph, [region | other, *rest])
        for node in set(graph.candidates()) - inside:
            assert not is_acyclic(graph, [region | {node}, *others])


@given(graphs(), SIZES)
def test_sources_follow_their_users(graph: Graph, min_block_size: int) -> None:
    """A source in a region has a user there; one outside cannot join any region that uses it."""
    regions = [set(r.nodes) for r in cut(graph, min_block_size).regions]
    for source in graph.sources():
        users = {n for n in graph.edges if source in graph.before(n)}
        homes = [i for i, r in enumerate(regions) if source in r]
        assert all(regions[i] & users for i in homes)
        for i, region in enumerate(regions):
            if not homes and region & users:
                rest = regions[:i] + regions[i + 1 :]
                assert not is_acyclic(graph, [region | {source}, *rest])


def set_partitions(items: Sequence[Hashable]) -> Iterator[list[list[Hashable]]]:
    """Yield every way to split `items` into blocks."""
    ways: list[list[list[Hashable]]] = [[]]
    for item in items:
        ways = [
            [*way[:i], [*(way[i] if i < len(way) else []), item], *way[i + 1 :]]
            for way in ways
            for i in range(len(way) + 1)
        ]
    yield from ways


@settings(max_examples=40, deadline=None)
@given(graphs(max_nodes=8).filter(lambda g: len(g.candidates()) <= 6))
def test_no_fewer_regions_are_possible(graph: Graph) -> None:
    """Of all acyclic partitions of the candidates none has fewer regions (no region being too small)."""
    found = cut(graph)
    assert all(n not in found.native for n in graph.candidates())
    ways = set_partitions(graph.candidates())
    assert len(found.regions) == min(len(way) for way in ways if is_acyclic(graph, way))


# Scale -------------------------------------------------------------------------------------------------


def chain(size: int) -> Graph:
    """Alternate supported and native nodes: as many regions as there can be."""
    edges: Edges = {v: (v - 1,) for v in range(size)}
    return Graph(edges, unsupported=frozenset(range(1, size, 2)))


def fan(size: int) -> Graph:
    """Draw one node that all others use and that one last node gathers."""
    edges: Edges = dict.fromkeys(range(size), (0,)) | {0: (-1,)}
    return Graph(edges | {size: tuple(range(1, size))}, unsupported=frozenset(range(1, size, 2)))


def noise(size: int) -> Graph:
    """Draw a random graph of which half is supported."""
    rng = random.Random(size)
    edges: Edges = {
        v: tuple(rng.randrange(max(-1, v - 1000), v) for _ in range(rng.randrange(4))) for v in range(size)
    }
    return Graph(edges, unsupported=frozenset(v for v in range(size) if rng.random() < 0.5))


class CountingNode:
    """A node that counts how often it is hashed, which is once for every set or dictionary operation."""

    hashed = 0

    def __hash__(self) -> int:
        CountingNode.hashed += 1
        return id(self)


@pytest.mark.parametrize("make", [chain, fan, noise])
@pytest.mark.parametrize("min_block_size", [1, 3])
def test_work_is_linear(make: Callable[[int], Graph], min_block_size: int) -> None:
    """Each question is asked once a node, and lookups grow as nodes and edges do."""
    lookups: list[float] = []
    for size in (300, 3000):
        table = make(size)
        new = {n: CountingNode() for n in (-1, *table.edges)}
        graph = Graph(
            {new[n]: tuple(new[u] for u in us) for n, us in table.edges.items()},
            unsupported=frozenset(new[n] for n in table.unsupported),
        )
        CountingNode.hashed = 0
        cut(graph, min_block_size)
        edges = sum(map(len, graph.edges.values()))
        lookups.append(CountingNode.hashed / (len(graph.edges) + edges))
        assert graph.calls["nodes"] == 1
        assert all(graph.calls[question] <= len(graph.edges) for question in graph.calls - Counter("nodes"))
    assert lookups[1] < 1.2 * lookups[0]


def test_sweeps_are_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules look at each node's neighbours a fixed number of times, however long the chain."""
    looks = Counter[int]()
    for name in ("low", "high", "has_user_at"):
        real = getattr(_Line, name)

        def counted(self: object, v: int, last: int, real: Callable[..., object] = real) -> object:
            looks[v] += 1
            return real(self, v, last)

        monkeypatch.setattr(_Line, name, counted)
    cut(chain(2000), 2)
    assert max(looks.values()) <= 12
