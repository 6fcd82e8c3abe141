"""From the first call to the last: registration, building once, threads, copies, errors, reset, the report, explain."""

from __future__ import annotations

import copy
import gc
import pickle
import subprocess
import sys
import weakref
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch_checks import (
    BEFORE_TORCH_2_13,
    ON_TRT,
    assert_close,
    compile_options,
    compile_trt,
    device,
    graphs_compiled,
    in_threads,
    kind_of,
    needs_trt,
    provider,
    silent_writes,
)

import models

if ON_TRT:
    import trt_backend
    import trt_backend_torch


def mlp():
    net = nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 3))
    return models.randomise(net)


def rows(n, seed=0):
    return models.randn(n, 6, seed=seed)


# -- the end --


def test_dynamo_reset_frees_the_engines(report):
    model = mlp()
    with torch.no_grad():
        compile_trt(model)(rows(4))
    report.engines_ran()
    torch._dynamo.reset()
    gc.collect()
    if ON_TRT:
        assert report.data["regions"] == []
    with torch.no_grad(), report.engines_run():  # and all can start again
        assert_close(compile_trt(model)(rows(4)), model(rows(4)))


@pytest.mark.parametrize("reset", [True, False])
def test_a_model_that_is_dropped_is_freed(reset, report):
    """Engines hold no weights of a model that nobody has any more."""
    model = mlp()
    compiled = compile_trt(model)
    with torch.no_grad():
        compiled(rows(4))
    report.engines_ran()
    alive = [weakref.ref(p) for p in model.parameters()] + [weakref.ref(model)]
    del model, compiled
    if reset:
        torch._dynamo.reset()
    gc.collect()
    assert [r for r in alive if r() is not None] == []


# -- copies --


@pytest.mark.parametrize("how", ["pickle", "deepcopy", "torch.save"])
@pytest.mark.parametrize("when", ["before running", "after running"])
def test_a_copy_of_the_compiled_model_runs(how, when, tmp_path, report):
    model, make_inputs = models.resnet()
    compiled, inputs = compile_trt(model, options=silent_writes()), make_inputs(2)
    with torch.no_grad():
        if when == "after running":
            compiled(*inputs)
        if how == "pickle":
            twin = pickle.loads(pickle.dumps(compiled))
        elif how == "deepcopy":
            twin = copy.deepcopy(compiled)
        else:
            torch.save(compiled, tmp_path / "model.pt")
            twin = torch.load(tmp_path / "model.pt", weights_only=False)
        with report.engines_run(rebuilds=True):
            assert_close(twin(*inputs), model(*inputs))
        for p in twin.parameters():
            p.data.mul_(1.1)
        with report.engines_run(rebuilds=True):
            assert_close(compiled(*inputs), model(*inputs))  # the original did not move
        assert not torch.allclose(twin(*inputs).logits, model(*inputs).logits)


def test_state_dict_goes_through(report):
    model, other = mlp(), models.randomise(mlp(), seed=5)
    compiled = compile_trt(model)
    with torch.no_grad():
        compiled(rows(4))
        compiled.load_state_dict({f"_orig_mod.{k}": v for k, v in other.state_dict().items()})
        with report.engines_run(rebuilds=True):
            assert_close(compiled(rows(4)), other(rows(4)))


# -- threads --

compiles_in_threads = pytest.mark.skipif(
    BEFORE_TORCH_2_13,
    reason="before torch 2.13 a call from a thread fails while another compiles: 'using FX to symbolically trace'",
)


@pytest.mark.parametrize(
    "warm", [True, pytest.param(False, marks=compiles_in_threads)], ids=["warm", "first call"]
)
@pytest.mark.parametrize("dynamic", [True, False], ids=["dynamic", "static"])
def test_eight_threads(warm, dynamic, report):
    """Right answers for everyone, and nothing is built twice."""
    model = mlp()
    compiled = compile_trt(model, dynamic=dynamic)
    inputs = [rows(3 + i if dynamic else 4, seed=i) for i in range(8)]
    with torch.no_grad():
        wanted = [model(x) for x in inputs]
    if warm:
        with torch.no_grad():
            compiled(inputs[0])

    def work(i):
        with torch.no_grad():
            for _ in range(20):
                assert_close(compiled(inputs[i]), wanted[i])

    in_threads(8, work)
    report.engines_ran(calls=160 + warm, exactly=True, rebuilds=dynamic)
    if ON_TRT and not (dynamic and device() == "cuda"):  # where a wider range of sizes is another engine
        used = [r["engines"] for r in report.data["regions"] if r["engine_calls"]]
        assert used == [1] * len(
            used
        )  # dynamo may compile more than one graph in the race; we build each once
        if warm:
            assert used == [1]


