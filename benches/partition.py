"""Time the partitioner on 10^4 and 10^5 nodes: `python benches/partition.py`."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from timing import ratio

from trt_backend.errors import Reason, ReasonKind
from trt_backend.partition import partition

NATIVE = Reason(ReasonKind.NO_RULE, "op")


@dataclass(frozen=True)
class Table:
    """A host graph over the integers."""

    edges: list[tuple[int, ...]]
    unsupported: list[bool]
    outputs: tuple[int, ...] = ()

    @property
    def nodes(self) -> Sequence[int]:
        """All nodes."""
        return range(len(self.edges))

    def inputs(self, node: int) -> tuple[int, ...]:
        """Look the node's inputs up."""
        return self.edges[node]

    def after(self, node: int) -> tuple[int, ...]:
        """Order nothing."""
        return ()

    def is_pure(self, node: int) -> bool:
        """Have no effects."""
        return True

    def guard(self, node: int) -> Reason | None:
        """Refuse what is marked."""
        return NATIVE if self.unsupported[node] else None


def random_local(size: int) -> Table:
    """Draw up to three inputs from the last thousand nodes, and support half of the nodes."""
    rng = random.Random(size)
    edges = [tuple(rng.randrange(max(-1, v - 1000), v) for _ in range(rng.randrange(4))) for v in range(size)]
    return Table(edges, [rng.random() < 0.5 for _ in range(size)])


def random_global(size: int) -> Table:
    """Draw up to three inputs from all earlier nodes, and support half of the nodes."""
    rng = random.Random(size)
    edges = [tuple(rng.randrange(-1, v) for _ in range(rng.randrange(4))) for v in range(size)]
    return Table(edges, [rng.random() < 0.5 for _ in range(size)])


def chain(size: int) -> Table:
    """Alternate supported and native nodes."""
    return Table([(v - 1,) for v in range(size)], [bool(v % 2) for v in range(size)])


def fan(size: int) -> Table:
    """Let all nodes use the first and the last use all."""
    edges = [(-1,), *[(0,)] * (size - 2), tuple(range(1, size - 1))]
    return Table(edges, [bool(v % 2) for v in range(size)])


ROUNDS = 7


def seconds(graph: Table, min_block_size: int) -> float:
    """Return the CPU seconds of one run."""
    start = time.process_time()
    partition(graph, graph.guard, min_block_size)
    return time.process_time() - start


def main() -> None:
    """Print a line for each kind of graph."""
    print(f"Medians of {ROUNDS} rounds, in which both sizes take turns; CPU seconds.\n")
    print("| graph | min_block_size | 10^4 nodes | 10^5 nodes | ratio |\n|---|---|---|---|---|")
    for make in (random_local, random_global, chain, fan):
        small, large = make(10**4), make(10**5)
        for min_block_size in (1, 5):
            runs = [(seconds(small, min_block_size), seconds(large, min_block_size)) for _ in range(ROUNDS)]
            medians = [statistics.median(column) for column in zip(*runs, strict=True)]
            row = ratio([b for _, b in runs], [a for a, _ in runs])
            print(
                f"| {make.__name__} | {min_block_size} | {medians[0]:.3f} | {medians[1]:.3f} "
                f"| {row.ratio:.1f} ({row.low:.1f} to {row.high:.1f}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
