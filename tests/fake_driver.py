"""A CUDA driver without a GPU: device memory is memory of the host, and a stream does nothing until it is waited for.

What a call forgets to wait for is therefore missing from its answer. Each call that needs a context fails without one.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from random import Random
from types import SimpleNamespace
from typing import Any
from weakref import WeakValueDictionary

import cuda.bindings.driver as real  # pyright: ignore
import pytest

from trt_backend.engine import cuda, staged
from trt_backend.engine.base import CPU_HOST, CallShapes, Engine, Host

OK = real.CUresult.CUDA_SUCCESS


@dataclass(eq=False)
class Node:
    """A node of a graph.

    Attributes:
        work: what it does.
        copied: from where to where it copies how many bytes, if it does that.
        filled: the word, the first address, and how many words it sets, if it does that.
        after: the nodes that it waits for.
    """

    work: Callable[[], object]
    copied: tuple[int, int, int] | None = None
    filled: tuple[int, int, int] | None = None
    after: list[Node] = field(default_factory=list["Node"])


class Event:
    """A place in a stream: what that has to do until there, and more, and whether it came there."""

    work: list[Callable[[], object]]
    came = False


@dataclass
class Wait:
    """A wait for an event; whoever cannot, has the other stream come there."""

    event: Event

    def __call__(self) -> None:
        while not self.event.came:
            self.event.work.pop(0)()


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
    CUevent_flags = real.CUevent_flags
    CUgraphNodeType = real.CUgraphNodeType
    CUDA_KERNEL_NODE_PARAMS = SimpleNamespace
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
        self._captured: dict[int, list[Node]] = {}
        self._graphs: list[list[Node]] = []

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

    def queue(self, stream: int, work: Callable[[], object], **what: tuple[int, int, int]) -> None:
        """Do something on a stream, later; or put it into the graph that is captured there."""
        assert self.stack, "a thread without a context queues"
        if stream in self._captured:
            graph = self._captured[stream]
            graph.append(Node(work, **what, after=graph[-1:]))
        else:
            self.streams[stream].append(work)

    def finish(self, random: Random) -> None:
        """Do what all streams have to do, in any order that their waits allow."""
        while ready := [
            work
            for work in self.streams.values()
            if work and not (isinstance(work[0], Wait) and not work[0].event.came)
        ]:
            random.choice(ready).pop(0)()

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

    def cuEventCreate(self, Flags: int) -> Event:
        return Event()

    def cuEventRecord(self, hEvent: Event, hStream: int) -> None:
        hEvent.work = self.streams[hStream]
        self.queue(hStream, lambda: setattr(hEvent, "came", True))

    def cuStreamWaitEvent(self, hStream: int, hEvent: Event, Flags: int) -> None:
        self.queue(hStream, Wait(hEvent))

    def cuEventDestroy(self, hEvent: Event) -> None:
        pass

    def cuMemcpyDtoDAsync(self, dstDevice: int, srcDevice: int, ByteCount: int, hStream: int) -> None:
        work = partial(ctypes.memmove, dstDevice, srcDevice, ByteCount)
        self.queue(hStream, work, copied=(srcDevice, dstDevice, ByteCount))

    def cuMemsetD32Async(self, dstDevice: int, ui: int, N: int, hStream: int) -> None:
        self.queue(hStream, partial(_fill, dstDevice, ui, N), filled=(ui, dstDevice, N))

    def cuStreamBeginCapture(self, hStream: int, mode: Any) -> None:
        self._captured[hStream] = []

    def cuStreamEndCapture(self, hStream: int) -> list[Node]:
        self._graphs.append(self._captured.pop(hStream))
        return self._graphs[-1]

    def cuGraphInstantiate(self, hGraph: list[Node], flags: int) -> list[Node]:
        return hGraph

    def cuGraphGetNodes(self, hGraph: list[Node], numNodes: int = 0) -> tuple[list[Node], int]:
        return hGraph, len(hGraph)

    def cuGraphNodeGetType(self, hNode: Node) -> Any:
        kinds = self.CUgraphNodeType
        if hNode.filled is not None:
            return kinds.CU_GRAPH_NODE_TYPE_MEMSET
        return kinds.CU_GRAPH_NODE_TYPE_KERNEL if hNode.copied is None else kinds.CU_GRAPH_NODE_TYPE_MEMCPY

    def cuGraphMemsetNodeGetParams(self, hNode: Node) -> Any:
        assert hNode.filled is not None
        word, target, count = hNode.filled
        return SimpleNamespace(dst=target, value=word, elementSize=4, width=count, height=1)

    def cuModuleLoadData(self, image: bytes) -> bytes:
        return image

    def cuModuleGetFunction(self, hmod: bytes, name: bytes) -> Callable[[int, int, int], None]:
        assert b".entry " + name + b"(" in hmod
        return _fill

    def cuGraphNodeGetDependencies(
        self, hNode: Node, numDependencies: int = 0
    ) -> tuple[list[Node], None, int]:
        return hNode.after[:numDependencies], None, len(hNode.after)

    def cuGraphNodeGetDependentNodes(
        self, hNode: Node, numDependentNodes: int = 0
    ) -> tuple[list[Node], None, int]:
        found = [node for node in self._graph_of(hNode) if hNode in node.after]
        return found[:numDependentNodes], None, len(found)

    def cuGraphAddKernelNode(
        self, hGraph: list[Node], dependencies: list[Node], numDependencies: int, nodeParams: Any
    ) -> Node:
        values, _ = nodeParams.kernelParams
        hGraph.append(Node(partial(nodeParams.func, *values), after=dependencies[:]))
        return hGraph[-1]

    def cuGraphAddDependencies(
        self, hGraph: list[Node], from_: list[Node], to: list[Node], edgeData: None, numDependencies: int
    ) -> None:
        for first, then in zip(from_, to, strict=True):
            then.after.append(first)

    def cuGraphDestroyNode(self, hNode: Node) -> None:
        graph = self._graph_of(hNode)
        graph.remove(hNode)
        for node in graph:
            node.after = [before for before in node.after if before is not hNode]

    def cuGraphMemcpyNodeGetParams(self, hNode: Node) -> Any:
        assert hNode.copied is not None
        return SimpleNamespace(srcDevice=hNode.copied[0], dstDevice=hNode.copied[1])

    def cuGraphExecMemcpyNodeSetParams(
        self, hGraphExec: list[Node], hNode: Node, copyParams: Any, ctx: int
    ) -> None:
        assert hNode.copied is not None
        hNode.copied = copyParams.srcDevice, copyParams.dstDevice, hNode.copied[2]
        hNode.work = partial(ctypes.memmove, copyParams.dstDevice, copyParams.srcDevice, hNode.copied[2])

    def cuGraphLaunch(self, hGraphExec: list[Node], hStream: int) -> None:
        """Do first what comes last, unless it waits for something."""
        left = hGraphExec[:]
        while left:
            node = next(node for node in reversed(left) if not any(before in left for before in node.after))
            left.remove(node)
            self.queue(hStream, node.work)

    def cuGraphExecDestroy(self, hGraphExec: list[Node]) -> None:
        pass

    def cuGraphDestroy(self, hGraph: list[Node]) -> None:
        pass

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

    def _graph_of(self, node: Node) -> list[Node]:
        return next(graph for graph in self._graphs if node in graph)

    def _way(self, target: int, source: int) -> str:
        return {(1, 0): "in", (0, 1): "out", (1, 1): "on", (0, 0): "off"}[
            self._is_ours(target), self._is_ours(source)
        ]

    def _is_ours(self, address: int) -> bool:
        return any(start <= address < start + len(block) for start, block in list(self.blocks.items()))


class QueuedEngine:
    """Runs an engine of the CPU when its stream comes to it.

    As TensorRT's kernels for Hopper it counts in scratch memory, twice, from a word that it has set to 0 before.
    """

    def __init__(self, engine: Engine, driver: FakeDriver, scratch: int = 0) -> None:
        self._engine, self._driver, self._scratch = engine, driver, scratch

    def forget(self, stream: int) -> None:
        """Nothing is kept for a stream."""

    def run(self, shapes: CallShapes, inputs: Sequence[int], outputs: Sequence[int], host: Host) -> None:
        scratch = host.scratch(self._scratch) if self._scratch else None
        self._driver.calls.append("run")
        for _ in range(2 if scratch else 0):
            to_zero = partial(_fill, scratch.address, 0, 1)
            self._driver.queue(host.stream, to_zero, filled=(0, scratch.address, 1))
            self._driver.queue(host.stream, partial(self._count, scratch.address))
        self._driver.queue(host.stream, partial(self._engine.run, shapes, inputs, outputs, CPU_HOST))

    def _count(self, address: int) -> None:
        assert address in self._driver.blocks
        counter = ctypes.c_uint32.from_address(address)
        assert counter.value == 0
        counter.value += 1


def _fill(target: int, word: int, count: int) -> None:
    (ctypes.c_uint32 * count).from_address(target)[:] = [word] * count


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
        cuda._fill_kernel.cache_clear()
        try:
            yield fake
        finally:
            lanes = staged._of_process.get(0)
            if lanes is not None:  # of providers that live on, in a traceback perhaps
                lanes._idle.clear()
            cuda._primary_context.cache_clear()
            cuda._fill_kernel.cache_clear()