def test_threads_while_weights_move(report):
    """Two threads, each with its own model of one class (so of one graph), one of which is being trained."""
    still, moving = mlp(), mlp()
    compiled = {m: compile_trt(m, options=silent_writes()) for m in (still, moving)}
    with torch.no_grad():
        want = still(rows(4))
        if BEFORE_TORCH_2_13:
            for m in compiled:  # threads that compile do not work there
                compiled[m](rows(4))

    def work(i):
        with torch.no_grad():
            for _ in range(30):
                if i == 0:
                    assert_close(compiled[still](rows(4)), want)
                else:
                    moving[0].weight.data.add_(0.01)
                    assert_close(compiled[moving](rows(4)), moving(rows(4)))

    in_threads(2, work)
    report.engines_ran(calls=60, rebuilds=True)


# -- errors --


def test_an_error_of_the_model_is_the_models(report):
    class Picky(nn.Module):
        def forward(self, x):
            y = (x * 2).exp()
            if x.shape[0] > 5:
                raise KeyError("too many rows")
            return y + 1

    compiled = compile_trt(Picky())
    with torch.no_grad():
        with report.engines_run():
            assert_close(compiled(rows(4)), Picky()(rows(4)))
        with pytest.raises(KeyError, match="too many rows"):
            compiled(rows(7))
        assert_close(compiled(rows(4)), Picky()(rows(4)))  # natively: dynamo skips a frame that raised


def test_a_wrong_shape_raises_and_the_next_call_runs(report):
    model = mlp()
    compiled = compile_trt(model)
    with torch.no_grad():
        assert_close(compiled(rows(4)), model(rows(4)))
        for bad in (torch.randn(4, 5), torch.randn(()), torch.zeros(4, 6, dtype=torch.int64)):
            with pytest.raises(RuntimeError):
                compiled(bad)
        with report.engines_run():
            assert_close(compiled(rows(4)), model(rows(4)))


@pytest.mark.cpu_only(reason="eager's assertion on a GPU leaves a process that can use it no more")
def test_an_index_out_of_range_raises(report):
    """An error that only the values show is not an answer."""
    model = models.randomise(nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 2), nn.ReLU()))
    compiled = compile_trt(model)
    with torch.no_grad():
        assert_close(compiled(torch.tensor([0, 6])), model(torch.tensor([0, 6])))
        for bad in (7, 1000, -1):
            with pytest.raises((IndexError, RuntimeError)):
                compiled(torch.tensor([0, bad]))
        assert_close(compiled(torch.tensor([3, 6])), model(torch.tensor([3, 6])))
    if ON_TRT:
        assert report.total("engine_calls") >= 2


# -- ways to call --


@pytest.mark.parametrize("order", [("no_grad", "inference_mode"), ("inference_mode", "no_grad")])
def test_no_grad_and_inference_mode(order, report):
    model = mlp()
    compiled = compile_trt(model)
    for name in order * 2:
        with getattr(torch, name)(), report.engines_run():
            got, want = compiled(rows(4)), model(rows(4))
        assert_close(got, want)
        assert got.is_inference() == want.is_inference() == (name == "inference_mode")
        assert not got.requires_grad
    report.engines_ran(calls=4)


def test_an_input_made_in_inference_mode(report):
    model = mlp()
    compiled = compile_trt(model)
    with torch.inference_mode():
        x = rows(4)
    with torch.no_grad():
        for made in (x, rows(4), x):
            assert_close(compiled(made), model(made))
    report.engines_ran(calls=3)


@dataclass
class Result:
    logits: torch.Tensor
    extra: dict[str, torch.Tensor]
    note: str = "fine"


class Flexible(nn.Module):
    def forward(self, x, *rest, scale=1.0, mask=None, **more):
        y = (x * scale).exp()
        for r in (*rest, *more.values()):
            y = y + r
        if mask is not None:
            y = y.masked_fill(mask, 0.0)
        return y


def test_keywords_and_optional_arguments(report):
    model = Flexible()
    compiled = compile_trt(model)
    x, mask = rows(4), rows(4, seed=1) > 0
    with torch.no_grad():
        for args, kwargs in (
            ((x,), {}),
            ((x, x), {}),
            ((x,), {"scale": 2.0}),
            ((x,), {"mask": mask}),
            ((), {"x": x, "mask": mask, "other": x}),
            ((x, x), {"mask": mask, "scale": 0.5}),
            ((x,), {"scale": torch.tensor(3.0)}),
        ):
            with report.engines_run():
                assert_close(compiled(*args, **kwargs), model(*args, **kwargs))


