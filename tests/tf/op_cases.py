"""A call or more of each op type that has a lowering rule: what `test_ops.py` runs against TensorFlow, and builds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf
from tf_checks import arrays

RAW = tf.raw_ops
FLOATS = ("float16", "float32", "float64")
NUMBERS = (*FLOATS, "int32", "int64")
ALL = (*NUMBERS, "bool")


@dataclass(frozen=True)
class Argument:
    """A tensor that a case draws, of the case's dtype where it has none of its own."""

    shape: tuple[int, ...]
    low: float = -2.0
    high: float = 2.0
    dtype: str | None = None


@dataclass(frozen=True)
class Case:
    """One call of an op.

    Attributes:
        operands: in the order of `tf.raw_ops`: an `Argument`, a list of them, or a constant.
        attributes: by name.
        dtypes: what to draw the arguments in.
        refused: dtypes that ONNX Runtime's support table refuses.
        call: calls the op with the arguments, where it takes more than passing operands.
        dynamic: trace it with unknown sizes.
    """

    operands: tuple[Any, ...]
    attributes: dict[str, Any] = field(default_factory=dict)
    dtypes: Sequence[str] = ("float32",)
    refused: Sequence[str] = ()
    call: Callable[..., Any] | None = None
    dynamic: bool = False

    def draw(self, dtype: str) -> list[Any]:
        """Return arguments."""
        places = [item for item in tf.nest.flatten(self.operands) if isinstance(item, Argument)]
        return [
            arrays([place.shape], place.dtype or dtype, seed=i, low=place.low, high=place.high)[0]
            for i, place in enumerate(places)
        ]

    def function(self, op: str) -> Callable[..., Any]:
        """Return a function of the arguments that calls the op."""
        raw = getattr(RAW, op)

        def call(*arguments: Any) -> Any:
            given = iter(arguments)
            flat = [
                next(given) if isinstance(item, Argument) else item for item in tf.nest.flatten(self.operands)
            ]
            operands = tf.nest.pack_sequence_as(self.operands, flat)
            named = dict(zip(inspect.signature(raw).parameters, operands, strict=False))
            result = raw(**named, **self.attributes)
            return tf.nest.flatten(result)

        return self.call or call


def case(
    *operands: Any, dtypes: Sequence[str] = ("float32",), refused: Sequence[str] = (), **attributes: Any
) -> Case:
    """Return a case without ends."""
    return Case(operands, attributes, dtypes, refused)


def called(
    call: Callable[..., Any], *operands: Argument, dtypes: Sequence[str] = ("float32",), dynamic: bool = False
) -> Case:
    """Return a case of an op that is called by a function."""
    return Case(operands, {}, dtypes, (), call, dynamic)


X = Argument((3, 4))
SQUARE = Argument((2, 4))
SMALL = Argument((3, 4), -0.9, 0.9)
POSITIVE = Argument((3, 4), 1.1, 3.0)
WIDE = Argument((3, 4), -8.0, 8.0)
ROW = Argument((4,))
TRUTH = Argument((3, 4), dtype="bool")
IMAGE = Argument((2, 6, 8, 4))
PLANES = Argument((2, 4, 6, 8))
VOLUME = Argument((2, 4, 5, 6, 3))
CHANNELS = Argument((4,), 0.5, 2.0, "float32")

_SINGLE = {"dtypes": ("float32", "float16"), "refused": ("float64",)}
_WINDOW = {"ksize": [1, 3, 2, 1], "strides": [1, 2, 2, 1]}
_CUBE = {"ksize": [1, 2, 3, 2, 1], "strides": [1, 2, 2, 2, 1]}


def _normalized(op: str, data_format: str) -> Case:
    """Return a case of batch normalization; the sixth result is for gradients only, and empty on the CPU."""

    def call(*operands: Any) -> Any:
        named = dict(zip(("x", "scale", "offset", "mean", "variance"), operands, strict=True))
        return list(getattr(RAW, op)(**named, is_training=False, data_format=data_format))[:5]

    return called(call, IMAGE if data_format == "NHWC" else PLANES, CHANNELS, CHANNELS, CHANNELS, CHANNELS)


