"""The fused kernels of transformers that torch takes in inference, with every mask that its modules hand them."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from harness import check, operations, randn, refusal
from torch import Tensor
from torch_checks import BEFORE_TORCH_2_13

from trt_backend.ir.ops.contraction import Attention

_LAYER = torch.ops.aten._transformer_encoder_layer_fwd.default
_ATTENTION = torch.ops.aten._native_multi_head_attention.default
_SIZE, _HEADS, _HIDDEN = 16, 4, 32
_X = randn(2, 5, _SIZE)
_WEIGHTS = [
    randn(*shape) * 0.3
    for shape in (
        (3 * _SIZE, _SIZE),
        (3 * _SIZE,),
        (_SIZE, _SIZE),
        (_SIZE,),
        *((_SIZE,),) * 4,
        (_HIDDEN, _SIZE),
        (_HIDDEN,),
        (_SIZE, _HIDDEN),
        (_SIZE,),
    )
]
_CAUSAL = torch.ones(5, 5, dtype=torch.bool).triu(1)
_PADDING = torch.tensor([[False] * 5, [False, False, True, True, True]])
_NEVER = torch.tensor([[False] * 5, [True] * 5])
MASKS: dict[str, tuple[Tensor | None, int | None]] = {
    "none": (None, None),
    "of queries and keys": (_CAUSAL, 0),
    "of keys": (_PADDING, 1),
    "of keys, additive": (torch.zeros(2, 5).masked_fill(_PADDING, -torch.inf), 1),
    "of all": (_CAUSAL.expand(2, _HEADS, 5, 5).contiguous(), 2),
    "of numbers, which the kernel reads as booleans": (_CAUSAL * 0.5, 0),
    "that hides all keys, which gives NaN": (_NEVER, 1),
}


def _layer(mask_type: int | None, *, use_gelu: bool = False, norm_first: bool = False) -> Any:
    def call(x: Tensor, *tensors: Tensor) -> Tensor:
        weights, mask = tensors[: len(_WEIGHTS)], (*tensors[len(_WEIGHTS) :], None)[0]
        attention, others = weights[:4], weights[4:]
        settings = (use_gelu, norm_first, 1e-5)
        return _LAYER(x, _SIZE, _HEADS, *attention, *settings, *others, mask, mask_type)

    return call


traces_dynamic_sizes = pytest.mark.skipif(
    BEFORE_TORCH_2_13,
    reason="before torch 2.13 these kernels have no meta function, which symbolic sizes need",
)


@pytest.mark.parametrize("dynamic", [False, pytest.param(True, marks=traces_dynamic_sizes)])
@pytest.mark.parametrize("name", MASKS)
def test_encoder_layer(name: str, dynamic: bool) -> None:
    mask, mask_type = MASKS[name]
    weights = [torch.nn.Parameter(weight) for weight in _WEIGHTS]
    inputs = [_X, *weights] + ([] if mask is None else [mask])
    check(_layer(mask_type), *inputs, dynamic=dynamic, atol=1e-4)


@pytest.mark.parametrize(("use_gelu", "norm_first"), list(itertools.product((False, True), repeat=2)))
def test_the_order_of_an_encoder_layer(use_gelu: bool, norm_first: bool) -> None:
    check(_layer(None, use_gelu=use_gelu, norm_first=norm_first), _X, *_WEIGHTS, atol=1e-4)


def _attend(need_weights: bool = False) -> Any:
    def call(x: Tensor, *weights: Tensor) -> Tensor:
        return _ATTENTION(x, x, x, _SIZE, _HEADS, *weights, need_weights=need_weights)[0]

    return call


def test_multi_head_attention() -> None:
    check(_attend(), _X, *_WEIGHTS[:4])
    assert Attention in operations(_attend(), _X, *_WEIGHTS[:4])


def test_refuses() -> None:
    def of_others(x: Tensor, y: Tensor, *weights: Tensor) -> Tensor:
        return _ATTENTION(x, y, y, _SIZE, _HEADS, *weights, need_weights=False)[0]

    assert "not the same tensor" in refusal(of_others, _X, randn(2, 5, _SIZE), *_WEIGHTS[:4]).detail
    assert "weights" in refusal(_attend(need_weights=True), _X, *_WEIGHTS[:4]).detail
