"""Branches and loops that are edges of a graph, as TensorFlow 1 writes them, and TensorFlow 2 for `tf.switch_case`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tf_checks import assert_close, convert_function

from trt_backend_tf import trt_convert

tf1 = tf.compat.v1
THREE = tf.TensorSpec([3], tf.float32)
INDEX = tf.TensorSpec([], tf.int32)


def _one_of(x: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    y = tf.exp(x) * 2.0
    return tf.switch_case(index, [lambda: x * 2.0, lambda: tf.sin(y)]) + tf.cos(y)


def _one_inside_another(x: tf.Tensor, index: tf.Tensor) -> tf.Tensor:
    def inner() -> tf.Tensor:
        return tf.switch_case(index - 1, [lambda: tf.sin(x) + 3.0, lambda: tf.cos(x) * 2.0]) - x

    return tf.exp(tf.switch_case(index, [lambda: x * 2.0, inner])) + 1.0


@pytest.mark.parametrize("index", [0, 1, 2, 7, -1])
@pytest.mark.parametrize("function", [_one_of, _one_inside_another])
def test_a_switch_takes_one_branch(function: Callable[..., Any], index: int) -> None:
    concrete, conversion = convert_function(function, [THREE, INDEX], strict=False)
    given = tf.constant([0.5, -1.0, 2.0]), tf.constant(index)
    assert_close(conversion.function(*given), concrete(*given))
    assert sum(region.engine_calls for region in conversion.record.regions) >= 1
    assert not any("bug" in str(reason) for reason in conversion.record.native)


def _branch(x: tf.Tensor) -> tf.Tensor:
    return tf1.cond(tf.reduce_sum(x) > 0, lambda: x * 2.0, lambda: tf.exp(x)) + 1.0


def _case(x: tf.Tensor) -> tf.Tensor:
    pairs = [(x[0] > 2.0, lambda: x * 2.0), (x[0] > 1.0, lambda: x - 1.0)]
    return tf1.case(pairs, default=lambda: tf.exp(x)) * 3.0


def _loop(x: tf.Tensor) -> tf.Tensor:
    return tf1.while_loop(lambda i, a: i < 3, lambda i, a: (i + 1, a * 2.0 + 1.0), [0, tf.sin(x)])[1] + 1.0


def _loop_in_a_loop(x: tf.Tensor) -> tf.Tensor:
    def body(i: Any, a: Any) -> tuple[Any, Any]:
        return i + 1, tf1.while_loop(lambda j, b: j < i, lambda j, b: (j + 1, b + x), [0, a])[1]

    return tf.exp(tf1.while_loop(lambda i, a: i < 4, body, [0, x * 0.5])[1] * 0.1)


@pytest.mark.parametrize("function", [_branch, _case, _loop, _loop_in_a_loop])
def test_models_of_tensorflow_1(function: Callable[..., Any], tmp_path: Path) -> None:
    tf1.disable_control_flow_v2()
    try:
        with tf.Graph().as_default() as graph:
            x = tf1.placeholder(tf.float32, [3], name="x")
            y = tf.identity(function(x), name="y")
            with tf1.Session(graph=graph) as session:
                tf1.saved_model.simple_save(session, str(tmp_path / "model"), {"x": x}, {"y": y})
    finally:
        tf1.enable_control_flow_v2()
    converter = trt_convert.TrtGraphConverterV2(str(tmp_path / "model"), minimum_segment_size=1)
    converted = converter.convert()
    native = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    for values in ([1.0, 2.0, 3.0], [-1.0, -2.0, -3.0], [3.0, 0.0, 1.0], [1.5, 0.0, 0.0]):
        given = tf.constant(values)
        assert_close(converted(x=given), native(x=given))
    assert "TRTEngineOp" in {op.type for op in converted.graph.get_operations()}
