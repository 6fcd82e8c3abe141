"""Every TensorRT name that the sources use exists in each version that they declare for it.

`tests/data/tensorrt-api` holds the names that the bindings of six versions have.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from trt_backend.emit.tensorrt import elementwise, layout, network, stacks
from trt_backend.emit.tensorrt.stacks import Stack, stack_of
from trt_backend.ir.ops.elementwise import ActivationKind, ElementwiseKind, UnaryKind
from trt_backend.ir.ops.layout import InterpolationMode, ResizeCoordinates
from trt_backend.ir.ops.reduction import PoolingKind, ReduceKind, TopKKind
from trt_backend.ir.types import DType

ROOT = Path(__file__).parents[2]
SURFACES = {
    path.stem: json.loads(path.read_text())
    for path in sorted((ROOT / "tests/data/tensorrt-api").glob("*.json"))
}
SOURCES = [
    *(ROOT / "trt_backend/emit/tensorrt").glob("*.py"),
    ROOT / "trt_backend/engine/tensorrt.py",
    ROOT / "trt_backend/engine/tensorrt_build.py",
]
ONLY_WHERE_DECLARED = {
    "AttentionNormalizationOp": "Attention",
    "CausalMaskKind": "Attention",
    "CumulativeOperation": "CumulativeSum",
    "add_cumulative": "CumulativeSum",
}
"""Names that stand in rules for ops which `Stack.lacks` takes away, or in branches on a field of `Stack`."""


def _stack(surface: str) -> stacks.Stack:
    package, _, version = surface.rpartition("-")
    found = stack_of(package, version)
    assert found is not None
    return found


def _chains() -> set[tuple[str, ...]]:
    """Return every `trt.A.B` and `network.add_x` of the sources, without what comes before."""
    found: set[tuple[str, ...]] = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            parts: list[str] = []
            while isinstance(node, ast.Attribute):
                parts.insert(0, node.attr)
                node = node.value
            if isinstance(node, ast.Name):
                parts.insert(0, node.id)
            for root in ("trt", "_trt", "network"):
                if root in parts[:-1]:
                    found.add((root.strip("_"), *parts[parts.index(root) + 1 :]))
    return found


CHAINS = sorted(_chains())

ONLY_WHERE: dict[str, Callable[[Stack], bool]] = {
    "FP16": lambda stack: not stack.strongly_typed,
    "BuilderFlag.INT8": lambda stack: not stack.strongly_typed,
    "OBEY_PRECISION_CONSTRAINTS": lambda stack: not stack.strongly_typed,
    "PREFER_PRECISION_CONSTRAINTS": lambda stack: not stack.strongly_typed,
    "EXPLICIT_BATCH": lambda stack: not stack.strongly_typed,
    "STRONGLY_TYPED": lambda stack: stack.strongly_typed,
    "ComputeCapability": lambda stack: stack.ahead_of_time,
    "IProgressMonitor": lambda stack: stack.progress,
    "PROFILE_SHARING_0806": lambda stack: not stack.shares_profiles,
    "DISABLE_EXTERNAL_TACTIC_SOURCES_FOR_CORE_0805": lambda stack: stack.shuts_libraries_out,
    "CausalMaskKind": lambda stack: stack.attention == "add_attention_v2",
    "ExecutionContextAllocationStrategy": lambda stack: stack.since >= (10, 0) or stack.ahead_of_time,
}
"""The code uses these names for such generations only."""


def test_the_sources_use_names() -> None:
    assert ("trt", "PaddingMode", "EXPLICIT_ROUND_UP") in CHAINS
    assert ("network", "add_shuffle") in CHAINS
    assert len(SURFACES) == 6


@pytest.mark.parametrize("surface", SURFACES)
def test_names_in_the_code_exist(surface: str) -> None:
    names, stack = SURFACES[surface], _stack(surface)
    missing = []
    for root, *path in CHAINS:
        if root == "network":
            known = path[0] in names["INetworkDefinition"]
        else:
            known = path[0] in names["top"] or path[0] in names or path[0].startswith("__")
            if known and len(path) > 1 and path[0] in names:
                known = path[1] in names[path[0]] or path[1] == "__members__"
        used = next(
            (uses(stack) for name, uses in ONLY_WHERE.items() if name in (*path, ".".join(path))), True
        )
        declared_away = ONLY_WHERE_DECLARED.get(path[0]) in stack.lacks
        if not known and used and not declared_away:
            missing.append(".".join((root, *path)))
    assert not missing


@pytest.mark.parametrize("surface", SURFACES)
def test_names_that_are_data_exist(surface: str) -> None:
    names, stack = SURFACES[surface], _stack(surface)

    def kinds(op: str, enum: type) -> set[str]:
        return {kind.name for kind in enum if f"{op} {kind.value}" not in stack.lacks}

    assert kinds("Unary", UnaryKind) <= set(names["UnaryOperation"])
    assert kinds("Elementwise", ElementwiseKind) <= set(names["ElementWiseOperation"])
    assert kinds("Activation", ActivationKind) <= set(names["ActivationType"])
    assert {kind.name for kind in ReduceKind} <= set(names["ReduceOperation"])
    assert {kind.name for kind in PoolingKind} <= set(names["PoolingType"])
    assert {kind.name for kind in TopKKind} <= set(names["TopKOperation"])
    assert {mode.name for mode in InterpolationMode} <= set(names["InterpolationMode"])
    assert {c.name for c in ResizeCoordinates} <= set(names["ResizeCoordinateTransformation"])
    assert {*layout._PAD_MODES.values(), "STRICT_BOUNDS"} <= set(names["SampleMode"])
    assert {"DEFAULT", "ELEMENT", "ND"} <= set(names["GatherMode"])
    assert {*network._CALLS.values(), "SUM", "SUB", "PROD"} <= set(names["ElementWiseOperation"])
    spelled = {network._NAMES[d] for d in stack.dtypes if d is not DType.INT64 or stack.int64}
    assert spelled <= set(names["DataType"])
    assert stack.normalization in names["INetworkDefinition"]
    assert not stack.attention or stack.attention in names["INetworkDefinition"]
    assert elementwise._UNARY.keys() == set(UnaryKind)
