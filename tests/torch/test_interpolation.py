"""Interpolation stays one op from the user's call to the engine, or to torch's kernel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch_checks import (
    ReportChecks,
    assert_close,
    assert_runs_as_eager,
    clone,
    compile_trt,
    keeps_whole,
    needs_trt,
)

from models import randn
from trt_backend.ir import dims
from trt_backend_torch.interpolation import INTERPOLATION, keep_interpolation

Model = Callable[[Tensor], Tensor]


def between(**options: Any) -> Model:
    """Interpolation between ops that engines take."""
    return lambda x: F.interpolate(x * 2, **options).relu()


IMAGES = randn(2, 3, 6, 5)
CASES: dict[str, tuple[Model, Tensor]] = {
    "bilinear": (between(scale_factor=2, mode="bilinear"), IMAGES),
    "bilinear aligned": (between(scale_factor=2, mode="bilinear", align_corners=True), IMAGES),
    "bilinear to a size": (between(size=(9, 3), mode="bilinear"), IMAGES),
    "bilinear by another scale": (between(scale_factor=(1.7, 0.5), mode="bilinear"), IMAGES),
    "recomputed": (between(scale_factor=1.7, mode="bilinear", recompute_scale_factor=True), IMAGES),
    "channels last": (
        between(scale_factor=2, mode="bilinear"),
        IMAGES.contiguous(memory_format=torch.channels_last),
    ),
    "transposed": (between(scale_factor=2, mode="bilinear"), IMAGES.transpose(2, 3)),
    "linear": (between(size=9, mode="linear"), IMAGES[0]),
    "trilinear": (between(scale_factor=2, mode="trilinear"), IMAGES[None]),
    "nearest": (between(scale_factor=2), IMAGES),
    "nearest exact": (between(size=[12, 15], mode="nearest-exact"), IMAGES),
}


@needs_trt
@pytest.mark.parametrize("name", CASES)
def test_runs_whole(name: str, report: ReportChecks, tmp_path: Path) -> None:
    function, x = CASES[name]
    with torch.no_grad():
        assert_runs_as_eager(function, lambda: clone((x,)), options={"dump_dir": str(tmp_path)})
    report.engines_ran(calls=3, share=1.0, exactly=True)
    (lowered,) = tmp_path.rglob("*lowered.ir")
    assert lowered.read_text().count("= Resize(") == 1


@needs_trt
@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("options", [{"scale_factor": 2.0}, {"scale_factor": 2.0, "mode": "bilinear"}])
def test_decoders_scale_what_encoders_halved_several_times(
    options: dict[str, Any], *, known: bool, report: ReportChecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halves of halves are quarters; where our arithmetic does not know, torch's sizes are taken."""
    if not known:
        monkeypatch.setattr(dims, "_nested", partial(dims._call, "//"))
    halves = [torch.nn.Conv2d(3, 3, 3, stride=2, padding=1).eval() for _ in range(3)]

    def function(x: Tensor) -> Tensor:
        for half in halves:
            x = half(x).relu()
        return F.interpolate(x, **options).relu()

    compiled = compile_trt(function, dynamic=True)
    with torch.no_grad():
        for size in ((2, 3, 32, 48), (1, 3, 33, 47)):
            x = randn(*size)
            assert_close(compiled(x), function(x), strides=True)
    report.engines_ran(calls=2, share=1.0, rebuilds=True)


@needs_trt
@pytest.mark.parametrize("name", [*CASES, "bicubic"])
def test_natively_it_is_torchs_own(name: str, report: ReportChecks) -> None:
    function, x = CASES.get(name, (between(scale_factor=2, mode="bicubic"), IMAGES))
    with torch.no_grad():
        assert_runs_as_eager(function, lambda: clone((x,)), options={"min_block_size": 100})
    report.no_engine_ran("region too small")
    assert sum("interpolate" in reason for reason in report.reasons()) == 1


@pytest.mark.parametrize(
    "function",
    [
        between(scale_factor=2, mode="bilinear"),
        pytest.param(
            between(scale_factor=0.5, mode="bilinear"),
            marks=pytest.mark.cpu_only(reason="TensorRT steps by the ratio of the sizes"),
        ),
        between(scale_factor=1.5, mode="bilinear", align_corners=True),
        between(size=(9, 4), mode="bilinear"),
        between(scale_factor=2),
        lambda x: F.interpolate(x.relu(), size=(x.shape[2] * 3, x.shape[3] + 1), mode="bilinear") + 1,
        lambda x: F.interpolate(x.relu(), size=(x.shape[2] * 3, x.shape[3] * 2)) + 1,
    ],
)
def test_sizes_may_be_dynamic(function: Model, report: ReportChecks) -> None:
    compiled = compile_trt(function, dynamic=True)
    sizes = ((2, 3, 6, 5), (1, 3, 8, 9), (2, 3, 7, 12))
    with torch.no_grad():
        for i, size in enumerate(sizes):
            x = randn(*size, seed=i)
            assert_close(compiled(x), function(x), strides=True)
    report.engines_ran(calls=len(sizes), share=1.0, rebuilds=True)


