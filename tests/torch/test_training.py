"""What needs gradients or random numbers runs natively and exactly as in eager; the rest still runs in engines."""

from __future__ import annotations

import contextlib
import copy
import logging

import pytest
import torch
import torch.nn.functional as F
from torch import nn, optim
from torch.utils.checkpoint import checkpoint
from torch_checks import BEFORE_TORCH_2_13, ON_TRT, assert_close, assert_same, compile_trt, device, needs_trt

import models


def mlp():
    return nn.Sequential(nn.Linear(6, 16), nn.LayerNorm(16), nn.GELU(), nn.Dropout(0.0), nn.Linear(16, 3))


def cnn():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 3),
    )


def transformer():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    return nn.Sequential(layer, nn.Flatten(), nn.Linear(40, 3))


NETS = {
    "mlp": (mlp, (4, 6)),
    "cnn": (cnn, (4, 3, 8, 8)),
    "transformer with dropout": (transformer, (4, 5, 8)),
}


def build(name):
    make, shape = NETS[name]
    torch.manual_seed(0)
    return make(), torch.randn(*shape), torch.randint(0, 3, (shape[0],))


def grads(model):
    return [p.grad for p in model.parameters()]


@pytest.fixture
def one_batch_norm(monkeypatch):
    """Without cuDNN: on a GPU eager takes its batch norm, and AOTAutograd, with any backend, torch's own.

    They round differently, and that alone tells two trainings apart: the gradient of a bias before a batch norm is nothing
    but rounding, and AdamW makes a step of full length of it.
    """
    if device() == "cuda":
        monkeypatch.setattr(torch.backends.cudnn, "enabled", False)


@pytest.fixture
def traceable_transformer():
    """Without the fast path of `nn.TransformerEncoderLayer` in eval mode where torch cannot trace it for dynamic sizes."""
    was = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(was and not BEFORE_TORCH_2_13)
    yield
    torch.backends.mha.set_fastpath_enabled(was)


@pytest.fixture
def guarded_parameters():
    """Dynamo before 2.13 does not look at parameters of a module whose dictionary is as before (pytorch issue 139476)."""
    skip = torch._dynamo.config.skip_tensor_guards_with_matching_dict_tags and not BEFORE_TORCH_2_13
    with torch._dynamo.config.patch(skip_tensor_guards_with_matching_dict_tags=skip):
        yield


@pytest.mark.usefixtures("one_batch_norm")
@pytest.mark.parametrize("optimizer", ["SGD", "AdamW fused"])
@pytest.mark.parametrize("name", NETS)
def test_training_is_bit_for_bit_eager(name, optimizer, report):
    model, x, y = build(name)
    reference = copy.deepcopy(model)
    compiled = compile_trt(model)
    losses = []
    for net, call in ((model, compiled), (reference, reference)):
        torch.manual_seed(1)
        net.train()
        opt = (
            optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
            if optimizer == "SGD"
            else optim.AdamW(net.parameters(), fused=True)
        )
        for _ in range(4):
            opt.zero_grad()
            loss = F.cross_entropy(call(x), y)
            loss.backward()
            opt.step()
            losses.append(loss.detach())
    assert_same(torch.stack(losses[:4]), torch.stack(losses[4:]))
    assert_same(grads(model), grads(reference))
    assert_same(dict(model.state_dict()), dict(reference.state_dict()))
    report.no_engine_ran("needs gradients")


def test_a_language_model_step(report):
    model, make_inputs = models.gpt2()
    reference = copy.deepcopy(model)
    (ids,) = make_inputs(2)
    compiled = compile_trt(model)
    for call in (compiled, reference):
        logits = call(ids).logits
        F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()).backward()
    assert_same(grads(model), grads(reference))
    report.no_engine_ran("needs gradients")


