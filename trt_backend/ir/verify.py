"""The rules of a well-formed graph, as an executable check."""

from __future__ import annotations

__all__ = ["verify"]

import keyword
import re

from trt_backend.errors import InvalidGraphError
from trt_backend.ir.graph import Graph, Node, Value
from trt_backend.ir.types import is_static

_NAME = re.compile(r"[^\s%,()\[\]{}]+")
_FUNCTIONS = ("max", "min", "Max", "Min", "FloorDiv", "Mod", "PythonMod")


def verify(graph: Graph) -> None:
    """Check every rule of the IR.

    NAMED    each name can be read back from the text form; a symbol's is an identifier.
    SYMBOLS  each symbol has one range, which is not empty.
    WEIGHTS  each weight is an input.
    STATIC   each constant has a static shape.
    UNIQUE   each name is defined once.
    DEFINED  each value is defined before its use, with the type that its user sees.
    FROZEN   each attribute is hashable (a tuple, not a list).
    TYPED    each node's outputs have the types that its op infers.

    Raises:
        InvalidGraphError: a rule is broken; the message names it and the place.
    """
    _check_symbols(graph)
    if _NAME.fullmatch(graph.name) is None:
        raise InvalidGraphError(f"NAMED: the graph's name {graph.name!r} cannot be read back")
    if not graph.weights <= set(graph.inputs):
        raise InvalidGraphError(f"WEIGHTS: {graph.name} has weights that are no inputs")
    defined: dict[str, Value] = {}
    for value in graph.inputs:
        _define(defined, value, graph.name)
    for constant in graph.constants:
        if not is_static(constant.value.shape):
            raise InvalidGraphError(f"STATIC: the constant {constant.value} is {constant.value.type}")
        _define(defined, constant.value, graph.name)
    for node in graph.nodes:
        _check_node(node, defined)
    for value in graph.outputs:
        _use(defined, value, "return")


def _check_symbols(graph: Graph) -> None:
    ranges: dict[str, str] = {}
    for symbol in graph.symbols:
        if not symbol.name.isidentifier() or keyword.iskeyword(symbol.name) or symbol.name in _FUNCTIONS:
            raise InvalidGraphError(f"NAMED: the symbol's name {symbol.name!r} cannot be read back")
        if symbol.max is not None and symbol.max < symbol.min:
            raise InvalidGraphError(f"SYMBOLS: the range of {symbol} is empty: [{symbol.min}, {symbol.max}]")
        text = f"[{symbol.min}, {symbol.max}]"
        if ranges.setdefault(symbol.name, text) != text:
            raise InvalidGraphError(f"SYMBOLS: {symbol} has two ranges: {ranges[symbol.name]} and {text}")


def _check_node(node: Node, defined: dict[str, Value]) -> None:
    for value in node.inputs:
        _use(defined, value, node)
    try:
        hash(node.op)
    except TypeError as error:
        raise InvalidGraphError(f"FROZEN: {error}, in: {node}") from error
    try:
        inferred = node.op.infer(*(value.type for value in node.inputs))
    except ValueError as error:
        raise InvalidGraphError(f"TYPED: {error}, in: {node}") from error
    if inferred != tuple(value.type for value in node.outputs):
        raise InvalidGraphError(f"TYPED: {', '.join(map(str, inferred))} inferred, in: {node}")
    for value in node.outputs:
        _define(defined, value, node)


def _define(defined: dict[str, Value], value: Value, place: object) -> None:
    if _NAME.fullmatch(value.name) is None:
        raise InvalidGraphError(f"NAMED: the name {value.name!r} cannot be read back, in: {place}")
    if value.name in defined:
        raise InvalidGraphError(f"UNIQUE: {value} is defined twice, again in: {place}")
    defined[value.name] = value


def _use(defined: dict[str, Value], value: Value, place: object) -> None:
    if value.name not in defined:
        raise InvalidGraphError(f"DEFINED: {value} is used before it is defined, in: {place}")
    if defined[value.name] != value:
        raise InvalidGraphError(
            f"DEFINED: {value} is {defined[value.name].type}, not {value.type}, in: {place}"
        )