@pytest.mark.parametrize(
    "size",
    [
        lambda y: y.shape[2:],
        lambda y: y.size()[-2:],
        lambda y: (y.shape[2], y.shape[3]),
        lambda y: [y.shape[2], 12],
        lambda y: y.shape[2],
    ],
)
@pytest.mark.parametrize("dynamic", [None, True])
def test_sizes_may_be_another_images(
    size: Callable[[Tensor], Any], dynamic: bool | None, report: ReportChecks
) -> None:
    """Decoders resize to the size of an encoder's features."""

    def function(x: Tensor, y: Tensor) -> Tensor:
        return F.interpolate(x.relu() * 2, size=size(y), mode="bilinear") + 1

    compiled, x = compile_trt(function, dynamic=dynamic), clone(IMAGES)
    with torch.no_grad():
        for rows in (9, 11, 14):
            y = randn(1, 1, rows, rows + 1)
            assert_close(compiled(x, y), function(x, y), strides=True)
    report.engines_ran(calls=3, share=1.0, rebuilds=True)


NATIVE: dict[str, tuple[Model, Tensor]] = {
    "sizes computed in floats": (between(scale_factor=1.7, mode="bilinear"), IMAGES),
    "a scale that may keep a size": (between(scale_factor=1.25, mode="bilinear"), IMAGES),
    "bytes": (
        lambda x: F.interpolate((x * 50).to(torch.uint8), scale_factor=2, mode="bilinear") / 2,
        IMAGES.abs(),
    ),
    "nearest bytes": (lambda x: F.interpolate((x * 50).to(torch.uint8), scale_factor=2) / 2, IMAGES.abs()),
    "nearest exact to a size": (between(size=(7, 11), mode="nearest-exact"), IMAGES),
    "nothing": (between(scale_factor=2, mode="bilinear"), IMAGES[:0]),
    "channels last": (
        between(scale_factor=1.7, mode="bilinear"),
        IMAGES[:1].contiguous(memory_format=torch.channels_last),
    ),
}


@pytest.mark.parametrize("name", NATIVE)
def test_what_stays_native_is_eagers(name: str, report: ReportChecks) -> None:
    function, x = NATIVE[name]
    compiled = compile_trt(function, dynamic=True)
    with torch.no_grad():
        for _ in range(2):
            assert_close(compiled(x), function(x), strides=True)
    kinds = {"nothing": "empty tensor", "bytes": "unsupported dtype", "nearest bytes": "unsupported dtype"}
    report.native(kinds.get(name, "unsupported"))


@needs_trt
@pytest.mark.cpu_only(reason="TensorRT has cubic interpolation, volumes and grids")
@pytest.mark.parametrize(
    "function",
    [
        between(scale_factor=2, mode="bicubic"),
        between(size=(7, 12)),
        between(scale_factor=(0.5, 1)),
        lambda x: F.interpolate(x[None].relu(), scale_factor=2) + 1,
        lambda x: F.grid_sample(x.relu(), x[..., :2].tanh() * 2, align_corners=False) + 1,
    ],
)
def test_what_onnx_runtime_is_slow_at_is_native(function: Model, report: ReportChecks) -> None:
    with torch.no_grad():
        assert_runs_as_eager(function, lambda: clone((IMAGES,)))
    report.native("unsupported")
    assert any("times as long as PyTorch's" in reason for reason in report.reasons())


@pytest.mark.cpu_only(reason="other kernels round float16 otherwise")
def test_half_precision(report: ReportChecks) -> None:
    x = IMAGES.half()
    function = between(scale_factor=2, mode="bilinear")
    with torch.no_grad():
        assert_close(compile_trt(function)(x), function(x), rtol=2e-3)
    report.engines_ran(share=1.0)


def keeps(function: Callable[..., Any], *inputs: Tensor) -> bool:
    """Whether `keep_interpolation` puts the op into dynamo's graph."""
    return keeps_whole(keep_interpolation, INTERPOLATION, function, *inputs)


@pytest.mark.parametrize(
    "function",
    [
        between(scale_factor=2, mode="bilinear", antialias=True),
        between(scale_factor=2, mode="area"),
        torch.vmap(lambda x: F.interpolate(x[None], scale_factor=2, mode="bilinear")),
    ],
)
def test_is_left_as_it_is(function: Model) -> None:
    with torch.no_grad():
        assert not keeps(function, IMAGES)


def test_is_left_where_gradients_are_recorded_or_under_autocast() -> None:
    function = between(scale_factor=2, mode="bilinear")
    assert keeps(function, IMAGES)
    assert not keeps(function, clone(IMAGES).requires_grad_())
    with torch.no_grad(), torch.autocast(IMAGES.device.type, torch.bfloat16):
        assert not keeps(function, IMAGES)


def test_gradients() -> None:
    function = between(scale_factor=2, mode="bicubic")
    (x, y), compiled = (clone(IMAGES).requires_grad_() for _ in range(2)), compile_trt(function)
    compiled(x).square().sum().backward()
    function(y).square().sum().backward()
    assert_close(x.grad, y.grad)
