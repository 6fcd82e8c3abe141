"""torch's own samples of each op that our rules cover: values, dtypes, shapes and strides as in eager, from engines."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch._functorch.aot_autograd import aot_function
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten
from torch_checks import needs_trt

from trt_backend.engine.providers import load_provider
from trt_backend.errors import ReasonKind
from trt_backend.options import CompileOptions
from trt_backend.report import GraphRecord, open_graph
from trt_backend_torch.inference import InferenceGraph
from trt_backend_torch.lower import RULES

pytestmark = [
    needs_trt,
    pytest.mark.filterwarnings("ignore:.*degrees of freedom", "ignore:The reduce argument of torch.scatter"),
]

DTYPES = (torch.float32, torch.int64, torch.bool)
SAMPLES = 3
LIMIT = 10  # where no engine takes the first
OPTIONS = CompileOptions(min_block_size=1, threads=1)
UNSPECIFIED = ("empty", "new_empty", "empty_like", "empty_strided", "empty_permuted", "new_empty_strided")
LOOSE = {"addbmm": 1e-4, "nn.functional.conv3d": 1e-3}  # long sums of large numbers, in another order
NATIVE = {
    "a quotient of floats rounds, and its whole part may be off by one": (
        "div_floor_rounding-float32",
        "floor_divide-float32",
        "fmod-float32",
        "remainder-float32",
    ),
    "torch raises where an integer is divided by 0": (
        "div_floor_rounding-int64",
        "div_trunc_rounding-int64",
        "floor_divide-int64",
        "fmod-int64",
        "remainder-int64",
    ),
    "no engine op works on the bits of integers": (
        "bitwise_and-int64",
        "bitwise_not-int64",
        "bitwise_or-int64",
        "bitwise_xor-int64",
    ),
    "no engine op pools i64": ("nn_functional_avg_pool2d-int64", "nn_functional_avg_pool3d-int64"),
    "ONNX Runtime on CPU takes f16, f32, f64, not i64": ("pow-int64",),
    "torch orders equal ones as its kernel happens to": ("topk-int64",),
    "its output 1 is used, which no rule computes": (
        "native_group_norm-float32",
        "native_layer_norm-float32",
    ),
    "takes 7 to 27 times as long as PyTorch's": ("grid_sampler_2d-float32",),
    "_native_batch_norm_legit_functional.default: no lowering rule": ("native_batch_norm-float32",),
}
"""What no engine takes in any of the samples, by a part of the reason that the report gives."""
_WHY = {name: reason for reason, names in NATIVE.items() for name in names}
_COVERED = {target._schema.name.removeprefix("aten::").lstrip("_") for target in RULES}


def _is_covered(op: Any) -> bool:
    """Whether some rule has the op's name: other ops reach rules through decompositions only."""
    return op.aten_name in _COVERED and op.name not in UNSPECIFIED


def _name(op: Any, dtype: torch.dtype) -> str:
    return f"{op.formatted_name}-{str(dtype).removeprefix('torch.')}"


CASES = [
    pytest.param(op, dtype, id=_name(op, dtype))
    for op in op_db
    for dtype in DTYPES
    if _is_covered(op) and op.supports_dtype(dtype, "cpu")
]


@pytest.mark.parametrize(("op", "dtype"), CASES)
def test_runs_as_eager(op: Any, dtype: torch.dtype) -> None:
    records: list[GraphRecord] = []
    for sample in itertools.islice(op.sample_inputs("cpu", dtype), LIMIT):
        arguments = (sample.input, sample.args, sample.kwargs)
        record = _run(op.op, arguments, LOOSE.get(op.name))
        records.append(record if record.regions else _run(_doubled(op.op), arguments, LOOSE.get(op.name)))
        if len(records) >= SAMPLES and any(map(_is_whole, records)):
            break
    whole = any(map(_is_whole, records))
    reasons = [str(reason) for record in records for reason in record.native]
    why = _WHY.get(_name(op, dtype))
    if why is None:
        assert whole, reasons
    else:
        assert not whole, "engines take a sample: it is not native"
        assert any(why in reason for reason in reasons), reasons


def test_what_is_native_is_tested() -> None:
    assert set(_WHY) <= {case.id for case in CASES}


def _is_whole(record: GraphRecord) -> bool:
    """Whether engines ran everything."""
    return bool(record.regions) and not record.native


def _doubled(function: Callable[..., Any]) -> Callable[..., list[Tensor]]:
    """Return a function that computes with its results: views and new tensors alone are left to torch."""

    def call(*args: Any, **kwargs: Any) -> list[Tensor]:
        return [x + x for x in tree_leaves(function(*args, **kwargs)) if isinstance(x, Tensor)]

    return call


def _run(function: Callable[..., Any], arguments: Any, tolerance: float | None) -> GraphRecord:
    """Compare with eager, and return what ran where."""
    leaves, spec = tree_flatten(arguments)
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    tensors = [leaves[i].detach() for i in places]

    def call(*values: Tensor) -> list[Tensor]:
        filled = dict(enumerate(leaves)) | dict(zip(places, values, strict=True))
        x, args, kwargs = tree_unflatten(list(filled.values()), spec)
        return [leaf for leaf in tree_leaves(function(x, *args, **kwargs)) if isinstance(leaf, Tensor)]

    record = open_graph("torch", listed=False)

    def compile_inference(graph: fx.GraphModule, _: Any) -> Callable[..., Any]:
        return InferenceGraph(graph, frozenset(), load_provider("auto"), OPTIONS, record)

    with torch.no_grad():
        torch.manual_seed(0)
        expected = call(*tensors)
        torch.manual_seed(0)
        got = aot_function(call, compile_inference, inference_compiler=compile_inference)(*tensors)
    for mine, theirs in zip(got, expected, strict=True):
        tolerances = {} if tolerance is None else {"rtol": tolerance, "atol": tolerance}
        torch.testing.assert_close(mine, theirs, equal_nan=True, **tolerances)
    assert [reason for reason in record.native if reason.kind is ReasonKind.BUG] == []
    for region in record.regions:
        assert (region.reason, region.engine_calls, region.native_calls) == (None, 1, 0), region
    return record
