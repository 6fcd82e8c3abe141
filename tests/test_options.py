"""`CompileOptions` says what is wrong, what was probably meant, and what is legal."""

from __future__ import annotations

import pytest

from trt_backend.calibration import Calibration
from trt_backend.errors import OptionError
from trt_backend.options import CompileOptions


def test_defaults_come_from_no_options() -> None:
    assert CompileOptions.from_mapping(None) == CompileOptions() == CompileOptions.from_mapping({})


def test_values_arrive() -> None:
    options = CompileOptions.from_mapping({"min_block_size": 7, "threads": 2, "strict": True, "fuel": 0})
    assert (options.min_block_size, options.threads, options.strict, options.fuel) == (7, 2, True, 0)


@pytest.mark.parametrize(("given", "meant"), [("min_blok_size", "min_block_size"), ("thread", "threads")])
def test_an_unknown_name_is_refused_with_what_was_meant(given: str, meant: str) -> None:
    with pytest.raises(OptionError, match=f"unknown option '{given}'; did you mean '{meant}'"):
        CompileOptions.from_mapping({given: 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"provider": "onnxruntim"},
            "none of 'auto', 'tensorrt', 'tensorrt_rtx', 'onnxruntime'; did you mean 'onnxruntime'",
        ),
        ({"build": "later"}, "build='later' is none of 'lazy', 'background', 'eager'"),
        ({"choose": "measure"}, "none of 'always', 'measured'; did you mean 'measured'"),
        ({"precision": "fp8"}, "none of 'auto', 'tf32', 'fp16', 'bf16'"),
        ({"weight_check": "content"}, "did you mean 'contents'"),
        ({"min_block_size": 0}, "1 or more"),
        ({"min_block_size": None}, "1 or more"),
        ({"min_block_size": True}, "1 or more"),
        ({"threads": -1}, "1 or more or None"),
        ({"fuel": 1.5}, "0 or more or None"),
        ({"optimization_level": 9}, "no integer from 0 to 5 or None"),
        (
            {"precision": "int8", "calibration": Calibration(), "freeze_weights": False},
            "needs freeze_weights=True",
        ),
        ({"strict": 1}, "is int, not bool"),
        ({"dump_dir": 3}, "is int, not str or None"),
        ({"tactic_sources": "CUBLAS"}, "'CUBLAS' is no list of names"),
        ({"tactic_sources": [1]}, "is no list of names"),
        ({"tactic_sources": []}, "is no list of names"),
    ],
)
def test_an_illegal_value_is_refused_with_the_legal_ones(options: dict[str, object], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        CompileOptions.from_mapping(options)
