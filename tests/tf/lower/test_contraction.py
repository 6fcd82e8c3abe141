"""Matrix products, convolutions, normalization and pooling against TensorFlow."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from tf_checks import arrays, check, check_native, convert_function  # noqa: E402

RAW = tf.raw_ops


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("a", [False, True])
@pytest.mark.parametrize("b", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_matmul(a: bool, b: bool, dtype: str, dynamic: bool) -> None:
    x, y = arrays([(4, 3) if a else (3, 4), (5, 4) if b else (4, 5)], dtype)
    check(lambda x, y: tf.matmul(x, y, transpose_a=a, transpose_b=b), x, y, dynamic=dynamic)


@pytest.mark.parametrize(
    "shapes", [[(2, 3, 4), (2, 4, 5)], [(7, 2, 3, 4), (1, 2, 4, 5)], [(2, 3, 4), (4, 5)]]
)
@pytest.mark.parametrize("adjoint", [False, True])
def test_batch_matmul(shapes: list[tuple[int, ...]], adjoint: bool) -> None:
    x, y = arrays(shapes)
    y = tf.linalg.matrix_transpose(y) if adjoint else y
    check(lambda x, y: RAW.BatchMatMulV2(x=x, y=y, adj_y=adjoint), x, y)
    check(lambda x, y: RAW.BatchMatMulV3(x=x, y=y, adj_y=adjoint, Tout=tf.float32), x, y)


@pytest.mark.parametrize("dtypes", [("int8", "int8"), ("uint8", "int8"), ("uint8", "uint8")])
def test_batch_matmul_of_8_bits(dtypes: tuple[str, str]) -> None:
    """As Keras' `quantize("int8")` multiplies."""
    x, y = (tf.cast(tf.range(70, 82), dtype) for dtype in dtypes)
    x, y = tf.reshape(x, [1, 3, 4]), tf.reshape(y, [1, 4, 3])
    check(lambda x, y: 2 * RAW.BatchMatMulV3(x=x, y=y, Tout=tf.int32), x, y)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,jk->ik", [(3, 4), (4, 5)]),
        ("abc,cde->abde", [(2, 3, 4), (4, 5, 6)]),
        ("aecd,abcd->acbe", [(2, 5, 3, 4), (2, 6, 3, 4)]),
        ("acbe,aecd->abcd", [(2, 3, 6, 5), (2, 5, 3, 4)]),
        ("abcd,cde->abe", [(2, 3, 4, 5), (4, 5, 6)]),
        ("ijk->kij", [(2, 3, 4)]),
        ("ijk->ik", [(2, 3, 4)]),
        ("i,j->ij", [(3,), (4,)]),
        ("bij,bij->b", [(2, 3, 4), (2, 3, 4)]),
        ("...x,xy->...y", [(2, 3, 4), (4, 5)]),
        ("ab...,bc->ac...", [(2, 3, 4), (3, 5)]),
        ("...ij,...jk->...ik", [(2, 3, 4), (2, 4, 5)]),
    ],
)
@pytest.mark.parametrize("dynamic", [False, True])
def test_einsum(equation: str, shapes: list[tuple[int, ...]], dynamic: bool) -> None:
    check(lambda *xs: RAW.Einsum(inputs=xs, equation=equation), *arrays(shapes), dynamic=dynamic)


def test_einsum_that_broadcasts_is_native() -> None:
    check_native(
        lambda x, y: RAW.Einsum(inputs=[x, y], equation="...ij,...jk->...ik"),
        *arrays([(2, 3, 4), (1, 4, 5)]),
        because="broadcast",
    )


@pytest.mark.parametrize("padding", ["SAME", "VALID", "EXPLICIT"])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize("window", [(3, 3), (1, 1), (2, 4)])
def test_conv2d(padding: str, strides: tuple[int, int], window: tuple[int, int]) -> None:
    x, kernel = arrays([(2, 9, 10, 4), (*window, 4, 6)])
    given = [[0, 0], [1, 2], [0, 1], [0, 0]] if padding == "EXPLICIT" else padding
    check(lambda x, k: tf.nn.conv2d(x, k, strides, given), x, kernel)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_conv2d_dtypes(dtype: str) -> None:
    inputs = arrays([(2, 6, 6, 3), (3, 3, 3, 4)], dtype, low=-1, high=1)
    if dtype == "float64":
        check_native(lambda x, k: tf.nn.conv2d(x, k, 1, "SAME"), *inputs, because="ONNX Runtime on CPU takes")
    else:
        check(lambda x, k: tf.nn.conv2d(x, k, 1, "SAME"), *inputs)


