"""Keras models through export, convert, build, save and load, some in a fresh process: the answers are TensorFlow's."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

tf = pytest.importorskip("tensorflow")
pytest.importorskip("keras")

from fresh_process import answers_of_a_fresh_process  # noqa: E402
from keras_models import MODELS, Model, assert_close, export, tensors  # noqa: E402

import trt_backend  # noqa: E402
from trt_backend_tf import trt_convert as trt  # noqa: E402


@pytest.mark.parametrize("name", MODELS)
def test_model(name: str, tmp_path: Path) -> None:
    model, exported = MODELS[name], export(name, tmp_path / "native")
    calls = exported.calls

    trt_backend.reset_report()
    converter = trt.TrtGraphConverterV2(input_saved_model_dir=str(exported.folder))
    converted = converter.convert()
    converter.build(lambda: iter(calls[:2]))
    for call, answer in zip(calls, exported.answers, strict=True):
        assert_close(converted(**tensors(call)), answer)
    _check_report(trt_backend.report().to_dict(), model, calls=5)

    converter.save(str(tmp_path / "converted"))
    del converter, converted
    gc.collect()
    trt_backend.reset_report()
    load = answers_of_a_fresh_process if model.apart else _answers
    answers, report = load(tmp_path / "converted", calls)
    for got, answer in zip(answers, exported.answers, strict=True):
        assert_close(got, answer)
    _check_report(report, model, calls=3)


def _check_report(report: dict[str, Any], model: Model, calls: int) -> None:
    assert report["ops_in_engines"] / report["ops_total"] >= model.share, report
    assert len(report["regions"]) <= model.engines
    for region in report["regions"]:
        assert region["reason"] is None
        assert (region["engines"], region["engine_calls"], region["native_calls"]) == (1, calls, 0)


def _answers(folder: Path, calls: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Load the converted model here, where nothing of its conversion is left."""
    function = tf.saved_model.load(str(folder)).signatures["serving_default"]
    return [function(**tensors(call)) for call in calls], trt_backend.report().to_dict()
