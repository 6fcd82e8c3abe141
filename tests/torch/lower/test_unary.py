"""Functions of one tensor: torch, the reference and ONNX Runtime agree, on special values and integers too."""

from __future__ import annotations

from importlib.metadata import version

import pytest
import torch
from harness import Case, Function, check, each, on_each, operations, overloads, refusal
from operands import BOOLS, BYTES, DOUBLES, FLOATS, HALVES, INTS, SCALAR, SPECIAL, UNIT
from torch import Tensor

from trt_backend.errors import ReasonKind
from trt_backend.ir.ops.elementwise import Unary
from trt_backend_torch.lower.unary import RULES

CASES: dict[str, Case] = {
    name: on_each(function, FLOATS, SPECIAL, INTS, BOOLS, SCALAR)
    for name, function in {
        "asinh": torch.asinh,
        "atan": torch.atan,
        "cosh": lambda x: torch.cosh(x.clamp(-5, 5)),
        # the last ONNX Runtime for Python 3.10 has erf(NaN) = 1 (README)
        "erf": (lambda x: torch.erf(x.nan_to_num())) if version("onnxruntime") < "1.24" else torch.erf,
        "exp": torch.exp,
        "exp2": torch.exp2,
        "expm1": torch.expm1,
        "log": torch.log,
        "log10": torch.log10,
        "log1p": torch.log1p,
        "log2": torch.log2,
        "reciprocal": torch.reciprocal,
        "rsqrt": torch.rsqrt,
        "sin": torch.sin,
        "cos": torch.cos,
        "sinh": lambda x: torch.sinh(x.clamp(-5, 5)),
        "sqrt": torch.sqrt,
        "tan": torch.tan,
    }.items()
}
CASES |= {
    name: on_each(function, UNIT, BOOLS, INTS)
    for name, function in {
        "acos": torch.acos,
        "acosh": torch.acosh,
        "asin": torch.asin,
        "atanh": torch.atanh,
    }.items()
}
CASES |= {
    name: on_each(function, FLOATS, DOUBLES, HALVES, SPECIAL, INTS, BYTES)
    for name, function in {
        "abs": torch.abs,
        "ceil": torch.ceil,
        "floor": torch.floor,
        "round": torch.round,
        "sign": lambda x: torch.sign(x) if x.dtype.is_floating_point else torch.sign(x.long()),
        "trunc": torch.trunc,
        "neg": lambda x: torch.neg(x.long()) if x.dtype is torch.uint8 else torch.neg(x),
    }.items()
}
CASES |= {
    "sign bool": on_each(torch.sign, BOOLS),
    "tiny": on_each(lambda x: torch.expm1(x) / x + torch.log1p(x) / x, torch.tensor([1e-7, -1e-5, 1e-3])),
    "isnan": on_each(torch.isnan, SPECIAL, INTS, BOOLS),
    "isinf": on_each(torch.isinf, SPECIAL, INTS),
    "isfinite": on_each(torch.isfinite, SPECIAL),
}
CASES["round decimals"] = on_each(
    lambda x: [torch.round(x, decimals=d) for d in (-6, -1, 0, 2, 6)], 100 * FLOATS, DOUBLES, SPECIAL
)

DYNAMIC = ["isnan", "log1p", "trunc"]
"""The cases that run with symbolic sizes too: one for each way in which a rule handles shapes."""

REFUSED: dict[str, tuple[Case, ReasonKind]] = {
    "bfloat16": ((torch.sin, (FLOATS.bfloat16(),)), ReasonKind.DTYPE),
    "random": ((torch.rand_like, (FLOATS,)), ReasonKind.RANDOM),
    "half rounded to decimals": ((lambda x: x.round(decimals=5), (FLOATS.half(),)), ReasonKind.DTYPE),
    "unknown": ((torch.lgamma, (FLOATS,)), ReasonKind.NO_RULE),
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


def test_a_reciprocal_root_is_two_ops() -> None:
    assert operations(torch.rsqrt, FLOATS) == [Unary, Unary]
