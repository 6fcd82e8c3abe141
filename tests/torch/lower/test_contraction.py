"""Matrix products, convolutions and attention: torch, the reference and ONNX Runtime agree."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from harness import Case, Function, check, each, lower, operations, overloads, randn, refusal, trace
from torch import Tensor
from torch_checks import BEFORE_TORCH_2_10

from trt_backend.ir.ops.contraction import Attention, MatrixMultiply
from trt_backend.ir.reference import evaluate
from trt_backend_torch.attention import ATTENTION
from trt_backend_torch.lower.contraction import RULES

_aten = torch.ops.aten
_flash = _aten._scaled_dot_product_flash_attention_for_cpu


def _weight(*shape: int) -> Tensor:
    return torch.nn.Parameter(randn(*shape))


def _ints(*shape: int) -> Tensor:
    return torch.randint(-5, 5, shape, generator=torch.Generator().manual_seed(sum(shape)))


def _mask(*shape: int) -> Tensor:
    """An additive mask that hides about half, and all of one query's keys."""
    mask = torch.where(randn(*shape) > 0, 0.0, -math.inf)
    mask[..., 1, :] = -math.inf
    return mask


def _attend(**options: Any) -> Callable[..., Tensor]:
    def attend(q: Tensor, k: Tensor, v: Tensor, *mask: Tensor) -> Tensor:
        return _flash(q, k, v, attn_mask=mask[0] if mask else None, **options)[0]

    return attend


_SCALE = {"scale": 0.3}  # what torch computes of the size of a head is a float, and dynamic here
_QKV = (randn(2, 4, 5, 8), randn(2, 4, 7, 8), randn(2, 4, 7, 8) + 1)

PRODUCTS: dict[str, Case] = {
    "mm": (torch.mm, (randn(3, 4), randn(4, 5))),
    "mm int64": (torch.mm, (_ints(3, 4), _ints(4, 5))),
    "mm float64": (torch.mm, (randn(3, 4, dtype=torch.float64), randn(4, 5, dtype=torch.float64))),
    "mm of t": (lambda x, w: torch.mm(x, w.t()), (randn(3, 4), randn(5, 4))),
    "bmm": (torch.bmm, (randn(2, 3, 4), randn(2, 4, 5))),
    "mv": (torch.mv, (randn(3, 4), randn(4))),
    "linear": (F.linear, (randn(2, 3, 4), randn(5, 4), randn(5))),
    "matmul broadcast": (torch.matmul, (randn(2, 1, 3, 4), randn(5, 4, 3))),
    "einsum": (lambda x, y: torch.einsum("bhqd,bhkd->bhqk", x, y), (randn(2, 2, 3, 4), randn(2, 2, 5, 4))),
    "addmv": (
        lambda x, m, v: torch.addmv(x, m, v, beta=0.5, alpha=2),
        (randn(3), randn(3, 4), randn(4)),
    ),
    "addbmm": (
        lambda x, y, z: torch.addbmm(x, y, z, beta=0.5, alpha=2),
        (randn(3, 5), randn(2, 3, 4), randn(2, 4, 5)),
    ),
    "addmm row": (torch.addmm, (randn(5), randn(3, 4), randn(4, 5))),
    "addmm column": (torch.addmm, (randn(3, 1), randn(3, 4), randn(4, 5))),
    "addmm scalar": (torch.addmm, (torch.tensor(2.0), randn(3, 4), randn(4, 5))),
    "addmm factors": (
        lambda x, y, z: torch.addmm(x, y, z, beta=0.5, alpha=2),
        (randn(3, 5), randn(3, 4), randn(4, 5)),
    ),
    "addmm beta 0": (
        lambda x, y, z: torch.addmm(x, y, z, beta=0),
        (torch.tensor(math.nan), randn(3, 4), randn(4, 5)),
    ),
    "baddbmm": (
        lambda x, y, z: torch.baddbmm(x, y, z, beta=2, alpha=0.5),
        (randn(3, 5), randn(2, 3, 4), randn(2, 4, 5)),
    ),
}

CONVOLUTIONS: dict[str, Case] = {
    "1d": (lambda x, w: F.conv1d(x, w, padding=2, dilation=2), (randn(2, 3, 9), _weight(4, 3, 3))),
    "2d": (
        lambda x, w, b: F.conv2d(x, w, b, stride=(2, 1), padding=(1, 0)),
        (randn(2, 3, 9, 8), _weight(4, 3, 3, 3), _weight(4)),
    ),
    "2d one padding": (
        lambda x, w: _aten.convolution(x, w, None, [2, 2], [1], [1, 1], False, [0], 1),
        (randn(2, 3, 9, 8), _weight(4, 3, 3, 3)),
    ),
    "2d depthwise": (lambda x, w: F.conv2d(x, w, groups=4), (randn(2, 4, 5, 5), _weight(4, 1, 3, 3))),
    "2d unbatched": (F.conv2d, (randn(3, 5, 5), _weight(4, 3, 3, 3))),
    "3d": (lambda x, w: F.conv3d(x, w, padding=1), (randn(1, 2, 4, 5, 6), _weight(3, 2, 3, 3, 3))),
    "transposed 1d": (
        lambda x, w: F.conv_transpose1d(x, w, stride=2, padding=1),
        (randn(2, 3, 5), _weight(3, 4, 3)),
    ),
    "transposed 2d": (
        lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1),
        (randn(2, 3, 5, 4), _weight(3, 4, 3, 3), _weight(4)),
    ),
    "transposed 2d grouped": (
        lambda x, w: F.conv_transpose2d(x, w, stride=3, groups=2, dilation=2),
        (randn(2, 4, 5, 4), _weight(4, 3, 2, 2)),
    ),
    "transposed 3d": (
        lambda x, w: F.conv_transpose3d(x, w, stride=2),
        (randn(1, 2, 3, 3, 3), _weight(2, 3, 2, 2, 2)),
    ),
}

