"""`precision="int8"`: a calibration collects on native calls, and engines compute in int8 afterwards."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves
from torch_checks import assert_close, compile_trt, in_threads

import models
import trt_backend.compile
import trt_backend_torch.backend
from trt_backend import Calibration
from trt_backend.ir.graph import Graph
from trt_backend.ir.ops.contraction import Convolution
from trt_backend.ir.ops.elementwise import QuantizeDequantize
from trt_backend.ir.types import DType

TOLERANCE = 0.1
"""Of the largest value that eager gives: random networks of small width, with one rounding for each product."""


def quantized(graph: Graph) -> int:
    return sum(isinstance(node.op, QuantizeDequantize) for node in graph.nodes)


def int8(calibration: Calibration) -> dict[str, Any]:
    """Options; at optimization level 0, TensorRT 8.6 has no int8 kernel for some layers."""
    return {"precision": "int8", "calibration": calibration, "optimization_level": 1}


def first_tensor(answer: Any) -> torch.Tensor:
    return next(leaf for leaf in tree_leaves(answer) if isinstance(leaf, torch.Tensor))


@pytest.mark.parametrize("name", ["resnet", "mobilenet_v2", "vit", "bert-sdpa", "unet-batch-transposed"])
def test_models(name: str, built: list[Graph], report: Any) -> None:
    model, make_inputs = models.ZOO[name]()
    inputs, calibration = make_inputs(4), Calibration()
    compiled = compile_trt(model, options=int8(calibration))
    with torch.no_grad():
        wanted = model(*inputs)
        with calibration.collect():
            assert_close(compiled(*inputs), wanted, rtol=1e-4)  # native
        assert not built
        got = compiled(*inputs)
    report.engines_ran(calls=1, native_calls=1, share=0.98)
    assert quantized(built[-1]) >= 8
    assert_close(first_tensor(got), first_tensor(wanted), rtol=TOLERANCE)
    assert not torch.allclose(first_tensor(got), first_tensor(wanted), rtol=1e-5, atol=1e-6), "it was rounded"


def test_other_batch_sizes_and_other_processes_find_the_ranges(built: list[Graph], tmp_path: Any) -> None:
    model, make_inputs = models.ZOO["resnet"]()
    calibration = Calibration()
    compiled = compile_trt(model, options=int8(calibration))
    with torch.no_grad(), calibration.collect():
        compiled(*make_inputs(4))
    calibration.save(tmp_path / "ranges.json")
    torch._dynamo.reset()
    compiled = compile_trt(model, options=int8(Calibration.load(tmp_path / "ranges.json")))
    for batch in (1, 7):
        with torch.no_grad():
            assert_close(compiled(*make_inputs(batch)), model(*make_inputs(batch)), rtol=TOLERANCE)
    assert built
    assert all(quantized(graph) >= 8 for graph in built)


def test_without_ranges_it_computes_in_floating_point(built: list[Graph], log: Any, report: Any) -> None:
    model, make_inputs = models.ZOO["resnet"]()
    compiled = compile_trt(model, options=int8(Calibration()))
    with torch.no_grad():
        assert_close(compiled(*make_inputs(2)), model(*make_inputs(2)), rtol=1e-4)
    report.engines_ran(calls=1)
    assert not any(quantized(graph) for graph in built)
    assert any("while its calibration collects" in record.getMessage() for record in log)
    assert "while its calibration collects" in trt_backend.report().regions[0].note


@pytest.mark.parametrize(
    ("dtype", "scale", "why"),
    [(torch.float64, 1.0, "does not quantize f64"), (torch.float32, math.nan, "saw no numbers but 0, NaN")],
    ids=["float64", "nan"],
)
@pytest.mark.cpu_only(reason="TensorRT has no float64")
def test_the_report_says_why_nothing_is_quantized(
    dtype: torch.dtype, scale: float, why: str, built: list[Graph], report: Any
) -> None:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval().to(dtype)
    calibration, x = Calibration(), models.randn(32, 8).to(dtype)
    compiled = compile_trt(model, options=int8(calibration))
    with torch.no_grad():
        with calibration.collect():
            compiled(x * scale)
        compiled(x)
    report.engines_ran(calls=1, native_calls=1)
    assert not quantized(built[-1])
    assert why in trt_backend.report().regions[0].to_dict()["note"]
    assert "computes in floating point" in str(trt_backend.report())


def test_a_region_without_products_needs_no_ranges(log: Any, report: Any, tmp_path: Any) -> None:
    calibration = Calibration()
    compiled = torch.compile(lambda x: (x.tanh() * 2).relu() + 1, backend="trt", options=int8(calibration))
    with torch.no_grad():
        with calibration.collect():
            compiled(models.randn(4, 4))
        compiled(models.randn(4, 4))
    calibration.save(tmp_path / "ranges.json")
    report.engines_ran(calls=1, native_calls=1)
    assert not [record for record in log if record.levelname == "WARNING"]
    assert trt_backend.report().regions[0].note == ""


def test_a_second_collection_widens_the_ranges(built: list[Graph]) -> None:
    model, calibration = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval(), Calibration()
    compiled, x = compile_trt(model, options=int8(calibration)), models.randn(32, 8)
    with torch.no_grad():
        for scale in (1.0, 100.0):
            with calibration.collect():
                compiled(x * scale)
            assert_close(compiled(x * scale), model(x * scale), rtol=TOLERANCE)
    assert len({str(graph) for graph in built}) == 2


def test_weights_are_fresh(built: list[Graph]) -> None:
    """Other weights get other scales, with the ranges of the activations that are known."""
    model, calibration = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval(), Calibration()
    compiled, x = compile_trt(model, options=int8(calibration)), models.randn(32, 8)
    with torch.no_grad():
        with calibration.collect():
            compiled(x)
        before = compiled(x)
        model[2].weight.mul_(-3)
        for _ in range(3):
            assert_close(compiled(x), model(x), rtol=TOLERANCE)
        assert not torch.allclose(compiled(x), before, atol=0.1)


def test_threads_collect_together(built: list[Graph]) -> None:
    model, calibration = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval(), Calibration()
    compiled = compile_trt(model, options=int8(calibration))
    batches = [models.randn(32, 8, seed=i) for i in range(8)]
    with torch.no_grad():
        compiled(batches[0])

    def call(i: int) -> None:
        with torch.no_grad():
            assert_close(compiled(batches[i]), model(batches[i]), rtol=1e-4)

    with calibration.collect():
        in_threads(8, call)
    with torch.no_grad():
        assert_close(compiled(batches[0]), model(batches[0]), rtol=TOLERANCE)
    assert quantized(built[-1]) == 4


def test_gradients_are_native(report: Any) -> None:
    """Training through an int8 model computes in floating point: rounding has no gradient."""
    model, calibration = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)), Calibration()
    compiled, x = compile_trt(model, options=int8(calibration)), models.randn(32, 8)
    compiled(x).square().sum().backward()
    got = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    model(x).square().sum().backward()
    assert len(got) == 4
    for grad, p in zip(got, model.parameters(), strict=True):
        assert_close(grad, p.grad, rtol=1e-4)


@pytest.mark.cpu_only(reason="builds ahead of time, for a GPU that is not there")
@pytest.mark.parametrize("rest", [None, DType.FLOAT16], ids=["with float32", "with float16"])
@pytest.mark.parametrize("name", [name for name in models.ZOO if name != "lstm"])
def test_tensorrt_builds_them(
    name: str, rest: DType | None, monkeypatch: pytest.MonkeyPatch, report: Any
) -> None:
    """Every architecture, static: RTX's builder takes the quantized graphs, and the NumPy reference runs them."""
    pytest.importorskip("tensorrt_rtx")
    from tensorrt_checks import AheadOfTime

    stack, calibration = AheadOfTime(), Calibration()
    monkeypatch.setattr(trt_backend_torch.backend, "load_provider", lambda *_: stack)
    monkeypatch.setattr(trt_backend.compile, "low_precision", lambda *_: rest)
    model, make_inputs = models.ZOO[name]()
    inputs = make_inputs(2)
    compiled = compile_trt(model, options=int8(calibration))
    with torch.no_grad():
        with calibration.collect():
            compiled(*inputs)
        assert_close(first_tensor(compiled(*inputs)), first_tensor(model(*inputs)), rtol=2 * TOLERANCE)
    report.engines_ran(calls=1, native_calls=1, share=0.98)
    assert all(size > 1000 for _, _, size in stack.built)
    (graph,) = (graph for graph, _, _ in stack.built)
    for node in graph.nodes:
        if isinstance(node.op, Convolution):
            made = {value: node.op for node in graph.nodes for value in node.outputs}
            assert all(isinstance(made.get(value), QuantizeDequantize) for value in node.inputs[:2]), node
