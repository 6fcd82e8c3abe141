"""However a weight is changed, the next call uses it: one row for every update path measured in torch 2.13."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import nn, optim
from torch.func import functional_call
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch_checks import (
    BACKEND,
    assert_close,
    assert_same,
    compile_options,
    compile_trt,
    device,
    graphs_compiled,
    silent_writes,
    write_silently,
)

import models

Update = Callable[[nn.Module], None]


def net() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    model[1].running_mean.normal_()
    model[1].running_var.uniform_(0.5, 1.5)
    return model.eval()


def x54() -> torch.Tensor:
    return models.randn(5, 4, seed=1)


def backward(model: nn.Module) -> None:
    """Gradients only: in eval mode no buffer moves."""
    with torch.enable_grad():
        model(x54()).square().mean().backward()


def other_state() -> dict[str, torch.Tensor]:
    return {k: v + 1 for k, v in net().state_dict().items()}


# -- rows: optimizers --


def step(make: Callable[..., optim.Optimizer], backend: str | None = None, only_2d: bool = False) -> Update:
    def update(model: nn.Module) -> None:
        optimizer = make([p for p in model.parameters() if p.ndim == 2 or not only_2d])
        backward(model)
        if backend is None:
            optimizer.step()
        else:
            kwargs = compile_options(None) if backend == BACKEND else {"backend": backend}
            with torch.enable_grad():
                torch.compile(lambda: optimizer.step(), **kwargs)()

    return update


def lbfgs(model: nn.Module) -> None:
    optimizer = optim.LBFGS(model.parameters(), lr=0.1, max_iter=2)

    def closure():
        optimizer.zero_grad()
        loss = model(x54()).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)


def scaled_fused_step(model: nn.Module) -> None:
    optimizer = optim.SGD(model.parameters(), lr=0.1, fused=True)
    scaler = torch.amp.GradScaler(device(), init_scale=4.0)
    scaler.scale(model(x54()).square().mean()).backward()
    scaler.step(optimizer)
    scaler.update()


def whole_step(backend: str) -> Update:
    def update(model: nn.Module) -> None:
        optimizer = optim.SGD(model.parameters(), lr=0.1)

        def train(x):
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        torch.compile(train, **(compile_options(None) if backend == BACKEND else {"backend": backend}))(x54())

    return update


FUSED = {"forloop": {"foreach": False}, "foreach": {"foreach": True}, "fused": {"fused": True}}
UPDATES: dict[str, Update] = {}
for _kind, _kw in FUSED.items():
    UPDATES[f"SGD {_kind}"] = step(partial(optim.SGD, lr=0.1, momentum=0.9, **_kw))
    UPDATES[f"Adam {_kind}"] = step(partial(optim.Adam, lr=0.1, **_kw))
    UPDATES[f"AdamW {_kind}"] = step(partial(optim.AdamW, lr=0.1, **_kw))
    UPDATES[f"Adagrad {_kind}"] = step(partial(optim.Adagrad, lr=0.1, **_kw))
for _cls in (
    optim.RMSprop,
    optim.NAdam,
    optim.Adamax,
    optim.Rprop,
    optim.ASGD,
    optim.Adadelta,
    optim.RAdam,
):
    for _kind in ("forloop", "foreach"):
        UPDATES[f"{_cls.__name__} {_kind}"] = step(partial(_cls, lr=0.1, **FUSED[_kind]))
for _backend in dict.fromkeys(("eager", "aot_eager", BACKEND)):
    UPDATES |= {
        f"compiled SGD, {_backend}": step(partial(optim.SGD, lr=0.1, momentum=0.9), _backend),
        f"compiled AdamW foreach, {_backend}": step(partial(optim.AdamW, lr=0.1, foreach=True), _backend),
        f"compiled AdamW forloop, {_backend}": step(partial(optim.AdamW, lr=0.1, foreach=False), _backend),
        f"compiled AdamW fused, {_backend}": step(partial(optim.AdamW, lr=0.1, fused=True), _backend),
        f"compiled AdamW capturable, {_backend}": step(
            lambda p: optim.AdamW(p, lr=torch.tensor(0.1), capturable=True, foreach=True), _backend
        ),
        f"compiled train step, {_backend}": whole_step(_backend),
    }
UPDATES |= {
    "Adafactor": step(partial(optim.Adafactor, lr=0.1)),
    "Muon": step(partial(optim.Muon, lr=0.1), only_2d=True),
    "AdamW fused, lr a tensor": step(lambda p: optim.AdamW(p, lr=torch.tensor(0.1), fused=True)),
    "LBFGS": lbfgs,
    "GradScaler and SGD fused": scaled_fused_step,
}

# -- rows: loading and replacing --


def load_swapped(model: nn.Module) -> None:
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        model.load_state_dict(other_state())
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def replace_parameters(model: nn.Module) -> None:
    for module in model.modules():
        for name, p in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(p.detach() + 1))


def replace_buffers(model: nn.Module) -> None:
    model[1].running_mean = model[1].running_mean + 1


def swap_tensors(model: nn.Module) -> None:
    for p in model.parameters():
        torch.utils.swap_tensors(p, nn.Parameter(p.detach() + 1))


def through_vector(model: nn.Module) -> None:
    vector = nn.utils.parameters_to_vector(model.parameters()).detach() + 1
    nn.utils.vector_to_parameters(vector, model.parameters())


def replace_a_layer(model: nn.Module) -> None:
    model[3] = nn.Linear(8, 3)


def share_memory(model: nn.Module) -> None:
    model.share_memory()
    with torch.no_grad():
        model[0].weight.add_(1)


UPDATES |= {
    "load_state_dict": lambda m: m.load_state_dict(other_state()),
    "load_state_dict(assign=True)": lambda m: m.load_state_dict(other_state(), assign=True),
    "load_state_dict, swapping": load_swapped,
    "module.weight = Parameter": replace_parameters,
    "module.buffer = tensor": replace_buffers,
    "model[3] = Linear": replace_a_layer,
    "swap_tensors": swap_tensors,
    "vector_to_parameters": through_vector,
    "half().float()": lambda m: m.half().float(),
    "reset_parameters": lambda m: [l.reset_parameters() for l in m if hasattr(l, "reset_parameters")],
    "share_memory": share_memory,
}

# -- rows: writes to each parameter --


def each(write: Callable[[nn.Parameter], object]) -> Update:
    def update(model: nn.Module) -> None:
        for p in model.parameters():
            write(p)

    return update


def under(mode: Callable, write: Callable[[nn.Parameter], object]) -> Update:
    def update(model: nn.Module) -> None:
        with mode():
            each(write)(model)

    return update


def add_one(array) -> None:
    array += 1


@torch.library.custom_op("trt_backend_tests::write", mutates_args={"x"})
def custom_write(x: torch.Tensor) -> None:
    write_silently(x, add_one)


def preserving_versions(model: nn.Module) -> None:
    params = tuple(model.parameters())
    with torch.no_grad(), torch.autograd._unsafe_preserve_version_counter(params):
        for p in params:
            p.add_(1)


def data_list(function: Callable, *rest: object) -> Update:
    return lambda m: function([p.data for p in m.parameters()], [p.data + 1 for p in m.parameters()], *rest)


UPDATES |= {
    "no_grad p.add_": under(torch.no_grad, lambda p: p.add_(1)),
    "no_grad p.copy_": under(torch.no_grad, lambda p: p.copy_(p + 1)),
    "inference_mode p.add_": under(torch.inference_mode, lambda p: p.add_(1)),
    "p.detach().add_": each(lambda p: p.detach().add_(1)),
    "view of p.detach()": each(lambda p: p.detach().view(-1)[:1].fill_(9)),
    "nn.init.normal_": each(nn.init.normal_),
    "_foreach_add_": lambda m: torch.no_grad()(torch._foreach_add_)(list(m.parameters()), 1.0),
    "_foreach_copy_ of p.data": data_list(torch._foreach_copy_),
    "_foreach_lerp_ of p.data": data_list(torch._foreach_lerp_, 0.5),
    "p.data.copy_": each(lambda p: p.data.copy_(p.data + 1)),
    "p.data.add_": each(lambda p: p.data.add_(1)),
    "p.data.mul_": each(lambda p: p.data.mul_(2)),
    "p.data.clamp_": each(lambda p: p.data.clamp_(-0.01, 0.01)),
    "p.data[...] =": each(lambda p: p.data.__setitem__(..., 3.0)),
    "p.data = new": each(lambda p: setattr(p, "data", p.data + 1)),
    "p.data = new of other strides": lambda m: setattr(
        m[0].weight, "data", (m[0].weight.data + 1).t().contiguous().t()
    ),
    "numpy alias": each(lambda p: p.detach().numpy().__iadd__(1)),
    "dlpack alias": each(lambda p: torch.from_dlpack(p.detach()).add_(1)),
    "storage copy_": each(lambda p: p.untyped_storage().copy_((p.detach() + 1).untyped_storage())),
    "storage fill_": each(lambda p: p.untyped_storage().fill_(0)),
    "custom op": under(torch.no_grad, custom_write),
    "preserved version counter": preserving_versions,
    "buffer.fill_": lambda m: m[1].running_mean.fill_(2.0),
    "buffer through an alias": lambda m: write_silently(m[1].running_var, add_one),
}


def eager_train_forward(model: nn.Module) -> None:
    model.train()
    model(x54() * 3)
    model.eval()


def weight_of_another_process(model: nn.Module) -> None:
    subprocess.run([sys.executable, "-c", _WRITE, model.shared_path], check=True)


_WRITE = "import sys, numpy as np; np.memmap(sys.argv[1], np.float32, 'r+')[:] += 1"


@pytest.fixture
def gloo(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def broadcast(data: bool) -> Update:
    """World of one: the values that a broadcast brings are put where they come from, by a silent write."""

    def update(model: nn.Module) -> None:
        for p in model.parameters():
            write_silently(p, add_one)
            dist.broadcast(p.data if data else p.detach(), 0)
            dist.all_reduce(p.data if data else p.detach())

    return update


def ddp_step(model: nn.Module) -> None:
    wrapped = nn.parallel.DistributedDataParallel(model)
    optimizer = optim.AdamW(model.parameters(), lr=0.1)
    backward(wrapped)
    optimizer.step()


def zero_step(model: nn.Module) -> None:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    backward(model)
    ZeroRedundancyOptimizer(model.parameters(), optim.AdamW, lr=0.1).step()


UPDATES |= {
    "BatchNorm train forward": eager_train_forward,
    "another process": weight_of_another_process,
    "dist.broadcast(p)": broadcast(data=False),
    "dist.broadcast(p.data)": broadcast(data=True),
    "DDP and AdamW": ddp_step,
    "ZeRO-1": zero_step,
}
SWAPPED = {"load_state_dict, swapping", "swap_tensors"}
DISTRIBUTED = {name for name in UPDATES if name.startswith(("dist.", "DDP", "ZeRO"))}
ON_THE_CPU = {
    "numpy alias": "NumPy sees no memory of a GPU",
    "another process": "a file in memory",
    "Adagrad fused": "torch 2.11 has it on the CPU only",
}

# How an engine that holds weights can notice the update: most leave a trace (another tensor, address or version).
SIGNALLED = {name for name in UPDATES if "fused" in name}
"""None but that of the optimizer, which tells its hooks."""
BY_CHANCE = {"half().float()"}
"""None where the allocator gives the second conversion the memory that the first gave back."""
SILENT = {
    *BY_CHANCE,
    "_foreach_copy_ of p.data",
    "_foreach_lerp_ of p.data",
    "p.data.copy_",
    "p.data.add_",
    "p.data.mul_",
    "p.data.clamp_",
    "p.data[...] =",
    "numpy alias",
    "dlpack alias",
    "storage copy_",
    "storage fill_",
    "preserved version counter",
    "buffer through an alias",
    "BatchNorm train forward",
    "another process",
    "dist.broadcast(p)",
    "dist.broadcast(p.data)",
}
"""None but the contents."""


def is_silent(name: str) -> bool:
    """On a GPU gloo sends copies, and autograd counts the copy back."""
    return name in SILENT and not (name == "dist.broadcast(p)" and device() == "cuda")


ROWS = [
    pytest.param(name, marks=[pytest.mark.cpu_only(reason=ON_THE_CPU[name])] if name in ON_THE_CPU else [])
    for name in UPDATES
]


def prepared(name: str, request: pytest.FixtureRequest) -> nn.Module:
    """The net, with what a row needs beside it."""
    model = net()
    if name in DISTRIBUTED:
        request.getfixturevalue("gloo")
    if name == "another process":
        model.shared_path = str(request.getfixturevalue("tmp_path") / "weight")
        shared = torch.from_file(model.shared_path, shared=True, size=model[0].weight.numel())
        model[0].weight.data = shared.copy_(model[0].weight.data.view(-1)).view(8, 4)
    return model


@pytest.mark.parametrize("name", ROWS)
def test_the_next_call_uses_the_new_weights(name, request, report):
    if name in SWAPPED and torch.__version__ < "2.11":
        pytest.skip("before torch 2.11 dynamo keeps weak references to weights, which prevent swaps")
    model, x = prepared(name, request), x54()
    compiled = compile_trt(model, options=silent_writes() if is_silent(name) else None)

    def run():
        with torch.no_grad():
            return compiled(x)

    with report.engines_run():
        before = run()
        assert_same(run(), before)
    for _ in range(2):
        UPDATES[name](model)
        with torch.no_grad():
            want = model(x)
        with report.engines_run(rebuilds=True):
            assert_close(run(), want, rtol=1e-4)
            assert_close(run(), want, rtol=1e-4)
        assert not torch.allclose(want, before, rtol=1e-6, atol=1e-6) or name == "half().float()"
        assert not torch.equal(want, before)


def traces(model: nn.Module) -> dict[str, tuple[nn.Parameter | torch.Tensor, int, int]]:
    """What each tensor that the net reads in eval mode is, where it lies and its version."""
    tensors = dict([*model.named_parameters(), *model.named_buffers()])
    return {n: (t, t.data_ptr(), t._version) for n, t in tensors.items() if n != "1.num_batches_tracked"}


@pytest.mark.parametrize("name", [row for row in ROWS if row.values[0] not in SIGNALLED | BY_CHANCE])
def test_which_updates_are_silent(name, request):
    """The table is right: a row is silent where no tensor is another, lies elsewhere or has another version."""
    model = prepared(name, request)
    before, values = traces(model), copy.deepcopy(model.state_dict())
    UPDATES[name](model)
    after = traces(model)
    changed = [n for n in before if not torch.equal(values[n], model.state_dict()[n])]
    assert changed
    traced = [n for n in changed if before[n][0] is not after[n][0] or before[n][1:] != after[n][1:]]
    assert traced == ([] if is_silent(name) else changed)


def test_inference_mode_parameters(report):
    """Tensors made in inference mode have no version counter at all."""
    with torch.inference_mode():
        model, x = net(), x54()
        compiled = compile_trt(model, options=silent_writes())
        with report.engines_run():
            before = compiled(x)
        for p in model.parameters():
            p.add_(1)
        with report.engines_run(rebuilds=True):
            after = compiled(x)
        assert_close(after, model(x))
        assert not torch.equal(after, before)


def test_double_and_back(report):
    """A change of dtype, which may run natively, and back, which may not."""
    model, x = net(), x54()
    compiled = compile_trt(model)
    with torch.no_grad():
        before = compiled(x)
        model.double()
        assert_close(compiled(x.double()), model(x.double()))
        model.float()
        model[0].weight.add_(1)
        with report.engines_run(rebuilds=True):
            after = compiled(x)
        assert_close(after, model(x))
        assert not torch.equal(after, before)


def test_functional_call(report):
    """Other tensors in place of the parameters for one call only."""
    model, x = net(), x54()
    compiled = compile_trt(model)
    others = {k: v.detach() + 1 for k, v in compiled.named_parameters()}
    plain = {k.removeprefix("_orig_mod."): v for k, v in others.items()}
    with torch.no_grad():
        want, want_others = model(x), functional_call(model, plain, (x,))
        for _ in range(2):
            with report.engines_run(rebuilds=True):
                assert_close(compiled(x), want)
                assert_close(functional_call(compiled, others, (x,)), want_others)
    assert not torch.equal(want, want_others)


class Plain(nn.Module):
    """Weights that are no parameter: an attribute, a list item, a global, a closure."""

    def __init__(self) -> None:
        super().__init__()
        self.attribute = torch.ones(3)
        self.items = [torch.ones(3)]

    def forward(self, x):
        return (x * self.attribute + self.items[0]).exp() + GLOBAL


GLOBAL = torch.ones(3)


@pytest.mark.parametrize("where", ["attribute", "list item", "global", "attribute rebound"])
def test_tensors_that_are_no_parameters(where, monkeypatch, report):
    monkeypatch.setitem(globals(), "GLOBAL", torch.ones(3))  # on the device of the test
    model, x = Plain(), x54()[:, :3]
    compiled = compile_trt(model, options=silent_writes())
    with torch.no_grad():
        before = compiled(x)
        for _ in range(2):
            if where == "attribute rebound":
                model.attribute = model.attribute + 1
            else:
                t = {"attribute": model.attribute, "list item": model.items[0], "global": GLOBAL}[where]
                write_silently(t, add_one)
            with report.engines_run(rebuilds=True):
                after = compiled(x)
            assert_close(after, model(x))
            assert not torch.equal(after, before)


# -- several sets of weights through one compiled function --


def test_two_instances_of_one_class(report):
    """Dynamo gives both instances one graph; each runs with its own weights."""
    first, second, x = net(), net(), x54()
    second.load_state_dict(other_state())
    compiled = [compile_trt(m, options=silent_writes()) for m in (first, second)]
    with torch.no_grad():
        for _ in range(3):
            for c, m in zip(compiled, (first, second), strict=True):
                with report.engines_run(rebuilds=True):
                    assert_close(c(x), m(x))
            first[0].weight.data.add_(0.5)
        assert not torch.allclose(first(x), second(x))


@pytest.mark.parametrize("multi", [True, False])
def test_averaged_model(multi, report):
    model, x = net(), x54()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.5) if multi else None)
    student, teacher = compile_trt(model), compile_trt(average)
    optimizer = optim.AdamW(model.parameters(), lr=0.1, fused=True)
    average.update_parameters(model)
    for _ in range(4):
        optimizer.zero_grad()
        backward(model)
        optimizer.step()
        average.update_parameters(model)
        with torch.no_grad(), report.engines_run(rebuilds=True):
            assert_close(student(x), model(x))
            assert_close(teacher(x), average(x))
    with torch.no_grad():
        assert not torch.allclose(model(x), average(x))


def test_ema_by_hand_of_a_deepcopy(report):
    model, x = net(), x54()
    ema = copy.deepcopy(model).requires_grad_(False)
    both = [compile_trt(m, options=silent_writes()) for m in (model, ema)]
    for i in range(4):
        model[0].weight.data.add_(i)
        for p, q in zip(ema.parameters(), model.parameters(), strict=True):
            p.data.lerp_(q.data, 0.1)
        with torch.no_grad(), report.engines_run(rebuilds=True):
            for c, m in zip(both, (model, ema), strict=True):
                assert_close(c(x), m(x))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x):
        return x + self.linear(self.norm(x)).relu()


def test_six_blocks_each_compiled(report):
    """Regional compilation: one graph serves six sets of weights."""
    torch.manual_seed(0)
    model = nn.Sequential(*(Block() for _ in range(6))).eval()
    reference = copy.deepcopy(model)
    for block in model:
        block.compile(**compile_options(silent_writes()))
    x = torch.randn(5, 8)
    with torch.no_grad():
        for i in range(3):
            with report.engines_run(rebuilds=True):
                assert_close(model(x), reference(x))
            for m in (model, reference):
                m[2 * i].linear.weight.data.add_(0.1)
    assert graphs_compiled() == 1
    report.engines_ran(calls=18, exactly=True, rebuilds=True)


@pytest.mark.parametrize("weight_check", ["signals", "never"])
def test_blocks_that_stay_get_an_engine_each(weight_check, report):
    torch.manual_seed(0)
    model = nn.Sequential(*(Block() for _ in range(6))).eval()
    reference = copy.deepcopy(model)
    for block in model:
        block.compile(**compile_options({"weight_check": weight_check, "max_engines": 6}))
    x = torch.randn(5, 8)
    with torch.no_grad():
        for _ in range(2):
            assert_close(model(x), reference(x))
        for _ in range(2):
            with report.engines_run():
                assert_close(model(x), reference(x))
    assert graphs_compiled() == 1


def test_trusted_weights_are_stale_until_another_tensor_comes(report):
    """What `weight_check="never"` promises, and no more."""
    model, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval(), torch.randn(2, 3, 8, 8)
    compiled = compile_trt(model, options={"weight_check": "never"})
    with torch.no_grad():
        before = model(x)
        for _ in range(2):
            assert_close(compiled(x), before)
        model[0].weight.mul_(2)
        if BACKEND == "trt":
            assert_close(compiled(x), before)
        model[0].weight = nn.Parameter(model[0].weight.clone())
        with report.engines_run(rebuilds=True):
            assert_close(compiled(x), model(x))


def test_an_ensemble_in_one_graph(report):
    """Two sets of equal shape and equal values in one graph stay two once one of them moves."""
    members, x = nn.ModuleList([net(), net()]), x54()

    def fn(x):
        return [m(x) for m in members]

    compiled = compile_trt(fn, options=silent_writes())
    with torch.no_grad():
        for i in range(3):
            with report.engines_run(rebuilds=True):
                assert_close(compiled(x), fn(x))
            members[i % 2][3].weight.data.add_(i + 1)


def test_tied_weights_untied(report):
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = nn.Embedding(7, 4)
            self.head = nn.Linear(4, 7, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids):
            return self.head(self.embed(ids).relu())

    model, ids = Tied(), torch.arange(5)
    compiled = compile_trt(model, options=silent_writes())
    with torch.no_grad():
        for i in range(4):
            with report.engines_run(rebuilds=True):
                assert_close(compiled(ids), model(ids))
            model.embed.weight.data.add_(1)
            if i == 1:
                model.head.weight = nn.Parameter(model.head.weight * 2)
