"""From FX nodes to IR nodes: one walk that the guard (one node) and the regions (many) share."""

from __future__ import annotations

__all__ = ["Environment", "lower_node", "lower_nodes", "unsupported"]

import operator
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import fx
from torch._ops import HigherOrderOperator, OpOverload

from trt_backend.engine.base import EngineProvider
from trt_backend.errors import InvalidGraphError, Reason, ReasonKind, UnsupportedError
from trt_backend.ir.dims import Dim
from trt_backend.ir.graph import Value
from trt_backend.ir.types import TensorType
from trt_backend.passes.eliminate_dead import eliminate_dead
from trt_backend.passes.legalize import legalize
from trt_backend_torch.aliases import SHARED
from trt_backend_torch.decompositions import decompose
from trt_backend_torch.fx import is_random, is_size, is_view, op_name, source_line, tensors_of
from trt_backend_torch.lower import RULES
from trt_backend_torch.lower.context import Lowering
from trt_backend_torch.lower.layout import left_out
from trt_backend_torch.promises import MISTYPED
from trt_backend_torch.types import DTYPES, dim_of, overlaps_itself, tensor_type

Environment = dict[fx.Node, Any]
"""What each FX node is in the IR: a value, a dim, or a tuple of values."""


def lower_nodes(b: Lowering, nodes: Iterable[fx.Node], env: Environment) -> None:
    """Lower nodes in order, adding what they are to `env`."""
    for node in nodes:
        env[node] = lower_node(b, node, env)


def lower_node(b: Lowering, node: fx.Node, env: Environment) -> Any:
    """Lower one node whose inputs are in `env`.

    Raises:
        UnsupportedError: no rule takes it.
        InvalidGraphError: a rule is wrong (it made another type than torch promises, or an ill-typed op).
    """
    if is_size(node):
        return _size(node.meta["val"])
    if node.target is operator.getitem:
        return env[node.args[0]][node.args[1]]  # type: ignore[index]
    args, kwargs = (_arguments(part, env) for part in (node.args, node.kwargs))
    with b.at(source_line(node)):
        if isinstance(node.target, OpOverload) and node.target in RULES:
            b.results = tuple(None if t is None else tensor_type(t) for t in _promised(node))
            result = RULES(b, node.target, args, kwargs)
        else:
            result = _lower_decomposed(b, node, env)
    _check(node, result)
    return _in_promised_sizes(b, node, result)


def unsupported(node: fx.Node, provider: EngineProvider) -> Reason | None:
    """Return None where an engine can run the node, else why not: by lowering it alone, to a region of its own.

    What it reads and what it makes can thus cross a region's border, wherever the regions will end.

    Args:
        node: a call in an inference graph.
        provider: of the engines.
    """
    try:
        _check_tensors(node, provider.device)
        b = Lowering("probe")
        env = {source: _probe_input(b, source, provider) for source in node.all_input_nodes}
        result = lower_node(b, node, env)
        results = result if isinstance(result, (tuple, list)) else (result,)
        graph = b.build([value for value in results if isinstance(value, Value)])
        legalize(eliminate_dead(graph), provider.support)
    except UnsupportedError as error:
        return Reason(error.kind, op_name(node), error.detail, source_line(node))
    return None


def _check_tensors(node: fx.Node, device: str) -> None:
    """Refuse what no rule could make right, whatever the op."""
    if isinstance(node.target, HigherOrderOperator):  # as cond; or with_effects, around an assert
        raise UnsupportedError("it calls others, which run natively with it", ReasonKind.NO_RULE)
    if SHARED in node.meta:
        raise UnsupportedError("its result shares memory with another one")
    if not is_view(node) and any(t is not None and overlaps_itself(t) for t in tensors_of(node)):
        raise UnsupportedError("its result overlaps itself")
    if MISTYPED in node.meta:
        raise UnsupportedError("torch promises it another type than it has")
    if is_random(node):
        raise UnsupportedError("its numbers must come from the framework's generator", ReasonKind.RANDOM)
    devices: set[torch.device] = set()
    for place in (*node.all_input_nodes, node):
        for tensor in _used_outputs(place):
            number = place is not node and tensor.dim() == 0  # which the call brings to the device
            if tensor.device.type != device and not number:
                raise UnsupportedError(f"{tensor.device.type}, not {device}", ReasonKind.DEVICE)
            devices |= set() if number else {tensor.device}
            type = tensor_type(tensor)
            if 0 in type.shape and (place is node or not left_out(node, type.shape)):
                raise UnsupportedError(f"{type} has no elements", ReasonKind.EMPTY)
    if len(devices) > 1:
        raise UnsupportedError(f"on {' and '.join(sorted(map(str, devices)))}", ReasonKind.DEVICE)


