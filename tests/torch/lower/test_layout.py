"""Views, joins, parts and paddings: torch, the reference and ONNX Runtime agree."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from harness import Case, Function, check, each, operations, overloads, randn, refusal
from torch import Tensor

from trt_backend.ir.ops.layout import Reshape
from trt_backend_torch.lower.layout import RULES

_aten = torch.ops.aten

_X = randn(2, 4, 6, 5)
_Y = 1 - _X
_M = _X[0, 0]
_I = torch.tensor([1, 0, 1])
_MASK = _X > 0

VIEWS: dict[str, Case] = {
    "view": (lambda x: x.view(x.shape[0], -1), (_X,)),
    "view merged": (lambda x: x.view(x.shape[0] * x.shape[1], x.shape[2], x.shape[3]), (_X,)),
    "reshape of transposed": (lambda x: x.transpose(1, 2).reshape(x.shape[0], -1), (_X,)),
    "squeeze": (lambda x: x[:1, :, :1].squeeze(), (_X,)),
    "squeeze.dim": (lambda x: _aten.squeeze.dim(x[:1], 0), (_X,)),
    "squeeze.dim of more": (lambda x: _aten.squeeze.dim(x, 0), (_X,)),
    "squeeze.dims": (lambda x: x[:1, :, :1].squeeze((0, -2)), (_X,)),
    "unsqueeze": (lambda x: x.unsqueeze(-1).unsqueeze(0), (_X,)),
    "expand": (lambda x: x[:, :1].expand(3, -1, 7, -1, -1), (_X,)),
    "expand of scalar": (lambda x: x.expand(2, 3), (torch.tensor(2.0),)),
    "t": (lambda x: x.t(), (_M,)),
    "t of vector": (lambda x: x.t(), (_M[0],)),
    "transpose": (lambda x: x.transpose(-1, 1), (_X,)),
    "transpose of scalar": (lambda x: x.transpose(0, -1), (torch.tensor(2.0),)),
    "permute": (lambda x: x.permute(0, -1, 1, 2), (_X,)),
    "unfold": (lambda x: x.unfold(1, 2, 1), (_X,)),
    "unfold of scalar": (lambda x: x.unfold(0, 1, 1), (torch.tensor(2.0),)),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), (_X,)),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x[..., :4], 2), (_X,)),
}

JOINS: dict[str, Case] = {
    "cat": (lambda x, y: torch.cat([x, y[:, :1]], -3), (_X, _Y)),
    "cat of what is empty": (lambda e, x: torch.cat([e, x], -2), (torch.empty(0), _X)),
    "cat of what is empty along it": (lambda e, x: torch.cat([x, e], 1), (_X[:, :0], _X)),
    "cat promotes": (lambda x, y: torch.cat([x, y]), (_I, _M[0])),
    "stack": (lambda x, y: torch.stack([x, y], -1), (_X, _Y)),
    "stack promotes": (lambda x, y: torch.stack([x, y]), (_I, _M[0, :3])),
    "repeat": (lambda x: x.repeat(2, 1, 3, 1, 2), (_X,)),
    "repeat of scalar": (lambda x: x.repeat(2, 3), (torch.tensor(2.0),)),
    "repeat bool": (lambda x: x.repeat(1, 1, 2, 1), (_MASK,)),
    "repeat_interleave": (lambda x: x.repeat_interleave(2, 1), (_X,)),
    "roll": (lambda x: x.roll((1, -2), (0, 2)), (_X,)),
    "roll all": (lambda x: x.roll(7), (_X,)),
    "roll round": (lambda x: x.roll(-9, 1), (_X,)),
}

PARTS: dict[str, Case] = {
    "select": (lambda x: (x[0], x[:, -1], x.select(2, -2)), (_X,)),
    "slice": (lambda x: (x[:, 1:3], x[:, :-1], x[..., -2:], x[:, :, 1::2], x[:, :100], x[:, -100:2]), (_X,)),
    "slice up to size": (lambda x: x[:, : x.shape[1] - 1, x.shape[2] - 3 :], (_X,)),
    "slice from negative size": (lambda x: x[:, -x.shape[0] :], (_X,)),
    "split": (lambda x: x.split(3, 2), (_X,)),
    "split, of which a part is taken": (lambda x: x.split(3, 2)[1] * 2, (_X,)),
    "split, of which two parts are taken": (lambda x: x.split([1, 2, 1], 1)[::2], (_X,)),
    "split uneven": (lambda x: x.split([1, 3], 1), (_X,)),
    "chunk": (lambda x: x.chunk(2, 1), (_X,)),
    "unsafe_split": (lambda x: _aten.unsafe_split(x, 3, 2), (_X,)),
    "unsafe_split_with_sizes": (lambda x: _aten.unsafe_split_with_sizes(x, [1, 3], 1), (_X,)),
    "flip": (lambda x: x.flip(0, -1), (_X,)),
    "flip of scalar": (lambda x: x.flip(0), (torch.tensor(2.0),)),
}

PADS: dict[str, Case] = {
    "constant": (lambda x: F.pad(x, (1, 2, 0, 3), value=-math.inf), (_X,)),
    "constant int": (lambda x: F.pad(x, (0, 1), value=7), (_I,)),
    "constant bool": (lambda x: F.pad(x, (1, 0), value=True), (_MASK,)),
    "constant negative": (lambda x: F.pad(x, (-1, 2, 3, -2)), (_X,)),
    "constant none": (lambda x: F.pad(x, (0, 0)) + 1, (_X,)),
    "reflect 1d": (lambda x: F.pad(x, (2, 1), "reflect"), (_M,)),
    "reflect 2d": (lambda x: F.pad(x, (2, 1, 0, 3), "reflect"), (_X,)),
    "reflect 3d": (lambda x: F.pad(x, (2, 1, 0, 3, 1, 0), "reflect"), (_X,)),
    "edge 1d": (lambda x: F.pad(x, (2, 1), "replicate"), (_M,)),
    "edge 2d": (lambda x: F.pad(x, (2, 1, 0, 3), "replicate"), (_X,)),
    "edge 3d": (lambda x: F.pad(x, (2, 1, 0, 3, 1, 0), "replicate"), (_X,)),
}

STATIC: dict[str, Case] = {
    "_reshape_alias": (lambda x: _aten._reshape_alias(x, [2, 120], [120, 1]), (_X,)),
    "diagonal": (lambda x: (x.diagonal(1, -2, -1), x.diagonal(-2, 1, 0)), (_X,)),
    "diagonal_copy": (lambda x: torch.diag(x), (_M,)),
    "unbind": (lambda x: x.unbind(1), (_X,)),
}

CASES = VIEWS | JOINS | PARTS | PADS


@each(CASES | STATIC, dynamic=CASES)
def test_agrees(function: Function, inputs: tuple[Tensor, ...], dynamic: bool) -> None:
    check(function, *inputs, dynamic=dynamic)


def test_every_rule_has_a_case() -> None:
    assert set(RULES) <= overloads([*CASES.values(), *STATIC.values()])


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.float64, torch.int64, torch.int32, torch.bool], ids=str
)
def test_moves_every_dtype(dtype: torch.dtype) -> None:
    def moves(x: Tensor) -> list[Tensor]:
        joined = torch.cat([x, x.flip(0)]).transpose(0, 1)
        return [joined.repeat(1, 2), F.pad(joined, (1, 0))]

    check(moves, (_M > 0).to(dtype))


def test_a_view_is_one_op() -> None:
    assert operations(lambda x: x.view(8, -1), _X) == [Reshape]


def test_refuses_what_symbols_cannot_say() -> None:
    assert "width" in refusal(lambda x: x.diagonal(0, 2, 3), _X, dynamic=True).detail


@pytest.mark.parametrize(
    ("function", "inputs", "detail"),
    [
        (lambda x: F.pad(x, (-1, 1), "reflect"), (_M,), "negative reflect padding"),
        (lambda e: torch.cat([e, e]), (torch.empty(0),), "no elements"),
        (lambda x: x.view(torch.int32), (_X,), ""),
    ],
)
def test_refuses(function: Function, inputs: tuple[Tensor, ...], detail: str) -> None:
    assert detail in refusal(function, *inputs).detail
