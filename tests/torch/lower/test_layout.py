"""Views, joins, paddings, gathers and scatters: torch, the reference and ONNX Runtime agree."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from harness import check, overloads, refusal
from torch import Tensor

from trt_backend.ir.ops.layout import Gather, GatherND, Range, Reshape
from trt_backend_torch.lower.layout import RULES

_aten = torch.ops.aten

Case = tuple[Callable[..., Any], tuple[Tensor, ...]]

_X = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(0))
_Y = torch.randn(2, 4, 6, 5, generator=torch.Generator().manual_seed(1))
_M = _X[0, 0]
_I = torch.tensor([1, 0, 1])
_J = torch.tensor([-1, 2, 0])
_K = torch.tensor([[1, 0], [3, 2]])
_MASK = _X > 0


def _uninitialized(x: Tensor) -> list[Tensor]:
    return [
        torch.empty(x.shape[0], 2),
        torch.empty_like(x),
        torch.empty_strided((x.shape[0], 2), (2, 1)),
        torch.empty_permuted((x.shape[0], 2), (1, 0)),
        x.new_empty(x.shape[1]),
        x.new_empty_strided((x.shape[1], 2), (2, 1)),
    ]


def _on(function: Callable[..., Any], *inputs: Tensor) -> Case:
    return function, inputs or (_X,)


VIEWS: dict[str, Case] = {
    "view": _on(lambda x: x.view(x.shape[0], -1)),
    "view merged": _on(lambda x: x.view(x.shape[0] * x.shape[1], x.shape[2], x.shape[3])),
    "reshape of transposed": _on(lambda x: x.transpose(1, 2).reshape(x.shape[0], -1)),
    "squeeze": _on(lambda x: x[:1, :, :1].squeeze()),
    "squeeze.dim": _on(lambda x: _aten.squeeze.dim(x[:1], 0)),
    "squeeze.dim of more": _on(lambda x: _aten.squeeze.dim(x, 0)),
    "squeeze.dims": _on(lambda x: x[:1, :, :1].squeeze((0, -2))),
    "unsqueeze": _on(lambda x: x.unsqueeze(-1).unsqueeze(0)),
    "expand": _on(lambda x: x[:, :1].expand(3, -1, 7, -1, -1)),
    "expand of scalar": _on(lambda x: x.expand(2, 3), torch.tensor(2.0)),
    "t": _on(lambda x: x.t(), _M),
    "t of vector": _on(lambda x: x.t(), _M[0]),
    "transpose": _on(lambda x: x.transpose(-1, 1)),
    "transpose of scalar": _on(lambda x: x.transpose(0, -1), torch.tensor(2.0)),
    "permute": _on(lambda x: x.permute(0, -1, 1, 2)),
    "unfold": _on(lambda x: x.unfold(1, 2, 1)),
    "unfold of scalar": _on(lambda x: x.unfold(0, 1, 1), torch.tensor(2.0)),
    "pixel_shuffle": _on(lambda x: F.pixel_shuffle(x, 2)),
    "pixel_unshuffle": _on(lambda x: F.pixel_unshuffle(x[..., :4], 2)),
}

JOINS: dict[str, Case] = {
    "cat": _on(lambda x, y: torch.cat([x, y[:, :1]], -3), _X, _Y),
    "cat of what is empty": _on(lambda e, x: torch.cat([e, x], -2), torch.empty(0), _X),
    "cat promotes": _on(lambda x, y: torch.cat([x, y]), _I, _M[0]),
    "stack": _on(lambda x, y: torch.stack([x, y], -1), _X, _Y),
    "stack promotes": _on(lambda x, y: torch.stack([x, y]), _I, _M[0, :3]),
    "repeat": _on(lambda x: x.repeat(2, 1, 3, 1, 2)),
    "repeat of scalar": _on(lambda x: x.repeat(2, 3), torch.tensor(2.0)),
    "repeat bool": _on(lambda x: x.repeat(1, 1, 2, 1), _MASK),
    "repeat_interleave": _on(lambda x: x.repeat_interleave(2, 1)),
    "roll": _on(lambda x: x.roll((1, -2), (0, 2))),
    "roll all": _on(lambda x: x.roll(7)),
    "roll round": _on(lambda x: x.roll(-9, 1)),
}

PARTS: dict[str, Case] = {
    "select": _on(lambda x: (x[0], x[:, -1], x.select(2, -2))),
    "slice": _on(lambda x: (x[:, 1:3], x[:, :-1], x[..., -2:], x[:, :, 1::2], x[:, :100], x[:, -100:2])),
    "slice up to size": _on(lambda x: x[:, : x.shape[1] - 1, x.shape[2] - 3 :]),
    "slice from negative size": _on(lambda x: x[:, -x.shape[0] :]),
    "split": _on(lambda x: x.split(3, 2)),
    "split uneven": _on(lambda x: x.split([1, 3], 1)),
    "chunk": _on(lambda x: x.chunk(2, 1)),
    "unsafe_split": _on(lambda x: _aten.unsafe_split(x, 3, 2)),
    "unsafe_split_with_sizes": _on(lambda x: _aten.unsafe_split_with_sizes(x, [1, 3], 1)),
    "flip": _on(lambda x: x.flip(0, -1)),
    "flip of scalar": _on(lambda x: x.flip(0), torch.tensor(2.0)),
}

PADS: dict[str, Case] = {
    "constant": _on(lambda x: F.pad(x, (1, 2, 0, 3), value=-math.inf)),
    "constant int": _on(lambda x: F.pad(x, (0, 1), value=7), _I),
    "constant bool": _on(lambda x: F.pad(x, (1, 0), value=True), _MASK),
    "constant negative": _on(lambda x: F.pad(x, (-1, 2, 3, -2))),
    "constant none": _on(lambda x: F.pad(x, (0, 0)) + 1),
    "reflect 1d": _on(lambda x: F.pad(x, (2, 1), "reflect"), _M),
    "reflect 2d": _on(lambda x: F.pad(x, (2, 1, 0, 3), "reflect")),
    "reflect 3d": _on(lambda x: F.pad(x, (2, 1, 0, 3, 1, 0), "reflect")),
    "edge 1d": _on(lambda x: F.pad(x, (2, 1), "replicate"), _M),
    "edge 2d": _on(lambda x: F.pad(x, (2, 1, 0, 3), "replicate")),
    "edge 3d": _on(lambda x: F.pad(x, (2, 1, 0, 3, 1, 0), "replicate")),
}

MADE: dict[str, Case] = {
    "arange": _on(lambda x: torch.arange(x.shape[1])),
    "arange float": _on(lambda x: torch.arange(x.shape[1], dtype=torch.float32) * 0.5),
    "arange int32": _on(lambda x: torch.arange(1, x.shape[1] + 2, dtype=torch.int32)),
    "arange from size": _on(lambda x: torch.arange(x.shape[0], x.shape[2])),
    "arange step": _on(lambda x: torch.arange(x.shape[1] + 3, 0, -2)),
    "arange by fractions": _on(lambda x: torch.arange(0.5, 3.0, 0.3)),
    "arange cut": _on(lambda x: torch.arange(1.5, 5.0, dtype=torch.int64)),
    "full": _on(lambda x: torch.full((x.shape[0], 3), math.inf)),
    "full of size": _on(lambda x: torch.full((2,), x.shape[1])),
    "full bool": _on(lambda x: torch.full((x.shape[0],), True)),
    "full_like": _on(lambda x: torch.full_like(x, 2.5, dtype=torch.float64)),
    "new_full": _on(lambda x: x.new_full((x.shape[1], 2), 3)),
    "zeros": _on(lambda x: (torch.zeros(x.shape[0], 2), torch.zeros_like(x), x.new_zeros(x.shape[0]))),
    "ones": _on(lambda x: (torch.ones(x.shape[0], 2), torch.ones_like(x), x.new_ones((), dtype=torch.bool))),
    "empty": _on(lambda x: [torch.zeros_like(made) for made in _uninitialized(x)]),
    "scalar_tensor": _on(lambda x: (_aten.scalar_tensor(1.5), _aten.scalar_tensor(x.shape[1]))),
    "tril": _on(lambda x: (x.tril(), x.tril(-1), x.tril(2))),
    "triu bool": _on(lambda x: x.triu(1), _MASK),
    "triu int": _on(lambda x: x.triu(-1), _K),
}

GATHERS: dict[str, Case] = {
    "embedding": _on(lambda i, w: F.embedding(i, w, padding_idx=0), _K, _M),
    "embedding int32": _on(lambda i, w: F.embedding(i, w), _K.int(), _M),
    "index_select": _on(lambda x, i: x.index_select(-3, i), _X, _I),
    "index_select scalar": _on(lambda x, i: x.index_select(1, i), _X, torch.tensor(2)),
    "index_select of scalar": _on(lambda x, i: x.index_select(0, i), torch.tensor(2.0), torch.tensor([0])),
    "gather": _on(lambda x, i: x.gather(1, i), _M, _K),
    "gather from scalar": _on(lambda x, i: x.gather(0, i), torch.tensor(2.0), torch.tensor([0, 0])),
    "one": _on(lambda x, i: x[i], _X, _I),
    "one negative": _on(lambda x, j: x[:, j], _X, _J),
    "one int32": _on(lambda x, j: x[:, j], _X, _J.int()),
    "one unsafe": _on(lambda x, i: _aten._unsafe_index(x, [None, i]), _X, _I),
    "one matrix": _on(lambda x, k: x[:, k], _X, _K),
    "one scalar": _on(lambda x, i: _aten.index(x, [None, i]), _X, torch.tensor(-2)),
    "two neighbours": _on(lambda x, i, j: x[:, i, j], _X, _I, _J),
    "two first": _on(lambda x, i, j: x[i, j], _X, _I, _J),
    "two apart": _on(lambda x, i, j: x[:, i, :, j], _X, _I, _J),
    "two broadcast": _on(lambda x, k, j: x[:, :, k, j], _X, _K, _J[:2]),
    "two of two dtypes": _on(lambda x, i, j: x[i, j], _X, _I.int(), _J),
    "three": _on(lambda x, i, j: x[i, :, j, i], _X, _I, _J),
    "outer": _on(lambda x, i, j: x[:, i[:, None], j], _X, _I, _J),
    "outer with ones": _on(lambda x, i, j: x[i[:, None, None], j], _X, _I, _J),
    "outer in reverse": _on(lambda x, i, j: x[:, j, i[:, None]], _X, _I, _J),
    "outer range": _on(lambda x, i: x[i[:, None], torch.arange(x.shape[1])], _X, _I),
    "bool elements": _on(lambda x, i, j: x[i, j], _MASK, _I, _J),
}

SCATTERS: dict[str, Case] = {
    "scatter": _on(lambda x, i, s: x.scatter(1, i, s), _M, _K, _Y[0, 0]),
    "scatter into scalar": _on(
        lambda x, i, s: x.scatter(0, i, s), torch.tensor(2.0), torch.tensor(0), _M[0, 0]
    ),
    "scatter number": _on(lambda x, i: x.scatter(0, i, 2.5), _M, _K),
    "index_copy": _on(lambda x, i, s: x.index_copy(1, i, s), _X, _K[1], _Y[:, :2]),
    "put one": _on(lambda x, i, v: x.index_put((i,), v), _X[0], _J, _Y[0, :3]),
    "put one, inner": _on(lambda x, i, v: _aten.index_put(x, [None, i], v), _X, _J, _Y[:, :3]),
    "put number": _on(lambda x, i, v: x.index_put((i,), v), _X[0], _J, torch.tensor(1.5)),
    "put matrix": _on(lambda x, k, v: _aten.index_put(x, [None, k], v), _X, _K, torch.tensor([1.5])),
    "put two": _on(lambda x, i, j, v: x.index_put((i, j), v), _X[0], _J, _J, _Y[0, 0, :3]),
    "put two neighbours": _on(
        lambda x, i, j, v: _aten.index_put(x, [None, i, j], v), _X, _J, _J, _Y[:, :3, 0]
    ),
    "put two apart": _on(
        lambda x, i, j, v: _aten.index_put(x, [i, None, j], v), _X[0], _J, _J, _Y[0, :3, 0, :1]
    ),
    "put unsafe": _on(lambda x, i, v: _aten._unsafe_index_put(x, [i], v), _X[0], _J, _Y[0, :3]),
    "put mask": _on(lambda x, m, v: x.index_put((m,), v), _X, _MASK, torch.tensor(1.5)),
    "put mask of rows": _on(lambda x, m, v: x.index_put((m,), v), _X, _MASK[..., 0], _M[0]),
    "put inner mask": _on(
        lambda x, m, v: _aten.index_put(x, [None, m], v), _X, _MASK[0, :, :, 0], torch.ones(2, 1, 5)
    ),
    "slice_scatter": _on(lambda x, s: torch.slice_scatter(x, s[:, :2], 1, 1, 3), _X, _Y),
    "slice_scatter at ends": _on(lambda x, s: torch.slice_scatter(x[:, 1:], s[:, 1:], 1), _X, _Y),
    "slice_scatter last": _on(lambda x, s: torch.slice_scatter(x, s[:, :2], 1, -2), _X, _Y),
    "slice_scatter steps": _on(lambda x, s: torch.slice_scatter(x, s[:, :, :3], 2, 0, None, 2), _X, _Y),
    "select_scatter": _on(lambda x, s: torch.select_scatter(x, s[:, 0], 1, -2), _X, _Y),
}

STATIC: dict[str, Case] = {
    "_reshape_alias": _on(lambda x: _aten._reshape_alias(x, [2, 120], [120, 1])),
    "diagonal": _on(lambda x: (x.diagonal(1, -2, -1), x.diagonal(-2, 1, 0))),
    "diagonal_copy": _on(lambda x: torch.diag(x), _M),
    "unbind": _on(lambda x: x.unbind(1)),
    "arange of size by fractions": _on(lambda x: torch.arange(0, x.shape[1], 0.5)),
    "embedding of bool": _on(lambda i, w: F.embedding(i, w), _K, _MASK[0, 0]),
    "take_along_dim": _on(lambda x, i: torch.take_along_dim(x, i, 0), _M, _K[:, :1]),
    "nearest": _on(lambda x: F.interpolate(x, size=(9, 7))),
    "nearest twice": _on(lambda x: F.interpolate(x, scale_factor=2)),
}

FAMILIES = {
    "view": VIEWS,
    "join": JOINS,
    "part": PARTS,
    "pad": PADS,
    "make": MADE,
    "gather": GATHERS,
    "scatter": SCATTERS,
}
CASES = {f"{family}: {name}": case for family, table in FAMILIES.items() for name, case in table.items()}


@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
@pytest.mark.parametrize("name", CASES)
def test_agrees_with_torch(name: str, dynamic: bool) -> None:
    function, inputs = CASES[name]
    check(function, *inputs, dynamic=dynamic)


@pytest.mark.parametrize("name", STATIC)
def test_agrees_with_torch_where_sizes_are_known(name: str) -> None:
    function, inputs = STATIC[name]
    check(function, *inputs)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.float64, torch.int64, torch.int32, torch.bool], ids=str
)
def test_moves_every_dtype(dtype: torch.dtype) -> None:
    def moves(x: Tensor, i: Tensor) -> list[Tensor]:
        joined = torch.cat([x, x.flip(0)]).transpose(0, 1)
        return [
            joined.repeat(1, 2),
            F.pad(joined, (1, 0)),
            x[i],
            x.gather(0, i),
            x.scatter(1, i, 1),
            x.tril(),
        ]

    check(moves, (_M > 0).to(dtype), torch.tensor([[1, 0], [2, 3]]))


def test_every_rule_has_a_case() -> None:
    assert overloads([*CASES.values(), *STATIC.values()]) >= set(RULES)


def _ops(function: Callable[..., Any], *inputs: Tensor) -> list[type]:
    return [type(node.op) for node in check(function, *inputs).nodes]


def test_indices_that_cannot_be_negative_are_not_wrapped() -> None:
    """BERT's padding mask: each index gathers by itself."""

    def expanded(mask: Tensor) -> Tensor:
        rows, columns = torch.arange(mask.shape[0]) + 0, torch.arange(mask.shape[1])
        return mask[rows[:, None, None, None], columns[None, None, None]]

    made = _ops(expanded, _MASK[0, 0])
    assert made.count(Gather) == 2
    assert "Select" not in {op.__name__ for op in made}


