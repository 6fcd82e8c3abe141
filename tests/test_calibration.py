"""The ranges that a calibration finds, and its file."""

from __future__ import annotations

import copy
import json
import pickle

import numpy as np
import pytest

from trt_backend import Calibration
from trt_backend.errors import OptionError
from trt_backend.options import CompileOptions

RNG = np.random.default_rng(0)


def threshold(*batches: np.ndarray) -> float:
    calibration = Calibration()
    with calibration.collect():
        for batch in batches:
            calibration.observe("region", [batch.astype(np.float32)])
    (found,) = calibration.thresholds("region") or ()
    return found


def error(array: np.ndarray, limit: float) -> float:
    """The mean square error of int8 with this range."""
    scale = limit / 127
    return float(np.mean((array - scale * np.clip(np.rint(array / scale), -127, 127)) ** 2))


def test_even_magnitudes_need_the_whole_range() -> None:
    assert threshold(RNG.uniform(-3, 3, 10_000)) == pytest.approx(3, rel=0.01)


@pytest.mark.parametrize("shape", ["normal", "laplace", "one outlier", "mostly zero"])
def test_no_other_range_is_much_better(shape: str) -> None:
    """The claim is the least mean square error: compare it with that of 200 other ranges."""
    array = {
        "normal": RNG.standard_normal(100_000),
        "laplace": RNG.laplace(size=100_000),
        "one outlier": np.append(RNG.standard_normal(100_000), 40.0),
        "mostly zero": np.where(RNG.random(100_000) < 0.9, 0, RNG.standard_normal(100_000)),
    }[shape]
    best = min(error(array, limit) for limit in np.linspace(0.5, np.abs(array).max(), 200))
    found = threshold(array)
    assert error(array, found) <= 1.1 * best
    if shape == "one outlier":  # better saturated
        assert found < 30


def test_batches_are_one_sample() -> None:
    """Whatever their order: a range that has to grow keeps what it counted."""
    array = RNG.standard_normal(40_000) * np.repeat([0.1, 1, 10, 100], 10_000)
    batches = np.split(array, 8)
    assert threshold(*batches) == pytest.approx(threshold(array), rel=0.02)
    assert threshold(*reversed(batches)) == pytest.approx(threshold(array), rel=0.02)


def test_zeros_and_what_is_no_number() -> None:
    assert threshold(np.zeros(10)) == 0
    assert threshold(np.zeros(0)) == 0
    assert threshold(np.array([np.nan, np.inf, -np.inf])) == 0
    assert threshold(np.array([np.nan, 2.0, np.inf])) == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize("seen", [(1e-44, 1.0), (1e-44,), (1.0, 3.4e38)])
def test_the_ends_of_float32(seen: tuple[float, ...]) -> None:
    assert threshold(*(np.array([number]) for number in seen)) == pytest.approx(seen[-1], rel=0.1)


def test_nothing_watched_is_said_and_not_saved(tmp_path, caplog: pytest.LogCaptureFixture) -> None:
    calibration = Calibration()
    with calibration.collect():
        pass
    assert "run the calibration inputs through a model" in caplog.text
    with pytest.raises(OptionError, match="no ranges to save"):
        calibration.save(tmp_path / "ranges.json")
    assert not (tmp_path / "ranges.json").exists()


def test_copies_go_on_by_themselves() -> None:
    calibration = Calibration()
    with calibration.collect():
        calibration.observe("region", [np.ones(3)])
        for twin in (copy.deepcopy(calibration), pickle.loads(pickle.dumps(calibration))):
            assert not twin.collecting
            with twin.collect():
                twin.observe("region", [np.full(3, 2.0)])
            assert twin.thresholds("region") == pytest.approx((2,), rel=0.01)
    assert calibration.thresholds("region") == pytest.approx((1,), rel=0.01)


def test_the_file(tmp_path) -> None:
    calibration = Calibration()
    with calibration.collect():
        calibration.observe("region", [RNG.standard_normal(100), np.ones(3)])
    calibration.save(tmp_path / "ranges.json")
    loaded = Calibration.load(tmp_path / "ranges.json")
    assert loaded.thresholds("region") == calibration.thresholds("region")
    assert loaded.thresholds("another") is None
    assert not loaded.collecting


def test_a_loaded_one_that_collects_again_widens() -> None:
    first = Calibration()
    with first.collect():
        first.observe("region", [np.ones(3), np.full(3, 8.0)])
        first.observe("another", [np.ones(3)])
    for loaded in (Calibration.loads(first.dumps()), copy.deepcopy(Calibration.loads(first.dumps()))):
        with loaded.collect():
            loaded.observe("region", [np.full(3, 2.0), np.ones(3)])
        assert loaded.thresholds("region") == pytest.approx((2, 8), rel=0.01)
        assert loaded.thresholds("another") == first.thresholds("another")


_FORMAT = '{"format": "trt-backend calibration 1", "thresholds": '


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"format": 1}', '{"thresholds": {}}', "\x00"),
        *(_FORMAT + thresholds for thresholds in ("3}", '{"region": 3}}', '{"region": ["x"]}}')),
        *(_FORMAT + f'{{"region": [{threshold}]}}}}' for threshold in ("NaN", "-1", "Infinity")),
    ],
)
def test_a_file_of_something_else(text: str, tmp_path) -> None:
    (tmp_path / "ranges.json").write_text(text)
    with pytest.raises(OptionError, match="no calibration"):
        Calibration.load(tmp_path / "ranges.json")


def test_a_file_of_another_format() -> None:
    text = json.dumps({"format": "trt-backend calibration 0", "thresholds": {}})
    with pytest.raises(OptionError, match="calibrate again"):
        Calibration.loads(text)


def test_the_option() -> None:
    with pytest.raises(OptionError, match=r"needs calibration=trt_backend.Calibration\(\)"):
        CompileOptions(precision="int8")
    with pytest.raises(OptionError, match="is str, not Calibration or None"):
        CompileOptions(calibration="ranges.json")  # type: ignore[arg-type]
