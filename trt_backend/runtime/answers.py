"""Whether an engine's answers are native's: one that was compiled wrongly is found at its first call.

Rules:
  FIRST   The first answer of each engine is compared with native's, on the call's own inputs. Who builds an engine does it,
          for all that load it from the cache.
  FLOATS  Floating-point results are: indices and masks may differ wherever numbers round.
  BOUND   Off by a hundred roundings of the least exact type that computes, of the largest number, is what deep networks
          make of other kernels; what is compiled wrongly is off by more. Where native is not finite, anything goes.
  SHAKEN  Some results hang on roundings: what is chosen among equal scores, what is left of a difference. Native then
          moves as far itself where its arguments are shaken by some roundings, and nothing is said against the engine.
"""

from __future__ import annotations

__all__ = ["AnswerCheck", "Difference", "difference"]

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from trt_backend.debug import log
from trt_backend.errors import WrongAnswerError
from trt_backend.ir.graph import Graph
from trt_backend.ir.types import DType
from trt_backend.options import CompileOptions

Difference = tuple[float, float]
"""How far a result is off where native is finite, NaN or infinite where it is not finite there, and native's largest number."""

_ROUNDINGS = 100
_SHAKEN = 8  # roundings
_LEAST_NOISE = 2.0**-17  # as much as tens of layers in float32 make
_SLACK = 10  # times what native moves
_LEAST_BOUND = 1e-2
_LEAST_SCALE = 1e-3  # smaller numbers may be what is left of a difference
_HALF, _BRAIN = 2.0**-10, 2.0**-7  # from one number to the next, relative to it
_EPSILONS: dict[object, float] = {
    "tf32": _HALF,  # it has as many bits
    "fp16": _HALF,
    "bf16": _BRAIN,
    DType.FLOAT16: _HALF,
    DType.BFLOAT16: _BRAIN,
}


def nothing() -> None:
    """Keep no verdict."""


class AnswerCheck:
    """Compares the first answer of each of a region's engines.

    Args:
        name: of the region.
        graph: of the region.
        options: of the compilation; int8 is not compared, whose error is the calibration's.
    """

    def __init__(self, name: str, graph: Graph, options: CompileOptions) -> None:
        self._name = name
        self._wanted = options.answer_check == "first" and options.precision != "int8"
        self._unchecked: list[Callable[[], None]] = []
        computes_in = {options.precision, *(value.dtype for node in graph.nodes for value in node.outputs)}
        epsilon = max(_EPSILONS.get(name, 0.0) for name in computes_in)
        self._bound = max(_ROUNDINGS * epsilon, _LEAST_BOUND)
        self._noise = max(_SHAKEN * epsilon, _LEAST_NOISE)

    def expect(self, keep: Callable[[], None] = nothing) -> None:
        """Have the next answer compared: there is a new engine. `keep` is called once that was found right."""
        if self._wanted:
            self._unchecked.append(keep)

    @property
    def due(self) -> bool:
        """Whether there is an engine that was not checked."""
        return bool(self._unchecked)

    def check(
        self, compare: Callable[[], Sequence[Difference]], shake: Callable[[float], Sequence[Difference]]
    ) -> None:
        """Compare an engine's results with native's.

        Args:
            compare: returns how far each result of floating point is off native's.
            shake: returns how far each of native's moves where each floating-point argument moves by so much of its
                largest element.

        Raises:
            WrongAnswerError: they are not the same, but for rounding.
        """
        unchecked, self._unchecked = self._unchecked, []
        try:
            differences = compare()
            all_near = all(map(self._is_near, differences))
            moves: Sequence[Difference] = () if all_near else shake(self._noise)
        except Exception as error:  # noqa: BLE001  the call has its answer; a lack of memory, say, is nothing against it
            log.debug("%s: its first answer was not compared: %s", self._name, error)
            return
        for (off, largest), (move, _) in zip(differences, moves, strict=False):
            scale = max(largest, _LEAST_SCALE)
            least = off if off < scale else scale  # NaN is not less
            if not self._is_near((off, largest)) and _SLACK * move < least:
                raise WrongAnswerError(
                    f"its engine's first answer is {off / scale:.2g} of the largest number off (bound: {self._bound:.2g})"
                )
        for keep in unchecked:
            keep()

    def _is_near(self, difference: Difference) -> bool:
        off, largest = difference
        return off <= self._bound * max(largest, _LEAST_SCALE)


def difference(ours: npt.NDArray[Any], native: npt.NDArray[Any]) -> Difference:
    """Compare two arrays of one floating-point dtype and shape, with at least one element."""
    finite, exact = np.isfinite(native), np.promote_types(native.dtype, np.float32)
    wanted = np.where(finite, native, 0).astype(exact)
    off = np.where(finite, ours, 0).astype(exact) - wanted
    return float(np.abs(off).max()), float(np.abs(wanted).max())
