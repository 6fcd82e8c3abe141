"""Noticing that weights may have changed, without reading them.

Rules:
  OBJECT   Another tensor: `load_state_dict(assign=True)`, a new Parameter.
  STORAGE  Another address, or the same one in another storage: `p.data = new` frees memory that the next `p.data = new`
           may get again, with the address and the version that we know.
  VERSION  Writes that autograd counts: optimizers, `load_state_dict`, in-place operations.
  EPOCH    What no version counts, but tells us otherwise: a step of any optimizer (fused ones count nothing), a forward
           of a training graph of ours.
  SETS     Modules of one structure that are compiled one by one share a graph: what was seen is kept by the first weight.
  BLIND    A tensor made under `torch.inference_mode` counts nothing: nobody can tell, contents are compared.

What none of them notices: writes through `.data`, NumPy, DLPack or another process, and collectives, with no optimizer
step and no training forward since. `weight_check="contents"` is for those.
"""

from __future__ import annotations

__all__ = ["TrustedWeights", "WeightWatch", "note_training"]

import functools
import operator
from itertools import count
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
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


class _Seen:
    """What was seen last.

    The storages are weak references: they keep no memory, but no other storage gets the handle of one they refer to.
    """

    def __init__(self, weights: list[torch.Tensor], versions: list[int], epoch: int) -> None:
        self._epoch = epoch
        self._versions = versions
        self._objects = list(map(id, weights))
        self._addresses = list(map(torch.Tensor.data_ptr, weights))
        self._storages = [StorageWeakRef(weight.untyped_storage()) for weight in weights]
        self._handles = [storage.cdata for storage in self._storages]
        self.version = object()

    def is_current(self, weights: list[torch.Tensor], versions: list[int]) -> bool:
        """Whether no rule but BLIND says otherwise."""
        return (
            self._epoch == _epoch[0]
            and versions == self._versions
            and list(map(id, weights)) == self._objects
            and list(map(torch.Tensor.data_ptr, weights)) == self._addresses
            and not any(map(torch.UntypedStorage._expired, self._handles))
        )


class WeightWatch:
    """Gives an object for the state of some weights: another one once a weight may have changed."""

    def __init__(self) -> None:
        _watch_optimizers()
        self._seen: dict[int, _Seen] = {}

    def version(self, weights: list[torch.Tensor]) -> object | None:
        """Return the state's object (None under rule BLIND)."""
        try:
            versions = [weight._version for weight in weights]
        except RuntimeError:  # rule BLIND
            return None
        epoch = _epoch[0]  # threads may look at the same time
        first = id(weights[0])
        seen = self._seen.get(first)
        if seen is None or not seen.is_current(weights, versions):
            _make_room(self._seen)
            seen = self._seen[first] = _Seen(weights, versions, epoch)
        return seen.version


class TrustedWeights:
    """Takes the user's word that tensors stay as they are, and gives an object for each set of them.

    The tensors are kept: another one cannot have the identity of one that we know.
    """

    def __init__(self) -> None:
        self._known: dict[int, list[torch.Tensor]] = {}

    def version(self, weights: list[torch.Tensor]) -> object:
        """Return the set's object."""
        first = id(weights[0])
        known = self._known.get(first)
        if known is None or not all(map(operator.is_, weights, known)):
            _make_room(self._known)
            known = self._known[first] = list(weights)
        return known


def _make_room(sets: dict[int, Any]) -> None:
    if len(sets) >= _SETS:
        sets.clear()
