"""Calls whose sizes an engine does not take as TensorFlow does: empty parts, sizes that must agree, ends that must fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

tf = pytest.importorskip("tensorflow")

from tf_checks import assert_close, convert_function  # noqa: E402

from trt_backend.errors import ReasonKind  # noqa: E402

RAW = tf.raw_ops

Sizes = tuple[int, ...]

EMPTY: dict[str, Callable[..., Any]] = {
    "mean": lambda x: tf.reduce_mean(x[1:]) + x,
    "max": lambda x: tf.reduce_max(x[1:]) + x,
    "sum over size": lambda x: tf.reduce_sum(x[1:-1]) / tf.cast(tf.size(x[1:-1]), tf.float32) + x,
    "size": lambda x: tf.cast(tf.shape(x[1:-1])[0], tf.float32) * x,
}
REFUSED: dict[str, tuple[Callable[..., Any], Sequence[Sizes], Sequence[Sizes]]] = {
    "AddN": (lambda x, y: RAW.AddN(inputs=[x, y]), [(3,), (3,)], [(1,), (3,)]),
    "BiasAdd": (lambda x, y: RAW.BiasAdd(value=x, bias=y), [(2, 3), (3,)], [(2, 1), (3,)]),
    "BiasAdd, length 1": (lambda x, y: RAW.BiasAdd(value=x, bias=y), [(2, 3), (3,)], [(2, 3), (1,)]),
    "ClipByValue": (
        lambda x, y: RAW.ClipByValue(t=x, clip_value_min=y, clip_value_max=y + 1.0),
        [(3,), (3,)],
        [(1,), (3,)],
    ),
    "Select": (lambda x, y: RAW.Select(condition=x > 0.0, x=x, y=y), [(3,), (3,)], [(3,), (1,)]),
    "Select, condition": (
        lambda x, y: RAW.Select(condition=x > 0.0, x=y, y=2.0 * y),
        [(3,), (3,)],
        [(1,), (3,)],
    ),
    "Slice": (lambda x: tf.reduce_sum(tf.slice(x, [2], [3])) * x, [(6,)], [(4,)]),
    "SplitV": (lambda x: RAW.SplitV(value=x, size_splits=[1, 2], axis=0, num_split=2), [(3,)], [(4,)]),
    "Unpack": (lambda x: RAW.Unpack(value=x, num=2), [(2, 3)], [(3, 3)]),
    "MatrixBandPart": (
        lambda x: RAW.MatrixBandPart(input=x, num_lower=2, num_upper=0),
        [(3, 3)],
        [(1, 3)],
    ),
    "Conv2DBackpropInput": (
        lambda x: tf.nn.conv2d_transpose(
            tf.reshape(x, [*tf.unstack(tf.shape(x)[:3]), 4]),
            tf.ones([3, 3, 2, 4]),
            [2, 2 * tf.shape(x)[1], 2 * tf.shape(x)[2], 2],
            2,
            "SAME",
        ),
        [(2, 5, 6, 4)],
        [(3, 5, 6, 4)],
    ),
    "Einsum": (lambda x, y: tf.einsum("ij,jk->ik", x, y), [(2, 3), (3, 2)], [(2, 1), (3, 2)]),
}


def converted(function: Callable[..., Any], given: Sequence[Sizes]) -> tuple[Any, Any, Any]:
    """The concrete function with unknown sizes, what it becomes, and the record of its one region, which ran once."""
    concrete, conversion = convert_function(function, [tf.TensorSpec([None] * len(s)) for s in given])
    inputs = [tf.random.stateless_uniform(sizes, (1, 2)) for sizes in given]
    assert_close(conversion.function(*inputs), concrete(*inputs))
    (region,) = conversion.record.regions
    assert (region.engine_calls, region.native_calls) == (1, 0)
    return concrete, conversion.function, region


@pytest.mark.parametrize("name", EMPTY)
def test_parts_without_elements(name: str) -> None:
    concrete, function, region = converted(EMPTY[name], [(4,)])
    x = tf.constant([3.0])
    assert_close(function(x), concrete(x))
    assert (region.engine_calls, region.native_calls) == (1, 1)


@pytest.mark.parametrize("name", REFUSED)
def test_sizes_that_tensorflow_refuses(name: str) -> None:
    function, given, refused = REFUSED[name]
    concrete, ours, region = converted(function, given)
    wrong = [tf.ones(sizes) for sizes in refused]
    for called in (concrete, ours):
        with pytest.raises(
            (tf.errors.InvalidArgumentError, tf.errors.AbortedError)
        ):  # the latter is oneDNN's
            called(*wrong)
    right = [tf.ones(sizes) for sizes in given]
    assert_close(ours(*right), concrete(*right))
    assert (region.engine_calls, region.reason) == (2, None)


def test_batches_of_an_einsum_that_broadcast() -> None:
    def function(x: object, y: object) -> object:
        return tf.einsum("...ij,...jk->...ik", x, y)

    concrete, ours, region = converted(function, [(2, 3, 4), (2, 4, 5)])
    x, y = tf.ones([1, 3, 4]), tf.ones([6, 4, 5])
    assert_close(ours(x, y), concrete(x, y))
    assert (region.engine_calls, region.native_calls) == (1, 1)


def test_indices_into_a_shape_that_are_out_of_it() -> None:
    concrete, conversion = convert_function(
        lambda x: (tf.gather(tf.shape(x), [-1]) * 2, x + 1.0), [tf.TensorSpec([None, 2])], strict=False
    )
    for called in (concrete, conversion.function):
        with pytest.raises(tf.errors.InvalidArgumentError):
            called(tf.ones([3, 2]))


def test_a_size_divided_by_zero() -> None:
    concrete, conversion = convert_function(lambda x: (tf.shape(x)[0] // 0, x + 1.0), [tf.TensorSpec([None])])
    for called in (concrete, conversion.function):
        with pytest.raises(tf.errors.InvalidArgumentError):
            called(tf.ones([3]))


@pytest.mark.parametrize(
    ("function", "calls"),
    [
        (lambda x, y: tf.reduce_sum(y[-tf.shape(x)[0] :] * 2.0), [(7, 5), (5, 7), (5, 5), (1, 5)]),
        (lambda x, y: tf.reduce_sum(y[-tf.shape(x)[0] : -1] * 2.0), [(7, 5), (5, 7), (2, 5)]),
        (lambda x, y: y[-tf.shape(x)[0] :] * 2.0, [(5, 2), (2, 5)]),
        (lambda x, y: tf.reduce_sum(y[-tf.shape(x)[0]] * 2.0), [(7, 5), (5, 5), (2, 5)]),
        (lambda x, y: tf.reduce_sum(tf.slice(y, [tf.shape(x)[0] - 5], [-1]) * 2.0), [(3, 4), (7, 4), (9, 4)]),
        (lambda x, y: tf.reduce_sum(tf.broadcast_to(y * 2.0, [tf.shape(x)[0]])), [(1, 3), (3, 3), (4, 1)]),
        (lambda x, y: y * tf.cast((tf.shape(x)[0] * 1103515245) % 100, tf.float32), [(7, 2), (3, 2)]),
        (
            lambda x, y: (
                y * tf.cast(tf.cast(tf.shape(x, tf.int64)[0] + 3000000000, tf.int32) // 2, tf.float32)
            ),
            [(1, 2), (7, 2)],
        ),
    ],
)
def test_a_size_may_be_any(function: Any, calls: list[tuple[int, int]]) -> None:
    """Also what TensorFlow refuses, and what wraps around."""
    vector = tf.TensorSpec([None], tf.float32)
    concrete, conversion = convert_function(function, [vector, vector], strict=False)
    for n, m in calls:
        given = tf.range(1.0, n + 1), tf.range(1.0, m + 1)
        try:
            wanted = concrete(*given)
        except tf.errors.InvalidArgumentError:
            with pytest.raises(tf.errors.InvalidArgumentError):
                conversion.function(*given)
        else:
            assert_close(conversion.function(*given), wanted)
    assert sum(region.engine_calls for region in conversion.record.regions) >= 1


def test_calls_that_tensorflow_refuses() -> None:
    cases: list[tuple[Any, list[Any], list[Any]]] = [
        (lambda x: tf.reduce_sum(tf.squeeze(x, 0) * 2.0), [tf.TensorSpec([None, None])], [tf.ones([3, 1])]),
        (lambda x: tf.reduce_sum(x[-5] * 2.0), [tf.TensorSpec([None, None])], [tf.ones([3, 2])]),
        (
            lambda x, i: tf.gather(x * 2.0, i, batch_dims=2),
            [tf.TensorSpec([None] * 3), tf.TensorSpec([None] * 2, tf.int32)],
            [tf.ones([3, 2, 5]), tf.zeros([2, 3], tf.int32)],
        ),
    ]
    for function, specs, given in cases:
        _, conversion = convert_function(function, specs, strict=False)
        assert conversion.record.regions
        with pytest.raises(tf.errors.InvalidArgumentError):
            conversion.function(*given)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: tf.reshape(x, [tf.shape(x)[0], 1, -1]) + tf.ones([6]),
        lambda x: tf.reshape(x, [tf.shape(x)[0], -1]) @ tf.ones([6, 2]),
    ],
)
def test_sizes_that_never_fit(function: Any) -> None:
    """We know them, and TensorFlow does not before the call."""
    _, conversion = convert_function(lambda x: (function(x), x * 2.0), [tf.TensorSpec([None, 4])])
    assert [(r.kind, r.detail[:23]) for r in conversion.record.native] == [
        (ReasonKind.UNSUPPORTED, "TensorFlow may refuse t")
    ]
    assert len(conversion.record.regions) >= 1
    with pytest.raises(tf.errors.InvalidArgumentError):
        conversion.function(tf.ones([3, 4]))
