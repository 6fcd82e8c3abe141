"""Time transformer blocks that compute the same in several ways, as engines of TensorRT under one CUDA graph.

    python benches/gpu_formulations.py                                   # blocks of ViT-B/16 at batch 32 in float16
    python benches/gpu_formulations.py --batch 8 --sequence 128 --ways plain one-pass-norm
    python benches/gpu_formulations.py --provider onnxruntime --batch 1  # to try it out without a GPU

TensorRT recognises patterns of layers: which it has a fused kernel for can only be found out. Each way is timed with the
memset nodes of its graph as TensorRT left them, too. All take turns; ratios are medians over turns, with their quartiles.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from timing import ratio

from trt_backend.debug import Dump
from trt_backend.engine.base import CPU_HOST, Engine, call_shapes
from trt_backend.engine.profile import EVERYTHING
from trt_backend.engine.providers import load_provider
from trt_backend.ir.builder import Builder
from trt_backend.ir.graph import Graph, Value
from trt_backend.ir.ops.contraction import Attention, MatrixMultiply
from trt_backend.ir.ops.elementwise import Activation, ActivationKind, ElementwiseKind
from trt_backend.ir.ops.layout import Concatenation, Reshape, Slice, Transpose
from trt_backend.ir.ops.reduction import Normalization, Reduce, ReduceKind
from trt_backend.ir.types import DType, TensorType
from trt_backend.options import CompileOptions
from trt_backend.passes.expansions.base import binary, deviation
from trt_backend.passes.legalize import legalize

WIDTH, HEADS, DEPTH, EPSILON = 768, 12, 2, 1e-6
_SUM, _SUB, _PROD, _DIV = (
    ElementwiseKind.SUM,
    ElementwiseKind.SUB,
    ElementwiseKind.PROD,
    ElementwiseKind.DIV,
)


@dataclass(frozen=True)
class Way:
    """How a block is written.

    Attributes:
        sums: whether the normalization behind a residual reads the sum that is added to next ("shared"), or one of its
            own, with its operands "swapped" or in two dimensions ("rows").
        one_pass: whether normalization is written out, with E[x^2] - E[x]^2 for the variance.
        merged: whether queries, keys and values are slices of one product.
        keys: keys and values are padded to a multiple of this, and hidden.
    """

    sums: str = "shared"
    one_pass: bool = False
    merged: bool = False
    keys: int = 1


WAYS = {
    "plain": Way(),
    "swapped-sum": Way(sums="swapped"),
    "sum-in-rows": Way(sums="rows"),
    "one-pass-norm": Way(one_pass=True),
    "merged-products": Way(merged=True),
    "padded-keys": Way(keys=8),
}


class Block:
    """Writes pre-norm transformer blocks on x [batch, sequence, WIDTH]; all ways draw the same weights."""

    def __init__(self, way: Way, batch: int, sequence: int, dtype: DType) -> None:
        self.b = Builder("blocks")
        self._way = way
        self._batch, self._sequence, self._dtype = batch, sequence, dtype
        self._random = np.random.default_rng(0)

    def graph(self) -> Graph:
        """Return DEPTH blocks and a last normalization."""
        x = self.b.input("x", TensorType(self._dtype, (self._batch, self._sequence, WIDTH)))
        normal = self._norm(x)
        for _ in range(DEPTH):
            x, normal = self._residual(x, self._attention(normal))
            x, normal = self._residual(x, self._feed_forward(normal))
        return self.b.build([normal])

    def _residual(self, x: Value, y: Value) -> tuple[Value, Value]:
        """Return the sum of x [batch, sequence, WIDTH] and y [rows, WIDTH], and the sum's normalization."""
        total = binary(self.b, _SUM, self._of_rows(y), x)
        if self._way.sums == "rows":
            return total, self._of_rows(self._norm(binary(self.b, _SUM, y, self._rows(x))))
        read = binary(self.b, _SUM, x, self._of_rows(y)) if self._way.sums == "swapped" else total
        return total, self._norm(read)

    def _norm(self, x: Value) -> Value:
        scale, shift = self._weight(WIDTH, mean=1.0), self._weight(WIDTH)
        axis = x.type.rank - 1
        if not self._way.one_pass:
            return self.b.add(Normalization(axis, EPSILON), x, scale, shift)
        average = Reduce(ReduceKind.AVG, (axis,), keep_dims=True)
        mean = self.b.add(average, x)
        square = self.b.add(average, binary(self.b, _PROD, x, x))
        variance = binary(self.b, _SUB, square, binary(self.b, _PROD, mean, mean))
        centered = binary(self.b, _SUB, x, mean)
        y = binary(self.b, _DIV, centered, deviation(self.b, variance, EPSILON))
        along = Reshape((*(1,) * axis, WIDTH))
        y = binary(self.b, _PROD, y, self.b.add(along, scale))
        return binary(self.b, _SUM, y, self.b.add(along, shift))

    def _attention(self, x: Value) -> Value:
        """Return [rows, WIDTH]."""
        weights, biases = zip(*(self._linear_weights(WIDTH, WIDTH) for _ in range(3)), strict=True)
        rows = self._rows(x)
        if self._way.merged:
            product = self._affine(
                rows, self.b.add(Concatenation(0), *weights), self.b.add(Concatenation(1), *biases)
            )
            parts = [
                self.b.add(Slice((0, i * WIDTH), (rows.shape[0], WIDTH), (1, 1)), product) for i in range(3)
            ]
        else:
            parts = [self._affine(rows, weight, bias) for weight, bias in zip(weights, biases, strict=True)]
        query, key, value = (self._of_rows(part) for part in parts)
        missing = -self._sequence % self._way.keys
        if missing:
            border = self.b.constant(np.zeros((self._batch, missing, WIDTH), self._dtype.numpy))
            key, value = (self.b.add(Concatenation(1), part, border) for part in (key, value))
        heads = [self._heads(part) for part in (query, key, value)]
        mask: list[Value] = []
        if missing:
            hidden = np.zeros((1, 1, 1, self._sequence + missing), self._dtype.numpy)
            hidden[..., self._sequence :] = -np.inf
            mask = [self.b.constant(hidden)]
        y = self.b.add(Attention((WIDTH // HEADS) ** -0.5), *heads, *mask)
        y = self._rows(self.b.add(Transpose((0, 2, 1, 3)), y))
        return self._affine(y, *self._linear_weights(WIDTH, WIDTH))

    def _feed_forward(self, x: Value) -> Value:
        """Return [rows, WIDTH]."""
        hidden = self._affine(self._rows(x), *self._linear_weights(4 * WIDTH, WIDTH))
        hidden = self.b.add(Activation(ActivationKind.GELU_ERF), hidden)
        return self._affine(hidden, *self._linear_weights(WIDTH, 4 * WIDTH))

    def _affine(self, x: Value, weight: Value, bias: Value) -> Value:
        return binary(self.b, _SUM, self.b.add(MatrixMultiply(transpose_b=True), x, weight), bias)

    def _linear_weights(self, outputs: int, inputs: int) -> tuple[Value, Value]:
        return self._weight(outputs, inputs, deviation=inputs**-0.5), self._weight(1, outputs)

    def _weight(self, *shape: int, mean: float = 0.0, deviation: float = 0.1) -> Value:
        array = self._random.normal(mean, deviation, shape)
        return self.b.constant(array.astype(self._dtype.numpy))

    def _rows(self, x: Value) -> Value:
        return self.b.add(Reshape((self._batch * self._sequence, WIDTH)), x)

    def _of_rows(self, x: Value) -> Value:
        return self.b.add(Reshape((self._batch, self._sequence, WIDTH)), x)

    def _heads(self, x: Value) -> Value:
        apart = self.b.add(Reshape((self._batch, x.shape[1], HEADS, WIDTH // HEADS)), x)
        return self.b.add(Transpose((0, 2, 1, 3)), apart)


def main() -> None:
    """Build each way, check that all answers agree, and time them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--sequence", type=int, default=197, help="tokens")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), help="the first is the base")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each, 2 or more")
    parser.add_argument("--provider", default="tensorrt")
    arguments = parser.parse_args()
    on_gpu = arguments.provider != "onnxruntime"
    dtype = DType.FLOAT16 if on_gpu else DType.FLOAT32
    shape = (arguments.batch, arguments.sequence, WIDTH)
    torch.manual_seed(0)
    x = torch.randn(
        shape, device="cuda" if on_gpu else "cpu", dtype=torch.float16 if on_gpu else torch.float32
    )
    calls: dict[str, Callable[[], float]] = {}
    engines: list[Engine] = []  # which their CUDA graphs need
    wanted: torch.Tensor | None = None
    for name in arguments.ways:
        graph = Block(WAYS[name], arguments.batch, arguments.sequence, dtype).graph()
        start = time.perf_counter()
        engine, graph = _engine(graph, arguments.provider)
        seconds = time.perf_counter() - start
        y = torch.empty_like(x)
        engines.append(engine)
        made = _graphs(engine, graph, x, y) if on_gpu else {"": _plain(engine, graph, x, y)}
        for suffix, call in made.items():
            call()
            error = 0.0 if wanted is None else ((y - wanted).abs().max() / wanted.abs().max()).item()
            wanted = y.clone() if wanted is None else wanted
            if error > 1e-2:
                raise SystemExit(f"{name} does not compute what {arguments.ways[0]} does: {error:.1e}")
            calls[f"{name}{suffix}"] = call
        print(f"{name}: built in {seconds:.0f} s", flush=True)
    runs: dict[str, list[float]] = {name: [] for name in calls}
    for _, (name, call) in itertools.product(range(arguments.rounds), calls.items()):
        runs[name].append(call())
    base = next(iter(runs.values()))
    print("\n| way | median | to the first |\n|---|---:|---:|")
    for name, seconds in runs.items():
        print(f"| {name} | {ratio(seconds, base)} |")


def _engine(graph: Graph, package: str) -> tuple[Engine, Graph]:
    """Return the engine of the graph as written, but for what the target refuses; and the legal graph."""
    provider, options = load_provider(package), CompileOptions()
    legal = legalize(graph, provider.support)
    blob = provider.build(legal, EVERYTHING, options, Dump(None))
    return provider.load(blob, legal, options), legal


def _plain(engine: Engine, graph: Graph, x: torch.Tensor, y: torch.Tensor) -> Callable[[], float]:
    shapes = call_shapes(graph, {})

    def call() -> float:
        start = time.perf_counter()
        engine.run(shapes, [x.data_ptr()], [y.data_ptr()], CPU_HOST)
        return time.perf_counter() - start

    return call


def _graphs(engine: Engine, graph: Graph, x: torch.Tensor, y: torch.Tensor) -> dict[str, Callable[[], float]]:
    """Return calls that launch a CUDA graph 50 times and return seconds a launch; the second with memset nodes."""
    from trt_backend.engine import cuda
    from trt_backend_torch.cuda_host import CudaHost, scratch_pool

    shapes, own = call_shapes(graph, {}), cuda.Stream()
    pool = scratch_pool(x.device)

    def run() -> None:
        with torch.cuda.stream(torch.cuda.ExternalStream(own.handle)):
            engine.run(shapes, [x.data_ptr()], [y.data_ptr()], CudaHost(pool, lambda: None))

    def call_of(captured: Any) -> Callable[[], float]:
        def call(launches: int = 50) -> float:
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            stream = torch.cuda.ExternalStream(own.handle)
            start.record(stream)
            for _ in range(launches):
                cuda.launch(captured, own.handle)
            end.record(stream)
            end.synchronize()
            return start.elapsed_time(end) / 1e3 / launches

        return call

    torch.cuda.synchronize()
    run()
    cuda.synchronize(own.handle)
    with patch.object(cuda, "_fill_by_kernels", lambda _: None):
        untouched = cuda.capture(run, own)
    return {"": call_of(cuda.capture(run, own)), " (memset nodes)": call_of(untouched)}


if __name__ == "__main__":
    main()
