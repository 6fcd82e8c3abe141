"""Elementwise ops, unary ones and activations against TensorFlow."""

from __future__ import annotations

import pytest

tf = pytest.importorskip("tensorflow")

from tf_checks import arrays, assert_close, check, check_native, convert_function, specs_of  # noqa: E402

RAW = tf.raw_ops
FLOATS = ("float16", "float32", "float64")
NOT_IN_FLOAT64 = frozenset(
    {"Acos", "Asin", "Asinh", "Atan", "Atanh", "Cos", "Cosh", "Erf", "Erfc", "Sinh", "Tan"}
)
"""ONNX Runtime's CPU kernels of these are float32 only."""
NUMBERS = (*FLOATS, "int32", "int64")


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("op", ["AddV2", "Sub", "Mul", "Maximum", "Minimum", "SquaredDifference"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_arithmetic(op: str, dtype: str, dynamic: bool) -> None:
    check(lambda x, y: getattr(RAW, op)(x=x, y=y), *arrays([(3, 4), (3, 4)], dtype), dynamic=dynamic)


@pytest.mark.parametrize("op", ["AddV2", "Mul", "Maximum", "RealDiv"])
@pytest.mark.parametrize("shapes", [[(3, 4), (4,)], [(2, 1, 4), (3, 1)], [(), (2, 3)], [(5,), (1,)]])
def test_broadcast(op: str, shapes: list[tuple[int, ...]]) -> None:
    check(lambda x, y: getattr(RAW, op)(x=x, y=y), *arrays(shapes, low=0.5))


def test_broadcast_that_only_the_call_tells() -> None:
    a, b, one = *arrays([(5, 4), (5, 4)]), *arrays([(1, 4)], seed=1)
    check(lambda x, y: x + y, a, b, dynamic=True)
    concrete, conversion = convert_function(lambda x, y: x * y + x, specs_of([a, b], dynamic=True))
    for given in ((one, b), (a, one), (a, b)):
        assert_close(conversion.function(*given), concrete(*given))
    (region,) = conversion.record.regions
    assert region.reason is None
    assert region.engine_calls >= 1


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", ["RealDiv", "DivNoNan", "MulNoNan", "Pow"])
def test_float_arithmetic(op: str, dtype: str) -> None:
    x, y = arrays([(3, 4), (3, 4)], dtype, low=0.25)
    if op in ("DivNoNan", "MulNoNan"):
        y = tf.where(y > 1, y, tf.zeros_like(y))
    check(lambda x, y: getattr(RAW, op)(x=x, y=y), x, y)


@pytest.mark.parametrize("exponent", [2.0, 0.5, 3.0, -1.5])
def test_pow_by_a_number(exponent: float) -> None:
    check(lambda x: tf.pow(x, exponent), *arrays([(3, 4)], low=0.25))


@pytest.mark.parametrize("op", ["FloorDiv", "FloorMod"])
@pytest.mark.parametrize("divisor", [3, -4])
def test_whole_division(op: str, divisor: int) -> None:
    check(lambda x: getattr(RAW, op)(x=x, y=tf.constant(divisor)), *arrays([(20,)], "int32"))


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("op", ["FloorDiv", "FloorMod"])
def test_whole_division_at_the_ends_of_the_range(op: str, dtype: str) -> None:
    x = tf.constant([tf.dtypes.as_dtype(dtype).min, -7, 7, tf.dtypes.as_dtype(dtype).max], dtype)
    for divisor in (3, -3, x.dtype.max // 4 * 3):
        check(lambda x, y=divisor: getattr(RAW, op)(x=x, y=tf.constant(y, x.dtype)), x)


def test_whole_division_that_may_be_by_zero_is_native() -> None:
    x, y = arrays([(6,), (6,)], "int32", low=1, high=3)
    check_native(lambda x, y: x // y, x, y, because="divided by 0")


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("op", ["Greater", "GreaterEqual", "Less", "LessEqual", "Equal", "NotEqual"])
def test_compare(op: str, dtype: str) -> None:
    x, y = arrays([(8, 4), (8, 4)], dtype, high=1)
    y = tf.where(tf.range(4) < 2, x, y)
    check(lambda x, y: getattr(RAW, op)(x=x, y=y), x, y)


@pytest.mark.parametrize("op", ["GreaterEqual", "LessEqual", "NotEqual", "Less"])
def test_compare_nan(op: str) -> None:
    x = tf.constant([1.0, float("nan"), 3.0, float("inf")])
    check(lambda x, y: getattr(RAW, op)(x=x, y=y), x, tf.constant([float("nan"), float("nan"), 3.0, 1.0]))


@pytest.mark.parametrize("op", [tf.logical_and, tf.logical_or, tf.math.logical_xor])
def test_logic(op: object) -> None:
    check(lambda x, y: op(x, y), *arrays([(4, 4), (4, 4)], "bool"))


def test_logical_not() -> None:
    check(tf.logical_not, *arrays([(4, 4)], "bool"))


@pytest.mark.parametrize("dtype", ["float32", "int32", "bool"])
@pytest.mark.parametrize("shape", [(3, 4), (4,), (3, 1), ()])
def test_select(dtype: str, shape: tuple[int, ...]) -> None:
    check(tf.where, *arrays([shape], "bool"), *arrays([(3, 4), (3, 4)], dtype))


def test_select_of_rows() -> None:
    (condition,) = arrays([(3,)], "bool")
    check(lambda c, x, y: RAW.Select(condition=c, x=x, y=y), condition, *arrays([(3, 4), (3, 4)]))


@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_clip(dtype: str) -> None:
    check(lambda x: tf.clip_by_value(x, -1, 1), *arrays([(3, 4)], dtype))
    check(lambda x, low, high: RAW.ClipByValue(t=x, clip_value_min=low, clip_value_max=high),
          *arrays([(3, 4)], dtype), tf.constant(-1, dtype), tf.constant(1, dtype))  # fmt: skip


@pytest.mark.parametrize("source", ["float32", "float16", "int32", "int64", "bool", "uint8"])
@pytest.mark.parametrize("target", ["float32", "float16", "int32", "int64", "bool", "float64"])
def test_cast(source: str, target: str) -> None:
    if source != target:
        check(lambda x: tf.cast(x, target), *arrays([(3, 4)], source))


def test_add_n() -> None:
    check(lambda *xs: tf.add_n(xs), *arrays([(3, 4)] * 3))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "op",
    ["Abs", "Acos", "Asin", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Erf", "Erfc", "Exp", "Expm1", "Floor", "Neg",
     "Rint", "Sign", "Sin", "Sinh", "Square", "Tan", "Softsign"],
)  # fmt: skip
def test_unary(op: str, dtype: str) -> None:
    if (op, dtype) == ("Rint", "float16"):
        pytest.skip("TensorFlow has no kernel")
    named = "features" if op == "Softsign" else "x"

    def function(x: object) -> object:
        return getattr(RAW, op)(**{named: x})

    inputs = arrays([(5, 7)], dtype, low=-0.9, high=0.9)
    if dtype == "float64" and op in NOT_IN_FLOAT64:
        check_native(function, *inputs, because="ONNX Runtime on CPU takes")
    else:
        check(function, *inputs)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", ["Log", "Log1p", "Reciprocal", "Rsqrt", "Sqrt", "Acosh"])
def test_unary_of_positive(op: str, dtype: str) -> None:
    inputs = arrays([(5, 7)], dtype, low=1.1, high=3)
    if (op, dtype) == ("Acosh", "float64"):
        check_native(lambda x: tf.acosh(x), *inputs, because="ONNX Runtime on CPU takes")
    else:
        check(lambda x: getattr(RAW, op)(x=x), *inputs)


@pytest.mark.parametrize("op", ["IsFinite", "IsInf", "IsNan"])
def test_classes(op: str) -> None:
    check(lambda x: getattr(RAW, op)(x=x), tf.constant([0.0, float("nan"), float("inf"), -float("inf")]))


@pytest.mark.parametrize("op", ["Abs", "Neg", "Sign", "Square"])
@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_unary_of_integers(op: str, dtype: str) -> None:
    check(lambda x: getattr(RAW, op)(x=x), *arrays([(5, 7)], dtype))


def test_round_halves_to_even() -> None:
    check(tf.round, tf.constant([0.5, 1.5, 2.5, -0.5, -1.5, 1.2]))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", ["Relu", "Relu6", "Elu", "Selu", "Softplus", "LeakyRelu"])
def test_activation(op: str, dtype: str) -> None:
    check(lambda x: getattr(RAW, op)(features=x), *arrays([(5, 7)], dtype, low=-8, high=8))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("op", ["Sigmoid", "Tanh"])
def test_sigmoid_and_tanh(op: str, dtype: str) -> None:
    check(lambda x: getattr(RAW, op)(x=x), *arrays([(5, 7)], dtype, low=-8, high=8))


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_leaky_relu(alpha: float) -> None:
    check(lambda x: tf.nn.leaky_relu(x, alpha), *arrays([(5, 7)]))


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
@pytest.mark.parametrize("shape", [(5, 7), (7,), (2, 3, 4)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_softmax(op: str, shape: tuple[int, ...], dtype: str) -> None:
    check(lambda x: getattr(RAW, op)(logits=x), *arrays([shape], dtype), dynamic=True)


def test_gelu() -> None:
    check(lambda x: tf.nn.gelu(x, approximate=False), *arrays([(5, 7)], low=-6, high=6))
    check(lambda x: tf.nn.gelu(x, approximate=True), *arrays([(5, 7)], low=-6, high=6))


def test_the_tail_of_erfc() -> None:
    """It is 1 - erf(x): right to half a unit in the last place of 1, which is all that an exact GELU needs of it."""
    x = tf.linspace(-6.0, 6.0, 200)
    _, conversion = convert_function(tf.math.erfc, specs_of([x], False))
    truth = tf.math.erfc(tf.cast(x, tf.float64))
    assert float(tf.reduce_max(tf.abs(tf.cast(conversion.function(x), tf.float64) - truth))) < 1.2e-7
    assert conversion.record.regions[0].engine_calls == 1
    check(lambda x: tf.nn.gelu(x, approximate=False), 2 * x)


def test_bucketize_compares_float64_as_such() -> None:
    x = tf.constant([1.0 - 1e-12, 1.0, 2.0 - 1e-12], tf.float64)
    check(lambda x: RAW.Bucketize(input=x, boundaries=[1.0, 2.0]), x)


def test_identity_n_and_stop_gradient() -> None:
    check(lambda x, y: [v + 1 for v in tf.identity_n([x, tf.stop_gradient(y)])], *arrays([(3,), (2,)]))


def test_strings_stay_native() -> None:
    def function(x: object) -> object:
        return tf.strings.as_string(x * 2)

    check_native(function, tf.constant([1, 2, 3]), because="no lowering rule")
