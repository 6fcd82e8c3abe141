"""`Calibration`: the magnitudes that activations have, seen on a user's data, from which int8 engines take their scales."""

from __future__ import annotations

__all__ = ["Calibration"]

import copy
import json
import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from trt_backend.debug import log
from trt_backend.errors import OptionError

Array = npt.NDArray[Any]

_FORMAT = "trt-backend calibration 1"
_BINS = 2048
_CANDIDATES = 256
_STEPS = 127


class Calibration:
    """What one model's activations look like; the value of the option `calibration`, with `precision="int8"`.

    Example:
        calibration = trt_backend.Calibration()
        compiled = torch.compile(model, backend="trt", options={"precision": "int8", "calibration": calibration})
        with torch.no_grad():
            with calibration.collect():
                for batch in batches:
                    compiled(batch)
            compiled(batch)  # in int8
        calibration.save("model.json")  # another process: Calibration.load("model.json")

    A few hundred samples of what the model will see suffice as a rule. One object is for one model: regions are told apart
    by the shapes of their weights, so that other batch sizes find the same ranges; what is alike shares the wider range.
    """

    def __init__(self) -> None:
        self._histograms: dict[str, list[_Histogram]] = {}
        self._thresholds: dict[str, tuple[float, ...]] = {}
        self._loaded: dict[str, tuple[float, ...]] = {}
        self._collecting = 0
        self._observed = 0
        self._lock = Lock()
        self.version = 0

    def __getstate__(self) -> dict[str, Any]:
        with self._lock:
            return {
                "histograms": copy.deepcopy(self._histograms),
                "thresholds": dict(self._thresholds),
                "loaded": self._loaded,
                "version": self.version,
            }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__()
        self._histograms, self._thresholds = state["histograms"], state["thresholds"]
        self._loaded = state.get("loaded", {})
        self.version = state["version"]

    @property
    def collecting(self) -> bool:
        """Whether calls are being watched at this moment."""
        return self._collecting > 0

    @contextmanager
    def collect(self) -> Generator[None]:
        """Watch the calls inside, which run natively; engines are built for what was seen since the first collection.

        What was loaded has ranges only: of those and what is seen since, the wider ones count.
        """
        with self._lock:
            self._collecting += 1
            before = self._observed
        try:
            yield
        finally:
            if self._observed == before:
                log.warning(
                    "no region was watched while the calibration collected: run the calibration inputs through a "
                    "model that was compiled for int8 with this very calibration, and without gradients"
                )
            with self._lock:
                self._collecting -= 1
                for key, histograms in self._histograms.items():
                    seen = tuple(histogram.threshold() for histogram in histograms)
                    self._thresholds[key] = tuple(map(max, seen, self._loaded.get(key, seen)))
                self.version += 1

    def observe(self, region: str, activations: Sequence[Array]) -> None:
        """Take note of a region's activations in one call, always in the same order."""
        with self._lock:
            self._observed += 1
            histograms = self._histograms.setdefault(region, [_Histogram() for _ in activations])
            for histogram, activation in zip(histograms, activations, strict=True):
                histogram.add(activation)

    def thresholds(self, region: str) -> tuple[float, ...] | None:
        """Return the largest magnitude to represent of each activation of a region, or None where nothing was seen."""
        return self._thresholds.get(region)

    def dumps(self) -> str:
        """Return the thresholds as JSON."""
        with self._lock:
            return json.dumps({"format": _FORMAT, "thresholds": self._thresholds})

    @classmethod
    def loads(cls, text: str) -> Calibration:
        """Return the calibration that `dumps` wrote (OptionError for any other text)."""
        try:
            data: Any = json.loads(text)
            form = data["format"]
            thresholds = {key: tuple(map(_threshold, values)) for key, values in data["thresholds"].items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise OptionError(f"this is no calibration that `save` or `dumps` wrote: {error!r}") from error
        if form != _FORMAT:
            raise OptionError(f"this calibration has the format {form!r}, not {_FORMAT!r}: calibrate again")
        made = cls()
        made._thresholds, made._loaded = thresholds, dict(thresholds)
        made.version = 1
        return made

    def save(self, path: str | Path) -> None:
        """Write the thresholds to a file (OptionError where there are none)."""
        if not self._thresholds:
            raise OptionError(
                "there are no ranges to save: call the compiled model inside `with calibration.collect()`"
            )
        Path(path).write_text(self.dumps(), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Return the calibration that `save` wrote (OptionError for any other file)."""
        return cls.loads(Path(path).read_text(encoding="utf-8"))


def _threshold(value: Any) -> float:
    threshold = float(value)
    if not 0 <= threshold < math.inf:
        raise ValueError(f"the range {threshold} is no finite number from 0 on")
    return threshold


class _Histogram:
    """How often which magnitude occurs, in bins of one width from 0 to the largest.

    Zeros are not counted: int8 has them exactly. Infinities and NaN are not either.
    """

    def __init__(self) -> None:
        self._counts = np.zeros(_BINS)
        self._top = 0.0

    def add(self, array: Array) -> None:
        """Count an array's elements."""
        magnitudes = np.abs(array.astype(np.float32, copy=False)).reshape(-1)
        magnitudes = magnitudes[(magnitudes > 0) & np.isfinite(magnitudes)]
        if magnitudes.size:
            self._widen(float(magnitudes.max()))
            top = np.float64(self._top)  # which NumPy computes the bins in: float32 may not hold them
            self._counts += np.histogram(magnitudes, _BINS, (0.0, top))[0]

    def _widen(self, most: float) -> None:
        """Double the range until it holds `most`: pairs of bins become one."""
        if self._top == 0:
            self._top = most
        while self._top < most:
            pairs = self._counts.reshape(-1, 2).sum(axis=1)
            self._counts = np.concatenate((pairs, np.zeros(_BINS // 2)))
            self._top *= 2

    def threshold(self) -> float:
        """Return the magnitude to saturate at that makes the mean square error of int8 least; 0 where all is zero.

        Between two steps the error is taken as even (a twelfth of the squared step), but no larger than the number itself.
        """
        if self._top == 0:
            return 0.0
        magnitudes = (np.arange(_BINS) + 0.5) * (self._top / _BINS)
        limits = self._top * np.arange(1, _CANDIDATES + 1)[:, np.newaxis] / _CANDIDATES
        rounding = np.minimum(magnitudes**2, (limits / _STEPS) ** 2 / 12)
        saturation = np.maximum(magnitudes - limits, 0) ** 2
        errors = np.where(magnitudes > limits, saturation, rounding) @ self._counts
        return float(limits[np.argmin(errors), 0])
