"""Engines launched as CUDA graphs: right answers that are the caller's to keep, and memory that does not grow."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_checks import ReportChecks, assert_close, compile_trt

import models
from trt_backend.runtime.choice import Choice
from trt_backend_torch.cuda_host import CapturedWork, ScratchPool

cuda = pytest.importorskip("trt_backend.engine.cuda")
driver = pytest.importorskip("cuda.bindings.driver")

pytestmark = pytest.mark.gpu

GRAPHS = {"cuda_graphs": True}
MIB = 1 << 20


def mlp() -> nn.Module:
    return models.randomise(nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 3)))


def rows(n: int, seed: int = 0) -> Tensor:
    """A batch whose size may move between 2 and 64: the range of one engine."""
    x = models.randn(n, 6, seed=seed)
    torch._dynamo.mark_dynamic(x, 0, min=2, max=64)
    return x


def test_outputs_kept_in_a_list(report: ReportChecks) -> None:
    model = mlp()
    compiled = compile_trt(model, options=GRAPHS)
    with torch.no_grad():
        kept = [compiled(rows(4, seed=i)) for i in range(8)]
        assert_close(kept, [model(rows(4, seed=i)) for i in range(8)])
    assert len({y.data_ptr() for y in kept}) == 8
    report.engines_ran(calls=8, exactly=True)


def test_an_output_written_into_by_the_caller(report: ReportChecks) -> None:
    """What a caller does to an output is not seen by the next call."""
    model, x = mlp(), rows(4)
    compiled = compile_trt(model, options=GRAPHS)
    with torch.no_grad():
        for _ in range(4):
            y = compiled(x)
            assert_close(y, model(x))
            y.zero_()
    report.engines_ran(calls=4, exactly=True)


def test_inputs_at_other_addresses_and_of_other_shapes(report: ReportChecks) -> None:
    model = mlp()
    compiled = compile_trt(model, options=GRAPHS)
    batches = [rows(n, seed=i) for i, n in enumerate((4, 4, 9, 64, 9, 2, 4))]  # all alive: no address twice
    with torch.no_grad():
        for x in batches * 3:
            assert_close(compiled(x), model(x))
    report.engines_ran(calls=21, exactly=True)
    assert [region["engines"] for region in report.data["regions"]] == [1]


def test_an_input_with_new_contents_in_place(report: ReportChecks) -> None:
    model, x = mlp(), rows(4)
    compiled = compile_trt(model, options=GRAPHS)
    with torch.no_grad():
        for i in range(4):
            x.copy_(rows(4, seed=i))
            assert_close(compiled(x), model(x))
    report.engines_ran(calls=4, exactly=True)


def test_memory_that_comes_again_is_not_copied(report: ReportChecks, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = mlp(), rows(4)
    compiled = compile_trt(model, options=GRAPHS)
    with torch.no_grad():
        wanted = model(x)
        for _ in range(4):  # each result's memory is free again at once
            compiled(x)
        monkeypatch.setattr("trt_backend.engine.cuda.GraphCopy.move", None)
        for _ in range(3):
            assert_close(compiled(x), wanted)
    report.engines_ran(calls=7, exactly=True)


def test_an_input_with_gaps(report: ReportChecks) -> None:
    model = mlp()
    compiled = compile_trt(model, options=GRAPHS)
    with torch.no_grad():
        for i in range(4):
            x = models.randn(8, 12, seed=i)[::2, ::2]
            assert_close(compiled(x), model(x))
    report.engines_ran(calls=4, exactly=True)


def test_a_region_with_two_outputs(report: ReportChecks) -> None:
    def fn(x: Tensor) -> tuple[Tensor, Tensor]:
        y = (x * 2 + 1).sigmoid()
        return y, (y.t() @ x).relu()

    compiled = compile_trt(fn, options=GRAPHS)
    inputs = [models.randn(4, 6, seed=i) for i in range(6)]
    with torch.no_grad():
        kept = [compiled(x) for x in inputs]
        assert_close(kept, [fn(x) for x in inputs])
    report.engines_ran(calls=6, exactly=True)
    assert len(report.data["regions"]) == 1


def test_an_output_fed_back(report: ReportChecks) -> None:
    def fn(x: Tensor) -> Tensor:
        return x.sin() + 1

    compiled = compile_trt(fn, options=GRAPHS)
    with torch.no_grad():
        ours = theirs = models.randn(4, 6)
        for _ in range(6):
            ours, theirs = compiled(ours), fn(theirs)
    assert_close(ours, theirs)
    report.engines_ran(calls=6, exactly=True)


def test_weights_updated_between_calls(report: ReportChecks) -> None:
    """A captured graph holds no weights of yesterday."""
    model, x = mlp(), rows(4)
    compiled = compile_trt(model, options=GRAPHS)
    with torch.no_grad():
        for _ in range(4):
            for _ in range(3):
                with report.engines_run(rebuilds=True):
                    assert_close(compiled(x), model(x))
            before = model(x)
            for p in model.parameters():
                p.add_(0.5)
            assert not torch.allclose(model(x), before)
    report.engines_ran(calls=12, exactly=True, rebuilds=True)


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether each capture of a native region succeeded; engines are always slower."""
    seen: list[bool] = []
    capture = ScratchPool.capture

    def counted(pool: ScratchPool, work: Callable[[], object]) -> CapturedWork:
        seen.append(False)
        captured = capture(pool, work)
        seen[-1] = True
        return captured

    def native_wins(choice: Choice, signature: Hashable, engine: object, native: object) -> None:
        choice._native_is_faster[signature] = True

    monkeypatch.setattr(ScratchPool, "capture", counted)
    monkeypatch.setattr(Choice, "measure", native_wins)
    return seen