ATTENTIONS: dict[str, Case] = {
    "plain": (_attend(**_SCALE), _QKV),
    "causal": (_attend(is_causal=True, **_SCALE), _QKV),
    "causal, more queries": (_attend(is_causal=True, **_SCALE), (_QKV[1], _QKV[0], _QKV[0] + 1)),
    "mask 2d": (_attend(**_SCALE), (*_QKV, _mask(5, 7))),
    "mask 4d": (_attend(**_SCALE), (*_QKV, _mask(2, 1, 5, 7))),
    "mask finite": (_attend(**_SCALE), (*_QKV, _mask(2, 1, 5, 7).clamp(min=torch.finfo(torch.float32).min))),
    "mask bool": (
        lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, attn_mask=m, scale=0.3),
        (*_QKV, _mask(2, 4, 5, 7) == 0),
    ),
}

ATTENTIONS |= {
    "whole": (lambda q, k, v: ATTENTION(q, k, v, None, True, heads_first=True, **_SCALE), _QKV),
    "whole, mask": (lambda q, k, v, m: ATTENTION(q, k, v, m, **_SCALE), (*_QKV, _mask(5, 7))),
    "whole, mask bool": (
        lambda q, k, v, m: ATTENTION(q, k, v, m, **_SCALE),
        (*_QKV, _mask(2, 1, 5, 7) == 0),
    ),
}

STATIC: dict[str, Case] = {
    "whole, grouped queries": (
        lambda q, k, v: ATTENTION(q, k, v, enable_gqa=True),
        (_QKV[0], _QKV[1][:, :2], _QKV[2][:, :2]),
    ),
    "default scale": (_attend(), _QKV),
    "grouped queries": (_attend(), (_QKV[0], _QKV[1][:, :2], _QKV[2][:, :2])),
    "rank 3": (F.scaled_dot_product_attention, tuple(x[0] for x in _QKV)),
    "2d same, even window": (
        lambda x, w: F.conv2d(x, w, padding="same"),
        (randn(2, 3, 6, 6), _weight(4, 3, 2, 2)),
    ),
}

CASES = PRODUCTS | CONVOLUTIONS | ATTENTIONS
# Before torch 2.10 nothing says that the channels of a transposed convolution in one dimension are the kernel's.
DYNAMIC = [name for name in CASES if not (BEFORE_TORCH_2_10 and name == "transposed 1d")]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@each(CASES | STATIC, dynamic=DYNAMIC)
def test_agrees(function: Function, inputs: tuple[Tensor, ...], dynamic: bool) -> None:
    check(function, *inputs, dynamic=dynamic)


@pytest.mark.parametrize("name", ["mm", "addmm row", "2d", "plain"])
def test_float16(name: str) -> None:
    function, inputs = CASES[name]
    check(function, *(x.half() for x in inputs), rtol=1e-2, atol=1e-2)


def test_every_rule_has_a_case() -> None:
    assert set(RULES) - set(ON_THE_GPU) <= overloads(CASES.values())


ON_THE_GPU: dict[Any, Function] = {
    _aten._scaled_dot_product_flash_attention.default: lambda f, q, k, v, m: f(q, k, v, **_SCALE),
    _aten._scaled_dot_product_efficient_attention.default: lambda f, q, k, v, m: f(
        q, k, v, m, False, **_SCALE
    ),
    _aten._scaled_dot_product_cudnn_attention.default: lambda f, q, k, v, m: f(q, k, v, m, False, **_SCALE),
}
"""Kernels that the CPU has not: they are traced, and the reference gives what torch's own attention gives."""


@pytest.mark.parametrize("kernel", ON_THE_GPU, ids=str)
def test_attention_kernels_of_the_gpu(kernel: Any) -> None:
    call = ON_THE_GPU[kernel]
    inputs = (*_QKV, _mask(2, 4, 5, 7))
    graph = lower(trace(lambda *tensors: call(kernel, *tensors)[0], inputs, dynamic=False))
    takes_mask = "attn_bias" in str(kernel._schema)
    expected = F.scaled_dot_product_attention(*_QKV, attn_mask=inputs[3] if takes_mask else None, **_SCALE)
    (result,) = evaluate(graph, [tensor.numpy() for tensor in inputs])
    np.testing.assert_allclose(result, expected.numpy(), rtol=1e-5, atol=1e-5)


def test_causal_with_mask() -> None:
    """ONNX Runtime has no kernel for it: the op is written out in others."""
    check(_attend(is_causal=True, **_SCALE), *_QKV, _mask(2, 1, 5, 7))


def test_bias_of_addmm_is_a_row() -> None:
    """The shape that ONNX Runtime fuses into one Gemm."""
    graph = check(torch.addmm, *PRODUCTS["addmm row"][1])
    assert [type(node.op).__name__ for node in graph.nodes] == ["MatrixMultiply", "Reshape", "Elementwise"]
    assert graph.nodes[-1].inputs[1].shape == (1, 5)
    assert isinstance(graph.nodes[0].op, MatrixMultiply)


def test_attention_is_one_op() -> None:
    assert operations(_attend(), *_QKV) == [Attention]


@pytest.mark.parametrize(
    ("function", "inputs", "detail"),
    [
        (F.conv1d, (_ints(1, 2, 5), _ints(3, 2, 3)), "floats, not i64"),
        (_attend(dropout_p=0.5), _QKV, "generator"),
    ],
)
def test_refuses(function: Function, inputs: tuple[Tensor, ...], detail: str) -> None:
    assert detail in refusal(function, *inputs).detail
