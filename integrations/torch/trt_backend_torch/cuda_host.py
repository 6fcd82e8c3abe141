"""What torch lends engines on a GPU: the current stream, and memory of its caching allocator."""

from __future__ import annotations

__all__ = ["CapturedWork", "CudaHost", "ScratchPool", "scratch_pool"]

import importlib
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from trt_backend_torch.memory import allocating


@dataclass(frozen=True)
class TensorMemory:
    """Memory that a tensor holds."""

    tensor: torch.Tensor
    address: int

    @classmethod
    @allocating
    def of(cls, byte_count: int, device: torch.device) -> TensorMemory:
        """Allocate on the current stream (OutOfMemoryError where the device's memory is used up)."""
        tensor = torch.empty(byte_count, dtype=torch.uint8, device=device)
        return cls(tensor, tensor.data_ptr())


@dataclass(frozen=True)
class CapturedWork:
    """A CUDA graph.

    Attributes:
        launch: queues it on the current stream.
        held: what it needs until it has run for the last time.
    """

    launch: Callable[[], None]
    held: tuple[Any, ...]


class ScratchPool:
    """One block for each stream, as large as the largest that was asked for: runs on a stream follow each other."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        # By name: the driver's bindings come with TensorRT, and most machines have neither.
        self._cuda = importlib.import_module("trt_backend.engine.cuda")
        self._blocks: dict[int, TensorMemory] = {}
        self._turns: dict[int, threading.Lock] = {}
        self._threads = threading.local()

    def enter(self) -> None:
        """Give the calling thread the device's context, where it is new: the driver's calls need one."""
        if not hasattr(self._threads, "entered"):
            self._cuda.use_device(self.device.index)
            self._threads.entered = True

    def relaxed_capture(self) -> AbstractContextManager[None]:
        """Allow torch, inside a capture of the caller's, what a first use makes, such as a handle of cuBLAS.

        It would be there had the caller's warm-up run natively.
        """
        return self._cuda.relaxed_capture()

    @property
    def current_stream(self) -> int:
        """The handle of the calling thread's current stream."""
        # What Inductor's code calls, too: `torch.cuda.current_stream` makes an object for it, which takes 9 us.
        return torch._C._cuda_getCurrentRawStream(self.device.index)  # pyright: ignore[reportAttributeAccessIssue]

    def capture(self, work: Callable[[], object]) -> CapturedWork:
        """Return what torch's calls in `work` queue on the current stream, as a CUDA graph; nothing of it runs.

        Not by `torch.cuda.graph`: where its capture fails, random numbers fail from then on, and its memory is lost
        (PyTorch 2.11).

        Raises:
            RunError, OutOfMemoryError, or whatever `work` raises: it cannot be captured.
        """
        self.enter()
        stream, memory = self._cuda.Stream(), torch.cuda.MemPool()

        def queue() -> None:
            # What cuBLAS computes with belongs to the stream: here it is the graph's, and nobody's after it.
            external = torch.cuda.ExternalStream(stream.handle, device=self.device)
            with torch.cuda.stream(external), torch.cuda.use_mem_pool(memory), self.relaxed_capture():
                _clear_cublas_workspaces()
                try:
                    work()
                finally:
                    _clear_cublas_workspaces()

        graph = self._cuda.capture(queue, stream)
        return CapturedWork(lambda: self._cuda.launch(graph, self.current_stream), (graph, memory, stream))

    def turn(self, stream: int) -> threading.Lock:
        """Return the lock that who queues on a stream holds."""
        turn = self._turns.get(stream)
        return turn if turn is not None else self._turns.setdefault(stream, threading.Lock())

    def block(self, stream: int, byte_count: int) -> TensorMemory:
        """Return memory for what is queued on the current stream next."""
        block = self._blocks.get(stream)
        if block is None or block.tensor.numel() < byte_count:
            block = self._blocks[stream] = TensorMemory.of(byte_count, self.device)
        return block


def _clear_cublas_workspaces() -> None:
    torch._C._cuda_clearCublasWorkspaces()  # pyright: ignore[reportAttributeAccessIssue]


_pools: weakref.WeakValueDictionary[torch.device, ScratchPool] = weakref.WeakValueDictionary()


def scratch_pool(device: torch.device) -> ScratchPool:
    """Return the pool that all regions of a device share, for as long as one of them holds it."""
    return _pools.setdefault(device, ScratchPool(device))


class CudaHost:
    """The host of one call."""

    def __init__(self, pool: ScratchPool, weights_version: Callable[[], object | None]) -> None:
        pool.enter()
        self.stream = pool.current_stream
        self.turn = pool.turn(self.stream)
        self.weights_version = weights_version
        self._pool = pool

    def scratch(self, byte_count: int) -> TensorMemory:
        """Return the stream's scratch memory."""
        return self._pool.block(self.stream, byte_count)

    def allocate(self, byte_count: int) -> TensorMemory:
        """Return memory of torch's allocator."""
        return TensorMemory.of(byte_count, self._pool.device)
