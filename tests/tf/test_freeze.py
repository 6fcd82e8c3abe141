"""Freezing: what is inlined, so that engines see it."""

from __future__ import annotations

from typing import Any

import pytest

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

import numpy as np  # noqa: E402

import trt_backend  # noqa: E402
from trt_backend_tf import trt_convert as trt  # noqa: E402


def _resnext() -> Any:
    """Two blocks with grouped convolutions, which Keras has XLA compile."""
    layers = keras.layers
    image = keras.Input((16, 16, 16))
    x = image
    for _ in range(2):
        y = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(32, 1, use_bias=False)(x)))
        y = layers.Conv2D(32, 3, groups=8, padding="same", use_bias=False)(y)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        x = layers.ReLU()(x + layers.BatchNormalization()(layers.Conv2D(16, 1)(y)))
    return keras.Model(image, layers.GlobalAveragePooling2D()(x))


def test_grouped_convolutions_of_keras_are_in_the_engine() -> None:
    keras.utils.set_random_seed(0)
    model = _resnext()
    converted = trt.TrtGraphConverterV2.from_keras(model).convert()
    images = np.random.default_rng(0).random((3, 16, 16, 16), np.float32)
    (answer,) = tf.nest.flatten(converted(tf.constant(images)))
    np.testing.assert_allclose(answer, model(images), rtol=1e-4, atol=1e-5)
    report = trt_backend.report()
    assert [(region.engine_calls, region.native_calls) for region in report.regions] == [(1, 0)]
    assert sum(op == "Conv2D" for op, _ in report.regions[0].members) == 6
    assert report.to_dict()["ops_in_engines"] == report.to_dict()["ops_total"]


def test_what_only_xla_can_run_stays_compiled() -> None:
    """TensorFlow's kernel of Conv3D has no NCDHW on the CPU; natively it must stay in the function that XLA compiles."""
    kernel = tf.random.stateless_normal([2, 2, 2, 3, 4], [1, 0])

    @tf.function(jit_compile=True)
    def convolve(x: Any) -> Any:
        return tf.nn.conv3d(x, kernel, [1] * 5, "VALID", data_format="NCDHW")

    def whole(x: Any) -> Any:
        return tf.nn.relu(convolve(x + 1.0) * 2.0 - 1.0) + x[:, :1, 1:, 1:, 1:]

    x = tf.random.stateless_normal([2, 3, 5, 5, 5], [2, 0])
    converted = trt.TrtGraphConverterV2.from_function(
        whole, [tf.TensorSpec(x.shape)], minimum_segment_size=1
    ).convert()
    (answer,) = tf.nest.flatten(converted(x))
    np.testing.assert_allclose(answer, whole(x), rtol=1e-4, atol=1e-5)
    assert [reason.op for reason, _ in trt_backend.report().native_ops()] == ["PartitionedCall"]
    assert all(region.engine_calls == 1 for region in trt_backend.report().regions)


COMPUTED_OTHERWISE: dict[str, Any] = {
    "random numbers": lambda x: tf.random.stateless_uniform([3], [1, 2]) * x,
    "cast out of range": lambda x: tf.cast(tf.cast(x * 1e10, tf.int32), tf.float32),
    "index out of range": lambda x: tf.gather(x, tf.cast(x, tf.int32)),
    "division by zero": lambda x: tf.cast(7 // tf.cast(x - 2.0, tf.int32), tf.float32),
    "check": lambda x: tf.debugging.check_numerics(tf.math.log(-x), "is ignored"),
}


@pytest.mark.parametrize("name", COMPUTED_OTHERWISE)
def test_what_xla_computes_otherwise_stays_compiled(name: str) -> None:
    compiled = tf.function(COMPUTED_OTHERWISE[name], jit_compile=True)

    def whole(x: Any) -> Any:
        return compiled(x + 1.0) * 2.0

    x = tf.constant([-2.0, 1.0, 7.0])
    converted = trt.TrtGraphConverterV2.from_function(
        whole, [tf.TensorSpec(x.shape)], minimum_segment_size=1
    ).convert()
    (answer,) = tf.nest.flatten(converted(x))
    np.testing.assert_array_equal(answer, whole(x))
    assert all(reason.op.endswith("PartitionedCall") for reason, _ in trt_backend.report().native_ops())
    assert [region.engine_calls for region in trt_backend.report().regions] == [1, 1]


INLINED = {
    "not compiled": tf.function(lambda x: tf.exp(x) * 3.0, jit_compile=False),
    "as in XLA": tf.function(lambda x: tf.nn.elu(x) * 3.0, jit_compile=True),
}


@pytest.mark.parametrize("name", INLINED)
def test_what_needs_no_compilation_is_inlined(name: str) -> None:
    plain = INLINED[name]
    x = tf.constant([-2.0, 1.0, 7.0])
    converted = trt.TrtGraphConverterV2.from_function(
        lambda x: plain(x) + 1.0, [tf.TensorSpec(x.shape)], minimum_segment_size=1
    ).convert()
    (answer,) = tf.nest.flatten(converted(x))
    np.testing.assert_allclose(answer, plain(x) + 1.0, rtol=1e-5)
    assert [(region.engine_calls, region.ops) for region in trt_backend.report().regions] == [(1, 3)]


@pytest.mark.parametrize("name", COMPUTED_OTHERWISE)
def test_a_whole_function_that_xla_computes_otherwise_is_refused(name: str) -> None:
    compiled = tf.function(COMPUTED_OTHERWISE[name], [tf.TensorSpec([3])], jit_compile=True)
    with pytest.raises(ValueError, match=r"has jit_compile=True, .* convert it without jit_compile"):
        trt.TrtGraphConverterV2.from_function(compiled).convert()


def test_a_whole_function_that_xla_computes_alike_is_converted() -> None:
    weights = tf.Variable(tf.random.stateless_normal([3, 4], [1, 0]))
    compiled = tf.function(lambda x: tf.nn.relu(x @ weights) * 2.0, [tf.TensorSpec([2, 3])], jit_compile=True)
    converted = trt.TrtGraphConverterV2.from_function(compiled, minimum_segment_size=1).convert()
    x = tf.random.stateless_normal([2, 3], [2, 0])
    (answer,) = tf.nest.flatten(converted(x))
    np.testing.assert_allclose(answer, compiled(x), rtol=1e-5)
    assert [(region.engine_calls, region.ops) for region in trt_backend.report().regions] == [(1, 3)]
