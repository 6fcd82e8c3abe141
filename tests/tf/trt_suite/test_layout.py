"""Ops that move elements: joined, reshaped, transposed, broadcast, selected, resized."""

from __future__ import annotations

from typing import Any

import pytest

tf = pytest.importorskip("tensorflow")

from trt_suite import harness  # noqa: E402


class Concatenation(harness.TrtTestCase):
    """Results of many ops, joined along several axes."""

    inputs = ((2, 3, 3, 1),)
    outputs = ((4, 3, 6, 2),)
    engines = (("columns", "channels", "rows"),)

    def graph(self, x: Any) -> Any:
        shifted = [x + harness.random(3, 1), x * harness.random(3, 3, 1), harness.random(1, 3, 1) - x]
        halves = [tf.concat([part, tf.tanh(part)], axis=2, name="columns") for part in shifted[:1]]
        halves += [tf.concat(shifted[1:], axis=2)]
        channels = tf.concat(halves, axis=-1, name="channels")
        return tf.concat([channels, tf.sigmoid(channels)], axis=0, name="rows")


class Reshape(harness.TrtTestCase):
    """Shapes given as constants with a size to infer, and computed from the input's."""

    inputs = ((100, 24, 24, 2),)
    outputs = ((100, 24, 24, 2), (100, 1152), (2400, 48))
    engines = (("first", "flat", "mixed"),)

    def graph(self, x: Any) -> Any:
        x = tf.tanh(x, name="first")
        restored = tf.reshape(tf.sigmoid(tf.reshape(x, [-1, 48, 24])), tf.shape(x))
        flat = tf.reshape(x + 1.0, [tf.shape(x)[0], -1], name="flat")
        return [restored, flat, tf.reshape(x * 2.0, [-1, 48], name="mixed")]


class Transpose(harness.TrtTestCase):
    """Permutations that move the batch away and back, between sizes that are squeezed and inserted."""

    inputs = ((100, 24, 1, 2),)
    outputs = ((100, 2, 24, 1), (24, 2, 100))
    engines = (("there", "back", "moved"),)

    def graph(self, x: Any) -> Any:
        y = tf.tanh(tf.transpose(x, [3, 0, 2, 1], name="there"))
        y = tf.transpose(y, [1, 0, 3, 2], name="back")
        moved = tf.transpose(tf.squeeze(x + 1.0, axis=2), [1, 2, 0], name="moved")
        return [tf.expand_dims(tf.squeeze(y, axis=3), axis=-1), moved]


class TopK(harness.TrtTestCase):
    """The values in float32 and the positions in int32."""

    inputs = ((100, 24),)
    outputs = ((100, 3), (100, 3))
    engines = (("scaled", "top"),)

    def graph(self, x: Any) -> Any:
        values, indices = tf.math.top_k(tf.multiply(x, 3.0, name="scaled"), k=3, name="top")
        return [values, indices]


class TopKOfTopK(harness.TrtTestCase):
    """Positions as operands of further ops."""

    inputs = ((10, 24),)
    outputs = ((10, 3),)
    engines = (("top", "gathered", "argmax"),)

    def graph(self, x: Any) -> Any:
        _, indices = tf.math.top_k(x, k=3, name="top")
        best = tf.expand_dims(tf.argmax(x, axis=1, output_type=tf.int32, name="argmax"), axis=1)
        same = tf.cast(tf.equal(indices, best), tf.float32)
        return same + tf.gather(harness.random(24), indices, name="gathered")


class ConstBroadcast(harness.TrtTestCase):
    """Weights of each rank between one and that of the other operand."""

    inputs = ((5, 12, 12, 2),)
    outputs = ((5, 12, 12, 1),)
    engines = (("conv", "add", "conv_1", "mul", "sub"),)

    def graph(self, x: Any) -> Any:
        x = tf.nn.conv2d(x, harness.random(3, 3, 2, 1), 1, "SAME", name="conv")
        x = tf.tanh(tf.add(x, harness.random(12, 1), name="add"))
        x = tf.nn.conv2d(x, harness.random(3, 3, 1, 1), 1, "SAME", name="conv_1")
        x = tf.tanh(tf.multiply(x, harness.random(1, 12, 12, 1), name="mul"))
        return tf.subtract(x, tf.constant(0.25), name="sub")


