"""Gathers and scatters: torch, the reference and ONNX Runtime agree."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from harness import Case, Function, check, each, operations, overloads, randn, refusal
from torch import Tensor

from trt_backend.ir.ops.elementwise import Select
from trt_backend.ir.ops.layout import Gather, GatherND
from trt_backend_torch.lower.indexing import RULES

_aten = torch.ops.aten

_X = randn(2, 4, 6, 5)
_Y = 1 - _X
_M = _X[0, 0]
_I = torch.tensor([1, 0, 1])
_J = torch.tensor([-1, 2, 0])
_K = torch.tensor([[1, 0], [3, 2]])
_MASK = _X > 0

GATHERS: dict[str, Case] = {
    "embedding": (lambda i, w: F.embedding(i, w, padding_idx=0), (_K, _M)),
    "embedding int32": (lambda i, w: F.embedding(i, w), (_K.int(), _M)),
    "index_select": (lambda x, i: x.index_select(-3, i), (_X, _I)),
    "index_select scalar": (lambda x, i: x.index_select(1, i), (_X, torch.tensor(2))),
    "index_select of scalar": (lambda x, i: x.index_select(0, i), (torch.tensor(2.0), torch.tensor([0]))),
    "gather": (lambda x, i: x.gather(1, i), (_M, _K)),
    "gather from scalar": (lambda x, i: x.gather(0, i), (torch.tensor(2.0), torch.tensor([0, 0]))),
    "one": (lambda x, i: x[i], (_X, _I)),
    "one negative": (lambda x, j: x[:, j], (_X, _J)),
    "one int32": (lambda x, j: x[:, j], (_X, _J.int())),
    "one unsafe": (lambda x, i: _aten._unsafe_index(x, [None, i]), (_X, _I)),
    "one matrix": (lambda x, k: x[:, k], (_X, _K)),
    "one scalar": (lambda x, i: _aten.index(x, [None, i]), (_X, torch.tensor(-2))),
    "two neighbours": (lambda x, i, j: x[:, i, j], (_X, _I, _J)),
    "two first": (lambda x, i, j: x[i, j], (_X, _I, _J)),
    "two apart": (lambda x, i, j: x[:, i, :, j], (_X, _I, _J)),
    "two broadcast": (lambda x, k, j: x[:, :, k, j], (_X, _K, _J[:2])),
    "two of two dtypes": (lambda x, i, j: x[i, j], (_X, _I.int(), _J)),
    "three": (lambda x, i, j: x[i, :, j, i], (_X, _I, _J)),
    "outer": (lambda x, i, j: x[:, i[:, None], j], (_X, _I, _J)),
    "outer with ones": (lambda x, i, j: x[i[:, None, None], j], (_X, _I, _J)),
    "outer in reverse": (lambda x, i, j: x[:, j, i[:, None]], (_X, _I, _J)),
    "outer range": (lambda x, i: x[i[:, None], torch.arange(x.shape[1])], (_X, _I)),
    "bool elements": (lambda x, i, j: x[i, j], (_MASK, _I, _J)),
}

SCATTERS: dict[str, Case] = {
    "scatter": (lambda x, i, s: x.scatter(1, i, s), (_M, _K, _Y[0, 0])),
    "scatter into scalar": (
        lambda x, i, s: x.scatter(0, i, s),
        (torch.tensor(2.0), torch.tensor(0), _M[0, 0]),
    ),
    "scatter number": (lambda x, i: x.scatter(0, i, 2.5), (_M, _K)),
    "index_copy": (lambda x, i, s: x.index_copy(1, i, s), (_X, _K[1], _Y[:, :2])),
    "put one": (lambda x, i, v: x.index_put((i,), v), (_X[0], _J, _Y[0, :3])),
    "put one, inner": (lambda x, i, v: _aten.index_put(x, [None, i], v), (_X, _J, _Y[:, :3])),
    "put number": (lambda x, i, v: x.index_put((i,), v), (_X[0], _J, torch.tensor(1.5))),
    "put matrix": (lambda x, k, v: _aten.index_put(x, [None, k], v), (_X, _K, torch.tensor([1.5]))),
    "put two": (lambda x, i, j, v: x.index_put((i, j), v), (_X[0], _J, _J, _Y[0, 0, :3])),
    "put two neighbours": (
        lambda x, i, j, v: _aten.index_put(x, [None, i, j], v),
        (_X, _J, _J, _Y[:, :3, 0]),
    ),
    "put two apart": (
        lambda x, i, j, v: _aten.index_put(x, [i, None, j], v),
        (_X[0], _J, _J, _Y[0, :3, 0, :1]),
    ),
    "put unsafe": (lambda x, i, v: _aten._unsafe_index_put(x, [i], v), (_X[0], _J, _Y[0, :3])),
    "put mask": (lambda x, m, v: x.index_put((m,), v), (_X, _MASK, torch.tensor(1.5))),
    "put mask of rows": (lambda x, m, v: x.index_put((m,), v), (_X, _MASK[..., 0], _M[0])),
    "put inner mask": (
        lambda x, m, v: _aten.index_put(x, [None, m], v),
        (_X, _MASK[0, :, :, 0], torch.ones(2, 1, 5)),
    ),
    "slice_scatter": (lambda x, s: torch.slice_scatter(x, s[:, :2], 1, 1, 3), (_X, _Y)),
    "slice_scatter at ends": (lambda x, s: torch.slice_scatter(x[:, 1:], s[:, 1:], 1), (_X, _Y)),
    "slice_scatter last": (lambda x, s: torch.slice_scatter(x, s[:, :2], 1, -2), (_X, _Y)),
    "slice_scatter steps": (lambda x, s: torch.slice_scatter(x, s[:, :, :3], 2, 0, None, 2), (_X, _Y)),
    "select_scatter": (lambda x, s: torch.select_scatter(x, s[:, 0], 1, -2), (_X, _Y)),
}

STATIC: dict[str, Case] = {
    "embedding of bool": (lambda i, w: F.embedding(i, w), (_K, _MASK[0, 0])),
    "take_along_dim": (lambda x, i: torch.take_along_dim(x, i, 0), (_M, _K[:, :1])),
    "nearest": (lambda x: F.interpolate(x, size=(9, 7)), (_X,)),
    "nearest twice": (lambda x: F.interpolate(x, scale_factor=2), (_X,)),
}

CASES = GATHERS | SCATTERS


@each(CASES | STATIC, dynamic=CASES)
def test_agrees(function: Function, inputs: tuple[Tensor, ...], dynamic: bool) -> None:
    check(function, *inputs, dynamic=dynamic)


def test_every_rule_has_a_case() -> None:
    assert set(RULES) <= overloads([*CASES.values(), *STATIC.values()])


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.float64, torch.int64, torch.int32, torch.bool], ids=str
)
def test_indexes_every_dtype(dtype: torch.dtype) -> None:
    def moves(x: Tensor, i: Tensor) -> list[Tensor]:
        return [x[i], x.gather(0, i), x.scatter(1, i, 1)]

    check(moves, (_M > 0).to(dtype), torch.tensor([[1, 0], [2, 3]]))


def test_indices_that_cannot_be_negative_are_not_wrapped() -> None:
    """BERT's padding mask: each index gathers by itself."""

    def expanded(mask: Tensor) -> Tensor:
        rows, columns = torch.arange(mask.shape[0]) + 0, torch.arange(mask.shape[1])
        return mask[rows[:, None, None, None], columns[None, None, None]]

    made = operations(expanded, _MASK[0, 0])
    assert made.count(Gather) == 2
    assert Select not in made


def test_indices_that_vary_together_are_one_gather() -> None:
    assert operations(lambda x, i, j: x[i, j], _X, _I, _J).count(GatherND) == 1


def test_refuses_what_symbols_cannot_say() -> None:
    assert "depends on data" in refusal(lambda x, m: _aten.index(x, [m]), _X, _MASK, dynamic=True).detail


@pytest.mark.parametrize(
    ("function", "inputs", "detail"),
    [
        (lambda x, i, v: x.index_put((i,), v, accumulate=True), (_X[0], _I, torch.ones(())), "adds up"),
        (lambda x, m, v: x.index_put((m,), v), (_M, _M.max() == _M, torch.ones(5)), "its own value"),
    ],
)
def test_refuses(function: Function, inputs: tuple[Tensor, ...], detail: str) -> None:
    assert detail in refusal(function, *inputs).detail
