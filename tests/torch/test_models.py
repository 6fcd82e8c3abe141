"""Every architecture of the zoo gives eager's answer from engines, with static and with dynamic batches."""

from __future__ import annotations

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_map_only
from torch_checks import ON_TRT, assert_close, device, graphs_compiled

import models

BATCHES = {"static": (2, 2), "marked": (2, 3, 5, 7), "automatic": (2, 3, 5, 7)}


@pytest.mark.parametrize("batches", BATCHES)
@pytest.mark.parametrize("name", models.ZOO)
def test_answers_as_eager(name, batches, compile_trt, report):
    model, make_inputs = models.ZOO[name]()
    compiled = compile_trt(
        model, dynamic=False if batches == "static" else None, options={"min_block_size": 3}
    )
    graphs = []
    few = None if device() == "cpu" else 3  # engines of TensorRT take seconds
    # By default dynamo gives up on the whole function that calls nn.LSTM, and no backend sees anything of it.
    with torch.no_grad(), torch._dynamo.config.patch(allow_rnn=True):
        for batch in BATCHES[batches][:few]:
            inputs = make_inputs(batch)
            if batches == "marked":
                for t in inputs:
                    torch._dynamo.mark_dynamic(t, 0)
            assert_close(compiled(*inputs), model(*inputs))
            graphs.append(graphs_compiled())
    assert graphs[0] >= 1
    # One more compile of each graph where dynamo learns that the batch moves, none where it was told.
    assert graphs[-1] <= graphs[0] * (2 if batches == "automatic" else 1)
    if name != "lstm":
        report.engines_ran(calls=len(graphs), share=0.98, rebuilds=batches != "static")
    elif ON_TRT:  # nn.LSTM may run natively, not silently
        data = report.data
        assert data["ops_in_engines"] >= 0.98 * data["ops_total"] > 0 or report.kinds() & {
            "no lowering rule",
            "unsupported",
            "region too small",
        }


@pytest.mark.parametrize("name", [name for name in models.ZOO if name != "lstm"])
def test_float16(name, compile_trt, report):
    """As accurate as eager in float16, up to a factor: engines round elsewhere."""
    model, make_inputs = models.ZOO[name]()
    inputs = make_inputs(2)
    with torch.no_grad():
        exact = model(*inputs)
        half = model.half()
        inputs = tree_map_only(torch.Tensor, lambda t: t.half() if t.is_floating_point() else t, inputs)
        compiled = compile_trt(half, dynamic=False, options={"min_block_size": 3})
        ours, eager = compiled(*inputs), half(*inputs)
    assert_close(ours, eager, rtol=3e-2)
    for got, rounded, want in zip(*map(tree_leaves, (ours, eager, exact)), strict=True):
        error, usual = (got.float() - want).abs().max(), (rounded.float() - want).abs().max()
        assert error <= 4 * usual
    report.engines_ran(share=0.98)


def test_an_lstm_as_dynamo_treats_it_by_default(compile_trt, report):
    """It is in no graph, and the answer is eager's."""
    model, make_inputs = models.lstm()
    compiled = compile_trt(model)
    with torch.no_grad():
        assert_close(compiled(*make_inputs(2)), model(*make_inputs(2)))
    if graphs_compiled():  # torch 2.15 leaves out the LSTM alone; 2.13 all of a model that calls one
        report.engines_ran(calls=2, share=1)
    else:
        assert report.total("engine_calls") == report.total("native_calls") == 0


@pytest.mark.parametrize("name", ["bert-sdpa", "resnet"])
def test_half_of_the_batch_gives_half_of_the_answer(name, compile_trt, report):
    """Rows of a batch do not leak into each other through an engine."""
    model, make_inputs = models.ZOO[name]()
    inputs = make_inputs(4)
    with torch.no_grad():
        compiled = compile_trt(model, dynamic=True)
        whole, half = compiled(*inputs), compiled(*(t[:2] for t in inputs))
        assert_close(half[0], whole[0][:2])
    report.engines_ran(calls=2, rebuilds=True)


def test_the_zoo_is_deterministic_and_not_degenerate():
    for name, build in models.ZOO.items():
        (model, make_inputs), (again, _) = build(), build()
        with torch.no_grad():
            out, same = model(*make_inputs(2)), again(*make_inputs(2))
        assert_close(same, out, rtol=0)
        first = out if isinstance(out, torch.Tensor) else out[0]
        assert 0.05 < first.std() < 10, name
        assert not torch.allclose(first[0], first[1]), name
