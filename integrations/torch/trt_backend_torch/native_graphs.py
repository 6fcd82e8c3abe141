"""Native regions launched as CUDA graphs: what engines that are launched as such are measured against.

Rules:
  AGAIN   A call whose sizes or weights are new runs without a graph: Inductor compiles then, and libraries load kernels.
  STATIC  A graph reads copies of the inputs, and weights where they lie. Its results are copied: they are the caller's to keep.
  KEY     A graph belongs to sizes, a stream, and the places of the weights.
  BOUNDED The `_MOST` graphs that were used last are kept: each holds memory for all that is computed on the way.
  OPTION  What cannot be captured, such as what waits for the device, runs without.
"""

from __future__ import annotations

__all__ = ["NativeGraphs"]

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from threading import Lock
from typing import Any

import torch

from trt_backend.debug import log
from trt_backend_torch.cuda_host import CapturedWork, ScratchPool
from trt_backend_torch.memory import Input, Sizes, with_strides

_MOST = 4
_SEEN = 256  # AGAIN: keys remembered

_dtype_of = attrgetter("dtype")


class NativeGraphs:
    """Calls a native region in CUDA graphs.

    Args:
        native: the region.
        inputs: its tensor arguments, dense and on the GPU: what a graph finds on the host it would keep for good.
        gpu: where it runs.
    """

    def __init__(
        self, native: Callable[..., tuple[Any, ...]], inputs: Sequence[Input], gpu: ScratchPool
    ) -> None:
        self._native = native
        self._gpu = gpu
        self._weights = [place.position for place in inputs if place.weight]
        self._inputs = [place.position for place in inputs if not place.weight]
        self._graphs: OrderedDict[tuple[Sizes, Hashable], _Graph] = OrderedDict()
        self._seen: set[Hashable] = set()
        self._refused = False
        self._lock = Lock()

    def run(self, sizes: Sizes, arguments: Sequence[Any]) -> tuple[Any, ...]:
        """Return what the region returns for arguments of these sizes."""
        weights = [arguments[i] for i in self._weights]
        strides, dtypes = map(torch.Tensor.stride, weights), map(_dtype_of, weights)
        key = (sizes, (self._gpu.current_stream, *map(torch.Tensor.data_ptr, weights), *strides, *dtypes))
        with self._lock:  # threads that share a stream share a graph, whose copies belong together
            graph = self._graphs.get(key) or self._find(key, arguments)
            if graph is not None:
                self._graphs.move_to_end(key)
                return graph.run([arguments[i] for i in self._inputs])
        return self._native(*arguments)

    def forget(self, sizes: Sizes) -> None:
        """Let the graphs of these sizes go."""
        with self._lock:
            self._drop([key for key in self._graphs if key[0] == sizes])

    def _find(self, key: tuple[Sizes, Hashable], arguments: Sequence[Any]) -> _Graph | None:
        """Return a graph for a key that has none, captured where it comes again (AGAIN, BOUNDED, OPTION)."""
        if key not in self._seen:
            if len(self._seen) >= _SEEN:
                self._seen.clear()
            self._seen.add(key)
            return None
        if self._refused:
            return None
        try:
            graph = self._graphs[key] = self._capture(arguments)
        except Exception as error:  # noqa: BLE001  native itself has the answer, or the error
            log.debug("native runs without CUDA graphs: %s", error)
            self._refused = True
            return None
        self._drop(list(self._graphs)[:-_MOST])
        return graph

    def _capture(self, arguments: Sequence[Any]) -> _Graph:
        """Capture the region, working on memory of its own (STATIC)."""
        own = list(arguments)
        with torch.inference_mode(mode=False):  # whose tensors could not be written to outside of it
            for i in self._inputs:
                own[i] = torch.empty_strided(
                    own[i].shape, own[i].stride(), dtype=own[i].dtype, device=own[i].device
                )
        results: list[Any] = []
        captured = self._gpu.capture(lambda: results.extend(self._native(*own)))
        return _Graph(captured, [own[i] for i in self._inputs], results)

    def _drop(self, keys: Sequence[tuple[Sizes, Hashable]]) -> None:
        if keys:
            torch.cuda.synchronize()  # they may be under way, and their memory goes with them
        for key in keys:
            del self._graphs[key]


@dataclass(frozen=True)
class _Graph:
    """A captured call.

    Attributes:
        work: the graph.
        inputs: the memory that it reads.
        results: the memory that it writes, and sizes.
    """

    work: CapturedWork
    inputs: list[torch.Tensor]
    results: list[Any]

    def run(self, inputs: Sequence[torch.Tensor]) -> tuple[Any, ...]:
        for own, given in zip(self.inputs, inputs, strict=True):
            own.copy_(given)
        self.work.launch()
        return tuple(
            [_copied(result) if isinstance(result, torch.Tensor) else result for result in self.results]
        )


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    return with_strides(tensor.clone(), tensor.stride())
