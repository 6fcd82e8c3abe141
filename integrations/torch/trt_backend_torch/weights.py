"""Noticing that weights may have changed, without reading them.

Rules:
  OBJECT   Another tensor: `load_state_dict(assign=True)`, a new Parameter. It may have got the identity of one that is gone:
           its storage is another then, or what was written to the same one is told by the rules below.
  STORAGE  Another address, or the same one in another storage: `p.data = new` frees memory that the next `p.data = new`
           may get again, with the address and the version that we know.
  VERSION  Writes that autograd counts: optimizers, `load_state_dict`, in-place operations.
  EPOCH    What no version counts, but tells us otherwise: a step of any optimizer (fused ones count nothing), a forward
           of a training graph of ours.
  WEAK     No tensor and no storage is held. A storage that goes says so, as its address may become another's. Tensors are
           not even referred to weakly: `torch.utils.swap_tensors` would refuse them.
  SETS     Modules of one structure that are compiled one by one share a graph: what was seen is kept by the first weight.
  BLIND    A tensor made under `torch.inference_mode` counts nothing: nobody can tell, contents are compared.

What none of them notices: writes through `.data`, NumPy, DLPack or another process, and collectives, with no optimizer
step and no training forward since. `weight_check="contents"` is for those.
"""

from __future__ import annotations

__all__ = ["WeightWatch", "note_training"]

import functools
import weakref
from itertools import count
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

_SETS = 64  # rule SETS: kept at most

_steps = count(1)
_epoch = [0]  # rule EPOCH; one for the process, as optimizers do not say whose weights they step


def note_training(*_: Any) -> None:
    """Note that some weights may have been trained."""
    _epoch[0] = next(_steps)


@functools.cache
def _watch_optimizers() -> None:
    register_optimizer_step_post_hook(note_training)


class WeightWatch:
    """Gives an object for the state of some weights: another one once a weight may have changed.

    Args:
        writes: whether to look for writes; otherwise rule OBJECT alone says what changed.
    """

    def __init__(self, *, writes: bool = True) -> None:
        if writes:
            _watch_optimizers()
        self._kind = _Contents if writes else _Objects
        self._seen: dict[int, _Objects] = {}

    def version(self, weights: list[torch.Tensor]) -> object | None:
        """Return the state's object (None under rule BLIND)."""
        first = id(weights[0])
        seen = self._seen.get(first)
        try:
            if seen is None or not seen.are(weights):
                if len(self._seen) >= _SETS:
                    self._seen.clear()
                seen = self._seen[first] = self._kind(weights)
        except RuntimeError:  # rule BLIND
            return None
        return seen


class _Objects:
    """Tensors as they were seen last."""

    def __init__(self, weights: list[torch.Tensor]) -> None:
        self._gone: list[Any] = []
        self._objects = list(map(id, weights))
        self._storages = [weakref.ref(weight.untyped_storage(), self._gone.append) for weight in weights]

    def are(self, weights: list[torch.Tensor]) -> bool:
        """Whether these are the tensors, and nothing says that they changed."""
        return list(map(id, weights)) == self._objects and not self._gone


class _Contents(_Objects):
    """Tensors and what can be told of their contents without a look."""

    def __init__(self, weights: list[torch.Tensor]) -> None:
        self._epoch = _epoch[0]  # first of all: threads may write meanwhile
        self._versions = [weight._version for weight in weights]
        self._addresses = list(map(torch.Tensor.data_ptr, weights))
        super().__init__(weights)

    def are(self, weights: list[torch.Tensor]) -> bool:
        return (
            super().are(weights)
            and self._epoch == _epoch[0]
            and [weight._version for weight in weights] == self._versions
            and list(map(torch.Tensor.data_ptr, weights)) == self._addresses
        )
