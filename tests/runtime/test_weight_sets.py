"""Frozen weights are never stale: what serves which contents, and how many engines that takes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from trt_backend.debug import Dump
from trt_backend.engine.base import (
    CPU_HOST,
    Buffer,
    CallShapes,
    CpuHost,
    Engine,
    Host,
    LazyEngine,
    call_shapes,
)
from trt_backend.engine.onnxruntime import provider
from trt_backend.engine.profile import EVERYTHING
from trt_backend.ir.builder import Builder
from trt_backend.ir.dims import Dim, Symbol
from trt_backend.ir.graph import Graph
from trt_backend.ir.ops.contraction import Convolution, MatrixMultiply
from trt_backend.ir.types import DType, TensorType
from trt_backend.options import CompileOptions
from trt_backend.runtime.profiled import ProfiledEngine
from trt_backend.runtime.weight_sets import WeightSets

OPTIONS = CompileOptions(threads=1)


class Convolved:
    """A 1x1 convolution of x [n, 3, 1, 1] by w [2, 3, 1, 1] through `WeightSets`, with a list of what was built."""

    def __init__(self, capacity: int = 2) -> None:
        b = Builder()
        x = b.input("x", TensorType(DType.FLOAT32, (Dim.of(Symbol("n")), 3, 1, 1)))
        w = b.input("w", TensorType(DType.FLOAT32, (2, 3, 1, 1)), weight=True)
        self.graph = b.build([b.add(Convolution((1, 1), (0, 0), (0, 0), (1, 1)), x, w)])
        self.built: list[str] = []
        self.shapes: dict[int, CallShapes] = {}
        frozen = provider().worth_freezing(self.graph)
        assert frozen == (1,)
        self.engine = WeightSets(self.graph, frozen, self.build, provider().read, capacity, live=True)

    def build(self, graph: Graph) -> LazyEngine:
        return ProfiledEngine(
            lambda *_: self._load(graph), lambda *_: EVERYTHING, background=False, carry=provider().carry
        )

    def _load(self, graph: Graph) -> Engine:
        stack = provider()
        self.built.append("live" if graph.weights else "frozen")
        return stack.load(stack.build(graph, EVERYTHING, OPTIONS, Dump(None)), graph, OPTIONS)

    def check(self, w: np.ndarray, n: int = 4, host: Host = CPU_HOST) -> None:
        """Call, and compare with NumPy."""
        x = np.random.default_rng(n).random((n, 3), np.float32)
        result = np.empty((n, 2), np.float32)
        shapes = self.shapes.setdefault(n, call_shapes(self.graph, {"n": n}))
        self.engine.run(shapes, [x.ctypes.data, w.ctypes.data], [result.ctypes.data], host)
        np.testing.assert_allclose(result, x @ w.T, rtol=1e-6)


def weights(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((2, 3), np.float32)


def test_weights_that_stay_take_one_frozen_engine() -> None:
    conv, w = Convolved(), weights(0)
    for n in (1, 4, 2, 4):
        conv.check(w, n)
    assert conv.built == ["frozen"]


def test_the_engine_for_weights_that_are_known_can_be_built_before_a_call() -> None:
    conv, w = Convolved(), weights(0)
    shapes = call_shapes(conv.graph, {"n": 4})
    for _ in range(2):
        conv.engine.prepare(shapes, [0, w.ctypes.data])
    assert conv.built == ["frozen"]
    conv.check(w)
    assert conv.built == ["frozen"]


def test_one_changed_element_is_noticed_at_the_next_call() -> None:
    conv, w = Convolved(), weights(0)
    conv.check(w)
    w[1, 2] += 1  # in place, at the same address
    conv.check(w)
    assert conv.built == ["frozen", "live"]


def test_weights_in_training_are_served_live_and_frozen_when_they_settle() -> None:
    conv, w = Convolved(), weights(0)
    for _ in range(10):
        conv.check(w)
        w *= 1.1
    assert conv.built == ["frozen", "live"]
    for _ in range(3):
        conv.check(w)
    assert conv.built == ["frozen", "live", "frozen"]


def test_two_sets_in_turn_get_an_engine_each() -> None:
    conv, sets = Convolved(), [weights(0), weights(1)]
    for _ in range(4):
        for w in sets:
            conv.check(w)
    assert conv.built == ["frozen", "live", "frozen"]


def test_sets_in_turn_are_read_once_more_where_the_host_knows_them() -> None:
    """The second time an engine is built; from then on each set's own engine is queued before anybody looks."""
    conv, sets = Convolved(), [weights(0), weights(1)]
    states, reads = [object(), object()], 0
    read = conv.engine._read

    def counted(address: int, byte_count: int) -> Buffer:
        nonlocal reads
        reads += 1
        return read(address, byte_count)

    conv.engine._read = counted
    for turn in range(4):
        for w, state in zip(sets, states, strict=True):
            conv.check(w, host=CpuHost(lambda state=state: state))
        if turn == 1:
            known = reads
    assert conv.built == ["frozen", "live", "frozen"]
    assert reads == known


def test_more_sets_than_room_in_turn_do_not_rebuild() -> None:
    conv, sets = Convolved(capacity=2), [weights(seed) for seed in range(5)]
    for _ in range(6):
        for w in sets:
            conv.check(w)
    assert conv.built == ["frozen", "live", "frozen"]


def test_an_engine_out_of_use_makes_room() -> None:
    conv = Convolved(capacity=1)
    conv.check(weights(0))
    later = weights(1)
    for _ in range(100):
        conv.check(later)
    assert conv.built == ["frozen", "live", "frozen"]


def test_threads_build_once_and_agree() -> None:
    conv, sets = Convolved(), [weights(0), weights(1)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: conv.check(sets[i % 2]), range(400)))
    assert sorted(conv.built) == ["frozen", "frozen", "live"]


def test_what_is_no_weight_or_of_a_product_is_not_frozen() -> None:
    b = Builder()
    x = b.input("x", TensorType(DType.FLOAT32, (2, 3)))
    w = b.input("w", TensorType(DType.FLOAT32, (3, 3)), weight=True)
    image = b.input("image", TensorType(DType.FLOAT32, (1, 3, 4, 4)))
    kernel = b.input("kernel", TensorType(DType.FLOAT32, (2, 3, 1, 1)))
    filtered = b.add(Convolution((1, 1), (0, 0), (0, 0), (1, 1)), image, kernel)
    assert provider().worth_freezing(b.build([b.add(MatrixMultiply(), x, w), filtered])) == ()


def test_copies_of_contents_are_frozen_as_they_are() -> None:
    """A device's memory is read once, and not copied once more."""
    conv, reads, frozen = Convolved(), list[np.ndarray](), list[Graph]()

    def read(address: int, byte_count: int) -> Buffer:
        reads.append(np.frombuffer(provider().read(address, byte_count), np.uint8).copy())
        return reads[-1]

    def build(graph: Graph) -> LazyEngine:
        frozen.append(graph)
        return conv.build(graph)

    conv.engine = WeightSets(conv.graph, (1,), build, read, 2, live=True)
    conv.check(weights(0))
    (copy,), (graph,) = reads, frozen
    (constant,) = graph.constants
    assert np.shares_memory(copy, constant.array)


def test_contents_that_cannot_be_sized_are_refused() -> None:
    with pytest.raises(ValueError, match="no static size"):
        _ = TensorType(DType.FLOAT32, (Dim.of(Symbol("n")),)).byte_count