def test_conv2d_dilated_and_grouped() -> None:
    x, kernel = arrays([(2, 12, 11, 4), (3, 3, 4, 6)])
    check(lambda x, k: tf.nn.conv2d(x, k, 1, "SAME", dilations=2), x, kernel)


def test_conv2d_dynamic() -> None:
    x, kernel = arrays([(2, 9, 10, 4), (3, 3, 4, 6)])
    (other,) = arrays([(1, 5, 7, 4)], seed=3)
    check(
        lambda x: tf.nn.conv2d(tf.reshape(x, [-1, tf.shape(x)[1], tf.shape(x)[2], 4]), kernel, 1, "SAME"),
        x,
        dynamic=True,
        more=[(other,)],
    )


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("window", [1, 2, 3, 5])
def test_same_padding_that_depends_on_the_call(stride: int, window: int) -> None:
    kernel, depth = arrays([(window, window, 3, 4), (window, window, 4, 1)], low=-0.1, high=0.1)

    def function(x: tf.Tensor) -> tf.Tensor:
        image = tf.reshape(x, [-1, tf.shape(x)[1], tf.shape(x)[2], 3])
        y = tf.nn.conv2d(image, kernel, stride, "SAME")
        y = tf.nn.depthwise_conv2d(y, depth, [1, stride, stride, 1], "SAME")
        return tf.nn.max_pool2d(y - 1.0, window, stride, "SAME")

    inputs = [arrays([(2, height, width, 3)])[0] for height, width in ((13, 8), (6, 9), (7, 7), (20, 21))]
    check(function, inputs[0], dynamic=True, more=[[x] for x in inputs[1:]])


def test_an_average_over_same_padding_that_depends_on_the_call_is_native() -> None:
    """Its windows would count the padding."""
    (x,) = arrays([(2, 9, 10, 4)])
    check_native(
        lambda x: tf.nn.avg_pool2d(x, 3, 2, "SAME"), x, because="the padding of an average", dynamic=True
    )


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("multiplier", [1, 3])
def test_depthwise(padding: str, stride: int, multiplier: int) -> None:
    x, kernel = arrays([(2, 9, 10, 4), (3, 3, 4, multiplier)])
    check(lambda x, k: tf.nn.depthwise_conv2d(x, k, [1, stride, stride, 1], padding), x, kernel)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_conv3d(padding: str) -> None:
    x, kernel = arrays([(2, 5, 6, 7, 3), (2, 3, 3, 3, 4)])
    check(lambda x, k: tf.nn.conv3d(x, k, [1, 1, 2, 1, 1], padding), x, kernel)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("window", [2, 3])
def test_conv2d_transpose(padding: str, stride: int, window: int) -> None:
    x, kernel = arrays([(2, 5, 6, 4), (window, window, 3, 4)])
    for height in (
        {5 * stride, 5 * stride - (stride > 1)} if padding == "SAME" else {(5 - 1) * stride + window}
    ):
        width = 6 * stride if padding == "SAME" else (6 - 1) * stride + window
        check(
            lambda x, k, h=height, w=width: tf.nn.conv2d_transpose(x, k, [2, h, w, 3], stride, padding),
            x,
            kernel,
        )


