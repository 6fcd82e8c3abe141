"""The two-part fingerprint of a graph: its structure, and the contents of its constants."""

from __future__ import annotations

__all__ = ["Fingerprint", "fingerprint"]

from dataclasses import dataclass

import xxhash

from trt_backend.ir.graph import Graph, Node, Value

_FORMAT = "ir-1"


@dataclass(frozen=True)
class Fingerprint:
    """Two XXH3-128 digests in hex; graphs of one structure differ in constants only, so that an engine can be refitted.

    The structure covers every op with every attribute, every edge, type, symbol range, input and output; names and
    source lines do not count.
    """

    structure: str
    weights: str


def fingerprint(graph: Graph) -> Fingerprint:
    """Return the fingerprint of `graph`; reads every constant."""
    renamed = {value: Value(str(number), value.type) for number, value in enumerate(graph.values())}

    def names(values: tuple[Value, ...]) -> str:
        return " ".join(f"{renamed[value]}:{value.type}" for value in values)

    lines = [_FORMAT, names(graph.inputs), names(tuple(c.value for c in graph.constants))]
    lines += [" ".join(sorted(str(renamed[value]) for value in graph.weights))]
    lines += [f"{symbol.name} {symbol.min} {symbol.max}" for symbol in graph.symbols]
    for node in graph.nodes:
        inputs, outputs = (tuple(renamed[value] for value in side) for side in (node.inputs, node.outputs))
        lines.append(str(Node(node.op, inputs, outputs)))
    lines.append(names(graph.outputs))
    weights = " ".join(constant.digest for constant in graph.constants)
    return Fingerprint(_digest("\n".join(lines)), _digest(weights))


def _digest(text: str) -> str:
    return xxhash.xxh3_128_hexdigest(text.encode())
