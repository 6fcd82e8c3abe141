"""Interpolation and grids: torch, the reference and ONNX Runtime agree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from harness import Case, Function, check, each, lower, operations, randn, refusal, trace
from torch import Tensor

from trt_backend.errors import ReasonKind
from trt_backend.ir.ops.layout import GridSample, Resize
from trt_backend.ir.reference import evaluate
from trt_backend_torch.interpolation import INTERPOLATION

LINE, IMAGES, VOLUME = randn(2, 3, 7), randn(2, 3, 6, 5), randn(1, 2, 3, 4, 5)


def to(x: Tensor, mode: str, size: Any = None, scale: Any = None, **options: Any) -> Case:
    """A case of interpolation to a size or by scales."""
    given = {"align_corners": None, "recompute_scale_factor": None, "channels_last": False, **options}
    return lambda x: INTERPOLATION(x, size, scale, mode, **given), (x,)


CASES: dict[str, Case] = {
    "bilinear up": to(IMAGES, "bilinear", [12, 11]),
    "bilinear down": to(IMAGES, "bilinear", [3, 4]),
    "bilinear to one": to(IMAGES, "bilinear", [1, 1], align_corners=True),
    "bilinear aligned": to(IMAGES, "bilinear", [11, 3], align_corners=True),
    "bilinear twice": to(IMAGES, "bilinear", scale=[2.0, 2.0]),
    "bilinear half": to(IMAGES, "bilinear", scale=[0.5, 0.5]),
    "bilinear by another scale": to(IMAGES, "bilinear", scale=[1.7, 0.3]),
    "bilinear by it, aligned": to(IMAGES, "bilinear", scale=[1.7, 0.3], align_corners=True),
    "bilinear, recomputed": to(IMAGES, "bilinear", scale=[1.7, 0.3], recompute_scale_factor=True),
    "bilinear, one and a half": to(IMAGES, "bilinear", scale=[1.5, 1.5]),
    "linear": to(LINE, "linear", [10]),
    "linear by another scale": to(LINE, "linear", scale=[1.9]),
    "trilinear": to(VOLUME, "trilinear", [5, 4, 3]),
    "trilinear by another scale": to(VOLUME, "trilinear", scale=[1.9, 0.5, 2.0]),
    "nearest, three times": to(IMAGES, "nearest", scale=[3.0, 2.0]),
    "nearest of a line": to(LINE, "nearest", [21]),
    "nearest exact, twice": to(IMAGES, "nearest-exact", scale=[2.0, 2.0]),
}
DYNAMIC = [
    "bilinear down",
    "bilinear aligned",
    "bilinear twice",
    "bilinear half",
    "bilinear, one and a half",
    "linear",
    "trilinear",
    "nearest, three times",
    "nearest exact, twice",
]

REFUSED: dict[str, tuple[Case, ReasonKind, str]] = {
    "bytes": (
        to(IMAGES.to(torch.uint8), "bilinear", [12, 10]),
        ReasonKind.DTYPE,
        "no engine op interpolates u8",
    ),
    "a scale that keeps a size": (to(IMAGES, "bilinear", scale=[1.1, 2.0]), ReasonKind.UNSUPPORTED, "keep"),
    "nearest by another scale": (to(IMAGES, "nearest", scale=[1.7, 2.0]), ReasonKind.UNSUPPORTED, "scale"),
    "nearest": (to(IMAGES, "nearest", [13, 4]), ReasonKind.UNSUPPORTED, "no whole factor"),
    "nearest exact": (to(IMAGES, "nearest-exact", [13, 4]), ReasonKind.UNSUPPORTED, "no whole factor"),
    "nearest, 41 times": (  # 41 * float32(1 / 41) < 1
        to(LINE, "nearest", [7 * 41]),
        ReasonKind.UNSUPPORTED,
        "no whole factor",
    ),
    "nearest of bytes": (
        to(IMAGES.to(torch.uint8), "nearest", [12, 10]),
        ReasonKind.DTYPE,
        "no engine op resizes u8",
    ),
    "nearest of a volume": (
        to(VOLUME, "nearest", scale=[2.0, 2.0, 2.0]),
        ReasonKind.UNSUPPORTED,
        "12 times as long",
    ),
    "bicubic": (to(IMAGES, "bicubic", [12, 10]), ReasonKind.UNSUPPORTED, "cubic"),
    "a grid": (
        (lambda x: F.grid_sample(x, x[:, :, :, :2], align_corners=False), (IMAGES,)),
        ReasonKind.UNSUPPORTED,
        "GridSample",
    ),
}
REFUSED_DYNAMIC: dict[str, tuple[Case, str]] = {
    "computed in floats": (to(IMAGES, "bilinear", scale=[1.7, 2.0]), "computed in floats"),
    "may keep a size": (to(IMAGES, "bilinear", scale=[1.25, 2.0]), "may keep the size"),
    "nearest exact": (to(IMAGES, "nearest-exact", [13, 4]), "no whole factor"),
    "nearest": (to(IMAGES, "nearest", [13, 4]), "8 times as long"),
}


@each(CASES, dynamic=DYNAMIC)
def test_agrees(function: Function, inputs: tuple[Tensor, ...], dynamic: bool) -> None:
    check(function, *inputs, dynamic=dynamic)


@pytest.mark.parametrize(("case", "kind", "detail"), REFUSED.values(), ids=REFUSED)
def test_refused(case: Case, kind: ReasonKind, detail: str) -> None:
    reason = refusal(case[0], *case[1])
    assert reason.kind is kind
    assert detail in str(reason)


@pytest.mark.parametrize(("case", "detail"), REFUSED_DYNAMIC.values(), ids=REFUSED_DYNAMIC)
def test_refused_with_symbolic_sizes(case: Case, detail: str) -> None:
    assert detail in refusal(case[0], *case[1], dynamic=True).detail


@pytest.mark.parametrize(
    ("name", "ops"),
    [
        ("bilinear by another scale", [Resize]),
        ("nearest, three times", [Resize]),
    ],
)
def test_is_few_ops(name: str, ops: list[type]) -> None:
    function, inputs = CASES[name]
    assert operations(function, *inputs) == ops


def _agrees(function: Function, *inputs: Tensor) -> None:
    """What no engine on the CPU takes: the reference alone is compared."""
    graph = lower(trace(function, inputs, dynamic=False))
    (got,) = evaluate(graph, [x.numpy() for x in inputs])
    np.testing.assert_allclose(got, function(*inputs).numpy(), rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    "case",
    [
        to(IMAGES, "bicubic", [12, 11]),
        to(IMAGES, "bicubic", [3, 4], align_corners=True),
        to(IMAGES, "bicubic", scale=[1.7, 0.3]),
        to(IMAGES, "bicubic", [1, 2]),
    ],
)
def test_cubic_interpolation(case: Case) -> None:
    _agrees(case[0], *case[1])


def test_nearest_elements_of_volumes() -> None:
    function, inputs = to(VOLUME, "nearest", scale=[2.0, 2.0, 2.0])
    _agrees(function, *inputs)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_grids(mode: str, padding: str, align_corners: bool) -> None:
    """Places inside, outside, and in eighths: on the edges that rounding and reflection turn at."""

    def sample(x: Tensor, grid: Tensor) -> Tensor:
        return F.grid_sample(x, grid, mode, padding, align_corners)

    eighths = torch.randint(-24, 25, (2, 9, 9, 2), generator=torch.Generator().manual_seed(0)) / 8
    for grid in (randn(2, 8, 4, 2).tanh(), randn(2, 8, 4, 2) * 2, eighths):
        for shape in ((2, 3, 8, 4), (2, 3, 4, 1)):
            _agrees(sample, randn(*shape), grid)
    assert operations(sample, IMAGES, eighths) == [GridSample]
