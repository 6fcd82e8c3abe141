"""What makes `WeightWatch` look again, and what does not."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from trt_backend_torch.weights import WeightWatch, note_training

BUFFER = np.ones((64, 64), np.float32)


def _weights() -> list[torch.Tensor]:
    weights: list[torch.Tensor] = [torch.nn.Parameter(torch.randn(64, 64)) for _ in range(3)]
    weights[1].data = torch.from_numpy(BUFFER)
    return weights


def _add(weights: list[torch.Tensor]) -> None:
    with torch.no_grad():
        weights[1].add_(1)


def _replace(weights: list[torch.Tensor]) -> None:
    weights[1] = torch.nn.Parameter(weights[1].detach())


def _replace_by_another(weights: list[torch.Tensor]) -> None:
    weights[1] = torch.nn.Parameter(torch.randn(64, 64))


def _new_data(weights: list[torch.Tensor]) -> None:
    weights[1].data = torch.randn(64, 64)


def _new_data_at_the_old_address(weights: list[torch.Tensor]) -> None:
    """As an allocator that reuses memory makes it: the same address, in another storage, and no version counts."""
    before = weights[1].data_ptr(), weights[1]._version
    weights[1].data = torch.zeros(1)
    weights[1].data = torch.from_numpy(BUFFER)
    assert (weights[1].data_ptr(), weights[1]._version) == before


def _fused_step(weights: list[torch.Tensor]) -> None:
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    torch.optim.SGD(weights, lr=0.1, fused=True).step()


@pytest.mark.parametrize(
    "change",
    [
        _add,
        _replace,
        _replace_by_another,
        _new_data,
        _new_data_at_the_old_address,
        _fused_step,
        lambda _: note_training(),
    ],
)
def test_a_change_is_noticed(change: Callable[[list[torch.Tensor]], None]) -> None:
    watch, weights = WeightWatch(), _weights()
    before = watch.version(weights)
    assert before is not None
    assert watch.version(weights) is before
    change(weights)
    after = watch.version(weights)
    assert after is not before
    assert watch.version(weights) is after


def test_nobody_can_tell_for_tensors_of_inference_mode() -> None:
    with torch.inference_mode():
        weights = [torch.randn(3)]
    assert WeightWatch().version(weights) is None


@pytest.mark.parametrize("writes", [True, False])
@pytest.mark.parametrize("change", [_new_data, _replace_by_another])
def test_the_watch_keeps_no_memory(change: Callable[[list[torch.Tensor]], None], *, writes: bool) -> None:
    watch, weights = WeightWatch(writes=writes), _weights()
    version = watch.version(weights)
    storage = torch.multiprocessing.reductions.StorageWeakRef(weights[1].untyped_storage())
    change(weights)
    assert storage.expired()
    assert version is not None


@pytest.mark.parametrize("writes", [True, False])
def test_sets_that_take_turns_are_told_apart_and_known_again(*, writes: bool) -> None:
    """As of blocks of one structure that are compiled one by one."""
    watch, sets = WeightWatch(writes=writes), [_weights() for _ in range(3)]
    versions = [watch.version(weights) for weights in sets]
    assert len(set(map(id, versions))) == 3
    assert all(watch.version(weights) is version for weights, version in zip(sets, versions, strict=True))
    _replace(sets[1])
    assert watch.version(sets[1]) is not versions[1]


@pytest.mark.parametrize("writes", [True, False])
def test_a_tensor_in_the_place_of_one_that_went_is_another(*, writes: bool) -> None:
    """As an allocator of objects makes it: the same identity, and what is written is of the same version."""
    watch, weights = WeightWatch(writes=writes), _weights()
    before = watch.version(weights)
    identity, version = id(weights[1]), weights[1]._version
    for _ in range(1000):
        data = torch.randn(64, 64)
        weights[1] = None  # type: ignore[call-overload]
        weights[1] = torch.nn.Parameter(data)
        if (id(weights[1]), weights[1]._version) == (identity, version):
            break
    else:
        pytest.skip("no tensor came to lie where the last one was")
    assert watch.version(weights) is not before


@pytest.mark.parametrize("writes", [True, False])
def test_watched_tensors_may_be_swapped(*, writes: bool) -> None:
    """`torch.utils.swap_tensors` takes no tensor with a weak reference; objects and versions stay as they were."""
    watch, weights = WeightWatch(writes=writes), _weights()
    before, other = watch.version(weights), torch.nn.Parameter(torch.randn(64, 64))
    assert other._version == weights[0]._version
    torch.utils.swap_tensors(weights[0], other)
    assert writes == (watch.version(weights) is not before)
    del other
    assert watch.version(weights) is not before


def test_trusted_weights_may_only_be_replaced() -> None:
    watch, weights = WeightWatch(writes=False), _weights()
    before = watch.version(weights)
    _add(weights)
    assert watch.version(list(weights)) is before
