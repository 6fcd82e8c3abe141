"""SavedModels that today's TensorFlow does not write: of version 1, and of Keras 2 with optimizer slots."""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

tf = pytest.importorskip("tensorflow")

import numpy as np  # noqa: E402
from fresh_process import answers_of_a_fresh_process  # noqa: E402

import trt_backend  # noqa: E402
from trt_backend_tf import trt_convert as trt  # noqa: E402
from trt_backend_tf.internals import load_v1_in_v2, loader_impl  # noqa: E402

WRITTEN_BEFORE_2_16 = "'_UserObject' object has no attribute 'add_slot'"


def _x(batch: int = 3) -> Any:
    return np.random.default_rng(batch).normal(size=(batch, 8)).astype(np.float32)


def _write_v1(folder: Path, tags: Sequence[str] = ("serve",), *, resource: bool, signed: bool = True) -> Any:
    """Write a model with the API of version 1, and return what it answers to `_x()`."""
    v1 = tf.compat.v1
    random = v1.random_normal_initializer(seed=1)
    with tf.Graph().as_default(), v1.Session() as session:
        x = v1.placeholder(tf.float32, [None, 8], name="given")
        with v1.variable_scope("layer", use_resource=resource):
            kernel = v1.get_variable("kernel", [8, 4], initializer=random)
            table = v1.get_variable("table", [5, 4], initializer=random)
        chosen = tf.argmax(tf.matmul(x, kernel), axis=1)
        y = tf.nn.relu(tf.matmul(x, kernel)) + tf.nn.embedding_lookup(table, chosen)
        session.run(v1.global_variables_initializer())
        builder = v1.saved_model.Builder(str(folder))
        outputs = {"probability": tf.nn.softmax(y), "score": y}
        signature = v1.saved_model.predict_signature_def({"x": x}, outputs)
        builder.add_meta_graph_and_variables(session, tags, {"serving_default": signature} if signed else {})
        builder.save()
        return session.run(outputs, {x: _x()})


class _Model(tf.Module):
    """What Keras 2 wrote: a variable, and an optimizer with a slot for it."""

    def __init__(self, *, writes: bool = False) -> None:
        super().__init__()
        self.kernel = tf.Variable(np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32))
        self.count = tf.Variable(1.0)
        self.optimizer = tf.Module()
        self.optimizer.momentum = tf.Variable(tf.zeros([8, 4]))
        self._writes = writes

    @tf.function(input_signature=[tf.TensorSpec([None, 8], name="x"), tf.TensorSpec([], name="scale")])
    def serve(self, x: Any, scale: Any) -> Any:
        steps = tf.constant(0)
        y = tf.matmul(x, self.kernel) * scale
        count = self.count.assign_add(1.0) if self._writes else self.count
        # A loop that reads the variable, whose handle is then an argument of two functions.
        _, y = tf.while_loop(
            lambda i, _: i < 3, lambda i, y: (i + 1, tf.matmul(y, self.kernel, transpose_b=True) @ self.kernel), (steps, y)
        )  # fmt: skip
        return {"y": tf.nn.relu(tf.tanh(y)) + count}


def _write_with_slots(folder: Path, model: _Model) -> None:
    """Save a model so that TensorFlow refuses to load it since 2.16."""
    tf.saved_model.save(model, str(folder), signatures=model.serve)
    saved = loader_impl.parse_saved_model(str(folder))
    nodes = saved.meta_graphs[0].object_graph_def.nodes
    children = {child.local_name: child.node_id for child in nodes[0].children}
    optimizer = nodes[children["optimizer"]]
    slots = {child.local_name: child.node_id for child in optimizer.children}
    optimizer.slot_variables.add(
        original_variable_node_id=children["kernel"],
        slot_name="momentum",
        slot_variable_node_id=slots["momentum"],
    )
    (folder / "saved_model.pb").write_bytes(saved.SerializeToString())
    with pytest.raises(AttributeError, match=WRITTEN_BEFORE_2_16):
        tf.saved_model.load(str(folder))


def _in_a_fresh_process(converter: Any, tmp_path: Path, given: dict[str, Any]) -> dict[str, Any]:
    """Save, move, and run the model in a process that only loads it; every region must run in its engine."""
    converter.save(str(tmp_path / "converted"))
    (answers,), report = answers_of_a_fresh_process(tmp_path / "converted", [given])
    _check_regions(report, calls=1)
    return answers


def _check_regions(report: dict[str, Any], calls: int) -> None:
    assert report["regions"]
    for region in report["regions"]:
        assert region["reason"] is None
        assert (region["engines"], region["engine_calls"], region["native_calls"]) == (1, calls, 0)


