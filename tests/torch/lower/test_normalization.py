"""Layer, group, batch and instance normalization: torch, the reference and ONNX Runtime agree."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from harness import Case, Function, check, each, on_each, operations, overloads, randn, refusal
from torch import Tensor
from torch_checks import BEFORE_TORCH_2_10

from trt_backend.errors import ReasonKind
from trt_backend.ir.ops.elementwise import BatchNorm
from trt_backend.ir.ops.reduction import Normalization
from trt_backend_torch.lower.normalization import RULES

_aten = torch.ops.aten

FLOATS = randn(2, 3, 4)
DOUBLES = randn(2, 3, 4, dtype=torch.float64)
IMAGES = randn(2, 4, 6, 6)

_WEIGHT, _BIAS = randn(4), randn(4) + 1


def _instance_norm(x: Tensor) -> Tensor:
    return _aten._native_batch_norm_legit.no_stats(x, None, None, True, 0.1, 1e-5)[0]


CASES: dict[str, Case] = {
    "layer_norm": (lambda x, w, b: F.layer_norm(x, (4,), w, b, 1e-3), (FLOATS, _WEIGHT, _BIAS)),
    "layer_norm plain": on_each(lambda x: F.layer_norm(x, x.shape[-1:]), FLOATS, DOUBLES, 10 + FLOATS),
    "layer_norm scaled": (lambda x, w: F.layer_norm(x, (4,), w), (FLOATS, _WEIGHT)),
    "layer_norm moved": (lambda x, b: F.layer_norm(x, (4,), None, b), (FLOATS, _BIAS)),
    "layer_norm 2": (lambda x, w: F.layer_norm(x, (3, 4), w, w), (FLOATS, randn(3, 4))),
    "group_norm": (lambda x, w, b: F.group_norm(x, 2, w, b), (IMAGES, _WEIGHT, _BIAS)),
    "group_norm plain": on_each(lambda x: F.group_norm(x, 2), IMAGES, randn(3, 4), randn(2, 4, 5)),
    "batch_norm": (
        lambda x, w, b, m, v: F.batch_norm(x, m, v, w, b),
        (IMAGES, _WEIGHT, _BIAS, randn(4), randn(4).abs()),
    ),
    "batch_norm plain": (lambda x, m, v: F.batch_norm(x, m, v), (randn(3, 4), randn(4), randn(4).abs())),
    "no_training": (
        lambda x, w, b, m, v: _aten._native_batch_norm_legit_no_training(x, w, b, m, v, 0.1, 1e-3)[0],
        (randn(2, 4, 5), _WEIGHT, _BIAS, randn(4), randn(4).abs()),
    ),
    "no_update": (
        lambda x, w, b, m, v: _aten._batch_norm_no_update(x, w, b, m, v, 0.1, 1e-3)[0],
        (IMAGES, _WEIGHT, _BIAS, randn(4), randn(4).abs()),
    ),
    "instance_norm": (lambda x, w, b: F.instance_norm(x, None, None, w, b), (IMAGES, _WEIGHT, _BIAS)),
    "no_stats": (_instance_norm, (IMAGES,)),
    "rms_norm": (lambda x, w: x * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt() * w, (FLOATS, _WEIGHT)),
}

HALF: dict[str, Case] = {
    "layer_norm": on_each(lambda x: F.layer_norm(x, (4,)), 300 * FLOATS.half(), FLOATS.half())
}

DYNAMIC = ["layer_norm", "layer_norm plain", "group_norm", "group_norm plain", "batch_norm", "instance_norm"]
"""The cases that run with symbolic sizes too: one for each way in which a rule handles shapes."""

REFUSED: dict[str, tuple[Case, ReasonKind]] = {
    "statistics": (
        (lambda x: _aten.native_layer_norm(x, [4], None, None, 0.1)[1] + 1, (FLOATS,)),
        ReasonKind.UNSUPPORTED,
    ),
    "training": (
        (
            lambda x, m, v: _aten.native_batch_norm(x, None, None, m, v, True, 0.1, 1e-3)[0],
            (IMAGES, randn(4), randn(4).abs()),
        ),
        ReasonKind.NO_RULE if BEFORE_TORCH_2_10 else ReasonKind.UNSUPPORTED,  # it was traced as another op
    ),
}


@each(CASES, dynamic=DYNAMIC)
def test_agrees(function: Function, inputs: tuple[Tensor, ...], dynamic: bool) -> None:
    check(function, *inputs, dynamic=dynamic)


@each(HALF)
def test_half_agrees(function: Function, inputs: tuple[Tensor, ...], dynamic: bool) -> None:
    check(function, *inputs, dynamic=dynamic, rtol=3e-3, atol=2e-3)


def test_every_rule_has_a_case() -> None:
    assert set(RULES) <= overloads(CASES.values())


@pytest.mark.parametrize(("case", "kind"), REFUSED.values(), ids=REFUSED)
def test_refused(case: Case, kind: ReasonKind) -> None:
    function, inputs = case
    assert refusal(function, *inputs).kind is kind


@pytest.mark.parametrize(
    ("op", "name"),
    [(Normalization, "layer_norm"), (BatchNorm, "batch_norm")],
)
def test_is_one_op(op: type, name: str) -> None:
    function, inputs = CASES[name]
    assert operations(function, *inputs) == [op]
