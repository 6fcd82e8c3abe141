"""Engines on a GPU for tensors that lie in the host's memory.

Rules:
  LANES    A call has a lane to itself: a stream, and memory for its tensors, which later calls use again. At most
           `_MOST` calls are on the device at a time and others wait, so that there is no more memory than that.
  DONE     Nothing of a call is under way when it returns, however it ends: the caller may let its tensors go.
  DROPPED  What a call failed on is not used again.
  CONTEXT  A thread has the device during a call, and afterwards whatever it had before.
  NARROW   Element types that the stack has no tensors of (TensorRT 8.6: int64) are converted on the host; integers out
           of range become the nearest.
  SHARED   Tensors may lie on the device as well, where the framework has queued what is to write them. For these,
           `shared` waits for all that was queued there, by any stream.
"""

from __future__ import annotations

__all__ = ["StagedEngine", "StagedProvider", "has_device"]

import ctypes
import math
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import accumulate
from threading import Semaphore
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

from trt_backend.debug import Dump
from trt_backend.engine import cuda
from trt_backend.engine.base import CPU_HOST, Buffer, CallShapes, Engine, EngineProvider, Host, Memory
from trt_backend.engine.profile import Profile
from trt_backend.errors import Reason
from trt_backend.ir.graph import Graph
from trt_backend.ir.ops.base import Op
from trt_backend.ir.types import DType, TensorType
from trt_backend.options import CompileOptions

_MOST = 4  # LANES: copies to and from the device and a run overlap; more calls would only wait there
_DEVICE = 0
_ALIGNMENT = 256  # of tensors, as the driver aligns what it allocates
_GRANULE = 2 << 20  # bytes; the driver's own step for larger blocks


def has_device() -> bool:
    """Whether the process sees a GPU."""
    return cuda.device_count() > _DEVICE


class StagedProvider:
    """A provider of engines that compute on the first GPU, for tensors of the host.

    Args:
        provider: of engines on the device.
        shared: whether tensors may lie on the device (SHARED).
    """

    device = "cpu"

    def __init__(self, provider: EngineProvider, *, shared: bool = False) -> None:
        self._provider = provider
        self._shared = shared
        self._lanes = _of_process.setdefault(_DEVICE, _Lanes())
        self.name = provider.name
        self.runs_on = provider.runs_on
        self.cached = provider.cached

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(StagedProvider, shared=self._shared), (self._provider,)

    def support(self, op: Op, inputs: tuple[TensorType, ...]) -> Reason | None:
        """Return None where the stack takes the op on these inputs, else why it does not."""
        return self._provider.support(op, inputs)

    def worth_freezing(self, graph: Graph) -> tuple[int, ...]:
        """Return the positions of the weights that the stack gains from as constants."""
        return self._provider.worth_freezing(graph)

    def profile(self, graph: Graph, shapes: CallShapes, wider_than: Profile | None) -> Profile:
        """Return the sizes that an engine is to serve."""
        return self._provider.profile(graph, shapes, wider_than)

    def border(self, dtype: DType) -> DType:
        """Return the element type itself (NARROW)."""
        return dtype

    def read(self, address: int, byte_count: int) -> Buffer:
        """Return a view of the memory."""
        return (ctypes.c_char * byte_count).from_address(address)

    def carry(self) -> Callable[[], None]:
        """Return what makes the device another thread's or process's."""
        with cuda.on_device(_DEVICE):
            return self._provider.carry()

    def identity(self, options: CompileOptions) -> str:
        """Return what an engine depends on, which is the same as for tensors on the device."""
        with cuda.on_device(_DEVICE):
            return self._provider.identity(options)

    def build(self, graph: Graph, profile: Profile, options: CompileOptions, dump: Dump) -> bytes:
        """Return the serialized engine (BuildError where the stack refuses the graph)."""
        with cuda.on_device(_DEVICE):
            return self._provider.build(graph, profile, options, dump)

    def load(self, blob: bytes, graph: Graph, options: CompileOptions) -> Engine:
        """Return a runnable engine (BuildError where it does not load)."""
        with cuda.on_device(_DEVICE):
            engine = self._provider.load(blob, graph, options)
        return StagedEngine(engine, graph, self._provider.border, self._lanes, shared=self._shared)


