"""The text form: stable, and read back to an equal graph; malformed text is refused with its line."""

from __future__ import annotations

import contextlib

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given

from conformance.cases import CASES
from ir_cases import graphs
from trt_backend.errors import InvalidGraphError
from trt_backend.ir.builder import Builder
from trt_backend.ir.fingerprint import fingerprint
from trt_backend.ir.ops.elementwise import Elementwise, ElementwiseKind
from trt_backend.ir.text import parse_graph
from trt_backend.ir.types import DType

GOOD = """graph main(%x: f32[2, s], weight %w: f32[1, s]) {
  symbol s in [1, 64]
  %c2 = constant [1.0] : f32[1, 1]
  %v3 = Elementwise(%x, %w) {kind=sum} : f32[2, s]
  %v4 = Slice(%v3) {start=[0, s//2], size=[2, s - s//2], stride=[1, 1]} : f32[2, -(s//2) + s]
  return %v3, %c2
}
"""


@given(graphs())
def test_reads_back(graph) -> None:
    text = str(graph)
    again = parse_graph(text)
    assert str(again) == text
    assert fingerprint(again) == fingerprint(graph)


def test_every_op_reads_back() -> None:
    read = 0
    for case in CASES:
        for dtype in (DType.FLOAT32, DType.INT32, DType.BOOL):
            with contextlib.suppress(InvalidGraphError):
                text = str(case.graph(dtype))
                break
        else:
            pytest.fail(f"{case} takes none of the dtypes")
        assert str(parse_graph(text)) == text
        read += 1
    assert read == len(CASES)


def test_good_text_is_good() -> None:
    graph = parse_graph(GOOD)
    assert [value.name for value in graph.weights] == ["w"]
    assert graph.symbols[0].max == 64


@pytest.mark.parametrize("dtype", DType)
def test_small_constants_are_shown_and_read_back(dtype: DType) -> None:
    b = Builder()
    array = np.array([[0, 1, 3]]).astype(dtype.numpy)
    again = parse_graph(str(b.build([b.constant(array)])))
    np.testing.assert_array_equal(again.constants[0].array, array)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
def test_special_elements_read_back(dtype: type) -> None:
    b = Builder()
    array = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-7], dtype)
    (constant,) = parse_graph(str(b.build([b.constant(array)]))).constants
    np.testing.assert_array_equal(constant.array.astype(np.float64), array.astype(np.float64))
    assert np.signbit(constant.array[3])


def test_large_constants_are_elided_but_keep_their_digest() -> None:
    b = Builder()
    graph = b.build([b.constant(np.arange(9))])
    (constant,) = parse_graph(str(graph)).constants
    assert constant.digest == graph.constants[0].digest
    with pytest.raises(InvalidGraphError, match="elides"):
        _ = constant.array


def test_text_does_not_depend_on_sources() -> None:
    texts = set()
    for source in ("", "model.py:3"):
        b = Builder()
        with b.at(source):
            x = b.constant([1.0])
            texts.add(str(b.build([b.add(Elementwise(ElementwiseKind.SUM), x, x)])))
    assert len(texts) == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("graph main(", "gruph main(", "line 1: .*outside of the graph"),
        ("%x: f32[2, s]", "%x: f32", "line 1: .*'f32' is no type"),
        ("%x: f32[2, s]", "%x: g32[2, s]", "line 1: .*'g32'"),
        ("%x: f32[2, s]", "%x: f32[2, s+]", "line 1: .*no dimension expression"),
        ("symbol s in [1, 64]", "symbol s in [1, x]", "line 2: .*not of the form `symbol"),
        ("[1.0] : f32[1, 1]", "[1.0, 2.0] : f32[1, 1]", "line 3: .*reshape"),
        ("[1.0] : f32[1, 1]", "[one] : f32[1, 1]", "line 3: "),
        ("Elementwise(%x", "Elementwise(%y", "line 4: .*%y is not defined above"),
        ("Elementwise(", "Elementwize(", "line 4: .*there is no op Elementwize"),
        ("{kind=sum}", "{sort=sum}", "line 4: .*no attribute sort"),
        ("{kind=sum}", "{kind=some}", "line 4: .*'some'"),
        ("%v3 = Elementwise(%x, %w) {kind=sum}", "%v3 = Elementwise(%x, %w)", "line 4: .*missing"),
        ("{kind=sum} : f32[2, s]", "{kind=sum} : f32[2, s], f32[2]", "line 4: .*zip"),
        ("start=[0, s//2]", "start=[0, s//]", "line 5: .*no dimension expression"),
        ("return %v3", "return %v9", "line 6: .*%v9 is not defined above"),
        ("}\n", "}\nreturn %x\n", "line 8: .*outside of the graph"),
        ("}\n", "}\ngraph main() {\n", "line 8: .*a second graph after main"),
        ("  return %v3, %c2\n", "", "no `return` line"),
        ("{kind=sum} : f32[2, s]", "{kind=sum} : f32[3, s]", "TYPED"),
    ],
)
def test_refuses(old: str, new: str, message: str) -> None:
    assert GOOD.count(old) >= 1
    with pytest.raises(InvalidGraphError, match=message):
        parse_graph(new.join(GOOD.rsplit(old, 1) if old == "}\n" else GOOD.split(old, 1)))
