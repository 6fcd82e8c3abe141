"""What the torch tests share: compile with the backend under test, compare with eager, and read the live report.

`TRT_TEST_BACKEND=aot_eager` runs the same tests on another backend (to test the tests): every numerical assertion
holds there too, and the assertions on the report are skipped.

`--device cuda` runs them on a GPU: a test's tensors and modules lie on torch's default device, and TensorRT runs what
ONNX Runtime runs on the CPU. What differs there is said here, once: the tolerance, and that an engine of TensorRT holds
the weights and the range of sizes that it was built for, so that it has to be rebuilt where they move.
"""

from __future__ import annotations

__all__ = [
    "BACKEND",
    "BEFORE_TORCH_2_10",
    "BEFORE_TORCH_2_13",
    "KINDS",
    "ON_TRT",
    "ReportChecks",
    "assert_close",
    "assert_runs_as_eager",
    "assert_same",
    "chain",
    "compile_trt",
    "device",
    "fresh_state",
    "graphs_compiled",
    "in_threads",
    "keeps_whole",
    "needs_trt",
    "provider",
    "silent_writes",
    "write_silently",
]

import contextlib
import copy
import os
import re
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map_only

BACKEND = os.environ.get("TRT_TEST_BACKEND", "trt")
ON_TRT = BACKEND == "trt"
KINDS = {
    "no lowering rule",
    "unsupported",
    "unsupported dtype",
    "unsupported device",
    "empty tensor",
    "random numbers",
    "needs gradients",
    "region too small",
    "out of fuel",
    "build failed",
    "run failed",
    "wrong answer",
    "out of memory",
    "slower than native",
    "bug",
}

RTOL = {"cpu": 1e-4, "cuda": 1e-3}
"""Of whole models in float32, without TF32."""

BEFORE_TORCH_2_10 = torch.__version__ < "2.10"
BEFORE_TORCH_2_13 = torch.__version__ < "2.13"
"""TorchVersion compares versions; those of GPU machines are older than the one that we test on the CPU."""

needs_trt = pytest.mark.skipif(not ON_TRT, reason="asserts on the trt backend itself")

if ON_TRT:
    import trt_backend
    from trt_backend.runtime.profiled import BUILDER_THREAD


# -- the device under test --


def device() -> str:
    """The type of device that the test's tensors lie on."""
    return torch.get_default_device().type


def provider() -> str:
    """The provider that runs regions of that device."""
    return {"cpu": "onnxruntime", "cuda": "tensorrt"}[device()]


@contextlib.contextmanager
def fresh_state(where: str) -> Iterator[None]:
    """New tensors lie on that device; dynamo, the report and the seed start anew."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    if ON_TRT:
        trt_backend.reset_report()
    if where == "cpu":
        torch.manual_seed(0)
        yield
        return
    _make_cudnn_exact()
    torch.set_default_device(where)
    try:
        torch.manual_seed(0)
        yield
    finally:
        torch.set_default_device(None)
        for thread in threading.enumerate():
            if thread.name == BUILDER_THREAD:  # what it does to the GPU would be in the next test's way
                thread.join(120)


def _make_cudnn_exact() -> None:
    """Eager's convolutions and RNNs without TF32, which they use by default, and the same at each run."""
    torch.backends.cudnn.deterministic = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch 2.9 on prefers another name, which older ones do not know
        torch.backends.cudnn.allow_tf32 = False


def silent_writes() -> dict[str, Any]:
    """The options of tests that write into weights behind torch's back: ONNX Runtime's engines see that by themselves."""
    return {"weight_check": "contents"} if ON_TRT and device() == "cuda" else {}


def write_silently(t: Tensor, update: Callable[[Any], object]) -> None:
    """Call `update` on an alias of a tensor that shares its memory, but not its version counter."""
    update(t.detach().numpy() if t.device.type == "cpu" else torch.from_dlpack(t.detach()))


def keeps_whole(
    keep: Callable[[fx.GraphModule], object], op: Any, function: Callable[..., Any], *inputs: Tensor
) -> bool:
    """Whether `keep` puts the op into dynamo's graph of a function."""
    kept: list[bool] = []

    def backend(gm: fx.GraphModule, _: Any) -> Callable[..., Any]:
        keep(gm)
        kept.append(bool(gm.graph.find_nodes(op="call_function", target=op)))
        return gm.forward

    torch.compile(function, backend=backend)(*inputs)
    (answer,) = kept
    return answer


