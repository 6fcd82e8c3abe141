"""Reductions, layout, indexing and creation against TensorFlow."""

from __future__ import annotations

import pytest

tf = pytest.importorskip("tensorflow")

from tf_checks import arrays, assert_close, check, check_native, convert_function, specs_of  # noqa: E402

RAW = tf.raw_ops
DYNAMIC = pytest.mark.parametrize("dynamic", [False, True])


@pytest.mark.parametrize("op", ["Max", "Mean", "Min", "Prod", "Sum"])
@pytest.mark.parametrize("axes", [[0], [-1], [0, 2], [0, 1, 2], []])
@pytest.mark.parametrize("keep_dims", [False, True])
@DYNAMIC
def test_reduce(op: str, axes: list[int], keep_dims: bool, dynamic: bool) -> None:
    def function(x: object) -> object:
        return getattr(RAW, op)(input=x, axis=tf.constant(axes, tf.int32), keep_dims=keep_dims) * 2

    check(function, *arrays([(2, 3, 4)]), dynamic=dynamic)


@pytest.mark.parametrize("op", ["Max", "Min", "Prod", "Sum", "Mean"])
@pytest.mark.parametrize("dtype", ["float16", "float64", "int32", "int64"])
def test_reduce_dtypes(op: str, dtype: str) -> None:
    if op in ("Mean", "Prod") and dtype.startswith("int"):  # ONNX Runtime multiplies floats only
        because = "rounds" if op == "Mean" else "ONNX Runtime on CPU takes"
        check_native(lambda x: getattr(RAW, op)(input=x, axis=1), *arrays([(3, 4)], dtype), because=because)
    else:
        check(lambda x: getattr(RAW, op)(input=x, axis=1), *arrays([(3, 4)], dtype, low=-1, high=1))


@pytest.mark.parametrize("op", ["All", "Any"])
def test_truth(op: str) -> None:
    check(lambda x: getattr(RAW, op)(input=x, axis=[1]), *arrays([(6, 3)], "bool"))


def test_euclidean_norm() -> None:
    check(lambda x: tf.math.reduce_euclidean_norm(x, 1), *arrays([(6, 3)]))
    check_native(
        lambda x: tf.math.reduce_euclidean_norm(x, 1), *arrays([(6, 3)], "int32"), because="norm of i32"
    )


@pytest.mark.parametrize("op", [tf.argmax, tf.argmin])
@pytest.mark.parametrize("axis", [0, -1])
@DYNAMIC
def test_extreme_index(op: object, axis: int, dynamic: bool) -> None:
    check(lambda x: op(x, axis, tf.int32), tf.constant([[3, 1, 3], [1, 1, 5]]), dynamic=dynamic)
    check(lambda x: op(x, axis), *arrays([(4, 5)]), dynamic=dynamic)


@pytest.mark.parametrize("op", [tf.argmax, tf.argmin])
def test_extreme_index_beside_nan(op: object) -> None:
    nan, inf = float("nan"), float("inf")
    rows = [[nan, 1, 2], [3, nan, 1], [nan, nan, nan], [nan, inf, -inf], [inf, inf, inf], [-inf, nan, -inf]]
    check(lambda x: op(x, 1), tf.constant(rows))


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_cumsum(exclusive: bool, reverse: bool) -> None:
    check(lambda x: tf.cumsum(x, 1, exclusive, reverse), *arrays([(3, 5)]))


def test_top_k() -> None:
    check(lambda x: list(tf.math.top_k(x, 3)), *arrays([(4, 9)]))
    ties = tf.constant([[1.0, 3.0, 3.0, 2.0, 3.0, 1.0], [0.0] * 6])
    check(lambda x: list(tf.math.top_k(x, 4)), ties)
    check_native(lambda x: list(tf.math.top_k(x, 3, sorted=False)), ties, because="sorted=False")


@DYNAMIC
@pytest.mark.parametrize("shape", [[-1], [6, -1], [4, 6], [2, -1, 2]])
def test_reshape(shape: list[int], dynamic: bool) -> None:
    check(lambda x: tf.reshape(x, shape) + 1, *arrays([(2, 3, 4)]), dynamic=dynamic)


@DYNAMIC
def test_reshape_by_a_shape(dynamic: bool) -> None:
    x, other = arrays([(2, 3, 4), (5, 2, 4)])

    def function(x: object) -> object:
        shape = tf.shape(x)
        flat = tf.reshape(x, [shape[0] * shape[1], shape[2]])
        return tf.reshape(flat * 2, tf.concat([shape[:2], [2, -1]], 0))

    check(function, x, dynamic=dynamic, more=[(other,)] if dynamic else [])


