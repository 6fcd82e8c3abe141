"""What segments take from TensorFlow: its kernels where no engine runs, over the memory of the call; its number of threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

tf = pytest.importorskip("tensorflow")

import numpy as np  # noqa: E402
from tf_checks import assert_close  # noqa: E402

import trt_backend  # noqa: E402
from trt_backend.engine.onnxruntime import OnnxRuntimeProvider  # noqa: E402
from trt_backend.errors import BuildError, ReasonKind  # noqa: E402
from trt_backend.ir.graph import Graph  # noqa: E402
from trt_backend.ir.text import parse_graph  # noqa: E402
from trt_backend_tf import trt_convert as trt  # noqa: E402


def _refuse(*_: object) -> None:
    raise BuildError("refused by the test")


def _aligned(dtype: str) -> Any:
    return tf.cast(tf.random.stateless_uniform([4, 6], [1, 0]) * 4, dtype)


def _unaligned() -> Any:
    """Return a tensor over memory where TensorFlow's kernels would abort the process if they were given it as it is."""
    memory = np.arange(64 + 24, dtype=np.float32)
    start = (-memory.ctypes.data % 64) // 4 + 1
    return tf.experimental.dlpack.from_dlpack(memory[start : start + 24].reshape(4, 6).__dlpack__())


INPUTS = {
    **{dtype: lambda dtype=dtype: _aligned(dtype) for dtype in ("float32", "bfloat16", "int32", "bool")},
    "empty": lambda: tf.zeros([0, 6]),
    "unaligned": _unaligned,
}


@pytest.mark.parametrize("name", INPUTS)
def test_native_runs_take_any_input(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnnxRuntimeProvider, "build", _refuse)
    x = INPUTS[name]()

    def function(x: Any) -> Any:
        return tf.concat([tf.reverse(x, [0]), x], 1), tf.identity(tf.reshape(x, [-1]))

    converted = trt.TrtGraphConverterV2.from_function(
        function, [tf.TensorSpec([None, 6], x.dtype)], minimum_segment_size=1
    ).convert()
    kept = tf.identity(x).numpy().copy()
    assert_close(tf.nest.flatten(converted(x)), tf.nest.flatten(function(tf.constant(kept))))
    np.testing.assert_array_equal(x.numpy(), kept)  # nothing was written there
    assert [region.native_calls for region in trt_backend.report().regions] == [1]