class StagedEngine:
    """An engine on the device, for tensors at any address.

    Args:
        engine: on the device.
        graph: what it computes.
        border: the element types that it has in the place of others.
        lanes: of the device.
        shared: whether tensors may lie on the device (SHARED).
    """

    def __init__(
        self, engine: Engine, graph: Graph, border: Callable[[DType], DType], lanes: _Lanes, *, shared: bool
    ) -> None:
        self._engine = engine
        self._lanes = lanes
        self._shared = shared
        self._dtypes = [
            (value.dtype.numpy, border(value.dtype).numpy) for value in (*graph.inputs, *graph.outputs)
        ]

    def run(
        self, shapes: CallShapes, inputs: Sequence[int], outputs: Sequence[int], host: Host = CPU_HOST
    ) -> None:
        """Copy the inputs to the device, run, and copy the outputs back (RunError where the driver refuses)."""
        ends = zip((*inputs, *outputs), (*shapes.inputs, *shapes.outputs), self._dtypes, strict=True)
        tensors = [_Tensor(address, math.prod(sizes), *dtypes) for address, sizes, dtypes in ends]
        given, made = tensors[: len(inputs)], tensors[len(inputs) :]
        with self._lanes.lane() as lane:
            places = lane.places([tensor.byte_count for tensor in tensors])
            staged_inputs, staged_outputs = places[: len(inputs)], places[len(inputs) :]
            if self._shared:
                cuda.synchronize_all()
            for tensor, place in zip(given, staged_inputs, strict=True):
                tensor.upload(place, lane.stream)
            self._engine.run(shapes, staged_inputs, staged_outputs, lane)
            for tensor, place in zip(made, staged_outputs, strict=True):
                tensor.download(place, lane.stream)
            cuda.synchronize(lane.stream)
            for tensor in made:
                tensor.widen()


class _Tensor:
    """A tensor of a call: where it lies, and its elements as the caller and the engine have them."""

    def __init__(self, address: int, count: int, outer: np.dtype[Any], inner: np.dtype[Any]) -> None:
        self._address = address
        self._outer = outer
        self.byte_count = count * inner.itemsize
        self._converted = np.empty(count, inner) if inner != outer else None

    def upload(self, place: int, stream: int) -> None:
        """Queue the copy to the device."""
        source = self._address
        if self._converted is not None:
            wide = np.empty(self._converted.shape, self._outer)
            cuda.copy(wide.ctypes.data, self._address, wide.nbytes)
            limits = np.iinfo(self._converted.dtype)
            self._converted[:] = np.clip(wide, limits.min, limits.max)
            source = self._converted.ctypes.data
        if self.byte_count:
            cuda.transfer_async(place, source, self.byte_count, stream)

    def download(self, place: int, stream: int) -> None:
        """Queue the copy from the device."""
        target = self._address if self._converted is None else self._converted.ctypes.data
        if self.byte_count:
            cuda.transfer_async(target, place, self.byte_count, stream)

    def widen(self) -> None:
        """Give the caller the elements that were converted, once they are here."""
        if self._converted is not None:
            wide = self._converted.astype(self._outer)
            cuda.copy(self._address, wide.ctypes.data, wide.nbytes)


class _Lane:
    """What one call at a time uses of the device; the host of its engine."""

    def __init__(self) -> None:
        self._own = cuda.Stream()
        self.stream = self._own.handle
        self.turn = nullcontext()  # a lane is lent to one call at a time
        self._tensors: cuda.DeviceMemory | None = None
        self._scratch: cuda.DeviceMemory | None = None

    def places(self, byte_counts: Sequence[int]) -> list[int]:
        """Return an address on the device for each tensor."""
        steps = [-(-max(count, 1) // _ALIGNMENT) * _ALIGNMENT for count in byte_counts]
        self._tensors = _at_least(sum(steps), self._tensors)
        return [self._tensors.address + offset for offset in accumulate(steps[:-1], initial=0)]

    def scratch(self, byte_count: int) -> Memory:
        """Return memory that the next call of this lane overwrites."""
        self._scratch = _at_least(byte_count, self._scratch)
        return self._scratch

    def allocate(self, byte_count: int) -> Memory:
        """Return memory of its own."""
        return cuda.DeviceMemory(byte_count)

    def weights_version(self) -> object | None:
        """Return None: weights are constants of the engine, or inputs."""
        return None


def _at_least(byte_count: int, block: cuda.DeviceMemory | None) -> cuda.DeviceMemory:
    if block is not None and block.byte_count >= byte_count:
        return block
    return cuda.DeviceMemory(-(-byte_count // _GRANULE) * _GRANULE)


class _Lanes:
    """The lanes of the device, those that no call uses."""

    def __init__(self) -> None:
        self._room = Semaphore(_MOST)
        self._idle: list[_Lane] = []

    @contextmanager
    def lane(self) -> Generator[_Lane]:
        """Lend a lane, on its device, for the length of a block."""
        with self._room, cuda.on_device(_DEVICE):
            lane = self._take()
            try:
                yield lane
            finally:
                cuda.synchronize(lane.stream)  # DONE
            self._idle.append(lane)

    def _take(self) -> _Lane:
        try:
            return self._idle.pop()
        except IndexError:
            return _Lane()


_of_process: WeakValueDictionary[int, _Lanes] = WeakValueDictionary()
"""By device: all providers share the lanes, for as long as one of their engines is there."""
