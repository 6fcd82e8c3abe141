"""Cases, and lowering one: the reference and ONNX Runtime are compared with torch."""

from __future__ import annotations

__all__ = [
    "Case",
    "Function",
    "check",
    "each",
    "lower",
    "on_each",
    "operations",
    "overloads",
    "randn",
    "refusal",
    "trace",
]

from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from torch import fx
from torch._dynamo.source import ConstantSource
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._python_dispatch import TorchDispatchMode

from trt_backend.debug import Dump
from trt_backend.engine.base import CPU_HOST, call_shapes
from trt_backend.engine.onnxruntime import OnnxRuntimeProvider
from trt_backend.engine.profile import EVERYTHING
from trt_backend.errors import Reason
from trt_backend.ir.graph import Graph, Value
from trt_backend.ir.reference import evaluate
from trt_backend.ir.verify import verify
from trt_backend.options import CompileOptions
from trt_backend.passes.eliminate_dead import eliminate_dead
from trt_backend.passes.pipeline import run_passes
from trt_backend_torch.fx import is_size
from trt_backend_torch.lower.context import Lowering
from trt_backend_torch.lowering import lower_node, unsupported
from trt_backend_torch.types import dim_of, tensor_type

Function: TypeAlias = Callable[..., Any]

Case: TypeAlias = tuple[Function, tuple[torch.Tensor, ...]]
"""A function and its inputs."""

_PROVIDER = OnnxRuntimeProvider()


def randn(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return normal numbers, always the same for a shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=dtype)


def on_each(function: Function, *operands: torch.Tensor | tuple[torch.Tensor, ...]) -> Case:
    """Return one graph that applies `function` to each tensor, or to each tuple of them."""
    groups = [group if isinstance(group, tuple) else (group,) for group in operands]

    def apply(*inputs: torch.Tensor) -> list[torch.Tensor]:
        rest = iter(inputs)
        results = [function(*islice(rest, len(group))) for group in groups]
        return [x for result in results for x in (result if isinstance(result, (tuple, list)) else (result,))]

    return apply, tuple(x for group in groups for x in group)


def each(cases: Mapping[str, Case], dynamic: Iterable[str] = ()) -> pytest.MarkDecorator:
    """Parametrize by `function, inputs, dynamic`: each case with known sizes, those named in `dynamic` with symbolic ones too."""
    known = [pytest.param(*case, False, id=name) for name, case in cases.items()]
    symbolic = [pytest.param(*cases[name], True, id=f"{name} (dynamic)") for name in dynamic]
    return pytest.mark.parametrize(("function", "inputs", "dynamic"), known + symbolic)


def trace(function: Function, inputs: tuple[torch.Tensor, ...], *, dynamic: bool) -> fx.GraphModule:
    """Trace to aten; with symbolic sizes where `dynamic`, but those of parameters, which are static as in dynamo."""
    mode = FakeTensorMode(shape_env=ShapeEnv() if dynamic else None)
    fakes = [
        mode.from_tensor(
            tensor.detach(),
            static_shapes=not dynamic or isinstance(tensor, torch.nn.Parameter),
            source=ConstantSource(f"input{i}"),
        )
        for i, tensor in enumerate(inputs)
    ]
    with torch.no_grad():
        gm = make_fx(function, tracing_mode="symbolic" if dynamic else "fake")(*fakes)
    gm.graph.eliminate_dead_code()  # as AOTAutograd does
    return gm


def lower(gm: fx.GraphModule) -> Graph:
    """Lower a whole traced graph."""
    b = Lowering("test")
    env: dict[fx.Node, Any] = {}
    for node in gm.graph.nodes:
        if node.op == "placeholder":
            value = node.meta["val"]
            env[node] = dim_of(value) if is_size(node) else b.input(node.name, tensor_type(value))
        elif node.op == "call_function":
            env[node] = lower_node(b, node, env)
        elif node.op == "output":
            results = node.args[0] if isinstance(node.args[0], (tuple, list)) else (node.args[0],)
            outputs = [env[result] for result in results]
    graph = b.build([output for output in outputs if isinstance(output, Value)])
    verify(graph)
    return graph


