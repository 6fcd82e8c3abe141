"""Bad options and unsupported input: a clear error, or a native run with its reason; never a wrong answer."""

from __future__ import annotations

import pytest
import torch
from torch_checks import ON_TRT, assert_close, chain, compile_trt, kind_of, needs_trt

if ON_TRT:
    from trt_backend import errors


def fn(x):
    return (x * 2 + 1).abs()


def error_in(options, x=None):
    """The error of ours that compiling and running `fn` raises, wherever torch wraps it."""
    with pytest.raises(Exception) as caught, torch.no_grad():  # noqa: PT011
        compile_trt(fn, options=options)(torch.randn(3) if x is None else x)
    ours = [e for e in chain(caught.value) if isinstance(e, errors.TrtBackendError)]
    assert ours, f"no error of ours behind {caught.value!r}"
    return ours[0]


# -- options --


@needs_trt
@pytest.mark.parametrize(
    ("typo", "meant"),
    [
        ("min_blok_size", "min_block_size"),
        ("Provider", "provider"),
        ("provder", "provider"),
        ("thread", "threads"),
        ("stict", "strict"),
        ("dumpdir", "dump_dir"),
    ],
)
def test_unknown_option(typo, meant):
    error = error_in({typo: 1})
    assert isinstance(error, errors.OptionError)
    assert isinstance(error, ValueError)
    assert "did you mean" in str(error).lower()
    assert typo in str(error)
    assert meant in str(error)


@needs_trt
def test_unknown_option_like_no_other():
    error = error_in({"qwertyuiop": 1})
    assert isinstance(error, errors.OptionError)
    assert "qwertyuiop" in str(error)
    assert "min_block_size" in str(error), "lists the legal names"


@needs_trt
@pytest.mark.parametrize(
    ("name", "value", "legal"),
    [
        ("provider", "onnx", "onnxruntime"),
        ("provider", 3, "onnxruntime"),
        ("provider", None, "auto"),
        ("min_block_size", 0, "1"),
        ("min_block_size", -3, "1"),
        ("min_block_size", "3", "int"),
        ("min_block_size", 2.5, "int"),
        ("min_block_size", True, "int"),
        ("threads", 0, "1"),
        ("threads", "all", "int"),
        ("strict", "yes", "bool"),
        ("strict", 1, "bool"),
        ("fuel", -1, "0"),
        ("fuel", 1.5, "int"),
        ("dump_dir", 3, "str"),
    ],
)
def test_illegal_value(name, value, legal):
    error = error_in({name: value})
    assert isinstance(error, errors.OptionError)
    assert name in str(error)
    assert repr(value) in str(error)
    assert legal in str(error)


@needs_trt
@pytest.mark.cpu_only(reason="where there is a GPU, TensorRT is there")
def test_a_provider_that_is_not_there():
    error = error_in({"provider": "tensorrt"})
    assert isinstance(error, errors.ProviderUnavailableError)
    assert "pip install 'trt-backend[tensorrt]'" in str(error)


@needs_trt
def test_mode_is_accepted_or_refused_clearly(report):
    """`mode=` reaches every backend; torch refuses it together with options."""
    with torch.no_grad():
        compiled = torch.compile(fn, backend="trt", mode="reduce-overhead")
        assert_close(compiled(torch.ones(3)), fn(torch.ones(3)))


# -- dtypes --

DTYPES = [
    torch.float16,
    torch.bfloat16,
    torch.float64,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
    torch.uint8,
    torch.complex64,
    torch.complex128,
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_gives_eagers_answer(dtype, report):
    x = torch.tensor([[1, 2, 3], [4, 5, 6]]).to(dtype)
    compiled = compile_trt(fn)
    with torch.no_grad():
        for _ in range(2):
            assert_close(compiled(x), fn(x), rtol=1e-2 if dtype in (torch.float16, torch.bfloat16) else 1e-5)
    if dtype.is_complex:
        report.no_engine_ran("unsupported dtype")
    elif report.total("engine_calls") == 0:
        report.no_engine_ran()


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e4m3fn, torch.uint16], ids=str)
def test_an_unsupported_dtype_in_the_middle(dtype, report):
    """Only what touches the dtype is native."""

    def mixed(x):
        y = (x * 2).exp()
        z = (
            y.to(dtype).to(torch.float32)
            if dtype != torch.complex64
            else torch.view_as_real(torch.fft.fft(y)).sum(-1)
        )
        return (z + 1).abs().sqrt()

    compiled = compile_trt(mixed)
    x = torch.rand(4, 4)
    with torch.no_grad():
        for _ in range(2):
            assert_close(compiled(x), mixed(x))
    report.engines_ran(calls=2)
    if dtype == torch.complex64:
        report.native("unsupported dtype")


@needs_trt
def test_reasons_name_op_kind_and_line(report):
    x = torch.tensor([1 + 2j, 3 - 1j])
    with torch.no_grad():
        assert_close(compile_trt(fn)(x), fn(x))
    native = report.data["native_ops"]
    assert native
    for op in native:
        assert op["reason"].startswith(op["op"]), op
        assert kind_of(op["reason"]) == "unsupported dtype"
        assert "complex64" in op["reason"]
        assert "test_bad_input.py:" in op["source"], op
        assert op["count"] >= 1


@needs_trt
def test_strict_raises_where_an_op_is_not_supported():
    error = error_in({"strict": True}, torch.tensor([1 + 2j]))
    assert isinstance(error, errors.UnsupportedError)
    assert "complex64" in str(error)


@needs_trt
def test_strict_is_silent_where_all_is_well(report):
    with torch.no_grad():
        assert_close(compile_trt(fn, options={"strict": True})(torch.ones(3)), fn(torch.ones(3)))
    report.engines_ran()


def test_an_op_without_a_rule(report):
    """Data-dependent and exotic ops run natively between two regions."""

    def exotic(x):
        return torch.linalg.qr((x * 2).exp())[1].abs().sum(0) + 1

    compiled = compile_trt(exotic)
    x = torch.rand(4, 4)
    with torch.no_grad():
        assert_close(compiled(x), exotic(x))
    report.engines_ran(calls=2)
    report.native("no lowering rule", "qr")


@pytest.mark.parametrize(
    "kind", ["sparse", "quantized weight", "strided subclass", "nested structure of nothing"]
)
def test_unusual_arguments(kind, report):
    """Whatever dynamo lets through gives eager's answer."""
    if kind == "sparse":
        args, f = (torch.eye(3).to_sparse(), torch.ones(3, 3)), lambda a, b: torch.sparse.mm(a, b) + 1
    elif kind == "quantized weight":
        args = torch.randint(-8, 8, (3, 3), dtype=torch.int8), torch.ones(3, 3)
        f = lambda a, b: b @ (a.float() * 0.1)  # noqa: E731
    elif kind == "strided subclass":
        args, f = (torch.nn.Parameter(torch.ones(3, 3)), torch.ones(3, 3)), lambda a, b: a @ b
    else:
        args, f = ([], {}), lambda a, b: (a, b, torch.ones(2) + len(a))
    with torch.no_grad():
        assert_close(compile_trt(f)(*args), f(*args))
