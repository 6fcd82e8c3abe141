"""What runs where and why: the records that compiled graphs keep, and the report over those alive."""

from __future__ import annotations

__all__ = ["GraphRecord", "RegionRecord", "Report", "open_graph", "report", "reset_report"]

import weakref
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from io import StringIO
from itertools import count
from threading import Lock
from typing import Any

from rich.console import Console
from rich.table import Table

from trt_backend.errors import Reason


@dataclass(eq=False)
class RegionRecord:
    """One region: what it is, and how its calls went so far.

    `members` are its compute ops, each with the user's source line; `reason` is why it runs natively after all, `note` why
    its engine does not compute in int8 that was asked for, `last_miss` why its engine did not serve the last call that it did
    not serve.
    """

    name: str
    framework: str
    provider: str
    members: tuple[tuple[str, str], ...] = ()
    engines: int = 0
    engine_calls: int = 0
    native_calls: int = 0
    build_seconds: float = 0.0
    reason: Reason | None = None
    note: str = ""
    last_miss: str = ""
    _lock: Lock = field(default_factory=Lock, repr=False)

    @property
    def ops(self) -> int:
        """The number of compute ops."""
        return len(self.members)

    def native_ops(self) -> list[Reason]:
        """Return a reason for each op, where a failure keeps the region from its engine."""
        reason = self.reason
        return (
            [] if reason is None else [replace(reason, op=op, source=source) for op, source in self.members]
        )

    def count_engine_call(self) -> None:
        """Note a call that an engine answered."""
        with self._lock:
            self.engine_calls += 1

    def count_native_call(self) -> None:
        """Note a call that the framework answered."""
        with self._lock:
            self.native_calls += 1

    def count_build(self, seconds: float) -> None:
        """Note a built engine."""
        with self._lock:
            self.engines += 1
            self.build_seconds += seconds

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain data."""
        return {
            "name": self.name,
            "framework": self.framework,
            "provider": self.provider,
            "ops": self.ops,
            "engines": self.engines,
            "engine_calls": self.engine_calls,
            "native_calls": self.native_calls,
            "build_seconds": self.build_seconds,
            "reason": str(self.reason) if self.reason else None,
            "note": self.note,
            "last_miss": self.last_miss,
        }


@dataclass(eq=False)
class GraphRecord:
    """One compiled graph of a framework: its regions, and why each op outside of them is there."""

    name: str
    framework: str
    regions: list[RegionRecord] = field(default_factory=list[RegionRecord])
    native: list[Reason] = field(default_factory=list[Reason])
    ops_total: int = 0


@dataclass(frozen=True)
class Report:
    """The graphs that were alive when asked for: `str()` is a table, `to_dict()` plain data; both count up to now."""

    graphs: tuple[GraphRecord, ...]

    @property
    def regions(self) -> list[RegionRecord]:
        """Every region of every graph."""
        return [region for graph in self.graphs for region in graph.regions]

    def native_ops(self) -> list[tuple[Reason, int]]:
        """Return the reasons for native ops, each with how many ops it stands for, the most frequent first."""
        outside = [reason for graph in self.graphs for reason in graph.native]
        failed = [reason for region in self.regions for reason in region.native_ops()]
        return Counter(outside + failed).most_common()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data.

        `ops_in_engines` counts the ops of regions that have an engine, or that no failure keeps from getting one.
        """
        return {
            "ops_total": sum(graph.ops_total for graph in self.graphs),
            "ops_in_engines": sum(region.ops for region in self.regions if region.reason is None),
            "regions": [region.to_dict() for region in self.regions],
            "native_ops": [
                {"op": reason.op, "reason": str(reason), "source": reason.source, "count": number}
                for reason, number in self.native_ops()
            ],
        }

    def __str__(self) -> str:
        summary = self.to_dict()
        total, inside = summary["ops_total"], summary["ops_in_engines"]
        share = f" ({100 * inside / total:.1f}%)" if total else ""
        lines = [f"{inside} of {total} ops in engines{share}" if total else "no graph with ops was compiled"]
        if self.regions:
            lines.append(_render(_region_table(self.regions)))
        if summary["native_ops"]:
            lines.append(_render(_native_table(summary["native_ops"])))
        return "\n".join(lines)


_records: weakref.WeakValueDictionary[int, GraphRecord] = weakref.WeakValueDictionary()
_serial = count()
_registry = Lock()  # a weak dictionary that grows while it is read raises


def open_graph(framework: str, *, listed: bool = True) -> GraphRecord:
    """Return the record of a newly compiled graph, which reports show for as long as somebody holds it."""
    serial = next(_serial)
    record = GraphRecord(f"{framework}_{serial}", framework)
    if listed:
        with _registry:
            _records[serial] = record
    return record


def report() -> Report:
    """Return what the compiled graphs that are alive in this process run where, and why."""
    with _registry:
        alive = sorted(_records.items())
    return Report(tuple(record for _, record in alive))


def reset_report() -> None:
    """Forget the graphs compiled so far; they go on running."""
    with _registry:
        _records.clear()


def _region_table(regions: Iterable[RegionRecord]) -> Table:
    table = Table("region", "framework", "provider", title="Regions", title_justify="left")
    for column in ("ops", "engines", "engine calls", "native calls", "build s"):
        table.add_column(column, justify="right")
    table.add_column("reason")
    for region in regions:
        numbers = (region.ops, region.engines, region.engine_calls, region.native_calls)
        build = f"{region.build_seconds:.2f}"
        miss = f"last native call: {region.last_miss}" if region.last_miss else ""
        reason = str(region.reason or region.note or miss)
        table.add_row(region.name, region.framework, region.provider, *map(str, numbers), build, reason)
    return table


def _native_table(native_ops: Iterable[dict[str, Any]]) -> Table:
    table = Table("native op", "count", "reason", title="Native ops", title_justify="left")
    for native in native_ops:
        table.add_row(native["op"], str(native["count"]), native["reason"].removeprefix(f"{native['op']}: "))
    return table


def _render(table: Table) -> str:
    console = Console(file=StringIO(), width=140, markup=False, highlight=False)
    console.print(table)
    file = console.file
    assert isinstance(file, StringIO)
    return file.getvalue().rstrip()
