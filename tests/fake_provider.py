"""A provider whose builds go as a test wants, and whose engines are ONNX Runtime's."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from trt_backend.compile import compile_graph
from trt_backend.debug import Dump
from trt_backend.engine import onnxruntime
from trt_backend.engine.base import Buffer, CallShapes, Engine, call_shapes
from trt_backend.engine.profile import EVERYTHING, Profile
from trt_backend.errors import ReasonKind, UnsupportedError
from trt_backend.ir.builder import Builder
from trt_backend.ir.graph import Graph
from trt_backend.ir.ops.elementwise import Elementwise, ElementwiseKind
from trt_backend.ir.types import DType, TensorType
from trt_backend.options import CompileOptions
from trt_backend.report import RegionRecord
from trt_backend.runtime.executable import Executable


@dataclass(frozen=True)
class FakeProvider:
    """Builds as `BUILDS[how]` does; a build that begins, and one that ends, leaves a file that names its process.

    `load_errors` are what the first loads raise.
    """

    how: str
    folder: Path
    cached: bool = True
    load_errors: list[Exception] = field(default_factory=list)
    name = "fake"
    device = "cpu"
    runs_on = "cpu"

    def support(self, op: Any, inputs: Any) -> None:
        return None

    def border(self, dtype: DType) -> DType:
        return dtype

    def worth_freezing(self, graph: Graph) -> tuple[int, ...]:
        return ()

    def read(self, address: int, byte_count: int) -> Buffer:
        raise AssertionError("no weights here")

    def carry(self) -> Callable[[], None]:
        return nothing

    def profile(self, graph: Graph, shapes: CallShapes, wider_than: Profile | None) -> Profile:
        return EVERYTHING

    def identity(self, options: CompileOptions) -> str:
        return f"fake {os.getpid()}" if self.how == "elsewhere" else "fake"

    def build(self, graph: Graph, profile: Profile, options: CompileOptions, dump: Dump) -> bytes:
        (self.folder / f"build-{os.getpid()}").touch()
        blob = BUILDS[self.how](graph)
        (self.folder / f"built-{os.getpid()}").touch()
        return blob

    def load(self, blob: bytes, graph: Graph, options: CompileOptions) -> Engine:
        if self.load_errors:
            raise self.load_errors.pop(0)
        stack = onnxruntime.provider()
        return stack.load(stack.build(graph, EVERYTHING, options, Dump(None)), graph, options)


def nothing() -> None:
    pass


def _refuse(_: Graph) -> NoReturn:
    raise UnsupportedError("not today", ReasonKind.DTYPE)


def _log(graph: Graph) -> bytes:
    logging.getLogger("trt_backend").info("built by %d", os.getpid())
    print("chatter of a library", flush=True)
    return _contents(graph)


def _contents(graph: Graph) -> bytes:
    return b"".join(constant.array.tobytes() for constant in graph.constants)


def _sleep(_: Graph) -> bytes:
    ctypes.CDLL(None).sleep(
        600
    )  # as in a library: no signal handler of Python's, and without the interpreter's lock
    return b""


def _nap(_: Graph) -> bytes:
    ctypes.CDLL(None).sleep(1)
    return b""


BUILDS: dict[str, Callable[[Graph], bytes]] = {
    "well": _contents,
    "elsewhere": _contents,
    "logs": _log,
    "aborts": lambda _: os.abort(),
    "exits": lambda _: os._exit(3),
    "refuses": _refuse,
    "bug": lambda _: {}["oops"],
    "sleeps": _sleep,
    "naps": _nap,
}

WEIGHT = np.arange(4, dtype=np.float32)


def example_graph() -> Graph:
    """Return x + WEIGHT, the weight a constant."""
    b = Builder("example")
    x = b.input("x", TensorType(DType.FLOAT32, (4,)))
    return b.build([b.add(Elementwise(ElementwiseKind.SUM), x, b.constant(WEIGHT))])


class Region:
    """The example graph, compiled."""

    def __init__(self, provider: Any, folder: Path | None = None, **options: Any) -> None:
        self.graph = example_graph()
        self.record = RegionRecord("region", "test", "fake")
        settings = CompileOptions(cache_dir=str((folder or provider.folder) / "cache"), **options)
        self.executable: Executable = compile_graph(self.graph, provider, settings, self.record)
        self._shapes = call_shapes(self.graph, {})

    def call(self) -> str:
        """Call it, check the answer, and return who gave it."""
        x, y = np.ones(4, np.float32), np.empty(4, np.float32)

        def run(engine: Any, _: Any) -> str:
            engine.run(self._shapes, [x.ctypes.data], [y.ctypes.data])
            return "engine"

        def native() -> str:
            np.add(x, WEIGHT, out=y)
            return "native"

        who = self.executable.call(run, native, ())
        np.testing.assert_array_equal(y, x + WEIGHT)
        return who
