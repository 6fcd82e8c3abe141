"""Failures below the backend: the program lives, the report names the reason, `strict=True` raises."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch_checks import ReportChecks, assert_close, compile_trt, device, needs_trt, provider

import trt_backend
from trt_backend.engine.providers import load_provider
from trt_backend.errors import BuildError, RunError, UnsupportedError
from trt_backend_torch import inference
from trt_backend_torch.lower import RULES
from trt_backend_torch.lower.rules import RuleTable

pytestmark = [needs_trt, pytest.mark.usefixtures("own_cache")]

Break = Callable[[pytest.MonkeyPatch, Exception], None]


def function(x: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x * 2 + 1).sum(1)


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def break_rule(patch: pytest.MonkeyPatch, error: Exception) -> None:
    """Make the rule of tanh raise, when the guard tries it."""
    call = RuleTable.__call__

    def broken(table: RuleTable, b: Any, target: Any, *rest: Any) -> Any:
        if target is torch.ops.aten.tanh.default:
            raise error
        return call(table, b, target, *rest)

    assert torch.ops.aten.tanh.default in RULES
    patch.setattr(RuleTable, "__call__", broken)


def break_build(patch: pytest.MonkeyPatch, error: Exception) -> None:
    patch.setattr(type(load_provider(provider())), "build", raising(error))


def break_run(patch: pytest.MonkeyPatch, error: Exception) -> None:
    """Make each engine raise that is loaded from now on."""
    stack = type(load_provider(provider()))
    load = stack.load

    def load_broken(*args: Any, **kwargs: Any) -> Any:
        engine = load(*args, **kwargs)
        patch.setattr(type(engine), "run", raising(error))
        return engine

    patch.setattr(stack, "load", load_broken)


def corrupt_model(patch: pytest.MonkeyPatch, _: Exception) -> None:
    stack = type(load_provider(provider()))
    build = stack.build
    patch.setattr(stack, "build", lambda *args, **kwargs: build(*args, **kwargs)[:-40])


CASES = [
    pytest.param(break_rule, KeyError("oops"), "bug", marks=pytest.mark.may_report_bug),
    pytest.param(break_build, BuildError("no"), "build failed"),
    pytest.param(break_build, ZeroDivisionError("oops"), "bug", marks=pytest.mark.may_report_bug),
    pytest.param(
        corrupt_model,
        BuildError("unused"),
        "build failed",
        marks=pytest.mark.cpu_only(reason="an ONNX model that is cut short"),
    ),
    pytest.param(break_run, RunError("no memory"), "run failed"),
    pytest.param(break_run, IndexError("oops"), "bug", marks=pytest.mark.may_report_bug),
]


@pytest.mark.parametrize(("break_it", "error", "kind"), CASES)
def test_the_call_runs_natively_with_a_reason(
    break_it: Break,
    error: Exception,
    kind: str,
    monkeypatch: pytest.MonkeyPatch,
    log: list[logging.LogRecord],
    report: ReportChecks,
) -> None:
    break_it(monkeypatch, error)
    compiled = compile_trt(function)
    x = torch.randn(3, 4)
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(compiled(x), function(x))
    assert any(f": {kind}" in reason for reason in report.reasons()), report.reasons()
    loud = [record for record in log if record.levelno > logging.INFO]
    assert [record.levelno for record in loud] == [logging.ERROR if kind == "bug" else logging.WARNING]


@pytest.mark.parametrize(("break_it", "error", "kind"), CASES)
def test_strict_raises(break_it: Break, error: Exception, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    break_it(monkeypatch, error)
    with torch.no_grad(), pytest.raises(type(error) if break_it is not corrupt_model else BuildError):
        compile_trt(function, options={"strict": True})(torch.randn(3, 4))


@pytest.mark.parametrize("lacking", [(3,), (3, 4)], ids=["output", "dense copy of an input"])
def test_torchs_lack_of_memory_is_no_bug(
    lacking: tuple[int, ...], monkeypatch: pytest.MonkeyPatch, report: ReportChecks
) -> None:
    allocate = torch.empty_strided

    def empty_strided(sizes: tuple[int, ...], *rest: Any, **kwargs: Any) -> torch.Tensor:
        if tuple(sizes) == lacking:
            raise torch.OutOfMemoryError("none left")
        return allocate(sizes, *rest, **kwargs)

    x = torch.randn(3, 8, device=device())[:, ::2]
    compiled = compile_trt(function)
    with torch.no_grad():
        compiled(x)
        monkeypatch.setattr(torch, "empty_strided", empty_strided)
        torch.testing.assert_close(compiled(x), function(x))
    assert any("out of memory" in reason and "none left" in reason for reason in report.reasons())


def test_the_other_regions_keep_their_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    """One broken rule costs one op: what lies before and behind it runs in engines."""
    break_rule(monkeypatch, UnsupportedError("not today"))
    compiled = compile_trt(function)
    x = torch.randn(3, 4)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), function(x))
    report = trt_backend.report().to_dict()
    assert [region["engine_calls"] for region in report["regions"]] == [1, 1]
    assert [native["op"] for native in report["native_ops"]] == ["aten.tanh.default"]
    assert report["native_ops"][0]["source"].startswith(__file__)


def test_fuel_leaves_later_regions_native() -> None:
    """With fuel for one region, the second runs natively and says so."""
    compiled = compile_trt(
        lambda x: torch.sin(torch.nonzero_static(x * 2, size=3).float() + 1), options={"fuel": 1}
    )
    x = torch.ones(3)
    with torch.no_grad():
        compiled(x)
    report = trt_backend.report().to_dict()
    assert len(report["regions"]) == 1
    assert any("out of fuel" in native["reason"] for native in report["native_ops"])


def test_calls_that_strict_stops_leave_the_graph_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call tries again; the graph does not grow with it."""
    sizes: list[int] = []
    partition = inference.partition

    def spy(graph: Any, *args: Any, **kwargs: Any) -> Any:
        sizes.append(len(graph.nodes))
        return partition(graph, *args, **kwargs)

    def shares(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        y = x.sin() + 1
        return torch.linalg.qr(y)[0], y, y.t(), y[1:]

    monkeypatch.setattr(inference, "partition", spy)
    compiled = compile_trt(shares, options={"strict": True})
    for _ in range(3):
        with torch.no_grad(), pytest.raises(UnsupportedError):
            compiled(torch.randn(3, 3))
    assert sizes == sizes[:1] * 3


def test_a_region_has_its_inputs_in_the_graphs_order(tmp_path: Path) -> None:
    """What is fused has them in that of a set: engines' keys, too, would differ from process to process."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
    )
    compiled = compile_trt(model.eval(), options={"dump_dir": str(tmp_path / "dump")})
    with torch.no_grad():
        compiled(torch.randn(1, 3, 8, 8))
    text = min(tmp_path.glob("dump/*/*")).read_text()
    numbers = [int(number) for number in re.findall(r"%arg(\d+)_1 = constant", text)]
    assert numbers == sorted(numbers)
    assert len(numbers) == 12


def test_a_dump_dir_that_cannot_be_written_is_named(tmp_path: Any) -> None:
    """It is the caller's mistake, and no bug."""
    (tmp_path / "file").touch()
    compiled = compile_trt(function, options={"dump_dir": str(tmp_path / "file")})
    x = torch.randn(3, 4)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), function(x))
    (region,) = trt_backend.report().to_dict()["regions"]
    assert "build failed: dump_dir cannot be written" in region["reason"]


