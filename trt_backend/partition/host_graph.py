"""What the partitioner asks of a framework's graph; each frontend has an adapter that answers it."""

from __future__ import annotations

__all__ = ["Guard", "HostGraph", "Node"]

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Protocol, TypeAlias, TypeVar

from trt_backend.errors import Reason

Node = TypeVar("Node", bound=Hashable)

Guard: TypeAlias = Callable[[Node], "Reason | None"]
"""Says why a node cannot go into an engine; None if it can."""


class HostGraph(Protocol[Node]):
    """A directed acyclic graph over any hashable nodes."""

    @property
    def nodes(self) -> Sequence[Node]:
        """The nodes to place, in a topological order of `inputs` and `after`."""
        ...

    @property
    def outputs(self) -> Iterable[Node]:
        """The nodes whose values the graph returns."""
        ...

    def inputs(self, node: Node) -> Iterable[Node]:
        """Yield the nodes whose values `node` takes; one that is not in `nodes` is an input of the graph."""
        ...

    def after(self, node: Node) -> Iterable[Node]:
        """Yield the nodes that must run before `node` although it takes no value of theirs.

        A control edge, the previous side effect, a reader of the storage that `node` overwrites.
        """
        ...

    def is_pure(self, node: Node) -> bool:
        """Tell whether running `node` elsewhere in a legal order is unobservable."""
        ...