def _assert_close(got: Any, expected: Any) -> None:
    assert set(got) == set(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(np.asarray(got[key]), np.asarray(value), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("resource", [False, True], ids=["reference_variables", "resource_variables"])
def test_version_1(resource: bool, tmp_path: Path) -> None:
    expected = _write_v1(tmp_path / "m", resource=resource)
    converter = trt.TrtGraphConverterV2(str(tmp_path / "m"))
    converted = converter.convert()
    assert converted.structured_input_signature[1]["x"].shape.as_list() == [None, 8]
    _assert_close(converted(x=tf.constant(_x())), expected)
    _assert_close(converted(tf.constant(_x())), expected)
    report = trt_backend.report().to_dict()
    _check_regions(report, calls=2)
    assert report["ops_in_engines"] == report["ops_total"] > 3
    _assert_close(_in_a_fresh_process(converter, tmp_path, {"x": _x()}), expected)


def test_optimizer_slots(tmp_path: Path) -> None:
    model = _Model()
    _write_with_slots(tmp_path / "m", model)
    given = {"x": _x(), "scale": np.float32(0.25)}
    named = {name: tf.constant(value) for name, value in given.items()}
    expected = model.serve(**named)
    converter = trt.TrtGraphConverterV2(str(tmp_path / "m"), minimum_segment_size=1)
    converted = converter.convert()
    assert not converted.graph.variables
    assert not converted.captured_inputs
    _assert_close(converted(**named), expected)
    _check_regions(trt_backend.report().to_dict(), calls=1)
    _assert_close(_in_a_fresh_process(converter, tmp_path, given), expected)


def test_two_models_with_variables_of_the_same_names(tmp_path: Path) -> None:
    """Handles are found by name: each conversion must read its own model's."""
    named = {"x": tf.constant(_x()), "scale": tf.constant(0.25)}
    for i, factor in enumerate((1.0, 0.5)):
        model = _Model()
        model.kernel.assign(model.kernel * factor)
        _write_with_slots(tmp_path / f"m{i}", model)
        converted = trt.TrtGraphConverterV2(str(tmp_path / f"m{i}"), minimum_segment_size=1).convert()
        _assert_close(converted(**named), model.serve(**named))


def test_a_variable_that_is_written_is_refused(tmp_path: Path) -> None:
    _write_with_slots(tmp_path / "m", _Model(writes=True))
    with pytest.raises(ValueError, match="cannot be frozen"):
        trt.TrtGraphConverterV2(str(tmp_path / "m")).convert()


def test_a_variable_without_a_value_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = load_v1_in_v2.load
    monkeypatch.setattr(
        load_v1_in_v2, "load", lambda folder, tags, **_: load(folder, tags, skip_restoring_checkpoint=True)
    )
    _write_with_slots(tmp_path / "m", _Model())
    with pytest.raises(ValueError, match="cannot be frozen, its checkpoint lacks a variable"):
        trt.TrtGraphConverterV2(str(tmp_path / "m")).convert()


def test_a_variable_that_only_its_name_holds_is_refused(tmp_path: Path) -> None:
    class Named(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([4], name="x")])
        def serve(self, x: Any) -> Any:
            handle = tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=[4], shared_name="somewhere")
            return {"y": x * tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32)}

    model = Named()
    tf.saved_model.save(model, str(tmp_path / "m"), signatures=model.serve)
    with pytest.raises(ValueError, match=r"variables .* cannot be frozen, the first is .*VarHandleOp"):
        trt.TrtGraphConverterV2(str(tmp_path / "m")).convert()


def test_unknown_tags(tmp_path: Path) -> None:
    _write_v1(tmp_path / "v1", ["serve", "tpu"], resource=True)
    _write_with_slots(tmp_path / "slots", _Model())
    with pytest.raises(ValueError, match=r"tags \['serve'\]; .* should be \['serve', 'tpu'\]"):
        trt.TrtGraphConverterV2(str(tmp_path / "v1")).convert()
    with pytest.raises(ValueError, match=r"tags \['gpu'\]; .* should be \['serve'\]"):
        trt.TrtGraphConverterV2(str(tmp_path / "slots"), input_saved_model_tags=["gpu"]).convert()
    named = trt.TrtGraphConverterV2(str(tmp_path / "v1"), input_saved_model_tags=["tpu", "serve"])
    assert named.convert() is not None


def test_unknown_signatures(tmp_path: Path) -> None:
    _write_v1(tmp_path / "v1", resource=True)
    _write_v1(tmp_path / "unsigned", resource=True, signed=False)
    _write_with_slots(tmp_path / "slots", _Model())
    for name in ("v1", "slots"):
        with pytest.raises(ValueError, match=r"no signature 'nosuch'; .* one of \['serving_default'\]"):
            trt.TrtGraphConverterV2(str(tmp_path / name), input_saved_model_signature_key="nosuch").convert()
    with pytest.raises(ValueError, match="the SavedModel has no signatures"):
        trt.TrtGraphConverterV2(str(tmp_path / "unsigned")).convert()


def _basic_pitch() -> Path | None:
    package = importlib.util.find_spec("basic_pitch")
    if package is None or not package.submodule_search_locations:
        return None
    return Path(package.submodule_search_locations[0], "saved_models", "icassp_2022", "nmp")


