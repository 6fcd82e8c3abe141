"""Where a provider has no int64, inputs and outputs are int32 at its border, and int64 for the caller."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch_checks import assert_close

import models
from trt_backend.engine.onnxruntime import OnnxRuntimeProvider
from trt_backend.ir.types import DType
from trt_backend_torch.memory import Addresses

pytestmark = pytest.mark.cpu_only(reason="narrows what ONNX Runtime need not have narrowed")


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> list[DType]:
    """A border like that of TensorRT 8.6; returns what it was asked for."""
    asked: list[DType] = []

    def border(self: OnnxRuntimeProvider, dtype: DType) -> DType:
        asked.append(dtype)
        return DType.INT32 if dtype is DType.INT64 else dtype

    monkeypatch.setattr(OnnxRuntimeProvider, "border", border)
    return asked


@pytest.mark.parametrize("name", ["bert-sdpa", "gpt2", "t5_encoder"])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_models_of_tokens(name, dynamic, compile_trt, report, narrow):
    model, make_inputs = models.ZOO[name]()
    compiled = compile_trt(model, dynamic=dynamic)
    with torch.no_grad():
        for batch in (2, 3) if dynamic else (2,):
            inputs = make_inputs(batch)
            assert_close(compiled(*inputs), model(*inputs))
    assert DType.INT64 in narrow
    report.engines_ran(calls=2 if dynamic else 1, share=0.98)


def test_outputs_and_strides_are_the_callers(compile_trt, report):
    def fn(x, y):
        return (x.t() + 1).contiguous(), torch.maximum(x, y) - y, (x > y).long()

    x, y = torch.randint(-9, 9, (3, 4)).t().contiguous().t(), torch.randint(-9, 9, (3, 4))
    compiled = compile_trt(fn, options={"min_block_size": 1})
    with torch.no_grad():
        for got, wanted in zip(compiled(x, y), fn(x, y), strict=True):
            assert (got.dtype, got.stride()) == (wanted.dtype, wanted.stride())
            assert torch.equal(got, wanted)
    report.engines_ran(calls=1)


def test_what_is_out_of_range_is_the_nearest(compile_trt, report):
    """A mask stays one, and a comparison keeps its answer."""

    def fn(x):
        return x != 0, x > 5, x.clamp(-7, 7), x.clamp(-(2**31), 2**31 - 1)

    x = torch.tensor([2**32, -(2**40), 0, 3, 2**62, 2**31, 2**31 - 1, -(2**31), -(2**31) - 1, -1])
    compiled = compile_trt(fn, options={"min_block_size": 1})
    with torch.no_grad():
        for got, wanted in zip(compiled(x), fn(x), strict=True):
            assert torch.equal(got, wanted)
    report.engines_ran(calls=1)


LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "0-d": lambda x: x[3, 1],
    "transposed": lambda x: x.t(),
    "gaps": lambda x: x[::2, 1:3],
    "expanded": lambda x: x[:, :1].expand(5, 3),
    "offset": lambda x: x.flatten()[3:],
    "rank 7": lambda x: x.view(5, 1, 2, 1, 1, 1, 2),
}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(name: str, dynamic: bool, compile_trt, report):
    x = LAYOUTS[name](torch.arange(20).view(5, 4) * 2**29 - 2**32)

    def fn(x):
        return x > 5, x == 2**31 - 2**29

    compiled = compile_trt(fn, dynamic=dynamic, options={"min_block_size": 1})
    with torch.no_grad():
        for got, wanted in zip(compiled(x), fn(x), strict=True):
            assert torch.equal(got, wanted)
    report.engines_ran(calls=1)


def test_buffers_that_engines_read_at_each_call(compile_trt, report):
    class Offset(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("offset", torch.tensor([2**40, 7, -(2**40)]))

        def forward(self, x):
            return x > self.offset

    model, x = Offset(), torch.arange(3)
    compiled = compile_trt(model, options={"min_block_size": 1, "freeze_weights": False})
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(compiled(x), model(x))
            model.offset.neg_()
    report.engines_ran(calls=2)


def test_they_are_read_where_they_are(compile_trt, report, monkeypatch):
    """No copy stands before the engine, which reads both halves of each number."""

    def fn(x, table):
        return table[x]

    x, table = torch.randint(0, 9, (3, 4)), torch.randn(9, 5)
    compiled = compile_trt(fn, options={"min_block_size": 1})
    monkeypatch.setattr(Addresses, "_copy", None)
    with torch.no_grad():
        assert torch.equal(compiled(x, table), fn(x, table))
    report.engines_ran(calls=1, share=1.0)