@pytest.mark.parametrize("frozen", [False, True])
def test_gradients_of_the_input(frozen, report):
    model, x, _ = build("mlp")
    model.requires_grad_(not frozen)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    (got,) = torch.autograd.grad(compile_trt(model)(ours).square().sum(), ours)
    (want,) = torch.autograd.grad(model(theirs).square().sum(), theirs)
    assert_same(got, want)
    report.no_engine_ran("needs gradients")


def test_gradients_of_some_parameters(report):
    """A frozen backbone and a head that learns, in one compiled module."""
    model, x, y = build("mlp")
    for p in model[:3].parameters():
        p.requires_grad_(False)
    reference = copy.deepcopy(model)
    for call in (compile_trt(model), reference):
        for _ in range(2):
            F.cross_entropy(call(x), y).backward()
    assert_same(grads(model)[-2:], grads(reference)[-2:])
    assert all(g is None for g in grads(model)[:-2])


def test_what_requires_grad(report):
    """Outputs carry gradients exactly where eager's do."""
    model, x, _ = build("mlp")

    def fn(x):
        y = model(x)
        return y, y.detach(), y.argmax(1), x * 2

    got, want = compile_trt(fn)(x), fn(x)
    assert [t.requires_grad for t in got] == [t.requires_grad for t in want] == [True, False, False, False]
    assert_close(got, want)


def test_no_grad_inside_a_training_graph():
    """A teacher under no_grad inside the student's compiled step."""
    student, x, _ = build("mlp")
    teacher = copy.deepcopy(student)
    reference = copy.deepcopy(student)

    def fn(net, x):
        with torch.no_grad():
            target = teacher(x).softmax(-1)
        return F.mse_loss(net(x).softmax(-1), target + 0.1)

    compile_trt(fn)(student, x).backward()
    fn(reference, x).backward()
    assert_same(grads(student), grads(reference))


def test_frozen_parameters_with_gradients_enabled_use_engines(report):
    model, x, _ = build("mlp")
    model.requires_grad_(False).eval()
    compiled = compile_trt(model)
    for _ in range(3):
        out = compiled(x)
        assert_close(out, model(x))
        assert not out.requires_grad
    report.engines_ran(calls=3, share=0.98)


@pytest.mark.usefixtures("guarded_parameters")
def test_thawed_then_frozen(report):
    model, x, _ = build("mlp")
    model.requires_grad_(False)
    compiled = compile_trt(model)
    assert not compiled(x).requires_grad
    model.requires_grad_(True)
    loss = compiled(x).square().sum()
    loss.backward()
    assert all(g is not None for g in grads(model))
    model.requires_grad_(False)
    with report.engines_run(rebuilds=True):
        assert_close(compiled(x), model(x))


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_batch_norm_in_a_checkpoint(use_reentrant, report):
    """Its statistics move once, as with any backend that has AOTAutograd; eager's recomputation moves them again."""
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), torch.randn(8, 4, requires_grad=True)

    def step(layers, inputs):
        checkpoint(layers, inputs, use_reentrant=use_reentrant).square().sum().backward()

    native, ours = copy.deepcopy(model), copy.deepcopy(model)
    native(x.detach())
    step(model, x)
    wanted, x.grad = x.grad, None
    compile_trt(step)(ours, x)
    assert_close(x.grad, wanted)
    assert_close(grads(ours), grads(model))
    assert_close(list(ours.buffers()), list(native.buffers()))
    report.no_engine_ran("needs gradients")


@needs_trt
def test_inputs_are_written_once_nobody_reads_them(report):
    """An inference graph beside parameters that want gradients, which AOTAutograd lets write to its inputs itself."""
    layer, cache = nn.Linear(6, 6), torch.randn(4, 6)

    def fn(x, cache):
        hidden = layer(x).detach()
        old = (hidden + cache).relu() * 2
        cache.copy_(torch.rand_like(x))
        return old, (hidden - cache).exp()

    compiled, x = compile_trt(fn), torch.randn(4, 6)
    ours, natives = cache.clone(), cache.clone()
    for _ in range(3):
        torch.manual_seed(1)
        wanted = fn(x, natives)
        torch.manual_seed(1)
        assert_close(compiled(x, ours), wanted)
        assert_same(ours, natives)
    report.engines_ran(calls=3)


