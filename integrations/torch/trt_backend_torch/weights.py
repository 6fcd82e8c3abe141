"""Noticing that weights may have changed, without reading them.

Rules:
  OBJECT   Another tensor, or one that died: its id and address may serve another one now.
  ADDRESS  `p.data = new`, `load_state_dict(assign=True)`, `module.half()`.
  VERSION  Writes that autograd counts: optimizers, `load_state_dict`, in-place operations.
  EPOCH    What no version counts, but tells us otherwise: a step of any optimizer (fused ones count nothing), a forward
           of a training graph of ours.
  BLIND    A tensor made under `torch.inference_mode` counts nothing: nobody can tell, contents are compared.

What none of them notices: writes through `.data`, NumPy, DLPack or another process, and collectives, with no optimizer
step and no training forward since. `weight_check="contents"` is for those.
"""

from __future__ import annotations

__all__ = ["WeightWatch", "note_training"]

import functools
import weakref
from collections.abc import Sequence
from itertools import count
from operator import attrgetter
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

_VERSION = attrgetter("_version")
_steps = count(1)
_epoch = [0]  # rule EPOCH; one for the process, as optimizers do not say whose weights they step


def note_training(*_: Any) -> None:
    """Note that some weights may have been trained."""
    _epoch[0] = next(_steps)


@functools.cache
def _watch_optimizers() -> None:
    register_optimizer_step_post_hook(note_training)


class WeightWatch:
    """Gives an object for the state of some weights: another one once a weight may have changed."""

    def __init__(self) -> None:
        _watch_optimizers()
        self._refs: list[weakref.ref[torch.Tensor]] = []
        self._state: tuple[Any, ...] | None = None
        self._version = object()

    def version(self, weights: Sequence[torch.Tensor]) -> object | None:
        """Return the state's object (None under rule BLIND)."""
        try:
            state = (
                _epoch[0],
                list(map(id, weights)),
                list(map(torch.Tensor.data_ptr, weights)),
                list(map(_VERSION, weights)),
            )
        except RuntimeError:  # rule BLIND
            return None
        if state != self._state:
            self._refs = [weakref.ref(weight, self._forget) for weight in weights]
            self._state, self._version = state, object()
        return self._version

    def _forget(self, _: object) -> None:
        self._state = None
