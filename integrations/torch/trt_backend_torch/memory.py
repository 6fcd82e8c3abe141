"""How the tensors of a region lie in memory, and how engines come by them."""

from __future__ import annotations

__all__ = [
    "Addresses",
    "Binding",
    "Input",
    "Layout",
    "Sizes",
    "address_of",
    "allocating",
    "row_major",
    "with_strides",
]

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

import torch

from trt_backend.errors import NotReadyError, OutOfMemoryError
from trt_backend.ir.dims import DimLike, symbols_of
from trt_backend_torch.types import dim_of, physical_order

P = ParamSpec("P")
R = TypeVar("R")
Sizes = tuple[int, ...]
_TENSORRT_ALIGNMENT = 256  # bytes; `IExecutionContext.set_tensor_address` asks for it


@dataclass(frozen=True)
class Layout:
    """How a tensor lies in memory: logical sizes and strides, and whether an engine can use the memory as it is."""

    sizes: tuple[DimLike, ...]
    strides: tuple[DimLike, ...]
    dense: bool
    dtype: torch.dtype
    device: torch.device

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Layout:
        """Return the layout that AOTAutograd promises of a tensor."""
        sizes = tuple(dim_of(size) for size in tensor.shape)
        pairs = zip(sizes, map(dim_of, tensor.stride()), strict=True)
        # Along a dimension of size 1 no element is a step; a symbol that the promise has there may be nobody's size.
        known = set(symbols_of(sizes))
        strides = tuple(
            1 if size == 1 and not known.issuperset(symbols_of([stride])) else stride
            for size, stride in pairs
        )
        dense = physical_order(tensor.shape, tensor.stride()) is not None
        return cls(sizes, strides, dense, tensor.dtype, tensor.device)


@dataclass(frozen=True)
class Input:
    """A tensor argument of a call.

    Attributes:
        position: among the arguments.
        layout: as promised.
        weight: whether it is a weight.
        border: the element type of the memory that the engine reads.
        negative: whether the memory holds the elements with the other sign (torch's negative bit: `z.conj().imag`).
    """

    position: int
    layout: Layout
    weight: bool
    border: torch.dtype
    negative: bool

    @property
    def as_it_is(self) -> bool:
        """Whether an engine can read such memory in the right strides."""
        return self.border is self.layout.dtype and not self.negative


def allocating(function: Callable[P, R]) -> Callable[P, R]:
    """Have it raise our OutOfMemoryError, after which an engine is tried again, where torch's allocator raises its own."""

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except torch.OutOfMemoryError as error:
            raise OutOfMemoryError(f"no memory is left on the device: {error}") from error

    return call


class Binding:
    """How an engine reads the inputs of a signature.

    Args:
        places: the inputs.
        strides: of each, for the engine to read it as it is.
        device: the engine's GPU; None for the CPU.
    """

    def __init__(
        self, places: Sequence[Input], strides: Sequence[Sizes], device: torch.device | None
    ) -> None:
        self.device = device
        self.alignment = _TENSORRT_ALIGNMENT if device else 1
        self.inputs = [
            (place.position, wanted, place.border, place.as_it_is)
            for place, wanted in zip(places, strides, strict=True)
        ]


class Addresses(Sequence[int]):
    """The addresses of a call's inputs, asked for one by one: those of frozen weights seldom are.

    An input that the engine cannot read as it is is copied. Layouts are looked at even where the framework guards them:
    dynamo skips the guards of a module's parameters while its dictionaries are the same, whatever `p.data = new` did.

    Raises:
        NotReadyError: the input has elements, but no memory.
    """

    def __init__(self, arguments: Sequence[Any], binding: Binding) -> None:
        self._arguments = arguments
        self._binding = binding
        self._copies: dict[int, torch.Tensor] = {}

    def __len__(self) -> int:
        return len(self._binding.inputs)

    def __getitem__(self, i: Any) -> Any:
        binding = self._binding
        position, strides, dtype, as_it_is = binding.inputs[i]
        tensor: torch.Tensor = self._arguments[position]
        address = address_of(tensor)
        if (
            as_it_is
            and tensor.stride() == strides
            and not address % binding.alignment
            and (binding.device is None or tensor.is_cuda)
        ):
            return address
        if i not in self._copies:
            self._copies[i] = self._copy(tensor, strides, dtype)
        return self._copies[i].data_ptr()

    @allocating
    def _copy(self, tensor: torch.Tensor, strides: Sizes, dtype: torch.dtype) -> torch.Tensor:
        """Return a dense copy on the engine's device."""
        device = self._binding.device or tensor.device
        memory = torch.empty_strided(tensor.shape, strides, dtype=dtype, device=device)
        # A copy from memory that is not pinned has read it when the call returns; it need not wait for the device.
        return memory.copy_(tensor, non_blocking=not tensor.is_pinned())


def address_of(tensor: torch.Tensor) -> int:
    """Return where a tensor lies; 0 where it has no elements.

    Raises:
        NotReadyError: it has elements, but no memory: its storage was freed (FSDP fills it again), all of it is zero to
            autograd, or it is fake. Native has the answer, or the error.
    """
    address = tensor.data_ptr()
    if not address and tensor.numel():
        raise NotReadyError("a tensor of the call has no memory")
    return address


def row_major(sizes: Sizes) -> Sizes:
    """Return the strides of a contiguous tensor."""
    strides = [1] * len(sizes)
    for i in range(len(sizes) - 1, 0, -1):
        strides[i - 1] = strides[i] * max(sizes[i], 1)
    return tuple(strides)


def with_strides(tensor: torch.Tensor, strides: Sizes) -> torch.Tensor:
    """Return the elements under strides that may have gaps or be 0 (where every element along them is the same)."""
    if tensor.stride() == strides:
        return tensor
    result = torch.empty_strided(tensor.shape, strides, dtype=tensor.dtype, device=tensor.device)
    for axis, stride in enumerate(strides):
        tensor = tensor.narrow(axis, 0, 1) if stride == 0 and tensor.shape[axis] > 1 else tensor
    result.as_strided(tensor.shape, strides).copy_(tensor)
    return result
