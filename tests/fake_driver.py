"""A CUDA driver without a GPU: device memory is memory of the host, and a stream does nothing until it is waited for.

What a call forgets to wait for is therefore missing from its answer. Each call that needs a context fails without one.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakValueDictionary

import cuda.bindings.driver as real  # pyright: ignore
import pytest

from trt_backend.engine import cuda, staged
from trt_backend.engine.base import CPU_HOST, CallShapes, Engine, Host

OK = real.CUresult.CUDA_SUCCESS


class FakeDriver:
    """In the place of `cuda.bindings.driver`.

    Attributes:
        calls: what was called, copies as ("copy", "in" | "out" | "on" | "off", byte count).
        fails: by name, the error that the next call returns.
        blocks: device memory in use, by address.
        streams: what each stream has yet to do.
        capture_mode: what a capture allows the thread to do.
    """

    CUresult = real.CUresult
    CUstream_flags = real.CUstream_flags
    CUstreamCaptureMode = real.CUstreamCaptureMode
    CUdevice_attribute = real.CUdevice_attribute
    NEEDS_CONTEXT = ("cuCtxSynchronize", "cuStream", "cuMem")

    def __init__(self, devices: int = 1) -> None:
        self.devices = devices
        self.calls: list[Any] = []
        self.fails: dict[str, Any] = {}
        self.blocks: dict[int, Any] = {}
        self.streams: dict[int, list[Callable[[], object]]] = {}
        self.capture_mode = real.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL
        self._default: list[Callable[[], object]] = []
        self._contexts = threading.local()
        self._lock = threading.Lock()
        self._next_stream = 100

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        return self._call(name, found) if name.startswith("cu") else found

    def _call(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> tuple[Any, ...]:
            if name in self.fails:
                return self.fails.pop(name), *[None] * (name in {"cuMemAlloc", "cuStreamCreate"})
            if name.startswith(self.NEEDS_CONTEXT) and not self.stack:
                return (real.CUresult.CUDA_ERROR_INVALID_CONTEXT, None)
            if not name.startswith("cuCtxP") and "Memcpy" not in name:
                self.calls.append(name)
            result = function(*arguments)
            return (OK,) if result is None else (OK, result)

        return call

    @property
    def stack(self) -> list[int]:
        """The calling thread's contexts."""
        if not hasattr(self._contexts, "stack"):
            self._contexts.stack = []
        return self._contexts.stack

    def told(self) -> list[Any]:
        """Return what was called since the last time."""
        noted = self.calls[:]
        self.calls.clear()
        return noted

    def queue(self, stream: int, work: Callable[[], object]) -> None:
        """Do something on a stream, later."""
        assert self.stack, "a thread without a context queues"
        self.streams[stream].append(work)

    def cuInit(self, Flags: int) -> None:
        pass

    def cuDeviceGetCount(self) -> int:
        return self.devices

    def cuDeviceGet(self, ordinal: int) -> int:
        return ordinal

    def cuDevicePrimaryCtxRetain(self, dev: int) -> int:
        return 7000 + dev

    def cuCtxPushCurrent(self, ctx: int) -> None:
        self.stack.append(ctx)

    def cuCtxPopCurrent(self) -> int:
        return self.stack.pop()

    def cuCtxGetCurrent(self) -> int:
        return self.stack[-1] if self.stack else 0

    def cuCtxSynchronize(self) -> None:
        for work in (self._default, *self.streams.values()):
            _finish(work)

    def cuStreamCreate(self, Flags: int) -> int:
        with self._lock:
            self._next_stream += 1
            self.streams[self._next_stream] = []
            return self._next_stream

    def cuStreamDestroy(self, hStream: int) -> None:
        assert not self.streams.pop(hStream), "something was still under way"

    def cuStreamSynchronize(self, hStream: int) -> None:
        _finish(self.streams[hStream] if hStream else self._default)

    def cuThreadExchangeStreamCaptureMode(self, mode: Any) -> Any:
        former, self.capture_mode = self.capture_mode, mode
        return former

    def cuMemAlloc(self, bytesize: int) -> int:
        block = ctypes.create_string_buffer(b"\xee" * bytesize, bytesize)
        self.blocks[ctypes.addressof(block)] = block
        return ctypes.addressof(block)

    def cuMemFree(self, dptr: int) -> None:
        del self.blocks[dptr]

    def cuMemcpy(self, dst: int, src: int, ByteCount: int) -> None:
        """From pageable memory it returns once that was read, before it is written."""
        contents = ctypes.string_at(src, ByteCount)
        self._default.append(lambda: ctypes.memmove(dst, contents, ByteCount))

    def cuMemcpyAsync(self, dst: int, src: int, ByteCount: int, hStream: int) -> None:
        self.calls.append(("copy", self._way(dst, src), ByteCount))
        self.queue(hStream, lambda: ctypes.memmove(dst, src, ByteCount))

    def _way(self, target: int, source: int) -> str:
        return {(1, 0): "in", (0, 1): "out", (1, 1): "on", (0, 0): "off"}[
            self._is_ours(target), self._is_ours(source)
        ]

    def _is_ours(self, address: int) -> bool:
        return any(start <= address < start + len(block) for start, block in list(self.blocks.items()))


class QueuedEngine:
    """Runs an engine of the CPU when its stream comes to it."""

    def __init__(self, engine: Engine, driver: FakeDriver, scratch: int = 0) -> None:
        self._engine, self._driver, self._scratch = engine, driver, scratch

    def run(self, shapes: CallShapes, inputs: Sequence[int], outputs: Sequence[int], host: Host) -> None:
        scratch = host.scratch(self._scratch) if self._scratch else None
        self._driver.calls.append("run")

        def work() -> None:
            assert scratch is None or scratch.address in self._driver.blocks
            self._engine.run(shapes, inputs, outputs, CPU_HOST)

        self._driver.queue(host.stream, work)


def _finish(work: list[Callable[[], object]]) -> None:
    while work:
        work.pop(0)()


@contextmanager
def fake_driver(devices: int = 1) -> Iterator[FakeDriver]:
    """Put the fake in the driver's place."""
    fake = FakeDriver(devices)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "_driver", fake)
        patch.setattr(staged, "_of_process", WeakValueDictionary[int, Any]())
        cuda._primary_context.cache_clear()
        try:
            yield fake
        finally:
            lanes = staged._of_process.get(0)
            if lanes is not None:  # of providers that live on, in a traceback perhaps
                lanes._idle.clear()
            cuda._primary_context.cache_clear()
