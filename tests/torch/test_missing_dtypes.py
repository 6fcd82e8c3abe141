"""Element types that a TensorRT lacks, float64 above all: no region reads or makes them, and what is around them runs in one.

TensorRT-RTX, which has no float64, builds the regions without a GPU, and the NumPy reference runs them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch_checks import assert_same, compile_trt

pytest.importorskip("tensorrt_rtx")

import trt_backend_torch.backend
from tensorrt_checks import AheadOfTime
from trt_backend.emit.tensorrt import support
from trt_backend.emit.tensorrt.stacks import stack_of
from trt_backend.errors import Reason, ReasonKind
from trt_backend.ir.ops.base import Op
from trt_backend.ir.types import DType, TensorType
from trt_backend_torch.lowering import unsupported

pytestmark = pytest.mark.cpu_only(reason="builds ahead of time, for a GPU that is not there")

X = torch.linspace(-3, 3, 12).reshape(3, 4)
DOUBLE = torch.tensor(2.7, dtype=torch.float64)


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> AheadOfTime:
    """The provider of all that a test compiles."""
    provider = AheadOfTime()
    monkeypatch.setattr(trt_backend_torch.backend, "load_provider", lambda *_: provider)
    return provider


def check(
    stack: AheadOfTime, fn: Callable[..., Any], *args: Any, engines: int = 1, dynamic: bool | None = None
) -> None:
    """Assert that a function gives eager's answer to the bit, by so many engines that have no float64 at all."""
    compiled = compile_trt(fn, dynamic=dynamic, options={"min_block_size": 1})
    with torch.no_grad():
        assert_same(compiled(*args), fn(*args))
    assert len(stack.built) == engines
    assert not [v for graph, _, _ in stack.built for v in graph.values() if v.dtype is DType.FLOAT64]


# -- numbers of the host --