def in_threads(count: int, work: Callable[[int], object]) -> None:
    """Run `work(i)` in `count` threads that start together; raises what any of them raised.

    Before torch 2.13 all threads share dynamo's settings, and each call of a `torch.compile(dynamic=...)` changes them and
    back: where calls overlap they stay changed, which would be in the next test's way.
    """
    dynamic = ("automatic_dynamic_shapes", "assume_static_by_default")
    with torch._dynamo.config.patch({name: getattr(torch._dynamo.config, name) for name in dynamic}):
        _run_in_threads(count, work)


def _run_in_threads(count: int, work: Callable[[int], object]) -> None:
    barrier, errors, where = threading.Barrier(count), [], device()

    def run(i: int) -> None:
        try:
            if where != "cpu":
                torch.set_default_device(where)  # each thread has its own
            barrier.wait(30)
            work(i)
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(120)
    assert not any(t.is_alive() for t in threads), "a thread hangs"
    if errors:
        raise errors[0]


# -- compiling --


def compile_options(options: dict[str, Any] | None) -> dict[str, Any]:
    """The keywords of `torch.compile` that choose the backend under test; one-op regions count unless said otherwise."""
    if not ON_TRT:
        return {"backend": BACKEND}
    quick = {"optimization_level": 0} if device() == "cuda" else {}
    return {"backend": BACKEND, "options": {"min_block_size": 1} | quick | (options or {})}


def compile_trt(target: Any, *, options: dict[str, Any] | None = None, **kwargs: Any) -> Any:
    """`torch.compile` with the backend under test."""
    return torch.compile(target, **compile_options(options), **kwargs)


