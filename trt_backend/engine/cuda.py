"""The CUDA driver: what engines need of it beside TensorRT, in calls that raise."""

from __future__ import annotations

__all__ = [
    "DeviceMemory",
    "Graph",
    "GraphCopy",
    "Stream",
    "capture",
    "copy",
    "copy_async",
    "current_context",
    "current_device",
    "device_count",
    "device_name",
    "has_device",
    "in_turn",
    "launch",
    "make_current",
    "on_device",
    "read",
    "relax_captures",
    "relaxed_capture",
    "synchronize",
    "synchronize_all",
    "transfer_async",
    "use_device",
    "wait_for",
]

import ctypes
import gc
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import cache, cached_property
from threading import Lock
from typing import Any

import cuda.bindings.driver  # pyright: ignore
import numpy as np
import numpy.typing as npt

from trt_backend.errors import OutOfMemoryError, RunError

_driver: Any = cuda.bindings.driver  # pyright: ignore

_DEFAULT_STREAM = 0

_quiet = Lock()
"""Held by a capture, and by who waits for the device: that is an error while any stream of it is captured."""

_LARGEST_FILL = 1 << 16
"""Bytes that one block of a kernel sets as fast as a memset."""

_FILL_PTX = b"""
.version 6.0
.target sm_50
.address_size 64
.visible .entry fill(.param .u64 target, .param .u32 word, .param .u32 count) {
  .reg .pred done;
  .reg .b32 i, n, value, step;
  .reg .b64 start, place;
  ld.param.u64 start, [target];
  cvta.to.global.u64 start, start;
  ld.param.u32 value, [word];
  ld.param.u32 n, [count];
  mov.u32 i, %tid.x;
  mov.u32 step, %ntid.x;
NEXT:
  setp.ge.u32 done, i, n;
  @done ret;
  mul.wide.u32 place, i, 4;
  add.s64 place, start, place;
  st.global.u32 [place], value;
  add.u32 i, i, step;
  bra NEXT;
}
\0"""
"""`target[i] = word` for i below `count`, by one block of any size."""


def _call(result: tuple[Any, ...]) -> Any:
    """Return the result of a driver call (RunError where it failed)."""
    status, *values = result
    if status == _driver.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
        raise OutOfMemoryError(f"CUDA: {status.name}")
    if status != _driver.CUresult.CUDA_SUCCESS:
        raise RunError(f"CUDA: {status.name}")
    return values[0] if len(values) == 1 else tuple(values)


def has_device() -> bool:
    """Whether the machine has a driver, and the calling thread a device."""
    try:
        return _driver.cuCtxGetDevice()[0] == _driver.CUresult.CUDA_SUCCESS
    except RuntimeError:  # no libcuda
        return False


def device_count() -> int:
    """Return how many devices the process sees; 0 where there is no driver, or none that works."""
    try:
        _call(_driver.cuInit(0))
        return int(_call(_driver.cuDeviceGetCount()))
    except (RunError, RuntimeError):  # the latter: no libcuda
        return 0


