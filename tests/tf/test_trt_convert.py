"""The drop-in converter: its parameters, its order of calls, its messages, its summary, and what goes wrong."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

tf = pytest.importorskip("tensorflow")

import numpy as np  # noqa: E402

import trt_backend  # noqa: E402
from trt_backend.errors import ReasonKind  # noqa: E402
from trt_backend_tf import engine_op  # noqa: E402
from trt_backend_tf import trt_convert as trt  # noqa: E402


class _Model(tf.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w = tf.Variable(tf.random.stateless_normal([8, 8], [1, 2]), name="w")

    @tf.function(input_signature=[tf.TensorSpec([None, 8], tf.float32, name="x")])
    def serve(self, x: Any) -> Any:
        return {"y": tf.nn.relu(tf.matmul(x, self.w)) + 1.0, "shape": tf.shape(x)}

    @tf.function(input_signature=[tf.TensorSpec([None, 8], tf.float32, name="x")])
    def other(self, x: Any) -> Any:
        return {"z": tf.nn.softmax(tf.matmul(x, self.w) * 2.0)}


@pytest.fixture
def saved(tmp_path: Path) -> str:
    model = _Model()
    tf.saved_model.save(
        model, str(tmp_path / "m"), signatures={"serving_default": model.serve, "other": model.other}
    )
    return str(tmp_path / "m")


@pytest.fixture
def x() -> Any:
    return tf.constant(np.random.default_rng(0).random((3, 8), np.float32))


def _native(folder: str, key: str = "serving_default") -> Any:
    model = tf.saved_model.load(folder)
    return lambda x: model.signatures[key](x=x)


def test_defaults_are_tf_trt_s() -> None:
    from tensorflow.python.compiler.tensorrt import trt_convert as theirs

    assert trt.TrtConversionParams._fields == theirs.TrtConversionParams._fields
    ours, other = trt.DEFAULT_TRT_CONVERSION_PARAMS, theirs.DEFAULT_TRT_CONVERSION_PARAMS
    assert ours[1:] == other[1:]
    modes = trt.TrtPrecisionMode.supported_precision_modes()
    assert set(modes) == {*theirs.TrtPrecisionMode.supported_precision_modes(), "BF16", "bf16"}
    assert trt.supported_profile_strategies() == theirs.supported_profile_strategies()
    assert ours._replace(precision_mode="FP16")._asdict()["precision_mode"] == "FP16"


def test_the_constructor_s_signature_is_tf_trt_s() -> None:
    import inspect

    from tensorflow.python.compiler.tensorrt import trt_convert as theirs

    parameters = list(inspect.signature(trt.TrtGraphConverterV2.__init__).parameters)
    assert parameters[:-2] == list(inspect.signature(theirs.TrtGraphConverterV2.__init__).parameters)
    assert parameters[-2:] == ["signature_keys", "removed"]


def test_positional_and_named_arguments(saved: str, x: Any) -> None:
    converted = trt.TrtGraphConverterV2(saved, input_saved_model_tags="serve").convert()
    expected = _native(saved)(x)
    for answer in (converted(x), converted(x=x)):
        np.testing.assert_allclose(answer["y"], expected["y"], rtol=1e-5)
        np.testing.assert_array_equal(answer["shape"], expected["shape"])
    assert converted.structured_input_signature[1]["x"].shape.as_list() == [None, 8]


def test_a_chosen_signature(saved: str, x: Any, tmp_path: Path) -> None:
    converter = trt.TrtGraphConverterV2(
        saved, input_saved_model_signature_key="other", minimum_segment_size=1
    )
    converted = converter.convert()
    np.testing.assert_allclose(converted(x)["z"], _native(saved, "other")(x)["z"], rtol=1e-5)
    converter.save(str(tmp_path / "out"))
    assert list(tf.saved_model.load(str(tmp_path / "out")).signatures) == ["other"]


def test_all_signatures(saved: str, x: Any, tmp_path: Path) -> None:
    converter = trt.TrtGraphConverterV2(saved, minimum_segment_size=1, signature_keys="all")
    converted = converter.convert()
    assert sorted(converted) == ["other", "serving_default"]
    converter.build({"other": lambda: iter([x, x])})
    by_name = {region.name: region for region in trt_backend.report().regions}
    assert sorted(region.engines for region in by_name.values()) == [0, 1]
    lines: list[str] = []
    converter.summary(print_fn=lambda line="": lines.append(line))
    names = {word for line in lines for word in line.split() if word.startswith("TRTEngineOp_")}
    assert len(names) == 2
    converter.save(str(tmp_path / "out"))
    loaded = tf.saved_model.load(str(tmp_path / "out"))
    assert sorted(loaded.signatures) == ["other", "serving_default"]
    for key in loaded.signatures:
        expected = _native(saved, key)(x)
        for answer in (converted[key](x), loaded.signatures[key](x=x)):
            assert answer.keys() == expected.keys()
            for name, value in expected.items():
                np.testing.assert_allclose(answer[name], value, rtol=1e-5)
    regions = trt_backend.report().regions
    assert sorted(region.engine_calls for region in regions) == [1, 1, 1, 3]
    assert not any(region.native_calls for region in regions)


def test_one_build_function_for_all_signatures(saved: str, x: Any) -> None:
    converter = trt.TrtGraphConverterV2(
        saved, minimum_segment_size=1, signature_keys=["serving_default", "other"]
    )
    assert list(converter.convert()) == ["serving_default", "other"]
    converter.build(lambda: iter([x]))
    assert [region.engines for region in trt_backend.report().regions] == [1, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"signature_keys": ["nosuch"]}, r"no signature 'nosuch'; .* one of \['other', 'serving_default'\]"),
        ({"signature_keys": "other"}, "it is a list of keys, or 'all'"),
        ({"signature_keys": []}, "it is a list of keys, or 'all'"),
        ({"signature_keys": "all", "input_saved_model_signature_key": "other"}, "not both"),
    ],
)
def test_illegal_signature_keys(saved: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trt.TrtGraphConverterV2(saved, **arguments).convert()


def test_a_live_function(x: Any, tmp_path: Path) -> None:
    """Structured inputs and outputs stay; variables are those of the moment of convert()."""
    w = tf.Variable(tf.ones([8, 8]))

    @tf.function(
        input_signature=[tf.TensorSpec([None, 8]), {"p": tf.TensorSpec([8]), "q": tf.TensorSpec([8])}]
    )
    def function(x: Any, more: Any) -> Any:
        return tf.nn.relu(tf.matmul(x, w) + more["p"]), {"z": tf.tanh(x) * more["q"], "x": x, "none": None}

    more = {"p": tf.range(8.0), "q": tf.ones([8]) * 2}
    converter = trt.TrtGraphConverterV2.from_function(function, minimum_segment_size=1)
    w.assign(w * 3.0)
    converted = converter.convert()
    expected = function(x, more)
    w.assign(w * 5.0)
    got = converted(x, more)
    tf.nest.assert_same_structure(got, expected)
    for a, b in zip(tf.nest.flatten(got), tf.nest.flatten(expected), strict=True):
        assert (a is None) is (b is None)
        if b is not None:
            np.testing.assert_allclose(a, b, rtol=1e-5)
    assert [region.engine_calls for region in trt_backend.report().regions] == [1]
    # A signature has flat inputs and outputs; TensorFlow says so.
    with pytest.raises(ValueError, match="Outputs for functions used as signatures"):
        converter.save(str(tmp_path / "out"))


def test_functions_are_traced_where_need_be(x: Any, tmp_path: Path) -> None:
    def function(x: Any) -> Any:
        return tf.nn.softmax(tf.nn.relu(x) * 2.0 + 1.0)

    specs = [tf.TensorSpec([None, 8], name="given")]
    for given, signature in (
        (function, specs),
        (tf.function(function), specs),
        (tf.function(function, input_signature=specs), None),
        (tf.function(function).get_concrete_function(*specs), None),
    ):
        converter = trt.TrtGraphConverterV2.from_function(
            given, signature, input_saved_model_signature_key="mine"
        )
        np.testing.assert_allclose(converter.convert()(x), function(x), rtol=1e-5)
    converter.save(str(tmp_path / "out"))
    loaded = tf.saved_model.load(str(tmp_path / "out")).signatures["mine"]
    np.testing.assert_allclose(loaded(given=x)["output_0"], function(x), rtol=1e-5)
    calls = [(region.engine_calls, region.native_calls) for region in trt_backend.report().regions]
    assert calls == [(1, 0)] * 5
    for given in (function, tf.function(function)):
        with pytest.raises(ValueError, match="needs an input_signature"):
            trt.TrtGraphConverterV2.from_function(given)


def test_keras_models(tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    keras.utils.set_random_seed(0)
    dense, norm = keras.layers.Dense(8, activation="relu"), keras.layers.BatchNormalization()
    one, two = keras.Input((8,), name="one"), keras.Input((8,), name="two")
    layers = [dense, norm, keras.layers.Dropout(0.5), keras.layers.Dense(3, activation="softmax")]

    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.stack = keras.Sequential([keras.Input((8,)), *layers])

        def call(self, a: Any, b: Any) -> Any:
            return {"sum": self.stack(a) + self.stack(b)}

    a, b = (tf.random.stateless_normal([3, 8], [seed, 0]) for seed in (1, 2))
    spec = tf.TensorSpec([None, 8])
    cases = [
        (keras.Sequential([keras.Input((8,)), *layers]), None, (a,)),
        (keras.Model({"one": one, "two": two}, {"y": norm(dense(one + two))}), None, ({"one": a, "two": b},)),
        (keras.Model([one, two], [dense(one), norm(two) * one]), None, ([a, b],)),
        (Own(), [spec, spec], (a, b)),
    ]
    for i, (model, signature, inputs) in enumerate(cases):
        converter = trt.TrtGraphConverterV2.from_keras(model, signature, minimum_segment_size=1)
        converted = converter.convert()
        expected = model(*inputs, training=False)
        got = converted(*inputs)
        tf.nest.assert_same_structure(got, expected)
        for left, right in zip(tf.nest.flatten(got), tf.nest.flatten(expected), strict=True):
            np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)
        converter.save(str(tmp_path / f"out_{i}"))
    regions = trt_backend.report().regions
    assert {(region.engine_calls, region.native_calls) for region in regions} == {(1, 0)}
    loaded = tf.saved_model.load(str(tmp_path / "out_1")).signatures["serving_default"]
    np.testing.assert_allclose(
        loaded(one=a, two=b)["y"], cases[1][0]({"one": a, "two": b})["y"], rtol=1e-5, atol=1e-6
    )
    with pytest.raises(ValueError, match=r"inputs of the Keras model 'own.*' are not declared"):
        trt.TrtGraphConverterV2.from_keras(Own())


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("max_batch_size", "an engine serves every batch size"),
        ("is_dynamic_op", r"built at run time, or ahead of it by build\(input_fn\)"),
        ("rewriter_config_template", "every graph is simplified first"),
    ],
)
def test_old_parameters_say_what_to_do(name: str, advice: str) -> None:
    for call in (
        trt.TrtGraphConverterV2,
        trt.TrtConversionParams,
        trt.DEFAULT_TRT_CONVERSION_PARAMS._replace,
    ):
        with pytest.raises(TypeError, match=f"no parameter '{name}': .*{advice}"):
            call(**{name: 1})


def test_parameters_of_the_old_converter_say_what_to_do() -> None:
    for name, advice in {"nodes_denylist": "TF_TRT_OP_DENYLIST", "input_graph_def": "from_function"}.items():
        with pytest.raises(TypeError, match=advice):
            trt.TrtGraphConverterV2("m", **{name: None})
    with pytest.raises(TypeError, match=r"no parameter 'nosuch'$"):
        trt.TrtGraphConverterV2("m", nosuch=1)
    for call in (trt.TrtGraphConverter, trt.create_inference_graph, trt.get_tensorrt_rewriter_config):
        with pytest.raises(RuntimeError, match="TensorFlow 1: use TrtGraphConverterV2"):
            call(input_graph_def=None)


def test_a_graph_of_version_1_by_the_way_that_the_messages_tell(x: Any) -> None:
    def graph() -> None:
        given = tf.compat.v1.placeholder(tf.float32, [None, 8], name="x")
        tf.identity(tf.nn.softmax(tf.nn.relu(given) * 2.0), name="y")

    wrapped = tf.compat.v1.wrap_function(graph, [])
    function = wrapped.prune("x:0", "y:0")
    converted = trt.TrtGraphConverterV2.from_function(function, minimum_segment_size=1).convert()
    np.testing.assert_allclose(converted(x), tf.nn.softmax(tf.nn.relu(x) * 2.0), rtol=1e-5)
    assert [region.engine_calls for region in trt_backend.report().regions] == [1]


def test_bfloat16_is_written_to_the_op(saved: str, x: Any, caplog: pytest.LogCaptureFixture) -> None:
    converter = trt.TrtGraphConverterV2(saved, precision_mode="bf16")
    converted = converter.convert()
    assert "precision_mode=BF16: engines on the CPU compute in float32" in caplog.text
    (node,) = [node for node in converter._converted_graph_def.node if node.op == engine_op.OP_NAME]
    assert node.attr["precision_mode"].s == b"BF16"
    np.testing.assert_allclose(converted(x)["y"], _native(saved)(x)["y"], rtol=1e-5)


def test_conversion_params_take_the_place_of_all(saved: str) -> None:
    params = trt.DEFAULT_TRT_CONVERSION_PARAMS._replace(minimum_segment_size=100)
    with pytest.warns(DeprecationWarning, match="conversion_params is deprecated"):
        converter = trt.TrtGraphConverterV2(saved, minimum_segment_size=1, conversion_params=params)
    converter.convert()
    assert trt_backend.report().regions == []


def test_minus_one_converts_nothing(saved: str, x: Any) -> None:
    converted = trt.TrtGraphConverterV2(saved, minimum_segment_size=-1).convert()
    np.testing.assert_allclose(converted(x)["y"], _native(saved)(x)["y"], rtol=1e-6)
    assert trt_backend.report().regions == []


def test_denylist(saved: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_TRT_OP_DENYLIST", "Relu,Foo")
    converter = trt.TrtGraphConverterV2(saved, minimum_segment_size=1)
    converter.convert()
    (reason,) = [reason for reason, _ in trt_backend.report().native_ops()]
    assert reason.op == "Relu"
    assert "TF_TRT_OP_DENYLIST" in str(reason)


def test_summary(saved: str) -> None:
    converter = trt.TrtGraphConverterV2(saved)
    converter.convert()
    lines: list[str] = []
    converter.summary(print_fn=lambda line="": lines.append(line))
    text = "\n".join(lines)
    assert lines[0].startswith("TRTEngineOP Name")
    assert lines[1] == "=" * 160
    assert "TRTEngineOp_" in text
    assert "\t- MatMul: 1x" in text
    assert "[*] Total number of TensorRT engines: 1" in text
    brief: list[str] = []
    converter.summary(detailed=False, print_fn=lambda line="": brief.append(line))
    assert "MatMul" not in "\n".join(brief)
    with pytest.raises(ValueError, match="Invalid `line_length`"):
        converter.summary(line_length=80)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"precision_mode": "FP4"}, "precision mode 'FP4' is not supported"),
        ({"minimum_segment_size": 0}, "minimum segment size should be positive or -1"),
        (
            {"use_dynamic_shape": True, "dynamic_shape_profile_strategy": "Best"},
            "profile_strategy 'Best' is not supported",
        ),
        (
            {"use_dynamic_shape": True, "dynamic_shape_profile_strategy": 3},
            "profile_strategy '3' is not supported",
        ),
        ({"minimum_segment_size": "3"}, "minimum_segment_size='3': it should be an int"),
        ({"maximum_cached_engines": None}, "maximum_cached_engines=None: it should be an int"),
        (
            {"max_workspace_size_bytes": 1 << 70},
            "max_workspace_size_bytes=.*: it should be an int, and of 64",
        ),
        ({"maximum_cached_engines": True}, "maximum_cached_engines=True: it should be an int"),
        ({"max_workspace_size_bytes": -1}, "max_workspace_size_bytes=-1: it should not be negative"),
        ({"conversion_params": {}}, "conversion_params is a dict, and should be TrtConversionParams"),
    ],
)
@pytest.mark.filterwarnings("ignore:conversion_params is deprecated:DeprecationWarning")
def test_illegal_parameters(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trt.TrtGraphConverterV2("m", **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_workspace_size_bytes": None},
        {"max_workspace_size_bytes": np.int64(1 << 20)},
        {"minimum_segment_size": np.int32(3)},
        {"maximum_cached_engines": np.int64(2)},
    ],
)
def test_limits_may_be_none_or_of_numpy(arguments: dict[str, Any]) -> None:
    converter = trt.TrtGraphConverterV2.from_function(
        lambda x: tf.nn.relu(x * 2.0 + 1.0), [tf.TensorSpec([2])], **arguments
    )
    converter.convert()
    (name,) = arguments
    (node,) = (node for node in converter._converted_graph_def.node if node.op == "TRTEngineOp")
    assert node.attr["workspace_size_bytes"].i == (1 << 20 if "workspace" in name and arguments[name] else 0)
    assert node.attr["max_cached_engines_count"].i == (2 if "engines" in name else 1)


@pytest.mark.parametrize(
    "arguments",
    [{"input_saved_model_dir": "m"}, {"input_saved_model_tags": ["serve"]}, {"signature_keys": "all"}],
)
def test_parameters_of_a_saved_model_are_none_of_a_function(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} is for a SavedModel"):
        trt.TrtGraphConverterV2.from_function(lambda x: x, [tf.TensorSpec([2])], **arguments)
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} is for a SavedModel"):
        trt.TrtGraphConverterV2.from_keras(tf.keras.Sequential([tf.keras.Input((2,))]), **arguments)


def test_order_of_calls(saved: str, x: Any, tmp_path: Path) -> None:
    converter = trt.TrtGraphConverterV2(saved)
    for call in (converter.summary, lambda: converter.save(str(tmp_path / "o"))):
        with pytest.raises(RuntimeError, match=r"Impossible to call .* before calling"):
            call()
    with pytest.raises(RuntimeError, match=r"Need to call convert\(\) before build"):
        converter.build(lambda: iter([x]))
    with pytest.raises(ValueError, match="calibration"):
        converter.convert(calibration_input_fn=lambda: iter([x]))
    converter.convert()
    with pytest.raises(RuntimeError, match="already called"):
        converter.convert()
    with pytest.raises(RuntimeError, match="input_fn is None"):
        converter.build(None)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="Failed to convert input to tensor"):
        converter.build(lambda: iter([object()]))
    for build, error, message in (
        (np.ones((3, 8)), TypeError, "input_fn is a ndarray, and should be a generator function"),
        ({}, ValueError, "no inputs for any signature"),
        (iter([x]), TypeError, "input_fn is a list_iterator, and should be a generator function"),
        (lambda: None, TypeError, "input_fn returns a NoneType, and should yield inputs"),
        (lambda: iter([]), RuntimeError, "input_fn yields no input"),
        (
            lambda: iter([x, {"nosuch": x}]),
            ValueError,
            r"as number 1; it takes x: float32 \(None, 8\): .*'x'",
        ),
        (lambda: iter([x[:, :7]]), ValueError, r"it takes x: float32 \(None, 8\)"),
        (lambda: iter([tf.cast(x, tf.float64)]), ValueError, "it takes x: float32"),
        ({"nosuch": lambda: iter([x])}, ValueError, "no signature 'nosuch' is converted"),
    ):
        with pytest.raises(error, match=message):
            converter.build(build)  # type: ignore[arg-type]
    converter.build(lambda: iter([x, [x], (x,), {"x": x}]))
    with pytest.raises(NotImplementedError, match="already called"):
        converter.build(lambda: iter([x]))


def test_models_that_cannot_be_converted(saved: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="input_saved_model_dir is None"):
        trt.TrtGraphConverterV2().convert()
    with pytest.raises(ValueError, match=r"should be one of \['other', 'serving_default'\]"):
        trt.TrtGraphConverterV2(saved, input_saved_model_signature_key="nosuch").convert()
    tf.saved_model.save(tf.Module(), str(tmp_path / "empty"))
    with pytest.raises(ValueError, match="the SavedModel has no signatures"):
        trt.TrtGraphConverterV2(str(tmp_path / "empty")).convert()
    with pytest.raises(OSError, match="does not exist"):
        trt.TrtGraphConverterV2(str(tmp_path / "nosuch")).convert()
    weights = next(Path(saved, "variables").glob("*.data-*"))
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"the weights of the SavedModel .* cannot be read"):
        trt.TrtGraphConverterV2(saved).convert()
    weights.unlink()
    with pytest.raises(ValueError, match=r"the weights of the SavedModel .* cannot be read"):
        trt.TrtGraphConverterV2(saved).convert()


def test_types_that_no_engine_has_stay_native(tmp_path: Path) -> None:
    class Mixed(tf.Module):
        @tf.function(
            input_signature=[
                tf.TensorSpec([None], tf.string, name="text"),
                tf.TensorSpec([None, 4], tf.complex64, name="z"),
            ]
        )
        def serve(self, text: Any, z: Any) -> Any:
            size = tf.cast(tf.strings.length(text), tf.float32)
            return {
                "upper": tf.strings.upper(text),
                "z": z * z + z,
                "y": tf.nn.relu(tf.tanh(size * 0.1) + 1.0) * 2.0,
            }

    model = Mixed()
    tf.saved_model.save(model, str(tmp_path / "m"), signatures=model.serve)
    converted = trt.TrtGraphConverterV2(str(tmp_path / "m")).convert()
    text = tf.constant(["a", "bcd"])
    z = tf.complex(tf.ones([2, 4]), tf.range(8.0)[:4] * tf.ones([2, 1]))
    got, expected = converted(text=text, z=z), model.serve(text, z)
    assert got["upper"].numpy().tolist() == [b"A", b"BCD"]
    np.testing.assert_allclose(got["z"], expected["z"])
    np.testing.assert_allclose(got["y"], expected["y"], rtol=1e-6)
    (region,) = trt_backend.report().regions
    assert (region.engine_calls, region.native_calls) == (1, 0)
    reasons = {reason.op: str(reason) for reason, _ in trt_backend.report().native_ops()}
    assert {"StringUpper", "StringLength", "Mul"} <= reasons.keys()
    assert "complex64" in reasons["Mul"]


def test_a_model_that_writes_its_variables_is_refused(tmp_path: Path) -> None:
    class Counter(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.count = tf.Variable(0.0)

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32, name="x")])
        def serve(self, x: Any) -> Any:
            return {"y": x * 2.0 + self.count.assign_add(1.0)}

    model = Counter()
    tf.saved_model.save(model, str(tmp_path / "m"), signatures=model.serve)
    with pytest.raises(ValueError, match="cannot be frozen"):
        trt.TrtGraphConverterV2(str(tmp_path / "m")).convert()


def test_an_empty_batch_runs_natively(saved: str, x: Any) -> None:
    converted = trt.TrtGraphConverterV2(saved).convert()
    assert converted(tf.zeros([0, 8]))["y"].shape == (0, 8)
    np.testing.assert_allclose(converted(x)["y"], _native(saved)(x)["y"], rtol=1e-5)
    (region,) = trt_backend.report().regions
    assert (region.engine_calls, region.native_calls) == (1, 1)
    assert region.reason is None


def test_a_failed_build_runs_natively(saved: str, x: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from trt_backend.engine.onnxruntime import OnnxRuntimeProvider
    from trt_backend.errors import BuildError

    def refuse(*_: object) -> None:
        raise BuildError("no memory")

    monkeypatch.setattr(OnnxRuntimeProvider, "build", refuse)
    converted = trt.TrtGraphConverterV2(saved).convert()
    for _ in range(2):
        np.testing.assert_allclose(converted(x)["y"], _native(saved)(x)["y"], rtol=1e-6)
    (region,) = trt_backend.report().regions
    assert region.reason is not None
    assert region.reason.kind is ReasonKind.BUILD_FAILED
    assert (region.engine_calls, region.native_calls) == (0, 2)


@pytest.mark.may_report_bug
def test_a_bug_of_ours_runs_natively(saved: str, x: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(engine_op, "lower_segment", fail)
    converted = trt.TrtGraphConverterV2(saved).convert()
    np.testing.assert_allclose(converted(x)["y"], _native(saved)(x)["y"], rtol=1e-6)
    (region,) = trt_backend.report().regions
    assert region.reason is not None
    assert region.reason.kind is ReasonKind.BUG


def test_threads_build_once_and_agree(saved: str) -> None:
    converted = trt.TrtGraphConverterV2(saved).convert()
    native = _native(saved)
    generator = np.random.default_rng(0)
    inputs = [tf.constant(generator.random((n, 8), np.float32)) for n in range(1, 9)]
    expected = [native(x)["y"].numpy() for x in inputs]
    wrong: list[str] = []

    def work(i: int) -> None:
        for _ in range(50):
            got = converted(inputs[i])["y"].numpy()
            if not np.allclose(got, expected[i], rtol=1e-5):
                wrong.append(f"{i}: {np.abs(got - expected[i]).max()}")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    (region,) = trt_backend.report().regions
    assert (region.engines, region.engine_calls, region.native_calls) == (1, 400, 0)


def test_native_in_many_threads(saved: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The native function runs inside of the kernel: more calls than TensorFlow has threads must not wait for ever."""
    from trt_backend.engine.onnxruntime import OnnxRuntimeProvider
    from trt_backend.errors import BuildError

    def refuse(*_: object) -> None:
        raise BuildError("no memory")

    monkeypatch.setattr(OnnxRuntimeProvider, "build", refuse)
    converted = trt.TrtGraphConverterV2(saved).convert()
    x = tf.ones([2, 8])
    expected = _native(saved)(x)["y"].numpy()
    data = tf.data.Dataset.from_tensors(x).repeat(64).map(lambda x: converted(x)["y"], num_parallel_calls=16)
    for got in data:
        np.testing.assert_allclose(got, expected, rtol=1e-6)
    threads = [threading.Thread(target=lambda: [converted(x) for _ in range(20)]) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (region,) = trt_backend.report().regions
    assert region.native_calls == 64 + 320


def test_data_pipelines_and_keras_layers(saved: str, x: Any, tmp_path: Path) -> None:
    keras = pytest.importorskip("keras")
    converter = trt.TrtGraphConverterV2(saved)
    converter.convert()
    converter.save(str(tmp_path / "out"))
    loaded = tf.saved_model.load(str(tmp_path / "out"))
    function = loaded.signatures["serving_default"]
    expected = _native(saved)(x)["y"].numpy()
    for got in (
        tf.data.Dataset.from_tensors(x).repeat(5).map(lambda x: function(x=x)["y"], num_parallel_calls=2)
    ):
        np.testing.assert_allclose(got, expected, rtol=1e-5)
    layer = keras.layers.TFSMLayer(str(tmp_path / "out"), call_endpoint="serving_default")
    np.testing.assert_allclose(layer(x)["y"], expected, rtol=1e-5)


def test_two_conversions_do_not_meet(saved: str, x: Any) -> None:
    first = trt.TrtGraphConverterV2(saved, minimum_segment_size=1).convert()
    second = trt.TrtGraphConverterV2(
        saved, input_saved_model_signature_key="other", minimum_segment_size=1
    ).convert()
    np.testing.assert_allclose(second(x)["z"], _native(saved, "other")(x)["z"], rtol=1e-5)
    np.testing.assert_allclose(first(x)["y"], _native(saved)(x)["y"], rtol=1e-5)