@pytest.mark.parametrize("number", [0, 1])
def test_a_region_that_cannot_be_lowered_leaves_the_others(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It alone runs natively."""
    lower = inference.lower_region

    def refuse(gm: Any, name: str, *rest: Any) -> Any:
        if name.endswith(f"region_{number}"):
            raise UnsupportedError("not today")
        return lower(gm, name, *rest)

    def two_regions(x: torch.Tensor) -> torch.Tensor:
        return function(torch.linalg.qr(x.sin() * 2 + 1)[1])

    monkeypatch.setattr(inference, "lower_region", refuse)
    x = torch.randn(3, 4)
    with torch.no_grad():
        assert_close(compile_trt(two_regions)(x), two_regions(x))
    regions = trt_backend.report().to_dict()["regions"]
    assert [region["engine_calls"] for region in regions] == [number, 1 - number]


def test_what_calls_others_is_native_and_says_so() -> None:
    def branches(x: torch.Tensor) -> torch.Tensor:
        return function(torch.cond(x.sum() > 0, torch.exp, torch.sin, (x,)))

    x = torch.randn(3, 4)
    with torch.no_grad():
        assert_close(compile_trt(branches)(x), branches(x))
    reasons = [entry["reason"] for entry in trt_backend.report().to_dict()["native_ops"]]
    assert any("cond: no lowering rule: it calls others" in reason for reason in reasons)
    assert trt_backend.report().to_dict()["regions"][0]["engine_calls"] == 1


def test_engines_run_under_another_default_device() -> None:
    """`torch.set_default_device` is about new tensors of the caller's."""
    compiled, x = compile_trt(function), torch.randn(3, 4)
    with torch.no_grad(), torch.device("meta"):
        y = compiled(x)
    assert y.device.type == device()
    (region,) = trt_backend.report().to_dict()["regions"]
    assert region["engine_calls"] == 1


def test_dumps_hold_the_ir_of_each_pass_and_the_model(tmp_path: Any) -> None:
    """`dump_dir` gets the lowered graph and what passes changed, and on the CPU the ONNX model."""
    folder = tmp_path / "dump"  # beside the engine cache
    compiled = compile_trt(function, options={"dump_dir": str(folder)})
    with torch.no_grad():
        compiled(torch.randn(3, 4))
    names = [path.name for path in sorted(folder.rglob("*")) if path.is_file()]
    assert names[0] == "00-lowered.ir"
    if provider() == "onnxruntime":
        assert names.pop().endswith("model.onnx")
    assert all(name.endswith(".ir") for name in names)


def test_a_number_that_vmap_casts_is_no_bug(report: ReportChecks) -> None:
    def per_sample(a: torch.Tensor) -> torch.Tensor:
        return (a @ a.T).softmax(-1).sum() * 2

    x = torch.randn(4, 10, 32)
    with torch.no_grad():
        got = compile_trt(torch.vmap(per_sample), options={"strict": True})(x)
    assert_close(got, torch.vmap(per_sample)(x), rtol=1e-5)
    report.engines_ran()


def test_a_fused_layer_is_worth_an_engine(report: ReportChecks) -> None:
    """torch computes the whole layer in one op in eval mode."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    x = torch.randn(2, 5, 16)
    with torch.no_grad():
        assert_close(compile_trt(layer, options={"min_block_size": 3})(x), layer(x), rtol=1e-5)
    report.engines_ran()


@pytest.mark.cpu_only(reason="what the CPU's engines do not do")
def test_a_precision_of_gpus_is_said_to_be_one(log: list[logging.LogRecord]) -> None:
    with torch.no_grad():
        compile_trt(function, options={"precision": "fp16"})(torch.randn(3, 4))
    assert any("precision='fp16' is for GPUs" in record.getMessage() for record in log)