def device_name() -> str:
    """Return the current device's name, compute capability and driver version, for keys of caches."""
    device = _call(_driver.cuCtxGetDevice())
    name = _call(_driver.cuDeviceGetName(128, device)).split(b"\0")[0].decode()
    attribute = _driver.CUdevice_attribute
    major, minor = (
        _call(_driver.cuDeviceGetAttribute(part, device))
        for part in (
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
    )
    return f"{name} sm{major}{minor} driver {_call(_driver.cuDriverGetVersion())}"


def current_device() -> int:
    """Return the number of the calling thread's device."""
    return int(_call(_driver.cuCtxGetDevice()))


def current_context() -> Any:
    """Return the calling thread's context."""
    return _call(_driver.cuCtxGetCurrent())


def use_device(index: int) -> None:
    """Make a device's context the calling thread's where it has none: a new thread has one only after a runtime call."""
    _call(_driver.cuInit(0))  # a builder's process has made no other call; again, it does nothing
    if not int(current_context()):
        make_current(_primary_context(index))


@cache
def _primary_context(index: int) -> Any:
    """Return the context of a device that CUDA's runtime, too, works in; held from then on."""
    _call(_driver.cuInit(0))
    return _call(_driver.cuDevicePrimaryCtxRetain(_call(_driver.cuDeviceGet(index))))


@contextmanager
def on_device(index: int) -> Generator[None]:
    """Have a device for the length of a block; the thread's own context, if any, is current again afterwards."""
    with _within(_primary_context(index)):
        yield


@contextmanager
def _within(context: Any) -> Generator[None]:
    _call(_driver.cuCtxPushCurrent(context))
    try:
        yield
    finally:
        _driver.cuCtxPopCurrent()


def make_current(context: Any) -> None:
    """Make a context the calling thread's."""
    _call(_driver.cuCtxSetCurrent(context))


def read(address: int, byte_count: int) -> npt.NDArray[np.uint8]:
    """Return a copy of device memory, after all that was queued, by any stream."""
    host = np.empty(byte_count, np.uint8)
    synchronize_all()
    _call(_driver.cuMemcpyDtoH(host.ctypes.data, address, byte_count))
    return host


def synchronize(stream: int) -> None:
    """Wait for all that was queued on a stream."""
    _call(_driver.cuStreamSynchronize(stream))


def wait_for(stream: int, other: int) -> None:
    """Have what is queued on a stream from now on wait, on the device, for all that was queued on another."""
    event = _call(_driver.cuEventCreate(_driver.CUevent_flags.CU_EVENT_DISABLE_TIMING.value))
    try:
        _call(_driver.cuEventRecord(event, other))
        _call(_driver.cuStreamWaitEvent(stream, event, 0))
    finally:
        _driver.cuEventDestroy(event)  # once it came, if it has not yet


@contextmanager
def in_turn(stream: int, other: int) -> Generator[None]:
    """Have what a block queues on a stream run, on the device, between what was and what will be queued on another."""
    wait_for(stream, other)
    try:
        yield
    finally:
        wait_for(other, stream)


def synchronize_all() -> None:
    """Wait for all that was queued on any stream of the calling thread's context."""
    with _quiet:
        _call(_driver.cuCtxSynchronize())


def copy_async(target: int, source: int, byte_count: int, stream: int) -> None:
    """Queue a copy between two places of the device's memory."""
    _call(_driver.cuMemcpyDtoDAsync(target, source, byte_count, stream))


def copy(target: int, source: int, byte_count: int) -> None:
    """Copy between any two places of memory, the device's or the host's: the driver tells by the address."""
    _call(_driver.cuMemcpy(target, source, byte_count))
    synchronize(_DEFAULT_STREAM)  # a copy from the host may only have been queued


def transfer_async(target: int, source: int, byte_count: int, stream: int) -> None:
    """Queue a copy between any two places, as `copy`; host memory that is not pinned is copied while the call waits."""
    _call(_driver.cuMemcpyAsync(target, source, byte_count, stream))


class DeviceMemory:
    """Memory of the calling thread's device, given back with its last reference, whichever thread lets that go."""

    def __init__(self, byte_count: int) -> None:
        self._context = current_context()
        self.byte_count = byte_count
        self.address = int(_call(_driver.cuMemAlloc(byte_count)))

    def __del__(self) -> None:
        if "address" in self.__dict__:
            with _within(self._context):
                _driver.cuMemFree(self.address)


class Stream:
    """A stream of our own."""

    @cached_property
    def handle(self) -> int:
        """The stream's handle."""
        self._context = current_context()
        return int(_call(_driver.cuStreamCreate(_driver.CUstream_flags.CU_STREAM_NON_BLOCKING.value)))

    def __del__(self) -> None:
        if "handle" in self.__dict__:
            with _within(self._context):
                _driver.cuStreamDestroy(self.handle)


class Graph:
    """A captured CUDA graph, ready to launch."""

    def __init__(self, graph: Any) -> None:
        self._captured = graph  # whose nodes stand for those of the executable one
        self.handle: Any = _call(_driver.cuGraphInstantiate(graph, 0))

    def __del__(self) -> None:
        if "handle" in self.__dict__:
            _driver.cuGraphExecDestroy(self.handle)
        _driver.cuGraphDestroy(self._captured)

    def copies(self) -> list[GraphCopy]:
        """Return the copies of memory in the graph."""
        memcpy = _driver.CUgraphNodeType.CU_GRAPH_NODE_TYPE_MEMCPY
        return [GraphCopy(self, node) for node in _nodes(self._captured, memcpy)]


class GraphCopy:
    """A copy of device memory in a graph, both ends of which can be moved for the launches to come."""

    def __init__(self, graph: Graph, node: Any) -> None:
        self._graph = graph
        self._node = node
        self._context = current_context()
        self._params = _call(_driver.cuGraphMemcpyNodeGetParams(node))
        self.source = int(self._params.srcDevice)
        self.target = int(self._params.dstDevice)

    def move(self, *, source: int, target: int) -> None:
        """Copy from `source` to `target` from now on; as many bytes as captured."""
        if (source, target) == (self.source, self.target):
            return
        self._params.srcDevice, self._params.dstDevice = source, target
        _call(
            _driver.cuGraphExecMemcpyNodeSetParams(
                self._graph.handle, self._node, self._params, self._context
            )
        )
        self.source, self.target = source, target


def capture(work: Callable[[], None], stream: Stream) -> Graph:
    """Return what `work` queues on the stream, as a graph; nothing of it runs.

    Other threads may allocate memory meanwhile: only this thread is watched. The garbage collector waits: what it
    frees, CUDA may not free in a capture.
    """
    with _quiet, _no_collector():
        mode = _driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        _call(_driver.cuStreamBeginCapture(stream.handle, mode))
        try:
            work()
        finally:
            captured = _driver.cuStreamEndCapture(stream.handle)
    graph = _call(captured)
    with suppress(RunError, RuntimeError):  # the driver refuses, or is older than a call: memsets stay
        _fill_by_kernels(graph)
    return Graph(graph)


@contextmanager
def _no_collector() -> Generator[None]:
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _fill_by_kernels(graph: Any) -> None:
    """Have kernels do what small memsets of a captured graph do.

    A memset between two kernels costs 5 us (H200, driver 13.0), a kernel there half of that; and TensorRT's Hopper
    kernels have a counter set to 0 before most of them.
    """
    for node in _nodes(graph, _driver.CUgraphNodeType.CU_GRAPH_NODE_TYPE_MEMSET):
        memset = _call(_driver.cuGraphMemsetNodeGetParams(node))
        byte_count = memset.elementSize * memset.width
        if memset.height != 1 or byte_count > _LARGEST_FILL or (byte_count | int(memset.dst)) % 4:
            continue
        element = memset.value.to_bytes(4, "little")[: memset.elementSize]
        word = int.from_bytes((element * 4)[:4], "little")
        before = _all(_version_2("cuGraphNodeGetDependencies"), node)
        behind = _all(_version_2("cuGraphNodeGetDependentNodes"), node)
        kernel = _driver.CUDA_KERNEL_NODE_PARAMS()
        kernel.func = _fill_kernel(int(current_context()))
        kernel.gridDimX = kernel.gridDimY = kernel.gridDimZ = kernel.blockDimY = kernel.blockDimZ = 1
        kernel.blockDimX = 128
        kernel.kernelParams = (
            (int(memset.dst), word, byte_count // 4),
            (ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32),
        )
        fill = _call(_driver.cuGraphAddKernelNode(graph, before, len(before), kernel))
        try:
            if behind:
                add_edges = _version_2("cuGraphAddDependencies")
                _call(add_edges(graph, [fill] * len(behind), behind, None, len(behind)))
        except (RunError, RuntimeError):
            _driver.cuGraphDestroyNode(fill)
            raise
        _call(_driver.cuGraphDestroyNode(node))  # with both, in the same place, answers are the same


@cache
def _fill_kernel(context: int) -> Any:
    """Return the kernel of `_FILL_PTX` for a context, which is the calling thread's."""
    return _call(_driver.cuModuleGetFunction(_call(_driver.cuModuleLoadData(_FILL_PTX)), b"fill"))


def _nodes(graph: Any, kind: Any) -> list[Any]:
    """Return the nodes of one kind of a graph that was not instantiated."""
    return [
        node
        for node in _all(_driver.cuGraphGetNodes, graph)
        if _call(_driver.cuGraphNodeGetType(node)) == kind
    ]


def _all(query: Callable[..., tuple[Any, ...]], of: Any) -> list[Any]:
    """Return the first list that a query gives, which is told how long it is."""
    *_, count = _call(query(of))
    return list(_call(query(of, count))[0]) if count else []


def _version_2(name: str) -> Any:
    """Return the function of the driver that knows kinds of edges: CUDA 13 has no other, CUDA 12 calls it `_v2`."""
    return getattr(_driver, f"{name}_v2", None) or getattr(_driver, name)


@contextmanager
def relaxed_capture() -> Generator[None]:
    """Allow the calling thread, while somebody captures, what no graph can hold: to allocate, or to make a library's handle."""
    former = relax_captures()
    try:
        yield
    finally:
        _driver.cuThreadExchangeStreamCaptureMode(former)


def relax_captures() -> Any:
    """Allow the same for good, and return the mode before; else what a thread loads would end the captures of others."""
    mode = _driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
    return _call(_driver.cuThreadExchangeStreamCaptureMode(mode))


def launch(graph: Graph, stream: int) -> None:
    """Queue a graph."""
    _call(_driver.cuGraphLaunch(graph.handle, stream))