CASES: dict[str, list[Case]] = {
    # Elementwise
    **{
        op: [case(X, X, dtypes=NUMBERS), case(X, ROW)]
        for op in ("Add", "AddV2", "Maximum", "Minimum", "Mul", "Sub")
    },
    **{
        op: [case(X, X, dtypes=NUMBERS)]
        for op in ("Greater", "GreaterEqual", "Less", "LessEqual", "SquaredDifference")
    },
    **{op: [case(X, X, dtypes=ALL)] for op in ("Equal", "NotEqual")},
    **{op: [case(X, POSITIVE, dtypes=FLOATS)] for op in ("RealDiv", "DivNoNan", "MulNoNan")},
    **{
        op: [
            case(Argument((20,), -6, 6), 3, dtypes=("int32", "int64")),
            case(Argument((20,), -6, 6), -4, dtypes=("int32",)),
        ]
        for op in ("Div", "FloorDiv", "FloorMod", "Mod", "TruncateDiv", "TruncateMod")
    },
    **{op: [case(TRUTH, TRUTH)] for op in ("LogicalAnd", "LogicalOr")},
    "LogicalNot": [case(TRUTH)],
    "AddN": [case([X, X, X])],
    "Pow": [case(POSITIVE, X, dtypes=FLOATS), case(POSITIVE, 2.5)],
    "Select": [case(TRUTH, X, X, dtypes=ALL), case(Argument((3,), dtype="bool"), X, X)],
    "SelectV2": [
        case(TRUTH, X, X, dtypes=ALL),
        case(Argument((3, 1), dtype="bool"), ROW, Argument((2, 1, 1))),
    ],
    "ClipByValue": [case(X, Argument((), -1, -0.5), Argument((), 0.5, 1), dtypes=("float32", "int32"))],
    "Bucketize": [case(WIDE, boundaries=[-3.0, 0.0, 2.5], dtypes=("float32", "int32"))],
    "Cast": [
        case(X, DstT=target, dtypes=[dtype for dtype in (*ALL, "uint8", "int8") if dtype != target.name])
        for target in (tf.float16, tf.float32, tf.float64, tf.int32, tf.int64, tf.bool)
    ],
    "Identity": [called(lambda x: RAW.Identity(input=x) * 2, X)],
    "PreventGradient": [called(lambda x: RAW.PreventGradient(input=x) * 2, X)],
    "Snapshot": [called(lambda x: RAW.Snapshot(input=x) * 2, X)],
    "StopGradient": [called(lambda x: RAW.StopGradient(input=x) * 2, X)],
    "IdentityN": [called(lambda x, y: [each * 2 for each in RAW.IdentityN(input=[x, y])], X, ROW)],
    # Unary and activations
    **{
        op: [case(SMALL, **_SINGLE)]
        for op in ("Acos", "Asin", "Asinh", "Atan", "Atanh", "Cos", "Cosh", "Erf", "Erfc", "Sinh", "Tan")
    },
    "Acosh": [case(POSITIVE, **_SINGLE)],
    **{op: [case(X, dtypes=FLOATS)] for op in ("Ceil", "Exp", "Expm1", "Floor", "Round", "Sin", "Softsign")},
    **{op: [case(POSITIVE, dtypes=FLOATS)] for op in ("Inv", "Log", "Log1p", "Reciprocal", "Rsqrt", "Sqrt")},
    **{op: [case(X, dtypes=FLOATS)] for op in ("IsFinite", "IsInf", "IsNan")},
    **{op: [case(X, dtypes=NUMBERS)] for op in ("Abs", "Neg", "Sign", "Square")},
    "Rint": [case(WIDE, dtypes=("float32", "float64"))],
    **{
        op: [case(WIDE, dtypes=FLOATS)]
        for op in ("Elu", "Relu", "Relu6", "Selu", "Sigmoid", "Softplus", "Tanh")
    },
    "LeakyRelu": [case(WIDE, dtypes=FLOATS), case(WIDE, alpha=0.0), case(WIDE, alpha=1.0)],
    **{op: [case(X, dtypes=FLOATS), case(Argument((2, 3, 4)))] for op in ("Softmax", "LogSoftmax")},
    # Quantization
    "FakeQuantWithMinMaxArgs": [case(WIDE), case(WIDE, min=-1.3, max=2.7, num_bits=4, narrow_range=True)],
    "FakeQuantWithMinMaxVars": [
        case(WIDE, -3.0, 5.0),
        case(WIDE, 0.0, 0.0),
        case(WIDE, 1.0, 2.0, num_bits=6),
    ],
    "FakeQuantWithMinMaxVarsPerChannel": [case(WIDE, [-1.0, -6.0, 0.0, 0.0], [1.0, 3.0, 4.0, 0.0])],
    **{
        op: [
            case(WIDE, -3.0, 5.0, range_given=True, dtypes=("float32", "float64")),
            case(WIDE, -3.0, 5.0, range_given=True, num_bits=4, narrow_range=True, round_mode="HALF_UP"),
            case(WIDE, -1.0, 2.5, range_given=True, num_bits=5, signed_input=False),
        ]
        for op in ("QuantizeAndDequantizeV2", "QuantizeAndDequantizeV4")
    },
    "QuantizeAndDequantizeV3": [
        case(WIDE, -3.0, 5.0, 8, dtypes=("float32", "float64")),
        case(WIDE, [-1.0, 0.0, -9.0], [1.0, 3.0, 2.0], 5, axis=0),
    ],
    # Contraction
    "MatMul": [
        case(Argument((3, 4)), Argument((4, 5)), dtypes=FLOATS),
        case(Argument((4, 3)), Argument((5, 4)), transpose_a=True, transpose_b=True),
    ],
    **{
        op: [
            case(Argument((2, 3, 4)), Argument((2, 4, 5)), **more),
            case(Argument((2, 4, 3)), Argument((2, 5, 4)), adj_x=True, adj_y=True, **more),
        ]
        for op, more in {
            "BatchMatMul": {},
            "BatchMatMulV2": {},
            "BatchMatMulV3": {"Tout": tf.float32},
        }.items()
    },
    "Einsum": [
        case([Argument((2, 3, 4)), Argument((4, 5, 6))], equation="abc,cde->abde"),
        case([Argument((2, 5, 3, 4)), Argument((2, 6, 3, 4))], equation="aecd,abcd->acbe"),
        case([Argument((2, 3, 4)), Argument((4, 5))], equation="...x,xy->...y"),
    ],
    "BiasAdd": [case(IMAGE, ROW), case(PLANES, ROW, data_format="NCHW")],
    "BiasAddV1": [case(IMAGE, ROW)],
    "Conv2D": [
        case(IMAGE, Argument((3, 3, 4, 5)), strides=[1, 2, 1, 1], padding="SAME", **_SINGLE),
        case(IMAGE, Argument((3, 3, 2, 6)), strides=[1, 1, 1, 1], padding="VALID"),
        case(IMAGE, Argument((2, 3, 4, 5)), strides=[1, 1, 1, 1], padding="SAME", dilations=[1, 2, 1, 1]),
    ],
    "Conv3D": [case(VOLUME, Argument((2, 3, 3, 3, 4)), strides=[1, 1, 2, 1, 1], padding="SAME")],
    "DepthwiseConv2dNative": [case(IMAGE, Argument((3, 3, 4, 2)), strides=[1, 2, 2, 1], padding="SAME")],
    "Conv2DBackpropInput": [
        case([2, 11, 16, 3], Argument((3, 3, 3, 4)), IMAGE, strides=[1, 2, 2, 1], padding="SAME"),
        case([2, 8, 10, 3], Argument((3, 3, 3, 4)), IMAGE, strides=[1, 1, 1, 1], padding="VALID"),
    ],
    "Conv3DBackpropInputV2": [
        case([2, 4, 10, 6, 2], Argument((2, 3, 3, 2, 3)), VOLUME, strides=[1, 1, 2, 1, 1], padding="SAME"),
        case([2, 5, 7, 8, 2], Argument((2, 3, 3, 2, 3)), VOLUME, strides=[1, 1, 1, 1, 1], padding="VALID"),
    ],
    # Reduction, normalization, pooling
    **{
        op: [case(X, [1], dtypes=FLOATS), case(X, [0, -1], keep_dims=True)]
        for op in ("Max", "Mean", "Min", "Prod", "Sum", "EuclideanNorm")
    },
    **{op: [case(TRUTH, [1])] for op in ("All", "Any")},
    **{op: [case(X, 1, dtypes=NUMBERS), case(X, -2, output_type=tf.int32)] for op in ("ArgMax", "ArgMin")},
    "Cumsum": [
        case(X, 1, exclusive=exclusive, reverse=reverse)
        for exclusive in (False, True)
        for reverse in (False, True)
    ],
    "TopKV2": [case(Argument((3, 9)), 4, dtypes=NUMBERS), case(X, 2, index_type=tf.int64)],
    **{
        op: [_normalized(op, "NHWC"), _normalized(op, "NCHW")]
        for op in ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
    },
    **{
        op: [case(IMAGE, padding="SAME", **_WINDOW), case(IMAGE, padding="VALID", **_WINDOW)]
        for op in ("AvgPool", "MaxPool")
    },
    **{
        op: [case(VOLUME, padding="SAME", **_CUBE), case(VOLUME, padding="VALID", **_CUBE)]
        for op in ("AvgPool3D", "MaxPool3D")
    },
    # Layout
    "Reshape": [case(X, [2, -1], dtypes=ALL)],
    "ExpandDims": [case(X, -2, dtypes=ALL)],
    "Squeeze": [case(Argument((1, 3, 1)), axis=[-1]), case(Argument((1, 3, 1)))],
    "Transpose": [case(Argument((2, 3, 4)), [2, 0, 1], dtypes=ALL)],
    "BroadcastTo": [case(Argument((3, 1)), [2, 3, 4], dtypes=ALL)],
    "Tile": [case(X, [2, 3], dtypes=ALL)],
    "SpaceToBatchND": [case(IMAGE, [2, 3], [[0, 0], [0, 1]]), case(IMAGE, [2], [[1, 1]])],
    "BatchToSpaceND": [
        case(Argument((6, 3, 4, 2)), [2, 3], [[1, 0], [0, 2]]),
        case(Argument((6, 3, 4)), [2], [[0, 1]]),
    ],
    "DepthToSpace": [case(Argument((2, 3, 4, 8)), block_size=2)],
    "SpaceToDepth": [case(IMAGE, block_size=2)],
    "ConcatV2": [case([X, Argument((3, 2))], -1, dtypes=ALL)],
    "Pack": [case([X, X], axis=1, dtypes=ALL)],
    "Unpack": [case(X, num=4, axis=-1)],
    "Split": [case(1, X, num_split=2)],
    "SplitV": [case(Argument((2, 7)), [1, -1, 2], 1, num_split=3)],
    "Slice": [case(X, [1, 0], [2, -1], dtypes=ALL)],
    "StridedSlice": [case(X, [0, -1], [0, 0], [1, -2], begin_mask=2, end_mask=2, shrink_axis_mask=1)],
    "Roll": [case(X, [1, -5], [0, -1], dtypes=ALL)],
    "MatrixBandPart": [
        case(Argument((2, 4, 5)), lower, upper, dtypes=ALL) for lower, upper in ((-1, 0), (1, 2), (0, -1))
    ],
    "ReverseV2": [case(X, [0, 1])],
    "Pad": [case(X, [[1, 0], [2, 1]], dtypes=NUMBERS)],
    "PadV2": [case(X, [[1, 0], [2, 1]], 7.0)],
    "MirrorPad": [case(X, [[1, 1], [2, 0]], mode="REFLECT")],
    "ResizeBilinear": [
        called(
            lambda x: RAW.ResizeBilinear(images=x, size=tf.shape(x)[1:3] * 2, half_pixel_centers=True),
            IMAGE,
            dynamic=True,
        ),
        case(IMAGE, [9, 5], half_pixel_centers=True),
        case(IMAGE, [9, 5], align_corners=True, dtypes=("float32", "uint8")),
    ],
    "ResizeNearestNeighbor": [
        called(
            lambda x: RAW.ResizeNearestNeighbor(images=x, size=tf.shape(x)[1:3] * 2, half_pixel_centers=True),
            IMAGE,
            dynamic=True,
        ),
        case(IMAGE, [18, 8], half_pixel_centers=True, dtypes=("float32", "float16", "uint8")),
        case(IMAGE, [12, 16]),
    ],
    # Indexing and creation
    "Gather": [case(X, Argument((2, 2), 0, 0.5, "int32"))],
    "GatherV2": [
        case(X, Argument((2, 2), 0, 0.5, "int32"), 1, dtypes=ALL),
        case(X, Argument((3, 5), 0, 0.75, "int32"), 1, batch_dims=1, dtypes=ALL),
        case(Argument((2, 3, 4, 5)), Argument((2, 2, 3), 0, 0.75, "int64"), 2, batch_dims=1),
        case(Argument((2, 3, 4, 5)), Argument((2, 3, 2), 0, 0.75, "int32"), -1, batch_dims=-1),
    ],
    "TensorScatterUpdate": [case(Argument((3, 4)), [[2], [0]], Argument((2, 4)), dtypes=ALL)],
    "GatherNd": [case(X, [[0, 1], [2, 3]])],
    "OneHot": [case(Argument((5,), 0, 1.25, "int32"), 4, 2.0, -1.0, axis=axis) for axis in (-1, 0)],
    "DataFormatVecPermute": [case(Argument((4,), dtype="int32")), case(Argument((2, 2), dtype="int64"))],
    "Rank": [called(lambda x: x * tf.cast(RAW.Rank(input=x), tf.float32), X, dynamic=True)],
    "Shape": [called(lambda x: x * tf.cast(RAW.Shape(input=x), tf.float32)[:, None], SQUARE, dynamic=True)],
    "ShapeN": [
        called(lambda x, y: [tf.fill(shape, 2.0) for shape in RAW.ShapeN(input=[x, y])], X, ROW, dynamic=True)
    ],
    "Size": [called(lambda x: x * tf.cast(RAW.Size(input=x), tf.float32), X, dynamic=True)],
    "Range": [
        called(
            lambda x: x * tf.cast(RAW.Range(start=1, limit=tf.shape(x)[1] + 1, delta=1), tf.float32),
            X,
            dynamic=True,
        )
    ],
    "Fill": [case([2, 3], Argument((), dtype=None))],
    **{op: [case(X, dtypes=ALL)] for op in ("OnesLike", "ZerosLike")},
}
"""By op type."""