@pytest.mark.parametrize("native", ["eager", "inductor"])
def test_native_where_it_is_faster_runs_in_graphs(
    native: str, captures: list[bool], report: ReportChecks
) -> None:
    conv = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GELU(), nn.Flatten(), nn.Linear(8 * 36, 5))
    model = models.randomise(conv)
    compiled = compile_trt(model, options={**GRAPHS, "choose": "measured", "native": native})
    inputs = [models.randn(2, 3, 8, 8, seed=i) for i in range(6)]
    with torch.no_grad():
        kept = [compiled(x) for x in inputs]
        assert_close(kept, [model(x) for x in inputs])
        for p in model.parameters():
            p.mul_(1.5)
        assert_close(compiled(inputs[0]), model(inputs[0]))
        model[0].weight = nn.Parameter(model[0].weight * 2)  # type: ignore[union-attr]
        with torch.cuda.stream(torch.cuda.Stream()):
            for x in inputs:
                assert_close(compiled(x), model(x))
    torch.cuda.synchronize()
    assert captures == [True, True]
    report.engines_ran(calls=1, native_calls=12, exactly=True)


def test_native_that_waits_for_the_device_runs_without_graphs(
    captures: list[bool], report: ReportChecks
) -> None:
    """And what the capture that failed leaves behind hurts nobody."""

    def fn(x: Tensor) -> Tensor:
        y = x * 2 + 1
        y[y.sum(1) > 0] = x.sum(0)  # native counts the rows
        return y.sigmoid()

    compiled = compile_trt(fn, options={**GRAPHS, "choose": "measured"})
    with torch.no_grad():
        for i in range(5):
            x = models.randn(4, 6, seed=i)
            assert_close(compiled(x), fn(x))
            assert_close(torch.rand(8).sort().values.diff().ge(0), torch.ones(7, dtype=torch.bool))
    assert captures == [False]
    report.engines_ran(calls=1, native_calls=4, exactly=True)


def grown(compiled: Any, batches: Sequence[Tensor], calls: int) -> int:
    """How many bytes the GPU has less after so many calls."""
    torch.cuda.synchronize()
    before, _ = torch.cuda.mem_get_info()
    with torch.no_grad():
        for i in range(calls):
            compiled(batches[i % len(batches)])
    torch.cuda.synchronize()
    return before - torch.cuda.mem_get_info()[0]


@pytest.mark.exclusive
@pytest.mark.parametrize("cuda_graphs", [False, True])
def test_memory_does_not_grow_over_10000_calls_with_changing_shapes(
    cuda_graphs: bool, report: ReportChecks
) -> None:
    model = mlp()
    compiled = compile_trt(model, options={"cuda_graphs": cuda_graphs})
    batches = [rows(2 + 5 * i) for i in range(12)]
    grown(compiled, batches, 500)
    # A leak shows in each quarter; what another process takes meanwhile does not.
    assert min(grown(compiled, batches, 2500) for _ in range(4)) <= 2 * MIB
    report.engines_ran(calls=10_500, exactly=True)
    with torch.no_grad():
        assert_close([compiled(x) for x in batches], [model(x) for x in batches])