def test_structured_inputs_and_outputs(report):
    def fn(batch, pair):
        y = batch["x"] * pair[0] + pair[1]["b"]
        return Result(logits=y, extra={"exp": y.exp(), "x": batch["x"]})

    compiled = compile_trt(fn)
    batch, pair = {"x": rows(4), "unused": "text"}, (rows(4, 1), {"b": rows(4, 2)})
    with torch.no_grad():
        for _ in range(2):
            got, want = compiled(batch, pair), fn(batch, pair)
            assert type(got) is Result
            assert got.note == "fine"
            assert_close((got.logits, got.extra), (want.logits, want.extra))
    report.engines_ran(calls=2)


def test_model_output_of_transformers(report):
    model, make_inputs = models.bert()
    compiled, (ids, mask) = compile_trt(model), make_inputs(2)
    with torch.no_grad():
        got, want = compiled(input_ids=ids, attention_mask=mask), model(ids, mask)
    assert type(got) is type(want)
    assert list(got.keys()) == list(want.keys())
    assert_close(got, want)
    report.engines_ran()


class Named(nn.Module):
    """A module of the user's own: dynamo skips the frames of torch's, `nn.Sequential` called in place among them."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, x):
        return self.net(x)


def test_module_compile_in_place(report):
    model, reference = Named(), Named()
    model.compile(**compile_options(None))
    with torch.no_grad():
        assert_close(model(rows(4)), reference(rows(4)))
    assert list(model.state_dict()) == list(reference.state_dict())
    report.engines_ran()


def test_as_a_decorator_with_graph_breaks(report):
    def fn(x):
        y = (x * 2).exp()
        torch._dynamo.graph_break()
        return (y + 1).log()

    compiled = compile_trt(fn)
    with torch.no_grad():
        for _ in range(2):
            assert_close(compiled(rows(4)), fn(rows(4)))
    assert graphs_compiled() == 2
    report.engines_ran(calls=4, exactly=True)


def test_calls_from_a_hook(report):
    """Forward hooks see, and may replace, what the compiled module computes."""
    model, seen = mlp(), []
    model[1].register_forward_hook(lambda module, args, out: seen.append(out.shape) or out * 2)
    compiled = compile_trt(model)
    with torch.no_grad():
        assert_close(compiled(rows(4)), model(rows(4)))
    assert len(seen) == 2
    if ON_TRT:
        assert report.total("engine_calls") >= 1


_BY_NAME = """
import sys
import torch
if sys.argv[1] == "cpu":
    sys.modules["cuda"] = None  # most machines have no bindings of the driver
else:
    torch.set_default_device(sys.argv[1])
assert "trt_backend_torch" not in sys.modules
f = torch.compile(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.ReLU(), torch.nn.Softmax(-1)), backend="trt")
x = torch.randn(2, 4)
with torch.no_grad():
    torch.testing.assert_close(f(x), f._orig_mod(x))
