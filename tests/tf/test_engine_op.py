"""The kernels of `TRTEngineOp` in a process that loads models, one after the other."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from fresh_process import run_script
from tf_checks import convert_function

import trt_backend
from trt_backend_tf import engine_op
from trt_backend_tf import trt_convert as trt
from trt_backend_tf.internals import eager_context


def test_loading_again_and_again_leaves_nothing_behind(tmp_path: Path) -> None:
    """TensorFlow would keep the functions of each for ever, for the sake of TF-TRT."""
    converter = trt.TrtGraphConverterV2.from_function(
        tf.function(lambda x: tf.nn.relu(x @ tf.ones((4, 4))) @ tf.ones((4, 3))),
        [tf.TensorSpec([None, 4], tf.float32)],
        minimum_segment_size=1,
    )
    converter.convert()
    converter.save(str(tmp_path / "converted"))
    left = []
    for _ in range(4):
        model = tf.saved_model.load(str(tmp_path / "converted"))
        segments = len(engine_op._segments)
        model.signatures["serving_default"](tf.ones((2, 4)))
        assert len(engine_op._segments) == segments + 1
        del model
        left.append(_left())
    assert len(set(left[1:])) == 1, left


def _left() -> tuple[int, int, int]:
    """Return how many functions, kernels and segments there are, when what nobody needs is gone."""
    gc.collect()
    engine_op._forget_removed()
    gc.collect()
    functions = len(eager_context.context().list_function_names())
    return functions, len(engine_op._kernels), len(engine_op._segments)


def _converted_with_a_branch() -> Any:
    def function(x: Any) -> Any:
        y = tf.nn.relu(x * 2.0 + 1.0)
        return tf.cond(tf.reduce_sum(y) > 0.0, lambda: y @ tf.ones([4, 4]), lambda: tf.exp(y)) + 1.0

    spec = tf.TensorSpec([None, 4])
    return trt.TrtGraphConverterV2.from_function(function, [spec], minimum_segment_size=1).convert()


def test_converting_again_and_again_leaves_nothing_behind() -> None:
    left = []
    for _ in range(4):
        converted = _converted_with_a_branch()
        converted(tf.ones([2, 4]))
        del converted
        left.append(_left())
    assert len(set(left[1:])) == 1, left


def test_what_calls_a_converted_function_keeps_it() -> None:
    x = tf.ones([2, 4])

    def callers(converted: Any) -> tuple[Any, Any, Any]:
        outer = tf.function(lambda x: converted(x) * 2.0).get_concrete_function(tf.TensorSpec([None, 4]))
        images = iter(tf.data.Dataset.from_tensors(x).repeat().map(converted))
        return outer, images, converted(x)

    outer, images, wanted = callers(_converted_with_a_branch())
    for _ in range(2):
        gc.collect()
        engine_op._forget_removed()
        np.testing.assert_array_equal(outer(x), wanted * 2.0)
        np.testing.assert_array_equal(next(images), wanted)
    assert all(region.engine_calls > 4 for region in trt_backend.report().regions)
    assert not any(region.native_calls for region in trt_backend.report().regions)


def test_another_models_segment_of_the_same_name_is_refused() -> None:
    """Every process names its first conversion's functions alike, and graphs that are not loaded eagerly keep names."""
    _, conversion = convert_function(lambda x: tf.nn.relu(x * 2 + 1), [tf.TensorSpec([None, 3])])
    conversion.function(tf.ones([2, 3]))
    (node,) = (node for node in conversion.graph_def.node if node.op == "TRTEngineOp")
    assert engine_op._segment_of(node) is conversion.engines[0]
    foreign = type(node).FromString(node.SerializeToString())
    foreign.attr[engine_op._GRAPH].s = b"of another process"
    with pytest.raises(RuntimeError, match="another model's"):
        engine_op._segment_of(foreign)


_END_WHILE_AN_ITERATOR_CALLS_AHEAD = """
import tensorflow as tf
import trt_backend
from trt_backend_tf import trt_convert as trt

converter = trt.TrtGraphConverterV2.from_function(lambda x: tf.nn.relu(x * 2.0 + 1.0), [tf.TensorSpec([None, 4])])
converted = converter.convert()
images = tf.data.Dataset.from_tensors(tf.ones([8, 4])).repeat().map(converted, num_parallel_calls=8).prefetch(100)
iterator = iter(images)
next(iterator)
print(trt_backend.report().regions[0].engine_calls > 0)
"""


def test_a_process_ends_while_an_iterator_calls_ahead() -> None:
    assert run_script(_END_WHILE_AN_ITERATOR_CALLS_AHEAD).strip() == "True"