def check(
    function: Function,
    *inputs: torch.Tensor,
    dynamic: bool = False,
    rtol: float = 1e-5,
    atol: float = 1e-5,
) -> Graph:
    """Assert that torch, the NumPy reference and ONNX Runtime agree on `function(*inputs)`; return the graph."""
    with torch.no_grad():
        expected = function(*inputs)
    expected = expected if isinstance(expected, (tuple, list)) else (expected,)
    gm = trace(function, inputs, dynamic=dynamic)
    for node in gm.graph.nodes:
        if node.op == "call_function":
            reason = unsupported(node, _PROVIDER)
            assert reason is None, reason
    graph = lower(gm)
    arrays = [tensor.detach().contiguous().numpy() for tensor in inputs]
    sizes = _symbol_values(graph, arrays)
    _compare("reference", evaluate(graph, arrays, sizes), expected, rtol, atol)
    _compare("ONNX Runtime", _run_onnx(graph, arrays, sizes), expected, rtol, atol)
    return graph


def operations(function: Function, *inputs: torch.Tensor) -> list[type]:
    """Return the ops that `function(*inputs)` is lowered to."""
    graph = eliminate_dead(lower(trace(function, inputs, dynamic=False)))
    return [type(node.op) for node in graph.nodes]


def refusal(function: Function, *inputs: torch.Tensor, dynamic: bool = False) -> Reason:
    """Return the reason for which the first refused node of `function(*inputs)` stays native."""
    gm = trace(function, inputs, dynamic=dynamic)
    reasons = [unsupported(node, _PROVIDER) for node in gm.graph.nodes if node.op == "call_function"]
    refused = [reason for reason in reasons if reason is not None]
    assert refused, "every node is supported"
    return refused[0]


def overloads(cases: Iterable[Case]) -> set[Any]:
    """Return every aten overload that running the cases `(function, inputs)` calls."""
    with torch.no_grad(), _Calls() as calls:
        for function, inputs in cases:
            function(*inputs)
    return calls.seen


class _Calls(TorchDispatchMode):
    """Notes the overloads that are called."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[Any] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.add(func)
        return func(*args, **(kwargs or {}))


def _symbol_values(graph: Graph, arrays: list[np.ndarray[Any, Any]]) -> dict[str, int]:
    values = {}
    for value, array in zip(graph.inputs, arrays, strict=True):
        for dim, size in zip(value.shape, array.shape, strict=True):
            if not isinstance(dim, int) and dim.symbol is not None:
                values[dim.symbol.name] = size
    return values


def _run_onnx(
    graph: Graph, arrays: list[np.ndarray[Any, Any]], sizes: dict[str, int]
) -> list[np.ndarray[Any, Any]]:
    legal, _ = run_passes(graph, support=_PROVIDER.support)
    options = CompileOptions(threads=1)
    engine = _PROVIDER.load(_PROVIDER.build(legal, EVERYTHING, options, Dump(None)), legal, options)
    shapes = call_shapes(legal, sizes)
    outputs = [
        np.empty(shape, value.dtype.numpy) for shape, value in zip(shapes.outputs, legal.outputs, strict=True)
    ]
    engine.run(
        shapes, [array.ctypes.data for array in arrays], [array.ctypes.data for array in outputs], CPU_HOST
    )
    return outputs


def _compare(who: str, got: list[np.ndarray[Any, Any]], expected: Any, rtol: float, atol: float) -> None:
    for array, tensor in zip(got, (t for t in expected if isinstance(t, torch.Tensor)), strict=True):
        wanted = tensor.numpy()
        assert array.dtype == wanted.dtype, f"{who}: {array.dtype}, torch gives {wanted.dtype}"
        np.testing.assert_allclose(array, wanted, rtol=rtol, atol=atol, err_msg=who, equal_nan=True)