_NOT_IN_TENSORRT = {"float64", "int8", "uint8"}
_FLOATS_ONLY = {("TopKV2", "int32"), ("TopKV2", "int64")}


def dtypes_in_tensorrt(case: Case) -> Sequence[str]:
    """Return what to draw the arguments in for TensorRT, which takes bfloat16; ONNX Runtime does not."""
    return (*case.dtypes, "bfloat16") if "float16" in case.dtypes else case.dtypes


def tensorrt_refuses(op: str, case: Case, dtype: str) -> bool:
    """Whether the support table of a current TensorRT refuses a case."""
    target = case.attributes.get("DstT", tf.float32).name
    return bool({dtype, target} & _NOT_IN_TENSORRT) or (op, dtype) in _FLOATS_ONLY


FOLDED: dict[str, list[Case]] = {
    **{
        op: [case([5, 7, 2], [3, 4, 5])]
        for op in ("Add", "AddV2", "Sub", "Mul", "FloorDiv", "FloorMod", "Maximum", "Minimum")
    },
    **{
        op: [case([5, 3])]
        for op in ("Identity", "Neg", "OnesLike", "PreventGradient", "Snapshot", "StopGradient", "ZerosLike")
    },
    "Cast": [case([5, 3], DstT=tf.int64)],
    **{
        op: [case([[5, 3], [2, 7]], [1], keep_dims=True), case([5, 2, 7], 0)]
        for op in ("Max", "Min", "Prod", "Sum")
    },
    "ConcatV2": [case([[5], [3, 7]], 0)],
    "DataFormatVecPermute": [
        case([2, 5, 7, 3]),
        case([5, 7, 3, 2], src_format="HWNC", dst_format="NHWC"),
        case([[5, 2], [7, 3]]),
    ],
    "ExpandDims": [case([5, 3], 1)],
    "Fill": [case([3], 7)],
    "GatherV2": [case([5, 3, 7], [2, 0], 0)],
    "Pack": [case([[5, 3], [7, 2]], axis=1)],
    "Range": [case(1, 9, 3)],
    "Reshape": [case([5, 3, 7, 2], [2, -1])],
    "Slice": [case([2, 5, 3, 7], [1], [2])],
    "Squeeze": [case([[5, 7]], axis=[0])],
    "StridedSlice": [
        case([2, 5, 3, 7], [1], [4], [2]),
        case([2, 5, 3, 7], [-1], [0], [1], shrink_axis_mask=1),
        case([2, 5, 3, 7], [0], [0], [-1], begin_mask=1, end_mask=1),
    ],
    "Unpack": [case([[5, 3], [7, 2]], num=2, axis=1)],
}
"""Ops that are computed when the graph is lowered, on sizes; 5 and 7 stand for symbols."""
