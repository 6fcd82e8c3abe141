"""TensorFlow's tensors in the host's memory, engines of TensorRT on the GPU: the answers are TensorFlow's."""

from __future__ import annotations

import functools
import gc
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.gpu
torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)
pytest.importorskip("tensorrt")
tf = pytest.importorskip("tensorflow")
pytest.importorskip("keras")

from keras_models import LARGE, MODELS, Exported, assert_close, export, tensors  # noqa: E402
from op_cases import CASES, Case, dtypes_in_tensorrt, tensorrt_refuses  # noqa: E402
from tf_checks import assert_close as assert_tensors_close  # noqa: E402
from tf_checks import convert_function, specs_of  # noqa: E402

import trt_backend  # noqa: E402
from trt_backend.engine import staged  # noqa: E402
from trt_backend.engine.providers import load_provider  # noqa: E402
from trt_backend.errors import BuildError, ReasonKind  # noqa: E402
from trt_backend.options import CompileOptions  # noqa: E402
from trt_backend.runtime.profiled import BUILDER_THREAD  # noqa: E402
from trt_backend_tf import device, engine_op, trt_convert  # noqa: E402

FACTOR = 10.0
"""How much further than ONNX Runtime's TensorRT's answers may be from TensorFlow's: sums in another order, mostly."""
QUICK = {"optimization_level": 0}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have converters and loaded models build engines in little time."""
    options = functools.partial(CompileOptions, **QUICK)
    for module in (trt_convert, engine_op):
        monkeypatch.setattr(module, "CompileOptions", options)


def _converted(exported: Exported) -> tuple[Any, Any]:
    """Return the converter, and its function, with engines for the second call's sizes and below."""
    trt_backend.reset_report()
    converter = trt_convert.TrtGraphConverterV2(str(exported.folder))
    converter.convert()
    converter.build(lambda: iter(exported.calls[1:2]))
    return converter, converter._converted_func


def _check_engines(engines: int, calls: int) -> None:
    regions = trt_backend.report().regions
    assert 1 <= len(regions) <= engines
    for region in regions:
        assert region.reason is None
        assert region.provider == "tensorrt"
        assert (region.engines, region.engine_calls, region.native_calls) == (1, calls, 0)


def _wait_for_builders() -> None:
    for thread in threading.enumerate():
        if thread.name == BUILDER_THREAD:
            thread.join(300)
            assert not thread.is_alive()