@pytest.mark.exclusive
def test_memory_does_not_grow_with_more_signatures_than_are_kept(report: ReportChecks) -> None:
    """Graphs that were dropped give their memory back, and are captured anew."""
    model = mlp()
    compiled = compile_trt(model, options=GRAPHS)
    batches = [rows(n, seed=n) for n in range(2, 65)]
    grown(compiled, batches, 2 * len(batches))
    assert min(grown(compiled, batches, 4 * len(batches)) for _ in range(4)) <= 2 * MIB
    report.engines_ran(calls=18 * len(batches), exactly=True)
    with torch.no_grad():
        assert_close([compiled(x) for x in batches], [model(x) for x in batches])


def test_small_memsets_run_as_kernels() -> None:
    """Words of one, two and four bytes, in their order; a large one stays a memset."""
    small, large = torch.ones(64, dtype=torch.uint8, device="cuda"), torch.ones(MIB, device="cuda")
    stream = cuda.Stream()

    def work() -> None:
        start = small.data_ptr()
        driver.cuMemsetD32Async(start, 0x01020304, 16, stream.handle)
        driver.cuMemsetD8Async(start + 4, 9, 8, stream.handle)
        driver.cuMemsetD16Async(start + 8, 0x0506, 4, stream.handle)
        driver.cuMemsetD32Async(large.data_ptr(), 0, MIB, stream.handle)

    captured = cuda.capture(work, stream)
    kinds = driver.CUgraphNodeType
    assert len(cuda._nodes(captured._captured, kinds.CU_GRAPH_NODE_TYPE_KERNEL)) == 3
    assert len(cuda._nodes(captured._captured, kinds.CU_GRAPH_NODE_TYPE_MEMSET)) == 1
    torch.cuda.synchronize()
    cuda.launch(captured, stream.handle)
    cuda.synchronize(stream.handle)
    assert small[:20].tolist() == [4, 3, 2, 1, 9, 9, 9, 9, 6, 5, 6, 5, 6, 5, 6, 5, 4, 3, 2, 1]
    assert not large.any()


_CAPTURED = """
import torch
torch.set_default_device("cuda")
model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.Linear(144, 5)).eval()
compiled = torch.compile(model, backend="trt", options={"min_block_size": 1})
x, stream = torch.randn(2, 3, 8, 8), torch.cuda.Stream()
with torch.no_grad():
    with torch.cuda.stream(stream):
        for _ in range(3):
            compiled(x)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        y = compiled(x)
    graph.replay()
    torch.testing.assert_close(y, model(x), rtol=1e-3, atol=1e-3)
import trt_backend
(region,) = trt_backend.report().to_dict()["regions"]
assert (region["engine_calls"], region["native_calls"]) == (3, 1), region
"""


def test_what_torch_makes_at_a_first_use_may_be_missing_in_a_capture(tmp_path: Path) -> None:
    """In a fresh process: engines ran the warm-up, so that torch has no handle of cuBLAS or cuDNN yet."""
    done = subprocess.run(
        [sys.executable, "-c", _CAPTURED], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr


def test_inside_a_graph_that_the_caller_captures(report: ReportChecks) -> None:
    """It is native there: replayed with other contents and other weights in the same memory, long after engines went."""
    model, x = mlp(), rows(4)
    compiled = compile_trt(model)
    with torch.no_grad():
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            for _ in range(3):
                compiled(x)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            y = compiled(x)
        big = nn.Linear(6, 4096)
        assert_close(
            compile_trt(big)(x), big(x)
        )  # another engine, for which the stream's scratch memory may grow
        for seed in (1, 2):
            x.copy_(rows(4, seed=seed))
            graph.replay()
            assert_close(y, model(x))
        next(model.parameters()).mul_(2)
        graph.replay()
        assert_close(y, model(x))
    report.engines_ran(calls=4, native_calls=1, exactly=True)
