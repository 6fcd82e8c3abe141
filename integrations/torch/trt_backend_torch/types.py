"""Torch's dtypes, symbolic integers and fake tensors as IR types."""

from __future__ import annotations

__all__ = ["DTYPES", "TORCH_DTYPES", "dim_of", "overlaps_itself", "physical_order", "tensor_type"]

from collections.abc import Sequence
from typing import Any

import sympy
import torch
from torch.utils._sympy.functions import CeilToInt, FloorDiv, FloorToInt, IntTrueDiv, ToFloat, TruncToInt

from trt_backend.errors import InvalidGraphError, ReasonKind, UnsupportedError
from trt_backend.ir.dims import DimLike, Symbol, parse_dim
from trt_backend.ir.types import DType, TensorType

DTYPES: dict[torch.dtype, DType] = {
    torch.bool: DType.BOOL,
    torch.int8: DType.INT8,
    torch.uint8: DType.UINT8,
    torch.int32: DType.INT32,
    torch.int64: DType.INT64,
    torch.float16: DType.FLOAT16,
    torch.bfloat16: DType.BFLOAT16,
    torch.float32: DType.FLOAT32,
    torch.float64: DType.FLOAT64,
}
TORCH_DTYPES = {dtype: torch_dtype for torch_dtype, dtype in DTYPES.items()}

_floor_div: Any = FloorDiv  # untyped

_UNBOUNDED = 2**31  # torch writes "no bound" as infinity or as a very large integer
_EXACT = 2**20
"""Times less than this, any size is exact in float64."""


def dim_of(size: int | torch.SymInt) -> DimLike:
    """Return an integer or a symbolic integer as a dimension with the ranges that dynamo knows.

    Raises:
        UnsupportedError: the size depends on data (an unbacked symbol), or is no expression of integers.
    """
    if isinstance(size, int):
        return size
    expression = size.node.expr
    if expression.is_number:
        return int(expression)
    ranges = size.node.shape_env.var_to_range
    symbols = {}
    for symbol in expression.free_symbols:
        if symbol.name.startswith("u"):
            raise UnsupportedError(f"the size {expression} depends on data")
        lower, upper = _bound(ranges[symbol].lower), _bound(ranges[symbol].upper)
        symbols[symbol.name] = Symbol(symbol.name, -_UNBOUNDED if lower is None else lower, upper)
    try:
        return parse_dim(str(_in_integers(expression)), symbols)
    except InvalidGraphError as error:
        raise UnsupportedError(f"the size {expression} is computed in floats") from error


def _in_integers(expression: Any) -> Any:
    """Return a SymPy expression with rounded quotients, as of `int(s * 0.5)` or `math.ceil(s / t)`, by floor division.

    A quotient of sizes in float64 is never rounded up to an integer: it is at least 1 / divisor below the next, and sizes
    are less than 2**53.
    """
    return expression.replace(
        lambda part: isinstance(part, (CeilToInt, FloorToInt, TruncToInt)),
        lambda part: _whole_quotient(part) or part,
    )


def _whole_quotient(rounded: Any) -> Any:
    """Return a rounded quotient of sizes in integers, or None where its float is not known to be exact enough."""
    quotient = _quotient(rounded.args[0])
    if quotient is None or not quotient[1].is_positive:
        return None
    above, below = quotient
    if isinstance(rounded, CeilToInt):
        return _floor_div(-above, below) * -1
    return _floor_div(above, below) if isinstance(rounded, FloorToInt) or above.is_nonnegative else None


def _quotient(value: Any) -> tuple[Any, Any] | None:
    """Return what a SymPy float divides by what: sizes, or a size times a short fraction, as 0.75."""
    if isinstance(value, IntTrueDiv):
        return value.args[0], value.args[1]
    factor, converted = value.as_coeff_Mul()
    if not isinstance(converted, ToFloat):
        return None
    size: Any = converted.args[0]
    above, below = float(factor).as_integer_ratio()
    return (size * above, sympy.Integer(below)) if max(abs(above), below) < _EXACT else None


def _bound(limit: Any) -> int | None:
    """Return one end of a SymPy range, or None where it is infinite."""
    return int(limit) if limit.is_finite and abs(limit) < _UNBOUNDED else None


def tensor_type(tensor: torch.Tensor) -> TensorType:
    """Return the IR type of a (fake) tensor.

    Raises:
        UnsupportedError: no plain strided tensor of a dtype that the IR has.
    """
    if tensor.layout is not torch.strided:
        raise UnsupportedError(f"the layout {tensor.layout} is not strided")
    if tensor.dtype not in DTYPES:
        raise UnsupportedError(f"{tensor.dtype} has no IR type", ReasonKind.DTYPE)
    return TensorType(DTYPES[tensor.dtype], tuple(dim_of(size) for size in tensor.shape))


def physical_order(
    shape: Sequence[int | torch.SymInt], strides: Sequence[int | torch.SymInt]
) -> tuple[int, ...] | None:
    """Return the permutation that makes a dense tensor row-major, or None where it has gaps or overlaps.

    (0, 2, 3, 1) for channels_last, the identity for a contiguous tensor. Dimensions of size 1 have no order of their
    own: they stay where they are.
    """
    sizes, steps = [dim_of(size) for size in shape], [dim_of(stride) for stride in strides]
    for order in (tuple(range(len(sizes))), _by_stride(sizes, strides)):
        expected: DimLike = 1
        for i in reversed(order):
            if sizes[i] != 1 and steps[i] != expected:
                break
            expected = expected * sizes[i]
        else:
            return order
    return None


def overlaps_itself(tensor: torch.Tensor) -> bool:
    """Whether other strides than 0 may lead to the same element more than once (False where they are symbolic)."""
    pairs = list(zip(tensor.stride(), tensor.shape, strict=True))
    if not all(isinstance(number, int) for pair in pairs for number in pair):
        return False
    reach = 0
    for stride, size in sorted((stride, size) for stride, size in pairs if stride and size > 1):
        if stride <= reach:
            return True
        reach += stride * (size - 1)
    return False


def _by_stride(sizes: Sequence[DimLike], strides: Sequence[int | torch.SymInt]) -> tuple[int, ...]:
    hints = [stride if isinstance(stride, int) else int(stride.node.hint) for stride in strides]
    return tuple(sorted(range(len(sizes)), key=lambda i: (-hints[i], i)))
