"""Scalars of the host: what becomes of them in a graph; fake tensors have a GPU anywhere."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch._subclasses import FakeTensorMode

from trt_backend_torch.fx import is_compute
from trt_backend_torch.scalars import convert_scalars, mark_numbers, move_scalars

_aten = torch.ops.aten
_convert = torch.ops.prims.convert_element_type.default


def _call(graph: fx.Graph, mode: FakeTensorMode, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    node = graph.call_function(target, args, kwargs)
    with mode:
        node.meta["val"] = target(*(a.meta["val"] if isinstance(a, fx.Node) else a for a in args), **kwargs)
    return node


def test_a_scalar_moves_with_all_that_it_serves() -> None:
    mode, graph = FakeTensorMode(), fx.Graph()
    x = graph.placeholder("x")
    with mode:
        x.meta["val"] = torch.empty(3, device="cuda")
    number = _call(graph, mode, _aten.scalar_tensor.default, 3.0)
    scale = _call(graph, mode, _aten.mul.Tensor, number, number)
    scaled = _call(graph, mode, _aten.mul.Tensor, x, scale)
    half = _call(graph, mode, _aten.scalar_tensor.default, 0.5)
    shifted = _call(graph, mode, _aten.add.Tensor, x, half)
    kept = _call(graph, mode, _aten.add.Tensor, half, half)
    total = _call(graph, mode, _aten.sum.default, x)
    brought = _call(graph, mode, _aten._to_copy.default, total, device="cpu")
    graph.output((scaled, shifted, kept, brought))
    move_scalars(fx.GraphModule({}, graph))
    on_gpu = [node for node in graph.nodes if node.op != "output" and node.meta["val"].is_cuda]
    assert on_gpu == [x, number, scale, scaled, shifted, total], "a result stays, and so does what it needs"
    assert scale.meta["val"].shape == ()


def test_conversions_are_torchs_own_and_no_more_than_needed() -> None:
    mode, graph = FakeTensorMode(), fx.Graph()
    t, x = graph.placeholder("t"), graph.placeholder("x")
    with mode:
        t.meta["val"], x.meta["val"] = torch.empty((), dtype=torch.float64), torch.empty(3)
    same = _call(graph, mode, _convert, t, torch.float64)
    single = _call(graph, mode, _convert, same, torch.float32)
    returned = _call(graph, mode, _convert, t, torch.float64)
    vector = _call(graph, mode, _convert, x, torch.float32)
    graph.output((single, returned, vector))
    convert_scalars(fx.GraphModule({}, graph))
    assert [node for node in graph.nodes if node.op == "call_function"] == [single, returned, vector]
    assert (single.target, single.args, single.kwargs) == (
        _aten._to_copy.default,
        (t,),
        {"dtype": torch.float32},
    )
    assert returned.target is _aten._to_copy.default, "a result must not share an argument's memory"
    assert vector.target is _convert, "tensors are left as they are"


def test_numbers_that_follow_from_sizes_do_not_count() -> None:
    mode, graph = FakeTensorMode(), fx.Graph()
    n, t = graph.placeholder("n"), graph.placeholder("t")
    with mode:
        n.meta["val"], t.meta["val"] = 3, torch.empty(())
    size = _call(graph, mode, _aten.scalar_tensor.default, n)
    two = _call(graph, mode, _aten.scalar_tensor.default, 2.0)
    half = _call(graph, mode, _aten.div.Tensor, size, two)
    third = _call(graph, mode, _aten.scalar_tensor.default, 1 / 3)
    product = _call(graph, mode, _aten.mul.Tensor, half, t)
    vector = _call(graph, mode, _aten.full.default, [3], 1.0)
    drawn = _call(graph, mode, _aten.rand.default, [])
    graph.output((product, third, vector, drawn))
    mark_numbers(fx.GraphModule({}, graph))
    assert [node for node in graph.nodes if is_compute(node)] == [third, product, vector, drawn]