def test_indices_that_vary_together_are_one_gather() -> None:
    assert _ops(lambda x, i, j: x[i, j], _X, _I, _J).count(GatherND) == 1


def test_views_and_ranges_are_one_op() -> None:
    assert _ops(lambda x: x.view(8, -1), _X) == [Reshape]
    assert _ops(lambda x: torch.arange(x.shape[0]), _X) == [Range]


@pytest.mark.parametrize(
    ("function", "inputs", "detail"),
    [
        (lambda x, i, v: x.index_put((i,), v, accumulate=True), (_X[0], _I, torch.ones(())), "adds up"),
        (lambda x, m, v: x.index_put((m,), v), (_M, _M.max() == _M, torch.ones(5)), "its own value"),
        (lambda x: F.pad(x, (-1, 1), "reflect"), (_M,), "negative reflect padding"),
        (lambda e: torch.cat([e, e]), (torch.empty(0),), "no elements"),
        (lambda e, x: torch.cat([e, x]), (torch.empty(0, 5), _M), "no elements"),
        (lambda x: x.view(torch.int32), (_X,), ""),
        (lambda x: x.as_strided((2, 2), (1, 2)), (_X,), ""),
    ],
)
def test_refuses(function: Callable[..., Any], inputs: tuple[Tensor, ...], detail: str) -> None:
    assert detail in refusal(function, *inputs).detail


def test_refuses_what_symbols_cannot_say() -> None:
    assert "width" in refusal(lambda x: x.diagonal(0, 2, 3), _X, dynamic=True).detail
    assert "depends on data" in refusal(lambda x, m: _aten.index(x, [m]), _X, _MASK, dynamic=True).detail
    assert (
        "computed in floats" in refusal(lambda x: torch.arange(0, x.shape[1], 0.5), _X, dynamic=True).detail
    )