import trt_backend
assert "trt" in torch.compiler.list_backends()
(region,) = trt_backend.report().to_dict()["regions"]
assert (region["engine_calls"], region["native_calls"], region["framework"]) == (1, 0, "torch"), region
print("fine")
"""


@needs_trt
def test_the_backend_is_found_by_its_name(tmp_path):
    """A fresh process that imports nothing of ours; it also prints nothing that it was not asked for."""
    done = subprocess.run(
        [sys.executable, "-c", _BY_NAME, device()], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "fine\n"
    assert "trt_backend" not in done.stderr


# -- options that change what runs --


@needs_trt
def test_fuel_stops_engines(report):
    model = mlp()
    with torch.no_grad():
        assert_close(compile_trt(model, options={"fuel": 0})(rows(4)), model(rows(4)))
    report.no_engine_ran("out of fuel")


@needs_trt
def test_regions_that_are_too_small_stay_native(report):
    model = mlp()
    with torch.no_grad():
        assert_close(compile_trt(model, options={"min_block_size": 1000})(rows(4)), model(rows(4)))
    report.no_engine_ran("region too small")


@needs_trt
def test_options_of_two_compiled_functions_are_their_own(report):
    model = mlp()
    native, engine = (
        compile_trt(model, options={"min_block_size": 1000}),
        compile_trt(model, options={"threads": 1}),
    )
    with torch.no_grad():
        for _ in range(2):
            assert_close(native(rows(4)), model(rows(4)))
            with report.engines_run():
                assert_close(engine(rows(4)), model(rows(4)))
    assert report.total("engine_calls") == 2


@needs_trt
def test_dump_dir(tmp_path, report):
    model = mlp()
    with torch.no_grad():
        compile_trt(model, options={"dump_dir": str(tmp_path / "new" / "dump")})(rows(4))
    report.engines_ran()
    dumped = [p for p in (tmp_path / "new" / "dump").rglob("*") if p.is_file()]
    assert dumped
    assert all(p.stat().st_size for p in dumped)


# -- the report --


@needs_trt
def test_the_report(report):
    def fn(x):
        y = (x * 2).exp()
        y = torch.linalg.qr(y)[1]
        return (y + 1).abs()

    compiled = compile_trt(fn)
    with torch.no_grad():
        for _ in range(3):
            compiled(torch.rand(4, 4))
    data = report.data
    assert {"ops_total", "ops_in_engines", "regions", "native_ops"} <= data.keys()
    assert data["ops_in_engines"] == sum(r["ops"] for r in data["regions"] if r["engines"]) == 4
    assert data["ops_total"] > data["ops_in_engines"]
    assert len(data["regions"]) == 2
    assert len({r["name"] for r in data["regions"]}) == 2
    for region in data["regions"]:
        assert region["framework"] == "torch"
        assert region["provider"] == provider()
        assert (region["ops"], region["engines"], region["engine_calls"], region["native_calls"]) == (
            2,
            1,
            3,
            0,
        )
        assert 0 < region["build_seconds"] < 60
        assert not region["reason"]
    assert any("qr" in op["op"] for op in data["native_ops"])
    for op in data["native_ops"]:
        assert {"op", "reason", "source", "count"} <= op.keys()
        kind_of(op["reason"])
        assert "test_lifecycle.py" in op["source"]
    text = str(trt_backend.report())
    assert all(r["name"] in text for r in data["regions"])
    assert "qr" in text


@needs_trt
def test_the_report_is_plain_data(report):
    import json

    with torch.no_grad():
        compile_trt(mlp())(rows(4))
    assert json.loads(json.dumps(report.data)) == report.data


@needs_trt
def test_reset_report_while_engines_live(report):
    """The report starts anew, the engines go on."""
    model = mlp()
    compiled = compile_trt(model)
    with torch.no_grad():
        compiled(rows(4))
        trt_backend.reset_report()
        assert report.total("engine_calls") == 0
        assert_close(compiled(rows(4)), model(rows(4)))


@needs_trt
def test_an_empty_report(report):
    assert report.data["regions"] == []
    assert report.data["native_ops"] == []
    assert report.data["ops_total"] == report.data["ops_in_engines"] == 0
    assert str(trt_backend.report())


@needs_trt
@pytest.mark.parametrize("kind", ["module", "function"])
def test_explain_partitions_without_building(kind, report):
    model = mlp()
    target = model if kind == "module" else lambda x: torch.linalg.qr(model(x).exp())[1] + 1
    with torch.no_grad():
        compile_trt(model)(rows(4))
        before = report.data
        found = trt_backend_torch.explain(target, rows(4)).to_dict()
        assert report.data == before, "the live report moved"
        with report.engines_run():
            assert_close(compile_trt(model)(rows(4)), model(rows(4)))
    assert found["regions"]
    assert found["ops_total"] >= found["ops_in_engines"] > 0
    assert [r["engines"] for r in found["regions"]] == [0] * len(found["regions"])
    assert [r["engine_calls"] for r in found["regions"]] == [0] * len(found["regions"])
    if kind == "function":
        assert any("qr" in op["op"] for op in found["native_ops"])


@needs_trt
def test_explain_changes_nothing_in_the_model():
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("n", torch.zeros(()))
            self.net = mlp()

        def forward(self, x):
            self.n += 1
            return self.net(x) * self.n

    model = Counts().eval()
    trt_backend_torch.explain(model, rows(4))
    assert model.n == 0
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    with torch.no_grad():
        assert_close(compile_trt(model)(rows(4)), copy.deepcopy(model).net(rows(4)))


@needs_trt
def test_explain_as_often_as_one_likes():
    model = mlp()
    # Before torch 2.13 nothing keeps explanations out of dynamo's cache entries for the frame, of which there are few.
    times = torch._dynamo.config.recompile_limit if BEFORE_TORCH_2_13 else 10
    found = [trt_backend_torch.explain(model, rows(4)).to_dict()["ops_total"] for _ in range(times)]
    assert found == found[:1] * times


@needs_trt
def test_explain_draws_no_random_numbers():
    state = torch.get_rng_state if device() == "cpu" else torch.cuda.get_rng_state
    torch.manual_seed(0)
    before = state()
    trt_backend_torch.explain(lambda x: torch.dropout(x, 0.5, train=True).exp(), torch.ones(3))
    assert torch.equal(state(), before)


@needs_trt
def test_explain_takes_the_result_of_a_computation():
    with torch.enable_grad():
        x = torch.ones(4, 4, requires_grad=True) * 2
    assert trt_backend_torch.explain(lambda x: (x.sin() + 1).exp(), x).to_dict()["ops_total"] == 3