def test_float_arguments(stack, report):
    """Torch hands a float that moves on as a float64 tensor."""

    def fn(x, scale, shift):
        return (x * scale - shift).abs()

    compiled = compile_trt(fn, options={"min_block_size": 1})
    numbers = [(2.5, 0.1), (math.pi, 1e-3), (1e300, -0.0), (math.inf, 7.0), (1e-50, 3.0)]
    with torch.no_grad():
        for scale, shift in numbers:
            assert_same(compiled(X, scale, shift), fn(X, scale, shift))
    report.engines_ran(calls=len(numbers), exactly=True, share=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_a_number_among_tensors(dtype, stack, report):
    """Where torch computes in float32, the number comes in as that; in float16, it is converted natively, without a detour."""

    def fn(x, t):
        return x.abs() * t, x > t, torch.where(x > 0, t, x)

    single = dtype is torch.float32
    check(stack, fn, X.to(dtype), DOUBLE, engines=1)
    report.engines_ran(calls=1, share=1 if single else 0.2)
    assert report.kinds() == (set() if single else {"unsupported dtype"})


def test_a_number_that_a_module_holds(stack, report):
    class Scaled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", DOUBLE)

        def forward(self, x):
            return x.abs() * self.scale

    check(stack, Scaled(), X)
    report.engines_ran(calls=1, share=1)


def test_arithmetic_of_numbers_runs_before_the_one_engine(stack, report):
    def fn(x, t):
        factor = (t * t + 1).sqrt()
        return (x.abs() * factor.float()).relu() * factor

    check(stack, fn, X, DOUBLE)
    report.engines_ran(calls=1, share=4 / 7)
    assert report.kinds() == {"unsupported dtype"}


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_numbers_that_follow_from_sizes(mode, stack, report):
    """The scale of an interpolation: the host computes it before the one engine, and it counts as sizes do."""

    def fn(x):
        half = F.max_pool2d(x, 2)
        return F.interpolate(half, scale_factor=2, mode=mode) + x

    x = torch.arange(2 * 3 * 8 * 12.0).reshape(2, 3, 8, 12)
    check(stack, fn, x, dynamic=True)
    report.engines_ran(calls=1, exactly=True, share=1)
    assert stack.built[0][0].symbols


def test_a_number_that_follows_from_a_size_needs_no_engine(stack):
    check(stack, lambda x: torch.scalar_tensor(x.shape[0]) / 3, X, engines=0, dynamic=True)


# -- tensors --


def test_results_of_float64(stack, report):
    """They are native's, those too that no op makes; their float32 neighbours are one engine's."""

    def fn(x, y, t):
        return x.abs().double(), y.clone(), y.view(-1) + t, (x.int() * t), t.clone(), (x + 1).relu()

    check(stack, fn, X, X.double() * 1.1, DOUBLE)
    report.engines_ran(calls=1, exactly=True)
    assert report.kinds() == {"unsupported dtype"}


def test_there_and_back(stack, report):
    """What needs float64's digits keeps them; engines run before and after."""

    def fn(x, n):
        third = (x.abs().double() / 3).float().relu() + 1
        return third, n.double().long() + 1, (n - 1).double() / 2

    check(stack, fn, X, torch.tensor([2**53 - 1, -5, 2**31 + 1]), engines=2)
    report.engines_ran(calls=2, exactly=True)
    assert report.kinds() == {"unsupported dtype"}


def test_a_tensor_that_is_read_as_float32(stack, report):
    def fn(y):
        return (y.float().abs() + 1).relu()

    check(stack, fn, X.double() * 1.1)
    report.engines_ran(calls=1, share=1)


def test_pixels(stack, report):
    """No TensorRT has tensors of uint8, not even to pass on or to read the shape of."""

    def fn(pixels):
        return pixels.clone(), torch.zeros_like(pixels, dtype=torch.float32), pixels.float().abs() + 1

    check(stack, fn, torch.arange(12, dtype=torch.uint8).reshape(3, 4))
    report.engines_ran(calls=1, exactly=True)
    assert report.kinds() == {"unsupported dtype"}


# -- the guard, with TensorRT 8.6's support --


def support_of_8_6(op: Op, inputs: tuple[TensorType, ...]) -> Reason | None:
    stack = stack_of("tensorrt", "8.6.0")
    assert stack is not None
    return support(stack, op, inputs)


_convert = torch.ops.prims.convert_element_type.default
_aten = torch.ops.aten
GUARDED: dict[str, tuple[bool, Any, tuple[Any, ...]]] = {
    "float64 to float32": (True, _convert, (DOUBLE, torch.float32)),
    "float64 to itself": (False, _convert, (DOUBLE, torch.float64)),
    "float64 to float16, which would round twice": (False, _convert, (DOUBLE, torch.float16)),
    "float64 to int64": (False, _convert, (DOUBLE, torch.int64)),
    "float64 to bool": (False, _convert, (DOUBLE, torch.bool)),
    "float32 to float64": (False, _convert, (X, torch.float64)),
    "bfloat16 to itself": (False, _convert, (X.bfloat16(), torch.bfloat16)),
    "a constant": (False, _aten.zeros_like.default, (DOUBLE,)),
    "a clone": (False, _aten.clone.default, (DOUBLE,)),
    "a view": (False, _aten.view.default, (X.double(), [3, 4])),
    "a product in float64": (False, _aten.mul.Tensor, (DOUBLE, DOUBLE)),
    "a product in float32": (True, _aten.mul.Tensor, (X, DOUBLE)),
    "a product of integers in float64": (False, _aten.mul.Tensor, (X.int(), DOUBLE)),
    "zeros like uint8": (False, _aten.zeros_like.default, (X.to(torch.uint8),)),
    "an integer's clone": (True, _aten.clone.default, (X.long(),)),
}


@pytest.mark.parametrize("name", GUARDED)
def test_what_the_guard_admits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, target, args = GUARDED[name]
    graph = torch.fx.Graph()
    given = list(args)
    for i, arg in enumerate(args):
        if isinstance(arg, torch.Tensor):
            given[i] = graph.placeholder(f"x{i}")
            given[i].meta["val"] = arg
    node = graph.call_function(target, tuple(given))
    node.meta["val"] = target(*args)
    provider: Any = AheadOfTime()
    monkeypatch.setattr(provider, "support", support_of_8_6)
    reason = unsupported(node, provider)
    assert (reason is None) is taken, reason
    assert reason is None or (reason.kind is ReasonKind.DTYPE and "8.6 has no" in reason.detail)
