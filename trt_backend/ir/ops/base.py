"""What every op is: a frozen dataclass of attributes that infers the types of its outputs."""

from __future__ import annotations

__all__ = ["Op", "Types", "broadcast", "may_agree", "normalized_axis", "require", "same_dtype"]

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, cast

from trt_backend.errors import InvalidGraphError
from trt_backend.ir.dims import Dim, DimLike
from trt_backend.ir.types import DType, Shape, TensorType

Types = tuple[TensorType, ...]


class Op(ABC):
    """One TensorRT layer: attributes are the dataclass's fields, operands are the node's inputs."""

    @abstractmethod
    def infer(self, *inputs: TensorType) -> Types:
        """Return the types of the outputs.

        Raises:
            InvalidGraphError: the inputs are none that the layer takes.
        """

    def attributes(self) -> dict[str, Any]:
        """Return the attributes by name, in their declared order."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}  # type: ignore[arg-type]

    def dims(self) -> Iterator[DimLike]:
        """Yield the symbolic dimensions among the attributes."""
        for value in self.attributes().values():
            items = cast("tuple[Any, ...]", value) if isinstance(value, tuple) else (value,)
            yield from (item for item in items if isinstance(item, Dim))


def require(condition: bool, message: str) -> None:
    """Raise `InvalidGraphError` with `message` unless `condition` holds."""
    if not condition:
        raise InvalidGraphError(message)


def same_dtype(*types: TensorType) -> DType:
    """Return the dtype that all `types` share (InvalidGraphError where they differ)."""
    require(len({t.dtype for t in types}) == 1, f"dtypes differ: {', '.join(t.dtype.value for t in types)}")
    return types[0].dtype


def normalized_axis(axis: int, rank: int) -> None:
    """Require an axis to be in `[0, rank)`: negative axes are the frontends' to resolve."""
    require(0 <= axis < rank, f"axis {axis} is not in [0, {rank})")


def may_agree(left: DimLike, right: DimLike) -> bool:
    """Whether two dimensions may be the same: two different symbolic ones may, only the call can tell."""
    return left == right or isinstance(left, Dim) or isinstance(right, Dim)


def broadcast(left: Shape, right: Shape) -> Shape:
    """Return the shape of two operands of equal rank whose dimensions agree (`may_agree`) or are 1."""
    require(len(left) == len(right), f"ranks differ: {list(left)} and {list(right)}")
    return tuple(_broadcast_dim(a, b) for a, b in zip(left, right, strict=True))


def _broadcast_dim(a: DimLike, b: DimLike) -> DimLike:
    if a == 1 or a == b:
        return b
    if b == 1:
        return a
    require(may_agree(a, b), f"dimensions {a} and {b} do not broadcast")
    return a if isinstance(a, int) else b
