"""Engines of ONNX Runtime: zero copy, threads, and clear errors."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from trt_backend.debug import Dump
from trt_backend.engine.base import CPU_HOST, call_shapes
from trt_backend.engine.onnxruntime import OnnxRuntimeEngine, provider
from trt_backend.engine.profile import EVERYTHING
from trt_backend.engine.providers import PROVIDERS, load_provider
from trt_backend.errors import BuildError, ProviderUnavailableError, RunError
from trt_backend.ir.builder import Builder
from trt_backend.ir.dims import Dim, Symbol
from trt_backend.ir.graph import Graph
from trt_backend.ir.ops.contraction import MatrixMultiply
from trt_backend.ir.types import DType, TensorType
from trt_backend.options import CompileOptions

OPTIONS = CompileOptions(threads=1)


def product() -> Graph:
    """Return `x [n, 3] @ w [3, 2]`."""
    b = Builder()
    x = b.input("x", TensorType(DType.FLOAT32, (Dim.of(Symbol("n")), 3)))
    w = b.input("w", TensorType(DType.FLOAT32, (3, 2)), weight=True)
    return b.build([b.add(MatrixMultiply(), x, w)])


def engine(graph: Graph) -> OnnxRuntimeEngine:
    stack = provider()
    return stack.load(stack.build(graph, EVERYTHING, OPTIONS, Dump(None)), graph, OPTIONS)


def run(loaded: OnnxRuntimeEngine, graph: Graph, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    result = np.empty((x.shape[0], 2), np.float32)
    shapes = call_shapes(graph, {"n": x.shape[0]})
    loaded.run(shapes, [x.ctypes.data, w.ctypes.data], [result.ctypes.data], CPU_HOST)
    return result


def test_one_engine_takes_every_size_and_reads_live_weights() -> None:
    graph = product()
    loaded = engine(graph)
    w = np.ones((3, 2), np.float32)
    for n in (1, 4, 2):
        x = np.random.default_rng(n).random((n, 3), np.float32)
        np.testing.assert_allclose(run(loaded, graph, x, w), x @ w, rtol=1e-6)
        w += 1  # in place, at the same address
        np.testing.assert_allclose(run(loaded, graph, x, w), x @ w, rtol=1e-6)


def test_threads_share_an_engine() -> None:
    graph = product()
    loaded = engine(graph)
    w = np.random.default_rng(0).random((3, 2), np.float32)

    def call(n: int) -> bool:
        x = np.random.default_rng(n).random((1 + n % 7, 3), np.float32)
        return bool(np.allclose(run(loaded, graph, x, w), x @ w, rtol=1e-5))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(400)))


@pytest.mark.parametrize("blob", [b"", b"not a model", b"\x08\x0a"])
def test_a_corrupt_model_is_a_build_error(blob: bytes) -> None:
    with pytest.raises(BuildError, match=r"ONNX Runtime .* refuses the model"):
        provider().load(blob, product(), OPTIONS)


def test_a_run_that_onnxruntime_refuses_is_a_run_error() -> None:
    graph = product()
    loaded = engine(graph)
    wrong = Builder()
    x = wrong.input("x", TensorType(DType.FLOAT32, (2, 5)))
    w = wrong.input("w", TensorType(DType.FLOAT32, (3, 2)))
    shapes = call_shapes(wrong.build([w]), {"n": 2})
    memory = [np.zeros(value.shape, np.float32) for value in (x, w, w)]
    with pytest.raises(RunError, match=r"ONNX Runtime .* failed"):
        loaded.run(shapes, [array.ctypes.data for array in memory[:2]], [memory[2].ctypes.data], CPU_HOST)


def test_auto_is_the_first_provider_whose_stack_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_provider("auto").name == load_provider("onnxruntime").name == "onnxruntime"
    missing = dataclasses.replace(PROVIDERS["onnxruntime"], module="trt_backend_missing_stack")
    monkeypatch.setitem(PROVIDERS, "onnxruntime", missing)
    with pytest.raises(ProviderUnavailableError, match="pip install 'onnxruntime'"):
        load_provider("auto")


def test_the_tensors_device_chooses() -> None:
    with pytest.raises(ProviderUnavailableError, match="tpu"):
        load_provider("auto", "tpu")


FORK = """
import gc, os, sys
import torch
import trt_backend

def compiled():
    model = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 8)).eval()
    return torch.compile(model, backend="trt", options={"threads": 2})

x = torch.randn(2, 8)
with torch.no_grad():
    f = compiled()
    y = f(x)
    assert trt_backend.report().to_dict()["regions"][0]["engine_calls"] == 1
    if (child := os.fork()) == 0:
        assert torch.equal(f(x), y)
        del f
        torch._dynamo.reset()
        gc.collect()
        sys.exit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_fork_runs_frees_and_ends() -> None:
    """As a worker of a DataLoader: it has none of the threads that a session and telemetry wait for when they go."""
    pytest.importorskip("torch")
    run = [sys.executable, "-W", "ignore", "-c", FORK]
    child = subprocess.run(run, capture_output=True, text=True, timeout=120, check=True)
    assert child.stdout.split() == ["7"]
