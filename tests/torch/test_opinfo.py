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
from torch.utils._pytree import tree_flatten, tree_unflatten
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
OPTIONS = CompileOptions(min_block_size=1, threads=1)
UNSPECIFIED = ("empty", "new_empty", "empty_like", "empty_strided", "empty_permuted", "new_empty_strided")
LOOSE = {"nn.functional.conv3d": 1e-3}  # long sums of large numbers, in another order
NATIVE = frozenset(
    {
        "arange-float32",
        "arange-int64",
        "bitwise_and-int64",
        "bitwise_not-int64",
        "bitwise_or-int64",
        "bitwise_xor-int64",
        "clone-bool",
        "clone-float32",
        "clone-int64",
        "diagonal-bool",
        "diagonal-float32",
        "diagonal-int64",
        "div_floor_rounding-float32",
        "div_floor_rounding-int64",
        "div_trunc_rounding-int64",
        "expand-bool",
        "expand-float32",
        "expand-int64",
        "floor_divide-float32",
        "floor_divide-int64",
        "fmod-float32",
        "fmod-int64",
        "full-bool",
        "full-float32",
        "full-int64",
        "native_batch_norm-float32",
        "native_group_norm-float32",
        "native_layer_norm-float32",
        "nn_functional_avg_pool2d-float32",
        "nn_functional_avg_pool2d-int64",
        "nn_functional_avg_pool3d-int64",
        "ones-bool",
        "ones-float32",
        "ones-int64",
        "permute-bool",
        "permute-float32",
        "permute-int64",
        "pow-int64",
        "prod-bool",
        "prod-int64",
        "remainder-float32",
        "remainder-int64",
        "round_decimals_0-float32",
        "round_decimals_3-float32",
        "round_decimals_neg_3-float32",
        "scalar_tensor-bool",
        "scalar_tensor-float32",
        "scalar_tensor-int64",
        "select-bool",
        "select-float32",
        "select-int64",
        "slice-bool",
        "slice-float32",
        "slice-int64",
        "split-bool",
        "split-float32",
        "split-int64",
        "split_list_args-bool",
        "split_list_args-float32",
        "split_list_args-int64",
        "split_with_sizes-bool",
        "split_with_sizes-float32",
        "split_with_sizes-int64",
        "squeeze-bool",
        "squeeze-float32",
        "squeeze-int64",
        "squeeze_multiple-bool",
        "squeeze_multiple-float32",
        "squeeze_multiple-int64",
        "t-bool",
        "t-float32",
        "t-int64",
        "topk-int64",
        "transpose-bool",
        "transpose-float32",
        "transpose-int64",
        "unbind-bool",
        "unbind-float32",
        "unbind-int64",
        "unfold-bool",
        "unfold-float32",
        "unfold-int64",
        "unsqueeze-bool",
        "unsqueeze-float32",
        "unsqueeze-int64",
        "view-bool",
        "view-float32",
        "view-int64",
        "zeros-bool",
        "zeros-float32",
        "zeros-int64",
    }
)
"""What no engine takes in any of the samples: integers and booleans mostly."""
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
    calls = [
        _engine_calls(op.op, (sample.input, sample.args, sample.kwargs), LOOSE.get(op.name))
        for sample in itertools.islice(op.sample_inputs("cpu", dtype), SAMPLES)
    ]
    assert any(calls) or _name(op, dtype) in NATIVE, "no sample ran in an engine"


def _engine_calls(function: Callable[..., Any], arguments: Any, tolerance: float | None) -> int:
    """Compare with eager, and return how many engines ran."""
    leaves, spec = tree_flatten(arguments)
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)]
    tensors = [leaves[i].detach() for i in places]

    def call(*values: Tensor) -> list[Tensor]:
        filled = dict(enumerate(leaves)) | dict(zip(places, values, strict=True))
        x, args, kwargs = tree_unflatten(list(filled.values()), spec)
        return [leaf for leaf in tree_flatten(function(x, *args, **kwargs))[0] if isinstance(leaf, Tensor)]

    records: list[GraphRecord] = []

    def compile_inference(graph: fx.GraphModule, _: Any) -> Callable[..., Any]:
        records.append(open_graph("torch", listed=False))
        return InferenceGraph(graph, frozenset(), load_provider("auto"), OPTIONS, records[-1])

    with torch.no_grad():
        torch.manual_seed(0)
        expected = call(*tensors)
        torch.manual_seed(0)
        got = aot_function(call, compile_inference, inference_compiler=compile_inference)(*tensors)
    for mine, theirs in zip(got, expected, strict=True):
        tolerances = {} if tolerance is None else {"rtol": tolerance, "atol": tolerance}
        torch.testing.assert_close(mine, theirs, equal_nan=True, **tolerances)
    return sum(_checked(record) for record in records)


def _checked(record: GraphRecord) -> int:
    """Assert that an engine answered for each region and that no bug of ours kept an op native; count the engines."""
    assert [reason for reason in record.native if reason.kind is ReasonKind.BUG] == []
    for region in record.regions:
        assert (region.reason, region.engine_calls, region.native_calls) == (None, 1, 0), region
    return len(record.regions)
