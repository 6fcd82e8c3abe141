"""Models with more weights than a graph can hold: the largest stay variables, beside the graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

tf = pytest.importorskip("tensorflow")

import numpy as np  # noqa: E402

import trt_backend  # noqa: E402
from trt_backend.engine.onnxruntime import OnnxRuntimeProvider  # noqa: E402
from trt_backend.errors import BuildError  # noqa: E402
from trt_backend_tf import freeze  # noqa: E402
from trt_backend_tf import trt_convert as trt  # noqa: E402
from trt_backend_tf.internals import load_v1_in_v2  # noqa: E402

LIMIT = 2000
"""Bytes of constants."""


@pytest.fixture(autouse=True)
def small_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freeze, "_MOST_CONSTANT_BYTES", LIMIT)


class _Model(tf.Module):
    """Weights that are multiplied, looked up and used in a loop, and a small one."""

    def __init__(self) -> None:
        super().__init__()
        random = tf.random.stateless_normal
        self.table = tf.Variable(random([100, 16], [1, 0]))
        self.kernel = tf.Variable(random([16, 32], [2, 0]))
        self.loop = tf.Variable(random([32, 32], [3, 0]) * 0.1)
        self.bias = tf.Variable(random([32], [4, 0]))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32, name="ids")])
    def serve(self, ids: Any) -> Any:
        x = tf.gather(self.table, ids)
        y = tf.nn.relu(tf.matmul(x, self.kernel) + self.bias)
        _, z = tf.while_loop(lambda i, _: i < 3, lambda i, z: (i + 1, tf.matmul(z, self.loop)), (0, y))
        return {"y": y, "z": z}


@pytest.fixture
def model(tmp_path: Path) -> _Model:
    made = _Model()
    tf.saved_model.save(made, str(tmp_path / "model"), signatures=made.serve)
    return made


IDS = np.array([3, 1, 4, 1, 5], np.int32)


def _assert_close(got: Any, expected: Any) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=1e-4, atol=1e-5)


def test_the_largest_weights_stay_variables(model: _Model, tmp_path: Path) -> None:
    converter = trt.TrtGraphConverterV2(str(tmp_path / "model"), minimum_segment_size=1)
    converted = converter.convert()
    expected = model.serve(IDS)
    _assert_close(converted(tf.constant(IDS)), expected)
    (region,) = trt_backend.report().regions
    assert (region.engine_calls, region.native_calls) == (1, 0)
    assert {"GatherV2", "MatMul"} <= {op for op, _ in region.members}
    assert {tuple(variable.shape) for variable in converted.variables} == {(100, 16), (16, 32), (32, 32)}
    assert converter._converted_graph_def.ByteSize() < LIMIT + 16_000
    converter.save(str(tmp_path / "out"))
    (tmp_path / "out").rename(tmp_path / "moved")
    loaded = tf.saved_model.load(str(tmp_path / "moved"))
    trt_backend.reset_report()
    _assert_close(loaded.signatures["serving_default"](ids=IDS), expected)
    (region,) = trt_backend.report().regions
    assert (region.engine_calls, region.native_calls) == (1, 0)


def test_they_are_frozen(model: _Model) -> None:
    converter = trt.TrtGraphConverterV2.from_function(model.serve, minimum_segment_size=1)
    converted = converter.convert()
    expected = {name: value.numpy() for name, value in model.serve(IDS).items()}
    model.kernel.assign(model.kernel * 2.0)
    model.table.scatter_nd_update([[3]], [tf.ones([16])])
    _assert_close(converted(tf.constant(IDS)), expected)


def test_engines_take_those_of_convolutions_for_constants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are read while the engine is built, and by no call after that, also in a process that loads the model."""
    looks: list[int] = []
    read = OnnxRuntimeProvider.read

    def counted(self: OnnxRuntimeProvider, address: int, byte_count: int) -> Any:
        looks.append(byte_count)
        return read(self, address, byte_count)

    monkeypatch.setattr(OnnxRuntimeProvider, "read", counted)
    kernel = tf.Variable(tf.random.stateless_normal([3, 3, 8, 16], [1, 0]))

    def convolve(x: Any) -> Any:
        return tf.nn.relu(tf.nn.conv2d(x, kernel, 1, "SAME")) * 2.0

    x = tf.random.stateless_normal([2, 6, 6, 8], [2, 0])
    converter = trt.TrtGraphConverterV2.from_function(
        convolve, [tf.TensorSpec([None, 6, 6, 8])], minimum_segment_size=1
    )
    converted = converter.convert()
    assert {tuple(variable.shape) for variable in converted.variables} == {tuple(kernel.shape)}
    converter.save(str(tmp_path / "out"))
    loaded = tf.saved_model.load(str(tmp_path / "out")).signatures["serving_default"]
    for function in (converted, loaded):
        looks.clear()
        (answer,) = tf.nest.flatten(function(x))
        np.testing.assert_allclose(answer, convolve(x), rtol=1e-4, atol=1e-5)
        assert set(looks) == {3 * 3 * 8 * 16 * 4}
        looks.clear()
        (answer,) = tf.nest.flatten(function(-x))
        np.testing.assert_allclose(answer, convolve(-x), rtol=1e-4, atol=1e-5)
        assert looks == []
    regions = trt_backend.report().regions
    assert [(region.engine_calls, region.native_calls) for region in regions] == [(2, 0)] * 2


def test_functions_inside_may_have_them(model: _Model) -> None:
    """A function that checks something is waited for, and waits for what it is given."""

    @tf.function
    def inner(ids: Any) -> Any:
        tf.debugging.assert_non_negative(ids)
        return model.serve(ids)

    converted = trt.TrtGraphConverterV2.from_function(
        lambda ids: {name: tf.identity(value) for name, value in inner(ids).items()},
        [tf.TensorSpec(IDS.shape, tf.dtypes.as_dtype(IDS.dtype), name="ids")],
        minimum_segment_size=1,
    ).convert()
    _assert_close(converted(tf.constant(IDS)), model.serve(IDS))


def test_native_runs_have_them_too(model: _Model, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise BuildError("no memory")

    monkeypatch.setattr(OnnxRuntimeProvider, "build", refuse)
    converter = trt.TrtGraphConverterV2.from_function(model.serve, minimum_segment_size=1)
    _assert_close(converter.convert()(tf.constant(IDS)), model.serve(IDS))
    assert [region.native_calls for region in trt_backend.report().regions] == [1]


def test_weights_that_cannot_stay_variables_are_refused(
    model: _Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = load_v1_in_v2.load(str(tmp_path / "model"), ["serve"], skip_restoring_checkpoint=False)
    monkeypatch.setattr(freeze, "_GRAPH_LIMIT_BYTES", LIMIT)
    with pytest.raises(ValueError, match=r"GiB of weights that would have to be constants .* ends at 2 GiB"):
        trt.TrtGraphConverterV2.from_function(function.signatures["serving_default"]).convert()
