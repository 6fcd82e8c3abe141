"""Reading the text form that `str(graph)` writes."""

from __future__ import annotations

__all__ = ["parse_graph"]

import ast
import re
from collections.abc import Callable, Mapping
from enum import Enum
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from trt_backend.errors import InvalidGraphError
from trt_backend.ir.dims import Dim, Symbol, evaluate, parse_dim
from trt_backend.ir.graph import Constant, Graph, Node, Value
from trt_backend.ir.ops import OPS
from trt_backend.ir.ops.base import Op
from trt_backend.ir.types import DType, TensorType
from trt_backend.ir.verify import verify

_HEADER = re.compile(r"graph (\S+)\((.*)\) \{$")
_SYMBOL = re.compile(r"symbol (\w+) in \[(-?\d+), (-?\d+|inf)\]$")
_CONSTANT = re.compile(r"%(\S+) = constant (\[.*\]|#\w+) : (\w+\[.*\])$")
_NODE = re.compile(r"(%.+?) = (\w+)\(([^)]*)\)(?: \{(.*)\})? : (.+)$")
_TYPE = re.compile(r"(\w+)\[(.*)\]$")


def parse_graph(text: str) -> Graph:
    """Read a graph from its text form and verify it.

    Constants that the text elides (`#digest`) keep their type and digest; reading their array raises.

    Raises:
        InvalidGraphError: the text is malformed, with the line, or the graph breaks a rule.
    """
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    lines.sort(key=lambda line: not line[1].startswith("symbol "))  # the header's types need them
    reader = _Reader()
    for number, line in lines:
        try:
            reader.read(line)
        except (InvalidGraphError, ValueError, KeyError, TypeError, SyntaxError) as error:
            raise InvalidGraphError(f"line {number}: {line!r}: {error}") from error
    graph = reader.graph()
    verify(graph)
    return graph


class _Reader:
    """The state between lines: what has been defined so far."""

    def __init__(self) -> None:
        self.name: str | None = None
        self.symbols: dict[str, Symbol] = {}
        self.values: dict[str, Value] = {}
        self.inputs: list[Value] = []
        self.weights: set[Value] = set()
        self.constants: list[Constant] = []
        self.nodes: list[Node] = []
        self.outputs: tuple[Value, ...] | None = None

    def read(self, line: str) -> None:
        """Read one line."""
        if match := _HEADER.match(line):
            self._read_header(match[1], match[2])
        elif line.startswith("symbol "):
            match = _SYMBOL.match(line)
            if match is None:
                raise InvalidGraphError("not of the form `symbol NAME in [MIN, MAX]`")
            limit = None if match[3] == "inf" else int(match[3])
            self.symbols[match[1]] = Symbol(match[1], int(match[2]), limit)
        elif line != "}":
            self._read_body(line)

    def graph(self) -> Graph:
        """Return what was read, once it is whole."""
        if self.name is None or self.outputs is None:
            raise InvalidGraphError("the text has no `graph` line or no `return` line")
        nodes, constants = tuple(self.nodes), tuple(self.constants)
        return Graph(self.name, tuple(self.inputs), constants, nodes, self.outputs, frozenset(self.weights))

    def _read_header(self, name: str, arguments: str) -> None:
        if self.name is not None:
            raise InvalidGraphError(f"a second graph after {self.name}")
        self.name = name
        for argument in _split(arguments):
            value_name, _, type = argument.partition(": ")
            value = self._define(value_name.removeprefix("weight "), type)
            self.inputs.append(value)
            if value_name.startswith("weight "):
                self.weights.add(value)

    def _read_body(self, line: str) -> None:
        if self.name is None or self.outputs is not None:
            raise InvalidGraphError("outside of the graph")
        if line.startswith("return "):
            self.outputs = self._values(line.removeprefix("return "))
        elif match := _CONSTANT.match(line):
            value = self._define(f"%{match[1]}", match[3])
            digest = match[2].removeprefix("#") if match[2].startswith("#") else ""
            self.constants.append(Constant(value, _array(match[2], value.type), digest))
        elif match := _NODE.match(line):
            outputs, op, inputs, attributes, types = match.groups()
            operands = self._values(inputs)
            results = tuple(
                self._define(name, type) for name, type in zip(_split(outputs), _split(types), strict=True)
            )
            self.nodes.append(Node(self._op(op, attributes or ""), operands, results))
        else:
            raise InvalidGraphError("neither a node, nor a constant, nor a return")

    def _values(self, text: str) -> tuple[Value, ...]:
        names = [name.removeprefix("%") for name in _split(text)]
        if unknown := [name for name in names if name not in self.values]:
            raise InvalidGraphError(f"%{unknown[0]} is not defined above")
        return tuple(self.values[name] for name in names)

    def _define(self, name: str, type: str) -> Value:
        value = Value(name.removeprefix("%"), self._type(type))
        self.values[value.name] = value
        return value

    def _type(self, text: str) -> TensorType:
        match = _TYPE.match(text)
        if match is None:
            raise InvalidGraphError(f"{text!r} is no type")
        return TensorType(DType(match[1]), tuple(parse_dim(dim, self.symbols) for dim in _split(match[2])))

    def _op(self, name: str, attributes: str) -> Op:
        if name not in OPS:
            raise InvalidGraphError(f"there is no op {name}")
        hints = get_type_hints(OPS[name])
        pairs = [pair.partition("=") for pair in _split(attributes)]
        if unknown := [key for key, _, _ in pairs if key not in hints]:
            raise InvalidGraphError(f"{name} has no attribute {unknown[0]}")
        return OPS[name](**{key: _attribute(value, hints[key], self.symbols) for key, _, value in pairs})


def _attribute(text: str, hint: Any, symbols: Mapping[str, Symbol]) -> Any:
    """Read an attribute's text as the field's type says."""
    if get_origin(hint) is tuple:
        item = get_args(hint)[0]
        return tuple(_attribute(part, item, symbols) for part in _split(text[1:-1]))
    if get_origin(hint) is UnionType or hint is Dim:
        return parse_dim(text, symbols)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return hint(text)
    return float(text) if hint is float else ast.literal_eval(text)


def _array(text: str, type: TensorType) -> Callable[[], npt.NDArray[Any]]:
    """Return what reads a constant; its elements are checked at once."""
    if text.startswith("#"):

        def elided() -> npt.NDArray[Any]:
            raise InvalidGraphError(f"the text form elides the contents of this constant ({text})")

        return elided
    words = _split(text[1:-1])
    elements = [float(word) if word in ("nan", "inf", "-inf") else ast.literal_eval(word) for word in words]
    array = np.array(elements, dtype=type.dtype.numpy).reshape([evaluate(dim, {}) for dim in type.shape])

    def known() -> npt.NDArray[Any]:
        return array

    return known


def _split(text: str) -> list[str]:
    """Split at the commas outside of brackets."""
    parts: list[str] = []
    depth = start = 0
    for position, character in enumerate(text):
        depth += (character in "([{") - (character in ")]}")
        if character == "," and depth == 0:
            parts.append(text[start:position].strip())
            start = position + 1
    tail = text[start:].strip()
    return [*parts, tail] if tail else parts
