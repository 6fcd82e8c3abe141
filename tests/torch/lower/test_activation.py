"""Activations and clamps: torch, the reference and ONNX Runtime agree, on special values too."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from harness import Case, Function, check, each, on_each, operations, overloads, randn, refusal
from operands import BOOLS, DOUBLES, FINITE, FLOATS, INTS, SCALAR, SPECIAL
from torch import Tensor

from trt_backend.errors import ReasonKind
from trt_backend_torch.lower.activation import RULES

_aten = torch.ops.aten

CLAMPS: dict[str, Case] = {
    "clamp": on_each(lambda x: torch.clamp(x, -0.5, 1), FLOATS, SPECIAL, DOUBLES, INTS),
    "clamp int": on_each(lambda x: torch.clamp(x, -2, 3), INTS, INTS.int()),
    "clamp crossed": on_each(lambda x: torch.clamp(x, 2, -1), FLOATS, INTS),
    "clamp half open": on_each(lambda x: (torch.clamp(x, min=0.1), torch.clamp(x, max=0.1)), SPECIAL),
    "clamp least": on_each(lambda x: torch.clamp(x, torch.finfo(x.dtype).min), FLOATS, SPECIAL),
    "clamp tensors": (torch.clamp, (FLOATS, randn(3), randn(2, 1))),
    "clamp int tensor": (lambda x, y: torch.clamp(x, max=y), (INTS, SCALAR)),
    "clamp_min": on_each(lambda x: _aten.clamp_min(x, 1), FLOATS, SPECIAL, INTS),
    "clamp_max": on_each(lambda x: _aten.clamp_max(x, 1), FLOATS, SPECIAL, INTS),
    "clamp_min tensor": (torch.clamp_min, (FLOATS, randn(3))),
    "clamp_max tensor": (torch.clamp_max, (FLOATS, INTS)),
}

ACTIVATIONS: dict[str, Case] = {
    name: on_each(function, FLOATS, SPECIAL, SCALAR, 10 * FLOATS)
    for name, function in {
        "celu": lambda x: F.celu(x, alpha=0.7),
        "elu": lambda x: F.elu(x, alpha=0.7),
        "elu general": lambda x: _aten.elu(x, 0.7, 1.3, 0.4),
        "glu": lambda x: F.glu(torch.stack([x, x], -1)),
        "hardshrink": F.hardshrink,
        "hardsigmoid": F.hardsigmoid,
        "hardswish": F.hardswish,
        "hardtanh": lambda x: F.hardtanh(x, -0.5, 0.7),
        "leaky_relu": F.leaky_relu,
        "logit": lambda x: torch.logit(x, eps=1e-3),
        "logsigmoid": F.logsigmoid,
        "mish": F.mish,
        "nan_to_num": lambda x: torch.nan_to_num(x, nan=2.0),
        "prelu": lambda x: F.prelu(x, torch.full((1,), 0.2)),
        "relu": F.relu,
        "relu6": F.relu6,
        "selu": F.selu,
        "silu": F.silu,
        "softplus": F.softplus,
        "softplus beta": lambda x: F.softplus(x, beta=2.0, threshold=3.0),
        "softshrink": F.softshrink,
        "softsign": F.softsign,
        "tanhshrink": F.tanhshrink,
        "threshold": lambda x: F.threshold(x, 0.1, 20.0),
    }.items()
}
ACTIVATIONS |= {
    name: on_each(function, FLOATS, SPECIAL, INTS, BOOLS, SCALAR)
    for name, function in {
        "sigmoid": torch.sigmoid,
        "tanh": torch.tanh,
    }.items()
}
ACTIVATIONS |= {
    "relu int": on_each(F.relu, INTS, INTS.int()),
    "hardtanh int": on_each(lambda x: F.hardtanh(x, -2, 3), INTS),
    "softplus double": on_each(F.softplus, 30 * DOUBLES),
    "gelu": on_each(F.gelu, FLOATS, FINITE, SCALAR, 10 * FLOATS),
    "gelu tanh": on_each(lambda x: F.gelu(x, approximate="tanh"), FLOATS, FINITE, SCALAR, 10 * FLOATS),
    "silu double": on_each(F.silu, DOUBLES),
}

HALF: dict[str, Case] = {
    name: on_each(function, FLOATS.half(), SCALAR.half())
    for name, function in {
        "gelu": F.gelu,
        "silu": F.silu,
        "clamp": lambda x: x.clamp(-0.5, 0.5),
    }.items()
}

CASES = CLAMPS | ACTIVATIONS

DYNAMIC = ["clamp", "mish", "nan_to_num", "softplus"]
"""The cases that run with symbolic sizes too: one for each way in which a rule handles shapes."""

REFUSED: dict[str, tuple[Case, ReasonKind]] = {
    "clamp to nothing": ((lambda x: torch.clamp(x, max=math.nan), (FLOATS,)), ReasonKind.UNSUPPORTED),
    "gelu double": ((F.gelu, (DOUBLES,)), ReasonKind.DTYPE),
    "used buffer": ((lambda x: _aten.log_sigmoid_forward(x)[1] + 1, (FLOATS,)), ReasonKind.UNSUPPORTED),
}


@each(CASES, dynamic=DYNAMIC)
def test_agrees(function: Function, inputs: tuple[Tensor, ...], dynamic: bool) -> None:
    check(function, *inputs, dynamic=dynamic)


@each(HALF)
def test_half_agrees(function: Function, inputs: tuple[Tensor, ...], dynamic: bool) -> None:
    check(function, *inputs, dynamic=dynamic, rtol=2e-3, atol=2e-3)


def test_every_rule_has_a_case() -> None:
    assert set(RULES) <= overloads(CASES.values())


@pytest.mark.parametrize(("case", "kind"), REFUSED.values(), ids=REFUSED)
def test_refused(case: Case, kind: ReasonKind) -> None:
    function, inputs = case
    assert refusal(function, *inputs).kind is kind


@pytest.mark.parametrize("function", [F.gelu, F.hardswish, F.relu6, F.selu, F.softplus])
def test_is_lowered_to_few_ops(function: Function) -> None:
    assert len(operations(lambda x: function(x), FLOATS)) <= 2