class BinaryTensorWeightBroadcast(harness.TrtTestCase):
    """A tensor and weights, on either side, that broadcast along some axes, in a chain of engines of two ops each."""

    inputs = ((10, 24, 24, 20),)
    outputs = ((10, 24, 24, 20),)
    shapes = (
        (1,),
        (24, 1, 1),
        (24, 24, 20),
        (20,),
        (1, 24, 1, 1),
        (1, 24, 24, 1),
        (1, 24, 24, 20),
        (24, 1, 20),
    )
    engines = tuple((f"left_{i}", f"right_{i}") for i in range(len(shapes)))
    native = ("Erfc",) * len(shapes)

    def graph(self, x: Any) -> Any:
        for i, shape in enumerate(self.shapes):
            weights = harness.random(*shape)
            x = tf.subtract(x, weights, name=f"left_{i}")
            x = tf.subtract(weights, tf.abs(x), name=f"right_{i}")
            x = self.trt_incompatible_op(x, name=f"incompatible_{i}")
        return x


class BinaryTensorsBroadcast(harness.TrtTestCase):
    """Two tensors, of which one has one row for all images."""

    inputs = ((7, 5, 4), (7, 1, 4))
    outputs = ((7, 5, 4), (7, 5, 4))
    engines = (("sum", "power"),)

    def graph(self, x: Any, y: Any) -> Any:
        return [tf.add(x, tf.tanh(y), name="sum"), tf.pow(x + 1.0, y, name="power")]


class Slices(harness.TrtTestCase):
    """Parts by constant bounds, by strides, and up to the end of an unknown size."""

    inputs = ((10, 24, 6),)
    outputs = ((10, 5, 6), (9, 24, 3), (10, 24), (10, 8, 6))
    engines = (("sliced", "strided", "taken"),)

    def graph(self, x: Any) -> Any:
        x = tf.tanh(x)
        first, _, last = tf.split(x, [8, 8, 8], axis=1)
        return [
            tf.slice(x, [0, 3, 0], [-1, 5, -1], name="sliced"),
            tf.strided_slice(x, [1, 0, 5], [0, 0, 0], [1, 1, -2], end_mask=7, begin_mask=2, name="strided"),
            tf.strided_slice(
                x, [0, 0, 2], [0, 0, 3], begin_mask=3, end_mask=3, shrink_axis_mask=4, name="taken"
            ),
            first * last,
        ]


class Resize(harness.TrtTestCase):
    """Images made larger and smaller, by each rule of where their points are."""

    inputs = ((3, 6, 9, 2),)
    outputs = ((3, 12, 12, 2),) * 4
    engines = (("relu", "linear", "corners", "nearest", "points"),)

    def graph(self, x: Any) -> Any:
        x = tf.nn.relu(x, name="relu")
        linear = tf.raw_ops.ResizeBilinear
        nearest = tf.raw_ops.ResizeNearestNeighbor
        return [
            linear(images=x, size=[12, 12], half_pixel_centers=True, name="linear"),
            linear(images=x, size=[12, 12], align_corners=True, name="corners"),
            nearest(images=x[:, :, :6], size=[12, 12], half_pixel_centers=True, name="nearest"),
            nearest(images=x[:, :4, :4], size=[12, 12], name="points"),
        ]


class ResizeToInput(harness.TrtTestCase):
    """Images of unknown size that are resized by a factor."""

    inputs = ((2, 5, 7, 3),)
    outputs = ((2, 10, 14, 3),)
    unknown = (0, 1, 2)
    engines = (("relu", "sum"),)

    def graph(self, x: Any) -> Any:
        size = tf.shape(x)[1:3] * 2
        y = tf.image.resize(tf.nn.relu(x, name="relu"), size, "bilinear")
        return tf.add(y, harness.random(3), name="sum")
