"""Tensors that are more, or less, than the elements in their memory: engines read them right, or leave them to native."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch_checks import BEFORE_TORCH_2_10, ReportChecks, assert_close, assert_runs_as_eager, compile_trt

import models


def smooth(x: Tensor) -> Tensor:
    return ((x * 2 + 1).relu() * 3).exp()


def of_a_transposed_spectrum(x: Tensor) -> Tensor:
    return smooth(torch.fft.fft(x).mH.imag)


def complex_loss(x: Tensor) -> Tensor:
    z = torch.complex(x.sin(), x.cos())
    return (z * z.conj() * z).conj().imag.square().sum()


@pytest.mark.parametrize("fn", [of_a_transposed_spectrum, torch.func.grad(complex_loss)])
def test_values_with_the_negative_bit_within(fn: Callable[[Tensor], Tensor], report: ReportChecks) -> None:
    with torch.no_grad():
        assert_runs_as_eager(
            lambda x: fn(x) * 2 + 1, lambda: (models.randn(4, 6),), options={"min_block_size": 1}
        )
    report.engines_ran(calls=3)


def test_an_argument_with_the_negative_bit(report: ReportChecks) -> None:
    compiled = compile_trt(smooth)
    with torch.no_grad():
        for x in (torch._neg_view(models.randn(4, 6)), models.randn(4, 6)):
            assert_close(compiled(x), smooth(x))
    report.engines_ran(calls=2, exactly=True)


@pytest.mark.filterwarnings("ignore:.*torch.jit")  # torch of itself
@pytest.mark.parametrize("called_before", [False, True])
def test_tangents_of_arguments(called_before: bool, report: ReportChecks) -> None:
    """Nothing but the level tells: such tensors require no gradient, and dynamo guards nothing of them."""
    compiled, x = compile_trt(smooth), models.randn(4, 6)
    if called_before:
        compiled(x)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, torch.ones_like(x))
        ours, theirs = (forward_ad.unpack_dual(fn(dual)) for fn in (compiled, smooth))
        assert_close((ours.primal, ours.tangent), (theirs.primal, theirs.tangent))
    if called_before:  # torch 2.15 compiles nothing where the first arguments have tangents
        with report.engines_run():
            assert_close(compiled(x), smooth(x))


@pytest.mark.parametrize("called_before", [False, True])
def test_a_weight_whose_storage_is_freed_and_filled_again(called_before: bool, report: ReportChecks) -> None:
    """As FSDP does between uses. Before, native raises; and so do we, and go on with an engine afterwards."""
    model = models.randomise(nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4)))
    compiled, x = compile_trt(model), models.randn(4, 64)
    weight = model[0].weight.detach()
    storage, elements = weight.untyped_storage(), weight.clone()
    with torch.no_grad():
        if called_before:
            assert_close(compiled(x), model(x))
        storage.resize_(0)
        with pytest.raises(RuntimeError, match="storage"):
            model(x)
        with pytest.raises(RuntimeError, match="storage"):
            compiled(x)
        storage.resize_(elements.nbytes)
        weight.copy_(elements)
        for _ in range(3):
            assert_close(compiled(x), model(x))
    report.engines_ran(calls=1, rebuilds=True)


@pytest.mark.cpu_only(reason="CUDA has no such tensors outside autograd")
def test_tensors_of_zeros_without_memory(report: ReportChecks) -> None:
    def fn(x: Tensor, y: Tensor) -> Tensor:
        return smooth(x + y)

    compiled, y = compile_trt(fn), models.randn(4, 6)
    with torch.no_grad():
        zeros = torch._efficientzerotensor((4, 6))
        assert_close(compiled(zeros, y), fn(zeros, y))
        with report.engines_run():
            assert_close(compiled(y, y), fn(y, y))


@pytest.mark.skipif(BEFORE_TORCH_2_10, reason="dynamo takes no tensors of another fake mode than its own")
@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
def test_fake_tensors_get_fake_answers(report: ReportChecks) -> None:
    compiled, x = compile_trt(smooth), models.randn(64, 64)
    with torch.no_grad():
        with FakeTensorMode() as mode:
            fake = mode.from_tensor(x)
            for _ in range(3):
                answer = compiled(fake)
                assert (type(answer), answer.shape, answer.device) == (type(fake), x.shape, x.device)
        with report.engines_run():
            assert_close(compiled(x), smooth(x))


def test_writes_to_elements_that_a_view_has_twice(report: ReportChecks) -> None:
    def fn(x: Tensor) -> tuple[Tensor, Tensor]:
        view = x.as_strided((2, 2), (1, 1))
        view[0] = 3.0
        return x * 1, view * 1

    with torch.no_grad():
        assert_runs_as_eager(fn, lambda: (models.randn(5),), options={"min_block_size": 1})
    report.native("unsupported", "select_scatter")
    report.engines_ran(calls=3)