@pytest.mark.usefixtures("own_cache")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in MODELS]
)
def test_keras_model(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Converted, built, called with other sizes, saved with its engines, and loaded where none can be built."""
    exported = export(name, tmp_path / "native")
    converter, function = _converted(exported)
    answers = list(zip(exported.calls, exported.answers, strict=True))
    for call, answer in answers[:2]:
        assert_close(function(**tensors(call)), answer, FACTOR)
    _check_engines(MODELS[name].engines, calls=3)
    report = trt_backend.report().to_dict()
    assert report["ops_in_engines"] / report["ops_total"] >= MODELS[name].share
    call, answer = answers[2]  # the engine serves it, or a wider one is built beside native calls
    assert_close(function(**tensors(call)), answer, FACTOR)
    _wait_for_builders()
    before = [region.engine_calls for region in trt_backend.report().regions]
    assert_close(function(**tensors(call)), answer, FACTOR)
    assert [region.engine_calls for region in trt_backend.report().regions] == [count + 1 for count in before]

    converter.save(str(tmp_path / "converted"))
    del converter, function
    gc.collect()
    trt_backend.reset_report()
    monkeypatch.setenv("TRT_BACKEND_CACHE_DIR", str(tmp_path / "another cache"))
    monkeypatch.setattr(type(load_provider("tensorrt")), "build", _refuse)
    loaded = tf.saved_model.load(str(tmp_path / "converted")).signatures["serving_default"]
    for call, answer in answers:
        assert_close(loaded(**tensors(call)), answer, FACTOR)
    _check_engines(MODELS[name].engines, calls=3)


def _refuse(*_: Any) -> bytes:
    raise BuildError("it should have come with the model")


@pytest.mark.usefixtures("own_cache")
def test_sixteen_callers(tmp_path: Path) -> None:
    """Each has its own answer, from one engine and a few lanes; threads end as they began, without the device."""
    exported = export("cnn", tmp_path / "native")
    _, function = _converted(exported)
    inputs = [{name: array * (1 + i / 16) for name, array in exported.calls[1].items()} for i in range(16)]
    wanted = [exported.signature(**tensors(call)) for call in inputs]

    def work(i: int) -> None:
        for _ in range(50):
            assert_close(function(**tensors(inputs[i])), wanted[i], FACTOR)

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(work, range(16)))
    _check_engines(1, calls=1 + 16 * 50)
    assert 1 <= len(staged._of_process[0]._idle) <= staged._MOST


@pytest.mark.exclusive
@pytest.mark.usefixtures("own_cache")
def test_memory_is_used_again(tmp_path: Path) -> None:
    exported = export("cnn", tmp_path / "native")
    _, function = _converted(exported)
    call = tensors(exported.calls[1])
    for _ in range(3):
        function(**call)
    torch.cuda.synchronize()
    free, _ = torch.cuda.mem_get_info()
    for _ in range(500):
        function(**call)
    assert torch.cuda.mem_get_info()[0] >= free - (1 << 20)


def test_integers_that_tensorrt_may_not_have() -> None:
    """int64 goes in and comes out."""
    x, y = tf.constant([[3, -5, 7]], tf.int64), tf.constant([[10, 20, 30]], tf.int64)
    _check_op(lambda x, y: [tf.maximum(x + y, 0), tf.concat([x, y], 1)], [x, y], native=False)


def test_the_variable_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device.load_provider().name == "tensorrt"
    monkeypatch.setenv("TRT_BACKEND_PROVIDER", "onnxruntime")
    assert device.load_provider().name == "onnxruntime"


def _check_op(function: Any, inputs: list[Any], *, native: bool, dynamic: bool = False) -> None:
    """Compare with TensorFlow; unless `native` is allowed, all must be in an engine."""
    options = {"max_engines": 1, **QUICK}
    concrete, conversion = convert_function(
        function, specs_of(inputs, dynamic), device.load_provider(), **options
    )
    assert_tensors_close(conversion.function(*inputs), concrete(*inputs), FACTOR)
    for reason in conversion.record.native:
        assert native
        assert reason.kind is ReasonKind.DTYPE
        assert "tensorrt" in reason.detail.lower(), "its support table says so"
    assert native or conversion.record.regions
    for region in conversion.record.regions:
        assert region.reason is None
        assert (region.provider, region.engine_calls, region.native_calls) == ("tensorrt", 1, 0)


def _is_everywhere(op: str, case: Case, dtype: str) -> bool:
    """Whether every TensorRT from 8.6 on takes a case."""
    return not tensorrt_refuses(op, case, dtype) and dtype not in ("int64", "bfloat16")


@pytest.mark.parametrize(
    ("op", "case", "dtype"),
    [
        pytest.param(op, case, dtype, id=f"{op}-{number}-{dtype}")
        for op, cases in CASES.items()
        for number, case in enumerate(cases)
        for dtype in dtypes_in_tensorrt(case)
        if not tensorrt_refuses(op, case, dtype)
    ],
)
def test_op(op: str, case: Case, dtype: str) -> None:
    _check_op(
        case.function(op), case.draw(dtype), native=not _is_everywhere(op, case, dtype), dynamic=case.dynamic
    )


def test_a_call_that_the_driver_refuses_runs_natively_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exported = export("mlp", tmp_path / "native")
    _, function = _converted(exported)
    status = staged.cuda._driver.CUresult.CUDA_ERROR_LAUNCH_FAILED
    with monkeypatch.context() as patch:
        patch.setattr(staged.cuda, "transfer_async", lambda *_: staged.cuda._call((status,)))
        assert_close(function(**tensors(exported.calls[1])), exported.answers[1], FACTOR)
    (region,) = trt_backend.report().regions
    assert (region.engine_calls, region.native_calls) == (1, 1)
    assert region.reason is not None
    assert region.reason.kind is ReasonKind.RUN_FAILED
