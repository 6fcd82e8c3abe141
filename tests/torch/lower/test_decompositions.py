"""Ops without a lowering rule run through torch's decomposition of that op."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from harness import Case, Function, check, each, overloads, randn, refusal, trace
from torch import Tensor

from trt_backend_torch.decompositions import _table, decompose
from trt_backend_torch.lower import RULES

_aten = torch.ops.aten

_X = randn(2, 4, 6, 5)
_M = _X[0, 0]
_I = torch.tensor([1, 0, 1])

CASES: dict[str, Case] = {
    "addr": (torch.addr, (_M, _M[:, 0], _M[0])),
    "dot": (torch.dot, (_M[0], _M[1])),
    "vdot": (torch.vdot, (_M[0], _M[1])),
    "eye": (lambda x: torch.eye(x.shape[0], 3), (_M,)),
    "index_fill": (lambda x, i: x.index_fill(1, i, 2.5), (_M, _I)),
    "linspace": (lambda x: torch.linspace(-1, 1, 7), (_M,)),
    "rot90": (torch.rot90, (_M,)),
    "take": (torch.take, (_M, _I)),
}

STATIC: dict[str, Case] = {
    "block_diag": (lambda x, y: torch.block_diag(x, y), (_M, _M)),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 2), (_X,)),
    "unfold": (lambda x: F.unfold(x, (2, 3), dilation=2, padding=1), (_X,)),
}


@each(CASES | STATIC, dynamic=CASES)
def test_agrees(function: Function, inputs: tuple[Tensor, ...], dynamic: bool) -> None:
    check(function, *inputs, dynamic=dynamic)


@pytest.mark.parametrize("case", (CASES | STATIC).values(), ids=CASES | STATIC)
def test_the_cases_have_no_rule(case: Case) -> None:
    assert overloads([case]) - set(RULES)


def test_a_decomposition_that_looks_at_a_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def addr(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return x + torch.outer(a, b) if x.shape[0] > 5 else torch.outer(a, b) + x

    assert len(_M) == 6
    monkeypatch.setitem(_table(), _aten.addr.default, addr)
    assert refusal(torch.addr, *CASES["addr"][1], dynamic=True).op == "aten.addr.default"


def test_an_op_that_torch_does_not_decompose_is_refused() -> None:
    assert refusal(lambda x: x.as_strided((2, 2), (1, 2)), _X).detail == ""


def test_none_for_what_is_no_aten_op() -> None:
    gm = trace(lambda x: x.split(3, 2)[0], (_X,), dynamic=True)
    unpacked = [
        node for node in gm.graph.nodes if node.op == "call_function" and "getitem" in str(node.target)
    ]
    assert unpacked
    assert all(decompose(node) is None for node in unpacked)
