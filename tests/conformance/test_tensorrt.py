"""TensorRT-RTX's builder, which needs no GPU, takes every op in every element type that its rule declares.

On a machine with a GPU and a full TensorRT, `tests/gpu/test_conformance.py` runs them, too.
"""

from __future__ import annotations

import dataclasses

import pytest

from conformance.cases import CASES, Case
from tensorrt_checks import build, infinities, load
from trt_backend.emit.rules import op_label
from trt_backend.ir.types import DType

pytest.importorskip("tensorrt_rtx")

STACK = load("tensorrt_rtx")
OLDER_DO_NOT = "older versions take floats only"
REFUSED_THOUGH_IT_BUILDS: dict[str, str] = {
    "Elementwise pow": "of integers: not documented, and not tried on a GPU",
    "Unary neg": "of integers: 8.6 refuses",
    "Pad": "of booleans: 8.6 refuses",
    "Pooling max": "windows of padding alone: 8.6 gives the lowest number",
    "Activation relu": OLDER_DO_NOT,
    "TopK max": OLDER_DO_NOT,
    "TopK min": OLDER_DO_NOT,
    "Pooling average": "windows of padding alone; or 8.6 counts what lies beyond the padding",
    "GridSample": "nearest elements, reflected: 8.6 turns ties another way",
    "Resize": "by a scale that is not the ratio of the sizes: not tried on a GPU",
    "Deconvolution": "negative padding: not documented, and not tried on a GPU",
}
"""What `support` refuses although the builder takes it, and why."""


LEGAL = [
    (number, case, dtype)
    for number, case in enumerate(CASES)
    for dtype in DType
    if case.is_legal(dtype) and not case.is_empty(dtype)
]
SUPPORTED = [(n, c, d) for n, c, d in LEGAL if STACK.support(c.op, c.types(d)) is None]
REFUSED = [(n, c, d) for n, c, d in LEGAL if STACK.support(c.op, c.types(d)) is not None]


def _params(cases: list[tuple[int, Case, DType]]) -> list[object]:
    return [pytest.param(case, dtype, id=f"{n}-{case}-{dtype.value}") for n, case, dtype in cases]


@pytest.mark.parametrize(("case", "dtype"), _params(SUPPORTED))
def test_supported(case: Case, dtype: DType) -> None:
    blob, _ = build(STACK, case.graph(dtype), case.symbols)
    assert len(blob) > 0


@pytest.mark.parametrize(("case", "dtype"), _params(REFUSED))
def test_refused(case: Case, dtype: DType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trt_backend.emit.tensorrt.support", lambda stack, op, types: None)
    try:
        build(STACK, case.graph(dtype), case.symbols)
    except Exception:
        return
    assert op_label(case.op) in REFUSED_THOUGH_IT_BUILDS


@pytest.mark.parametrize("constant", [float("inf"), -float("inf")])
def test_infinities_may_be_made_by_layers(constant: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for 8.6 (`Stack.writes_infinity`)."""
    graph, stack = infinities(constant, DType.FLOAT32), load("tensorrt_rtx")
    written, _ = build(stack, graph, {})
    monkeypatch.setattr(stack, "_stack", dataclasses.replace(stack._stack, writes_infinity=False))
    made, _ = build(stack, graph, {})
    assert made != written