@pytest.mark.wrong_answers
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_an_engine_that_is_wrong_is_given_up(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build: Any = OnnxRuntimeProvider.build

    def build_another(self: Any, graph: Graph, *rest: Any) -> bytes:
        assert "kind=sum" in str(graph)
        return build(self, parse_graph(str(graph).replace("kind=sum", "kind=prod")), *rest)

    def function(x: Any) -> Any:
        y = x + tf.abs(x)
        return tf.argmax(y, 1), tf.nn.relu(y), tf.tanh(x) * x

    monkeypatch.setattr(OnnxRuntimeProvider, "build", build_another)
    x = _aligned(dtype)
    converted = trt.TrtGraphConverterV2.from_function(
        function, [tf.TensorSpec([None, 6], x.dtype)], minimum_segment_size=1
    ).convert()
    for _ in range(2):
        assert_close(tf.nest.flatten(converted(x)), tf.nest.flatten(function(x)))
    (region,) = trt_backend.report().regions
    assert (region.engine_calls, region.native_calls) == (0, 2)
    assert region.reason is not None
    assert region.reason.kind is ReasonKind.WRONG_ANSWER


def test_gradients_are_native(tmp_path: Path) -> None:
    weights = tf.random.stateless_normal([6, 3], [1, 2])

    def function(x: Any, y: Any) -> Any:
        z = tf.nn.softmax(tf.tanh(x) @ weights) * y
        return {"z": z, "largest": tf.argmax(z * 2.0, 1), "cut": tf.stop_gradient(z) + 1.0}

    converter = trt.TrtGraphConverterV2.from_function(
        function,
        [tf.TensorSpec([None, 6], name="x"), tf.TensorSpec([None, 3], name="y")],
        minimum_segment_size=1,
    )
    converted = converter.convert()
    converter.save(str(tmp_path / "converted"))
    loaded = tf.saved_model.load(str(tmp_path / "converted"))
    x, y = (tf.random.stateless_normal(shape, [3, 4]) for shape in ([5, 6], [5, 3]))

    def gradients(called: Any) -> Any:
        with tf.GradientTape() as outer:
            outer.watch((x, y))
            with tf.GradientTape() as tape:
                tape.watch((x, y))
                result = called(x=x, y=y)
                loss = tf.reduce_sum(result["z"] ** 2 + result["cut"])
            first = tape.gradient(loss, (x, y))
        return first, outer.gradient(first, (x, y))

    for called in (converted, loaded.signatures["serving_default"]):
        assert_close(gradients(called), gradients(function))
    assert [(region.engine_calls, region.native_calls) for region in trt_backend.report().regions] == [
        (1, 0)
    ] * 2


def _stop_in_a_branch(x: Any) -> Any:
    return tf.cond(tf.reduce_sum(x) > -1e9, lambda: tf.stop_gradient(tf.tanh(x) * 2.0) * x, lambda: x)


def _stop_in_a_loop(x: Any) -> Any:
    """The loop's body has it in a function of its own."""
    stop = tf.function(lambda y: tf.stop_gradient(tf.tanh(y) * 2.0))
    return tf.while_loop(lambda i, _: i < 2, lambda i, y: (i + 1, stop(y) * y), (0, x), maximum_iterations=2)[
        1
    ]


@pytest.mark.parametrize("function", [_stop_in_a_branch, _stop_in_a_loop])
def test_gradients_stop_in_branches_and_loops(function: Any) -> None:
    x = tf.constant([0.3, -0.2, 0.5])
    converted = trt.TrtGraphConverterV2.from_function(function, [tf.TensorSpec([3])]).convert()
    assert_close(_gradient(converted, x), _gradient(function, x))


def test_gradients_of_functions_that_stay_compiled(tmp_path: Path) -> None:
    inner = tf.function(lambda x: tf.sin(x) * x, jit_compile=True)
    compiled = tf.function(lambda x: inner(x + 1.0) - x, jit_compile=True)

    def function(x: Any) -> Any:
        return tf.exp(compiled(x + 1.0)) * 2.0

    x = tf.constant([0.3, -0.2, 0.5])
    converter = trt.TrtGraphConverterV2.from_function(function, [tf.TensorSpec([3], name="x")])
    converted = converter.convert()
    converter.save(str(tmp_path / "converted"))
    loaded = tf.saved_model.load(str(tmp_path / "converted")).signatures["serving_default"]
    for called in (converted, lambda x: loaded(x=x)):
        assert_close(_gradient(called, x), _gradient(function, x))
        assert_close(
            _gradient(lambda x, f=called: _gradient(f, x), x), _gradient(lambda x: _gradient(function, x), x)
        )


def test_a_function_is_converted_after_its_second_derivatives() -> None:
    function = tf.function(lambda x: tf.nn.softmax(tf.tanh(x) * 2.0), [tf.TensorSpec([3])])
    x = tf.constant([0.3, -0.2, 0.5])
    _gradient(lambda x: _gradient(function, x), x)
    converted = trt.TrtGraphConverterV2.from_function(function).convert()
    assert_close(tf.nest.flatten(converted(x)), [function(x)])


def _gradient(function: Any, x: Any) -> Any:
    with tf.GradientTape() as tape:
        tape.watch(x)
        (y,) = tf.nest.flatten(function(x))
    return tape.gradient(y, x)


def test_engines_use_as_many_threads_as_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime would bind threads whose number it chooses itself to cores."""
    seen: list[int | None] = []
    load = OnnxRuntimeProvider.load

    def noted(self: OnnxRuntimeProvider, blob: bytes, graph: Any, options: Any) -> Any:
        seen.append(options.threads)
        return load(self, blob, graph, options)

    monkeypatch.setattr(OnnxRuntimeProvider, "load", noted)
    monkeypatch.setattr(tf.config.threading, "get_intra_op_parallelism_threads", lambda: 3)
    converted = trt.TrtGraphConverterV2.from_function(
        lambda x: x * 2.0 + 1.0, [tf.TensorSpec([4])], minimum_segment_size=1
    ).convert()
    converted(tf.zeros([4]))
    assert seen == [3]
    assert [region.engine_calls for region in trt_backend.report().regions] == [1]
