"""What follows from a type that torch promises wrongly, as torch 2.9 does for a division of integers, is native."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from trt_backend.engine.providers import load_provider
from trt_backend.options import CompileOptions
from trt_backend.report import GraphRecord
from trt_backend_torch.inference import partition_only

pytestmark = pytest.mark.cpu_only(reason="looks at a graph alone")


@pytest.mark.parametrize("promised", [torch.int64, torch.float32])
def test_what_follows_a_wrong_promise_is_native(promised: torch.dtype) -> None:
    def fn(x: torch.Tensor, y: torch.Tensor) -> list[torch.Tensor]:
        return [((x / 3 + 1) * 2).relu(), (y * 2 + 1).exp()]

    with FakeTensorMode() as mode:
        graph = make_fx(fn)(torch.empty(5, dtype=torch.int64), torch.empty(5))
        (division,) = graph.graph.find_nodes(op="call_function", target=torch.ops.aten.div.Tensor)
        division.meta["val"] = mode.from_tensor(torch.empty(5, dtype=promised, device="meta"))
        record = GraphRecord("graph", "torch")
        partition_only(graph, load_provider("auto", "cpu"), CompileOptions(min_block_size=1), record)
    native = [reason.op for reason in record.native if "promises" in reason.detail]
    if promised is torch.float32:
        assert native == []
    else:
        assert native == ["aten.div.Tensor", "aten.add.Tensor", "aten.mul.Tensor", "aten.relu.default"]
    assert sum(region.ops for region in record.regions) == record.ops_total - len(record.native)