@pytest.mark.parametrize("padding", ["SAME", "VALID", [[0, 0], [1, 2], [0, 1], [0, 0]]])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("more", [-2, -1, 0, 1, 2])
def test_conv2d_transpose_where_tensorflow_may_refuse(padding: Any, stride: int, more: int) -> None:
    x, kernel = arrays([(2, 5, 6, 4), (3, 3, 3, 4)])
    rest = {"SAME": 0, "VALID": 3 - stride}.get(str(padding), -stride)

    def function(x: Any) -> Any:
        sizes = [2, stride * tf.shape(x)[1] + rest + more, stride * 6 + max(rest, 0), 3]
        return tf.nn.conv2d_transpose(x, kernel, sizes, stride, padding)

    try:
        function(x)
    except (tf.errors.InvalidArgumentError, tf.errors.AbortedError) as error:
        _, conversion = convert_function(function, [tf.TensorSpec([2, None, 6, 4])])
        assert conversion.record.regions == []
        with pytest.raises(type(error)):
            conversion.function(x)
    else:
        check(function, x)


@pytest.mark.parametrize("shape", [(2, 3), (2, 5, 3), (2, 5, 4, 3)])
def test_bias_add(shape: tuple[int, ...]) -> None:
    check(lambda x, y: tf.nn.bias_add(x, y), *arrays([shape, (3,)]))
    if len(shape) == 4:
        check(lambda x, y: RAW.BiasAdd(value=x, bias=y, data_format="NCHW"), *arrays([shape, (5,)]))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_batch_norm(dtype: str) -> None:
    (x,) = arrays([(2, 5, 6, 4)], dtype)
    scale, offset, mean, variance = arrays([(4,)] * 4, low=0.5)

    def function(x: object, *vectors: object) -> object:
        return RAW.FusedBatchNormV3(
            x=x, **dict(zip(("scale", "offset", "mean", "variance"), vectors, strict=True)), is_training=False
        ).y

    check(function, x, scale, offset, mean, variance)


def test_batch_norm_of_float16_with_statistics_that_float16_does_not_hold() -> None:
    (x,) = arrays([(2, 5, 6, 4)], "float16", low=-2000, high=2000)
    scale, offset, mean, variance = arrays([(4,)] * 4, low=0.5)

    def function(x: object) -> object:
        return RAW.FusedBatchNormV3(
            x=x, scale=scale, offset=offset, mean=mean, variance=1e6 * variance, is_training=False
        ).y

    check(function, x)
    check_native(function, x, dynamic=True, because="the number of channels")


def test_batch_norm_of_the_batch_is_native() -> None:
    (x,) = arrays([(2, 5, 6, 4)])
    scale, offset = arrays([(4,)] * 2, low=0.5)

    def function(x: object) -> object:
        empty = tf.zeros([0])
        return RAW.FusedBatchNormV3(x=x, scale=scale, offset=offset, mean=empty, variance=empty).y

    check_native(function, x, because="is_training=True")


@pytest.mark.parametrize("op", [tf.nn.max_pool2d, tf.nn.avg_pool2d])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("window", "stride"), [(2, 2), (3, 2), (3, 1), (2, 3), (1, 4)])
def test_pool2d(op: object, padding: str, window: int, stride: int) -> None:
    check(lambda x: op(x, window, stride, padding), *arrays([(2, 9, 10, 4)]))


@pytest.mark.parametrize("op", [tf.nn.max_pool3d, tf.nn.avg_pool3d])
def test_pool3d(op: object) -> None:
    check(lambda x: op(x, 2, 2, "SAME"), *arrays([(2, 5, 6, 7, 3)]))


def test_attention_with_a_dynamic_sequence_is_one_region() -> None:
    wq, wk, wv = arrays([(8, 2, 4)] * 3)

    def attention(x: object) -> object:
        x = tf.reshape(x, [tf.shape(x)[0], -1, 8])
        q, k, v = (tf.einsum("bsd,dhk->bshk", x, w) for w in (wq, wk, wv))
        scores = tf.nn.softmax(tf.einsum("bqhk,bshk->bhqs", q, k) / 2.0)
        mixed = tf.einsum("bhqs,bshk->bqhk", scores, v)
        shape = tf.shape(mixed)
        return tf.reshape(mixed, [shape[0], shape[1], shape[2] * shape[3]])

    (x,), (other,) = arrays([(2, 5, 8)]), arrays([(3, 11, 8)], seed=1)
    conversion = check(attention, x, dynamic=True, more=[(other,)])
    assert np.prod(conversion.function(other).shape) == 3 * 11 * 8