@pytest.mark.skipif(_basic_pitch() is None, reason="needs the files of the package basic-pitch")
def test_basic_pitch(tmp_path: Path) -> None:
    folder = str(_basic_pitch())
    native = load_v1_in_v2.load(folder, ["serve"]).signatures["serving_default"]
    time = np.arange(2 * 43844, dtype=np.float32).reshape(2, 43844, 1) / 22050
    audio = np.sin(2 * np.pi * 440 * time) * np.exp(-2 * (time % 0.5))
    expected = native(input_2=tf.constant(audio))
    assert np.ptp(expected["note"].numpy()) > 0.5
    converter = trt.TrtGraphConverterV2(folder)
    converted = converter.convert()
    _assert_close(converted(input_2=tf.constant(audio)), expected)
    _assert_close(
        converted(input_2=tf.constant(audio[:1])), {key: value[:1] for key, value in expected.items()}
    )
    report = trt_backend.report().to_dict()
    _check_regions(report, calls=2)
    assert report["ops_in_engines"] >= 0.98 * report["ops_total"]
    _assert_close(_in_a_fresh_process(converter, tmp_path, {"input_2": audio}), expected)


class _WithTable(tf.Module):
    """Embeddings of words that a file lists."""

    def __init__(self, words: Path) -> None:
        words.write_text("one\ntwo\n")
        index = tf.lookup.TextFileIndex
        listed = tf.lookup.TextFileInitializer(
            str(words), tf.string, index.WHOLE_LINE, tf.int64, index.LINE_NUMBER
        )
        self.table = tf.lookup.StaticHashTable(listed, -1)
        self.weights = tf.Variable(tf.random.stateless_normal([3, 4], [1, 2]))

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="x")])
    def embed(self, x: Any) -> Any:
        """Return the embeddings."""
        return {"y": tf.nn.relu(tf.gather(self.weights, self.table.lookup(x) + 1) * 2.0 + 1.0)}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="x")])
    def nested(self, x: Any) -> Any:
        """Return the embeddings that another function makes."""
        return {"y": tf.identity(self.embed(x)["y"])}


@pytest.mark.parametrize("name", ["embed", "nested"])
def test_a_model_with_a_lookup_table(name: str, tmp_path: Path) -> None:
    model = _WithTable(tmp_path / "words.txt")
    tf.saved_model.save(model, str(tmp_path / "model"), signatures=getattr(model, name))
    words = tf.constant(["two", "unknown", "one"])
    wanted = model.embed(words)["y"]
    converter = trt.TrtGraphConverterV2(str(tmp_path / "model"), minimum_segment_size=1)
    np.testing.assert_allclose(converter.convert()(words)["y"], wanted, rtol=1e-6)
    converter.save(str(tmp_path / "converted"))
    (answers,), report = answers_of_a_fresh_process(
        tmp_path / "converted", [{"x": words.numpy().astype("U")}]
    )
    np.testing.assert_allclose(answers["y"], wanted, rtol=1e-6)
    for regions in (trt_backend.report().to_dict()["regions"], report["regions"]):
        assert [(r["ops"], r["engine_calls"], r["native_calls"]) for r in regions] == [(5, 1, 0)]


def test_a_table_lives_as_long_as_what_looks_up_in_it(tmp_path: Path) -> None:
    model = _WithTable(tmp_path / "words.txt")
    words = tf.constant(["two", "unknown", "one"])
    wanted = model.embed(words)["y"]
    converter = trt.TrtGraphConverterV2.from_function(model.embed, minimum_segment_size=1)
    converted = converter.convert()
    del model
    gc.collect()
    np.testing.assert_allclose(converted(words)["y"], wanted, rtol=1e-6)
    converter.save(str(tmp_path / "converted"))
    loaded = tf.saved_model.load(str(tmp_path / "converted")).signatures["serving_default"]
    np.testing.assert_allclose(loaded(words)["y"], wanted, rtol=1e-6)


def test_a_resource_that_cannot_be_saved_is_refused() -> None:
    iterator = iter(tf.data.Dataset.range(3))
    with pytest.raises(ValueError, match="1 variables or other resources of the model cannot be frozen"):
        trt.TrtGraphConverterV2.from_function(lambda: tf.cast(next(iterator), tf.float32) * 2.0, []).convert()


def test_a_table_of_version_1_is_refused(tmp_path: Path) -> None:
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        x = tf.compat.v1.placeholder(tf.string, [None])
        table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a"], [3]), -1)
        y = table.lookup(x) * 2
        session.run(tf.compat.v1.tables_initializer())
        tf.compat.v1.saved_model.simple_save(
            session, str(tmp_path / "v1"), {"x": x}, {"y": y}, tf.compat.v1.tables_initializer()
        )
    with pytest.raises(ValueError, match="lookup tables in a graph of TensorFlow 1 cannot be converted"):
        trt.TrtGraphConverterV2(str(tmp_path / "v1")).convert()