@DYNAMIC
def test_expand_squeeze_transpose(dynamic: bool) -> None:
    check(
        lambda x: tf.transpose(tf.squeeze(tf.expand_dims(x, -2), -2), [2, 0, 1]) * 2,
        *arrays([(2, 3, 4)]),
        dynamic=dynamic,
    )


@DYNAMIC
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat_pack(axis: int, dynamic: bool) -> None:
    check(lambda x, y: tf.concat([x, y * 2, x], axis), *arrays([(2, 3), (2, 3)]), dynamic=dynamic)
    check(lambda x, y: tf.stack([x, y * 2], axis), *arrays([(2, 3), (2, 3)]), dynamic=dynamic)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_split_unpack(axis: int) -> None:
    (x,) = arrays([(4, 6, 2)])
    check(lambda x: [part + 1 for part in tf.split(x, 2, axis)], x)
    check(lambda x: [part * 2 for part in tf.unstack(x, axis=axis)], x)


def test_split_by_sizes() -> None:
    check(lambda x: [part + 1 for part in tf.split(x, [1, -1, 2], 1)], *arrays([(2, 7)]))


@pytest.mark.parametrize(
    "index",
    [
        (slice(1, 3),),
        (slice(None), 1),
        (Ellipsis, -1),
        (slice(None, -1), None, slice(1, None, 2)),
        (0, slice(2), slice(-2, None)),
        (slice(None), slice(None), slice(None, None, -1)),
        (slice(0, 100),),
    ],
    ids=str,
)
@DYNAMIC
def test_strided_slice(index: tuple[object, ...], dynamic: bool) -> None:
    check(lambda x: x[index] + 1, *arrays([(4, 5, 6)]), dynamic=dynamic)


@DYNAMIC
def test_slice(dynamic: bool) -> None:
    check(lambda x: tf.slice(x, [1, 0], [2, -1]) + 1, *arrays([(4, 5)]), dynamic=dynamic)


@DYNAMIC
def test_tile_and_broadcast(dynamic: bool) -> None:
    check(lambda x: tf.tile(x, [2, 1, 3]) + 1, *arrays([(2, 3, 4)]), dynamic=dynamic)
    check(lambda x: tf.broadcast_to(x[:1], tf.shape(x)) * 2, *arrays([(2, 3)]), dynamic=dynamic)


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("dtype", ["int32", "int64"])
@DYNAMIC
def test_gather(axis: int, dtype: str, dynamic: bool) -> None:
    indices = tf.constant([[0, 2], [1, 1]], dtype)
    check(lambda x, i: tf.gather(x, i, axis=axis) + 1, *arrays([(3, 4)]), indices, dynamic=dynamic)


def test_gather_out_of_range_raises_as_tensorflow_does() -> None:
    (x,), indices = arrays([(3, 4)]), tf.constant([0, 9])
    concrete, conversion = convert_function(
        lambda x, i: tf.gather(x, i) + 1, specs_of([x, indices], False), strict=False
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="is not in"):
        concrete(x, indices)
    with pytest.raises(tf.errors.InvalidArgumentError, match="is not in"):
        conversion.function(x, indices)
    conversion.function(x, tf.constant([0, 1]))
    assert conversion.record.regions[0].reason is None


def test_gather_nd_one_hot_reverse() -> None:
    check(lambda x, i: tf.gather_nd(x, i) + 1, *arrays([(3, 4)]), tf.constant([[0, 1], [2, 3]]))
    check(lambda i: tf.one_hot(i, 5) * 2, tf.constant([0, 4, 7, -1]))
    check(lambda x: tf.reverse(x, [0, 1]) + 1, *arrays([(3, 4)]))


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_pad(dtype: str) -> None:
    check(lambda x: tf.pad(x, [[1, 0], [2, 1]]), *arrays([(3, 4)], dtype))
    check(lambda x: tf.pad(x, [[1, 0], [2, 1]], constant_values=7), *arrays([(3, 4)], dtype))


def test_mirror_pad() -> None:
    check(lambda x: tf.pad(x, [[1, 1], [2, 0]], mode="REFLECT"), *arrays([(3, 4)]))
    check_native(
        lambda x: tf.pad(x, [[1, 1], [2, 0]], mode="SYMMETRIC"), *arrays([(3, 4)]), because="SYMMETRIC"
    )