def graphs_compiled() -> int:
    """How many graphs dynamo has compiled since its last reset."""
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def chain(error: BaseException | None) -> Iterator[BaseException]:
    """An exception and everything that it wraps or was raised from."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        if (e := todo.pop()) is not None and id(e) not in seen:
            seen.add(id(e))
            yield e
            todo += [e.__cause__, e.__context__, getattr(e, "inner_exception", None)]


# -- comparing with eager --


def _strides(t: Tensor) -> list[int]:
    """The strides that matter: none for dimensions of one element, none at all for an empty tensor."""
    return [s for s, n in zip(t.stride(), t.shape, strict=True) if n != 1] if t.numel() else []


def assert_close(actual: Any, expected: Any, rtol: float | None = None, strides: bool = False) -> None:
    """The same structure, types, shapes and (on demand) strides; max |difference| within `rtol` of max |expected|."""
    rtol = RTOL[device()] if rtol is None else rtol
    (a_leaves, a_spec), (e_leaves, e_spec) = tree_flatten(actual), tree_flatten(expected)
    assert a_spec == e_spec
    for i, (a, e) in enumerate(zip(a_leaves, e_leaves, strict=True)):
        if not isinstance(e, Tensor):
            assert (a, type(a)) == (e, type(e)), f"output {i}"
            continue
        assert (a.dtype, a.shape, a.device) == (e.dtype, e.shape, e.device), f"output {i}"
        if strides:
            assert _strides(a) == _strides(e), f"strides of output {i}"
        if not (e.is_floating_point() or e.is_complex()) or rtol == 0:
            assert torch.equal(a, e), f"output {i}"
        elif e.numel():
            assert a.isfinite().eq(e.isfinite()).all(), f"output {i} is not finite where eager is"
            scale = e[e.isfinite()].abs().max().item() if e.isfinite().any() else 0.0
            worst = (a - e)[e.isfinite()].abs().max().item() if e.isfinite().any() else 0.0
            assert worst <= rtol * max(scale, 1e-30), f"output {i}: {worst} off, the largest is {scale}"


def assert_same(actual: Any, expected: Any) -> None:
    """Bit for bit the same."""
    assert_close(actual, expected, rtol=0)


def _sharing(values: Any) -> list[int]:
    """For every tensor the position of the first one in the same memory."""
    storages = [
        t.untyped_storage().data_ptr() if t.numel() else -i - 1 for i, t in enumerate(_tensors(values))
    ]
    return [storages.index(s) for s in storages]


def _tensors(values: Any) -> list[Tensor]:
    return [t for t in tree_leaves(values) if isinstance(t, Tensor)]


def _overwrite(t: Tensor) -> None:
    """What a caller may do to an output: write into it (unless its elements overlap)."""
    if all(s or n == 1 for s, n in zip(t.stride(), t.shape, strict=True)):
        t.logical_not_() if t.dtype == torch.bool else t.add_(1)


def assert_runs_as_eager(
    fn: Callable[..., Any], make_args: Callable[[], Any], calls: int = 3, **kwargs: Any
) -> Any:
    """Compile `fn` and call it `calls` times beside eager: the same outputs, dtypes, strides, arguments afterwards,
    memory shared between outputs and arguments, module state, and effect of writing into the outputs.
    """
    eager = copy.deepcopy(fn) if isinstance(fn, nn.Module) else fn
    compiled = compile_trt(fn, **kwargs)
    for _ in range(calls):
        ours, theirs = make_args(), make_args()
        got, want = compiled(*ours), eager(*theirs)
        assert_close(got, want, strides=True)
        assert_close(ours, theirs)
        assert _sharing((ours, got)) == _sharing((theirs, want)), "shares memory otherwise than eager"
        for mine, other in zip(_tensors(got), _tensors(want), strict=True):
            _overwrite(mine)
            _overwrite(other)
        assert_close((ours, got), (theirs, want))
        if isinstance(fn, nn.Module):
            assert_close(dict(fn.state_dict()), dict(eager.state_dict()))
    return compiled


def clone(values: Any) -> Any:
    return tree_map_only(Tensor, torch.clone, values)


# -- the report --


def kind_of(reason: str) -> str:
    """The kind in `"<op>: <kind>[: detail][ [source]]"`."""
    assert ": " in reason, f"not a reason: {reason!r}"
    kind = re.split(r": | \[", reason.split(": ", 1)[1])[0]
    assert kind in KINDS, f"not a kind of reason: {reason!r}"
    return kind


class ReportChecks:
    """Assertions on the live report; each passes without a look on another backend."""

    @property
    def data(self) -> dict[str, Any]:
        return trt_backend.report().to_dict()

    def total(self, key: str) -> int:
        """The sum of one figure over all regions (0 on another backend)."""
        return sum(r[key] for r in self.data["regions"]) if ON_TRT else 0

    def reasons(self) -> list[str]:
        data = self.data
        return [r["reason"] for r in (*data["regions"], *data["native_ops"]) if r["reason"]]

    def kinds(self) -> set[str]:
        return {kind_of(r) for r in self.reasons()}

    def engines_ran(
        self,
        calls: int = 1,
        *,
        native_calls: int = 0,
        share: float = 0.0,
        exactly: bool = False,
        rebuilds: bool = False,
    ) -> None:
        """At least (or exactly) so many engine calls, no region fell back, and `share` of all ops is in engines.

        `rebuilds`: weights or sizes moved. Where engines are rebuilt for that, calls may run natively meanwhile.
        """
        if not ON_TRT:
            return
        data = self.data
        ran, native = self.total("engine_calls"), self.total("native_calls")
        if rebuilds and device() == "cuda":
            assert ran > 0, data
            assert not [r["reason"] for r in data["regions"] if r["reason"]], data
            ran, native = ran + native, native_calls
        assert ran == calls if exactly else ran >= calls, f"{ran} engine calls: {data}"
        assert native == native_calls, data
        assert 0 < data["ops_in_engines"] <= data["ops_total"], data
        assert data["ops_in_engines"] >= share * data["ops_total"], data

    @contextlib.contextmanager
    def engines_run(self, *, rebuilds: bool = False) -> Iterator[None]:
        """Inside, engines are called and no region falls back (`rebuilds`: as in `engines_ran`)."""
        engine, native = self.total("engine_calls"), self.total("native_calls")
        yield
        if not ON_TRT:
            return
        if rebuilds and device() == "cuda":
            assert self.total("engine_calls") + self.total("native_calls") > engine + native, self.data
            assert not [r["reason"] for r in self.data["regions"] if r["reason"]], self.data
        else:
            assert self.total("engine_calls") > engine, self.data
            assert self.total("native_calls") == native, self.data

    def no_engine_ran(self, kind: str | None = None) -> None:
        """Everything ran natively, and the report says why (of `kind`, where given)."""
        if ON_TRT:
            assert self.total("engine_calls") == 0, self.data
            assert kind in self.kinds() if kind else self.kinds(), self.data

    def native(self, kind: str, op: str = "") -> None:
        """Some op whose name contains `op` ran natively for a reason of `kind`."""
        if ON_TRT:
            assert any(kind_of(r) == kind and op in r for r in self.reasons()), self.data
