"""Pooling: torch, the reference and ONNX Runtime agree."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from harness import Case, Function, check, each, on_each, operations, overloads, randn, refusal
from torch import Tensor

from trt_backend.errors import ReasonKind
from trt_backend.ir.ops.reduction import Pooling
from trt_backend_torch.lower.pooling import RULES

FLOATS = randn(2, 3, 4)
IMAGES = randn(2, 4, 6, 6)

CASES: dict[str, Case] = {
    "max 2d": (lambda x: F.max_pool2d(x, 2), (IMAGES,)),
    "max 2d padded": (lambda x: F.max_pool2d(x, 3, 2, 1), (IMAGES,)),
    "max 2d ceil": (lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), (IMAGES,)),
    "max 2d oblong": (lambda x: F.max_pool2d(x, (3, 2), (1, 2), (1, 0)), (IMAGES,)),
    "max 2d no batch": (lambda x: F.max_pool2d(x, 2), (IMAGES[0],)),
    "max 1d": (lambda x: F.max_pool1d(x, 2, 1), (FLOATS,)),
    "max 3d": (lambda x: F.max_pool3d(x, 2, 2, 1), (randn(1, 2, 4, 4, 4),)),
    "average 2d": (lambda x: F.avg_pool2d(x, 2), (IMAGES,)),
    "average 2d padded": (lambda x: F.avg_pool2d(x, 3, 2, 1), (IMAGES,)),
    "average 2d inside": (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), (IMAGES,)),
    "average 2d ceil inside": (
        lambda x: F.avg_pool2d(x, 4, 3, 1, ceil_mode=True, count_include_pad=False),
        (IMAGES,),
    ),
    "average 1d": (lambda x: F.avg_pool1d(x, 3, 1, 1), (FLOATS,)),
    "average 3d": (lambda x: F.avg_pool3d(x, 2), (randn(1, 2, 4, 4, 4),)),
    "adaptive average 1": on_each(lambda x: F.adaptive_avg_pool2d(x, 1), IMAGES, IMAGES[0]),
    "adaptive average": (lambda x: F.adaptive_avg_pool2d(x, (3, 2)), (IMAGES,)),
    "adaptive average uneven": (lambda x: F.adaptive_avg_pool2d(x, (4, 5)), (IMAGES,)),
    "adaptive average to more": on_each(lambda x: F.adaptive_avg_pool2d(x, (7, 13)), IMAGES, IMAGES[0]),
    "adaptive average 3d uneven": (lambda x: F.adaptive_avg_pool3d(x, (3, 2, 1)), (randn(1, 2, 4, 3, 5),)),
    "adaptive average same": (lambda x: F.adaptive_avg_pool2d(x, 6), (IMAGES,)),
    "adaptive average 1d": (lambda x: F.adaptive_avg_pool1d(x, 2), (FLOATS,)),
    "adaptive average 3d": (lambda x: F.adaptive_avg_pool3d(x, 2), (randn(1, 2, 4, 4, 4),)),
    "adaptive max": (lambda x: F.adaptive_max_pool2d(x, 3), (IMAGES,)),
    "adaptive max 1": (lambda x: F.adaptive_max_pool2d(x, 1), (IMAGES,)),
    "adaptive max 3d": (lambda x: F.adaptive_max_pool3d(x, 2), (randn(1, 2, 4, 4, 4),)),
}

DYNAMIC = [
    "max 2d padded",
    "max 2d ceil",
    "max 2d no batch",
    "max 1d",
    "average 2d inside",
    "adaptive average 1",
    "adaptive max 1",
]
"""The cases that run with symbolic sizes too: one for each way in which a rule handles shapes."""

REFUSED: dict[str, tuple[Case, ReasonKind]] = {
    "dilation": ((lambda x: F.max_pool2d(x, 2, dilation=2), (IMAGES,)), ReasonKind.UNSUPPORTED),
    "indices": (
        (lambda x: F.max_pool2d(x, 2, return_indices=True)[1] + 1, (IMAGES,)),
        ReasonKind.UNSUPPORTED,
    ),
    "divisor": ((lambda x: F.avg_pool2d(x, 2, divisor_override=3), (IMAGES,)), ReasonKind.UNSUPPORTED),
    "average ceil": (
        (lambda x: F.avg_pool2d(x, 4, 3, 1, ceil_mode=True), (IMAGES,)),
        ReasonKind.UNSUPPORTED,  # by ONNX Runtime
    ),
    "uneven": ((lambda x: F.adaptive_max_pool2d(x, 4), (IMAGES,)), ReasonKind.UNSUPPORTED),
    "integers": ((lambda x: F.max_pool2d(x, 2), (IMAGES.int(),)), ReasonKind.DTYPE),
}


@each(CASES, dynamic=DYNAMIC)
def test_agrees(function: Function, inputs: tuple[Tensor, ...], dynamic: bool) -> None:
    check(function, *inputs, dynamic=dynamic)


def test_every_rule_has_a_case() -> None:
    assert set(RULES) <= overloads(CASES.values())


@pytest.mark.parametrize(("case", "kind"), REFUSED.values(), ids=REFUSED)
def test_refused(case: Case, kind: ReasonKind) -> None:
    function, inputs = case
    assert refusal(function, *inputs).kind is kind


@pytest.mark.parametrize(
    ("function", "x"),
    [
        (lambda x: F.adaptive_avg_pool2d(x, 3), IMAGES),
        (lambda x: F.max_pool2d(x, 2, 2, 1, ceil_mode=True), IMAGES),
    ],
)
def test_refused_with_symbolic_sizes(function: Function, x: Tensor) -> None:
    reason = refusal(lambda x: function(x)[0], x, dynamic=True)
    assert reason.kind is ReasonKind.UNSUPPORTED
    assert "dynamic" in reason.detail


@pytest.mark.parametrize(
    ("op", "name"),
    [(Pooling, "max 2d padded"), (Pooling, "average 2d")],
)
def test_is_one_op(op: type, name: str) -> None:
    function, inputs = CASES[name]
    assert operations(function, *inputs) == [op]