# -- train and eval in turns --


@pytest.mark.usefixtures("one_batch_norm", "traceable_transformer")
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", NETS)
def test_train_and_eval_in_turns(name, mode, report):
    """Three epochs with a fused optimizer: every evaluation sees the weights and statistics of its epoch."""
    model, x, y = build(name)
    reference = copy.deepcopy(model)
    compiled = compile_trt(model)
    results = []
    for net, call in ((model, compiled), (reference, reference)):
        torch.manual_seed(1)
        opt = optim.AdamW(net.parameters(), lr=0.01, fused=True)
        seen = []
        for _ in range(3):
            call.train()
            for _ in range(2):
                opt.zero_grad()
                F.cross_entropy(call(x), y).backward()
                opt.step()
            call.eval()
            with mode():
                for batch in (x, x[:3]):
                    with report.engines_run(rebuilds=True) if call is compiled else contextlib.nullcontext():
                        seen.append(call(batch).clone())
        results.append(seen)
    assert_close(*results)
    for a, b in zip(results[0], results[0][2:], strict=False):
        assert not torch.allclose(a, b)  # the model did learn between epochs
    assert_same([p.detach() for p in model.parameters()], [p.detach() for p in reference.parameters()])
    report.engines_ran(calls=6, rebuilds=True)


# -- random numbers --


class Noise(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.a, self.b = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x):
        h = self.a(x).relu()
        if self.kind == "dropout":
            h = F.dropout(h, 0.5, self.training)
        elif self.kind == "rand_like":
            h = h + torch.rand_like(h)
        elif self.kind == "randn":
            h = h * torch.randn(8, device=x.device)
        elif self.kind == "bernoulli":
            h = torch.bernoulli(h.sigmoid()) + h
        elif self.kind == "multinomial":
            h = h + torch.multinomial(h.softmax(-1), 1)
        elif self.kind == "normal_":
            h = h + torch.empty_like(h).normal_()
        elif self.kind == "randint":
            h = h + torch.randint(0, 5, (8,), device=x.device)
        elif self.kind == "randperm":
            h = h[:, torch.randperm(8, device=x.device)]
        elif self.kind == "rrelu":
            h = F.rrelu(h - 1, training=self.training)
        return self.b(h).exp()


NOISES = (
    "dropout",
    "rand_like",
    "randn",
    "bernoulli",
    "multinomial",
    "normal_",
    "randint",
    "randperm",
    "rrelu",
)


@pytest.mark.parametrize("kind", NOISES)
def test_random_numbers_are_eagers(kind, report):
    """In train mode under no_grad: native, from the same stream, and the stream stands at the same place after."""
    model, x = models.randomise(Noise(kind)).train(), torch.randn(4, 6)
    compiled = compile_trt(model)
    with torch.no_grad():
        compiled(x)  # compiling must not draw numbers either, but eager has no such call
        for seed in (7, 8):
            torch.manual_seed(seed)
            want = [model(x), model(x), torch.rand(3)]
            torch.manual_seed(seed)
            got = [compiled(x), compiled(x), torch.rand(3)]
            assert_close(got, want)
            assert not torch.allclose(got[0], got[1])
    report.native("random numbers")
    report.engines_ran(calls=1)  # what is before or after the numbers


def test_the_first_call_draws_what_eager_draws(report):
    """Compiling and building take nothing from the stream."""
    model, x = models.randomise(Noise("rand_like")).train(), torch.randn(4, 6)
    with torch.no_grad():
        torch.manual_seed(3)
        want = [model(x), torch.rand(3)]
        torch.manual_seed(3)
        assert_close([compile_trt(model)(x), torch.rand(3)], want)
    report.native("random numbers")