def _used_outputs(node: fx.Node) -> list[torch.Tensor]:
    """Return the promised outputs that somebody takes (batch norm's saved statistics are empty in inference)."""
    unpacked = isinstance(node.meta.get("val"), (tuple, list))
    used = [user.args[1] for user in node.users] if unpacked else [0]
    return [tensor for i, tensor in enumerate(tensors_of(node)) if tensor is not None and i in used]


def _promised(node: fx.Node) -> list[torch.Tensor | None]:
    """Return the promised outputs, but None for those after the first that nobody takes (some are uint64 states)."""
    used = _used_outputs(node)
    return [
        tensor if i == 0 or any(tensor is taken for taken in used) else None
        for i, tensor in enumerate(tensors_of(node))
    ]


def _probe_input(b: Lowering, node: fx.Node, provider: EngineProvider) -> Any:
    if is_size(node):
        return _size(node.meta["val"])

    def probe(type: TensorType) -> Value:
        return b.widened(b.input(node.name, type.with_dtype(provider.border(type.dtype))), type.dtype)

    values = tuple(None if t is None else probe(tensor_type(t)) for t in tensors_of(node))
    return values if isinstance(node.meta.get("val"), (tuple, list)) else values[0]


def _size(value: Any) -> Dim | int | float | bool:
    if isinstance(value, (int, float, bool)):
        return value
    if isinstance(value, torch.SymInt):
        return dim_of(value)
    raise UnsupportedError(f"the {type(value).__name__} {value} is no tensor and no integer")


def _arguments(argument: Any, env: Mapping[fx.Node, Any]) -> Any:
    """Return an FX argument with nodes replaced by what they are in the IR."""
    if isinstance(argument, fx.Node):
        return env[argument]
    if isinstance(argument, (tuple, list)):
        return tuple(_arguments(item, env) for item in argument)
    if isinstance(argument, dict):
        return {key: _arguments(item, env) for key, item in argument.items()}
    if isinstance(argument, torch.dtype):
        if argument not in DTYPES:
            raise UnsupportedError(f"{argument} has no IR type", ReasonKind.DTYPE)
        return DTYPES[argument]
    return argument


def _lower_decomposed(b: Lowering, node: fx.Node, env: Environment) -> Any:
    """Lower what torch's own decomposition makes of the node."""
    if not isinstance(node.target, OpOverload):
        raise UnsupportedError("it is no aten op", ReasonKind.NO_RULE)
    inner = decompose(node)
    if inner is None:
        raise UnsupportedError("", ReasonKind.NO_RULE)
    outer = iter(node.all_input_nodes)
    inside: Environment = {}
    for part in inner.graph.nodes:
        if part.op == "placeholder":
            inside[part] = env[next(outer)]
        elif part.op == "output":
            return _arguments(part.args[0], inside)
        elif part.target is node.target or is_random(part):
            raise UnsupportedError("", ReasonKind.NO_RULE)
        elif part.op == "call_function":
            inside[part] = lower_node(b, part, inside)
        else:
            raise UnsupportedError(f"its decomposition has a {part.op}", ReasonKind.NO_RULE)
    raise AssertionError("an FX graph has an output")


def _check(node: fx.Node, result: Any) -> None:
    """Compare what a rule made with what torch promises (symbolic sizes count as equal to any) and what users read."""
    results = result if isinstance(result, (tuple, list)) else (result,)
    for value, tensor in zip(results, _promised(node), strict=False):
        if isinstance(value, Value) and tensor is not None and not _agree(value.type, tensor_type(tensor)):
            raise InvalidGraphError(
                f"{op_name(node)} was lowered to {value.type}, torch promises {tensor_type(tensor)}"
            )
    for user in node.users:
        if user.target is operator.getitem and user.users and results[user.args[1]] is None:  # type: ignore[index]
            raise UnsupportedError(f"its output {user.args[1]} is used, which no rule computes")


def _in_promised_sizes(b: Lowering, node: fx.Node, result: Any) -> Any:
    """Return results in the sizes that torch promises, as the guard of the next node saw them.

    Our arithmetic may write a size in another way and not know that the two are the same.
    """
    if isinstance(result, (tuple, list)):
        promised = (*_promised(node), *(None for _ in result))
        return tuple(_in_sizes(b, part, tensor) for part, tensor in zip(result, promised, strict=False))
    return _in_sizes(b, result, _promised(node)[0]) if isinstance(result, Value) else result


def _in_sizes(b: Lowering, value: Any, promised: torch.Tensor | None) -> Any:
    if promised is None or not isinstance(value, Value):
        return value
    pairs = zip(value.shape, tensor_type(promised).shape, strict=True)
    shape = tuple(made if isinstance(made, int) else size for made, size in pairs)
    return value if shape == value.shape else b.reshape(value, shape)


def _agree(made: TensorType, promised: TensorType) -> bool:
    same_size = (
        isinstance(a, Dim) or isinstance(b, Dim) or a == b
        for a, b in zip(made.shape, promised.shape, strict=False)
    )
    return made.dtype is promised.dtype and made.rank == promised.rank and all(same_size)