@pytest.mark.parametrize(("op", "shape"), [("DepthToSpace", (2, 8, 3, 4)), ("SpaceToDepth", (2, 3, 4, 6))])
def test_depth_and_space_in_planes(op: str, shape: tuple[int, ...]) -> None:
    """TensorFlow's CPU has no kernel for NCHW: compare with NHWC, transposed."""
    (x,) = arrays([shape])

    def planes(x: object) -> object:
        return getattr(RAW, op)(input=x, block_size=2, data_format="NCHW")

    _, conversion = convert_function(planes, specs_of([x], False))
    pixels = getattr(RAW, op)(input=tf.transpose(x, [0, 2, 3, 1]), block_size=2)
    assert_close(conversion.function(x), tf.transpose(pixels, [0, 3, 1, 2]))
    assert conversion.record.regions[0].engine_calls == 1


@pytest.mark.parametrize("op", ["ResizeBilinear", "ResizeNearestNeighbor"])
@pytest.mark.parametrize("how", [{}, {"align_corners": True}, {"half_pixel_centers": True}], ids=str)
def test_resize(op: str, how: dict[str, bool]) -> None:
    (x,), (other,) = arrays([(2, 5, 7, 3)]), arrays([(1, 4, 3, 2)], seed=1)
    resize = getattr(RAW, op)
    check(lambda x: resize(images=x, size=[10, 14], **how), x)
    check(lambda x: resize(images=x, size=tf.shape(x)[1:3] * 2, **how), x, dynamic=True, more=[(other,)])
    for size in ((8, 3), (2, 11), (1, 1)):
        if op == "ResizeBilinear":
            check(lambda x, size=size: resize(images=x, size=size, **how), x)
        else:
            check_native(
                lambda x, size=size: resize(images=x, size=size, **how), x, because="8 times as long"
            )
    if op == "ResizeBilinear":
        check(lambda x: resize(images=x, size=[7, 4], **how), x, dynamic=True, more=[(other,)])


def test_resize_of_integers() -> None:
    images = arrays([(2, 5, 7, 3)], "int32")
    check(lambda x: RAW.ResizeBilinear(images=x, size=[8, 9]), *images)
    check_native(
        lambda x: RAW.ResizeNearestNeighbor(images=x, size=[8, 9]), *images, because="do not hold all i32"
    )


def test_non_max_suppression_splits_nothing_else() -> None:
    boxes, scores = arrays([(1, 6, 1, 4), (1, 6, 2)], low=0, high=1)

    def function(boxes: object, scores: object) -> object:
        found = RAW.CombinedNonMaxSuppression(
            boxes=boxes * 0.5,
            scores=tf.nn.sigmoid(scores) + 0.1,
            max_output_size_per_class=3,
            max_total_size=4,
            iou_threshold=0.5,
            score_threshold=0.2,
        )
        return found.nmsed_boxes * 2.0 + 1.0, tf.cast(found.valid_detections, tf.float32) * 3.0

    concrete, conversion = convert_function(function, specs_of([boxes, scores], False))
    assert_close(conversion.function(boxes, scores), concrete(boxes, scores))
    (reason,) = conversion.record.native
    assert reason.op == "CombinedNonMaxSuppression"
    assert "each box that it keeps decides about the next" in reason.detail
    assert [region.engine_calls for region in conversion.record.regions] == [1, 1]


def test_a_region_whose_size_only_another_input_tells() -> None:
    """What tells a symbol is an input that no op of the region reads."""
    (x,), (other,) = arrays([(2, 8)]), arrays([(3, 8)], seed=1)

    def function(x: object) -> object:
        height = tf.shape(x)[0]
        unique, _ = tf.unique(tf.reshape(x * 2.0, [height * 8]))
        return tf.reshape(unique, [height, 8]) + 1.0

    concrete, conversion = convert_function(function, specs_of([x], True))
    for given in (x, other):
        assert_close(conversion.function(given), concrete(given))
    assert all(region.native_calls == 0 for region in conversion.record.regions)
    assert conversion.record.regions[-1].engine_calls == 2


@DYNAMIC
def test_creation(dynamic: bool) -> None:
    def function(x: object) -> object:
        positions = tf.range(tf.shape(x)[1])
        filled = tf.fill(tf.shape(x), 2.0) + tf.ones_like(x) - tf.zeros_like(x)
        return filled * tf.cast(positions, tf.float32) + x

    check(function, *arrays([(3, 4)]), dynamic=dynamic)


def test_a_size_as_a_number() -> None:
    x, other = arrays([(3, 4), (5, 2)])
    check(lambda x: tf.reduce_sum(x) / tf.cast(tf.size(x), tf.float32), x, dynamic=True, more=[(other,)])


def test_shapes_that_data_decides_are_native() -> None:
    def function(x: object, n: object) -> object:
        return tf.reshape(x * 2, [n, -1]) + 1

    check_native(function, *arrays([(3, 4)]), tf.constant(2), because="known only at run time")
