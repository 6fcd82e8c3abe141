"""Regions on a GPU use TF32 where eager would."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from trt_backend.ir.builder import Builder
from trt_backend.ir.dims import Dim, Symbol
from trt_backend.ir.graph import Graph
from trt_backend.ir.ops.contraction import Attention, Convolution, Deconvolution, MatrixMultiply
from trt_backend.ir.types import DType, TensorType
from trt_backend.options import CompileOptions
from trt_backend_torch.tf32 import follow_torch

pytestmark = pytest.mark.cpu_only(reason="looks at settings and graphs alone")


@pytest.fixture(autouse=True)
def _settings() -> Iterator[None]:
    settings = torch.backends.cudnn.conv, torch.backends.cuda.matmul
    before = [setting.fp32_precision for setting in settings]
    yield
    for setting, value in zip(settings, before, strict=True):
        setting.fp32_precision = value


def network(*, channels: int, features: int, dtype: DType = DType.FLOAT32) -> Graph:
    """A convolution of `channels` filters over 14x14, and a product with `features` columns of a row beside it."""
    b = Builder()
    batch = Dim.of(Symbol("n"))
    x = b.input("x", TensorType(dtype, (batch, 8, 16, 16)))
    kernel = b.input("kernel", TensorType(dtype, (channels, 8, 3, 3)))
    row = b.input("row", TensorType(dtype, (batch, 64)))
    matrix = b.input("matrix", TensorType(dtype, (64, features)))
    convolution = Convolution((1, 1), (0, 0), (0, 0), (1, 1))
    return b.build([b.add(convolution, x, kernel), b.add(MatrixMultiply(), row, matrix)])


def precision(graph: Graph, **options: str) -> str:
    return follow_torch(graph, CompileOptions(**options)).precision  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("channels", "features", "settings", "wanted"),
    [
        (64, 100, ("tf32", "none"), "tf32"),  # by default
        (64, 100, ("ieee", "tf32"), "auto"),
        (1, 4096, ("tf32", "none"), "auto"),
        (1, 4096, ("none", "tf32"), "tf32"),
        (16, 4096, ("tf32", "none"), "auto"),
        (16, 4096, ("tf32", "tf32"), "tf32"),
    ],
)
def test_what_does_the_work_decides(
    channels: int, features: int, settings: tuple[str, str], wanted: str
) -> None:
    torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision = settings
    assert precision(network(channels=channels, features=features)) == wanted


def test_what_the_user_asks_for_stays() -> None:
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    assert precision(network(channels=64, features=1), precision="fp16") == "fp16"


def test_half_has_no_use_for_it() -> None:
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    assert precision(network(channels=64, features=1, dtype=DType.FLOAT16)) == "auto"


def test_attention_and_transposed_convolutions_are_work_too() -> None:
    torch.backends.cudnn.conv.fp32_precision = "tf32"
    b = Builder()
    x = b.input("x", TensorType(DType.FLOAT32, (1, 8, 16, 16)))
    kernel = b.input("kernel", TensorType(DType.FLOAT32, (8, 4, 2, 2)))
    y = b.add(Deconvolution((2, 2), (0, 0), (0, 0), (1, 1)), x, kernel)
    assert precision(b.build([y])) == "tf32"
    z = b.add(Attention(1.0), x, x, x)
    assert precision(b.build([y, z])) == "auto"