def _later_branch_is_shorter(x):
    a = F.dropout((x.sin() * 2 + 1).exp(), 0.5)
    b = F.dropout(x, 0.5)
    return (a.cos() * 2).exp(), (b.cos() * 2).exp(), torch.rand(3, device=x.device)


def _second_draw_waits_for_nothing(x):
    a = F.dropout(x.sin() + (x * 2).cos().exp(), 0.5)
    b = torch.rand_like(x) + 1
    return (a.cos() * 2 + 1).exp() * b, x.exp().sin().cos()


@pytest.mark.parametrize("function", [_later_branch_is_shorter, _second_draw_waits_for_nothing])
def test_random_numbers_are_drawn_in_eagers_order(function, report):
    """Regions never move one draw before another."""
    x = torch.randn(8, 8)
    with torch.no_grad():
        torch.manual_seed(3)
        want = function(x)
        torch.manual_seed(3)
        assert_close(compile_trt(function)(x), want)
    report.native("random numbers")
    report.engines_ran(calls=1)


def test_dropout_is_off_in_eval(report):
    model, x = models.randomise(Noise("dropout")), torch.randn(4, 6)
    compiled = compile_trt(model)
    with torch.no_grad():
        assert_close(compiled(x), model(x))
        assert_close(compiled(x), compiled(x), rtol=0)
    report.engines_ran(calls=3, share=0.98)


# -- autocast --


@pytest.mark.parametrize("where", ["inside", "outside"])
def test_autocast(where, report):
    """bfloat16 regions: eager's dtypes, and its values within what bfloat16 resolves."""
    model, kind = models.randomise(mlp()), device()

    def inside(x):
        with torch.autocast(kind, dtype=torch.bfloat16):
            y = model(x)
        return y, y.float().exp()

    fn = inside if where == "inside" else lambda x: (model(x), model(x).float().exp())
    compiled = compile_trt(fn)
    x = torch.randn(4, 6)
    with torch.no_grad(), torch.autocast(kind, dtype=torch.bfloat16, enabled=where == "outside"):
        for _ in range(2):
            got, want = compiled(x), fn(x)
            assert want[0].dtype == torch.bfloat16
            assert_close(got, want, rtol=2e-2)
    report.engines_ran(calls=2)


def test_autocast_switches(report):
    model, x = models.randomise(mlp()), torch.randn(4, 6)
    compiled = compile_trt(model)
    with torch.no_grad():
        for enabled in (False, True, False):
            with torch.autocast(device(), dtype=torch.bfloat16, enabled=enabled):
                assert_close(compiled(x), model(x), rtol=2e-2 if enabled else None)
    report.engines_ran(calls=2)


# -- the hint --


def hints(log):
    return [r for r in log if "no_grad" in r.getMessage() or "inference_mode" in r.getMessage()]


def test_eval_without_no_grad_runs_natively_and_says_so_once(log, report):
    model, x, _ = build("mlp")
    model.eval()
    compiled = compile_trt(model)
    compiled(x)
    assert not hints(log), "one forward may yet get its backward"
    for _ in range(4):
        assert_same(compiled(x), model(x))
    report.no_engine_ran("needs gradients")
    if ON_TRT:
        assert len(hints(log)) == 1
        assert hints(log)[0].levelno >= logging.INFO
        assert "torch.no_grad" in hints(log)[0].getMessage()
        assert "inference_mode" in hints(log)[0].getMessage()


@pytest.mark.parametrize("training", [True, False])
def test_no_hint_where_a_backward_follows(training, log):
    """Fine-tuning in eval mode is training."""
    model, x, y = build("mlp")
    model.train(training)
    compiled = compile_trt(model)
    for _ in range(4):
        F.cross_entropy(compiled(x), y).backward()
    assert not hints(log)


@needs_trt
def test_no_hint_under_no_grad(log):
    model, x, _ = build("mlp")
    compiled = compile_trt(model.eval())
    with torch.no_grad():
        for _ in range(4):
            compiled(x)
    assert not hints(log)
    assert not [r for r in log if r.levelno >= logging.WARNING]
