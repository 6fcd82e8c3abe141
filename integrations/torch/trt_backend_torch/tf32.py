"""Whether a region's float32 products may round their factors to TF32: where torch's settings let eager do so.

Torch has a setting for convolutions, which is on by default, and one for other products, which is off. TensorRT has one
flag for both. A region follows the setting of what does nearly all of its work, whose rounding is the result's.
"""

from __future__ import annotations

__all__ = ["follow_torch"]

import math
from dataclasses import replace
from typing import Any

import torch

from trt_backend.ir.dims import DimLike, evaluate
from trt_backend.ir.graph import Graph, Node
from trt_backend.ir.ops.contraction import Attention, Convolution, Deconvolution, MatrixMultiply
from trt_backend.ir.types import DType
from trt_backend.options import CompileOptions

_NEARLY_ALL = 0.9
_USUAL_SIZE = 128  # of what is symbolic


def follow_torch(graph: Graph, options: CompileOptions) -> CompileOptions:
    """Return the options for a region on a GPU: with precision "tf32" for "auto" where torch's settings allow it."""
    if options.precision != "auto":
        return options
    sizes = {symbol.name: _usual(symbol.min, symbol.max) for symbol in graph.symbols}
    convolutions = others = 0
    for node in graph.nodes:
        if node.inputs and node.inputs[0].dtype is DType.FLOAT32:
            work = _multiplications(node, sizes)
            if isinstance(node.op, (Convolution, Deconvolution)):
                convolutions += work
            else:
                others += work
    backends: Any = torch.backends
    settings = (backends.cudnn.conv, convolutions), (backends.cuda.matmul, others)
    allowed = sum(work for setting, work in settings if setting.fp32_precision == "tf32")
    follows = allowed and allowed >= _NEARLY_ALL * (convolutions + others)
    return replace(options, precision="tf32") if follows else options


def _multiplications(node: Node, sizes: dict[str, int]) -> int:
    def count(*dims: DimLike) -> int:
        return math.prod(max(evaluate(dim, sizes), 0) for dim in dims)

    shapes = [value.shape for value in node.inputs]
    match node.op:
        case Convolution():
            return count(*node.outputs[0].shape, *shapes[1][1:])
        case Deconvolution():
            return count(*shapes[0], *shapes[1][1:])
        case MatrixMultiply(transpose_a=transposed):
            return count(*node.outputs[0].shape, shapes[0][-2 if transposed else -1])
        case Attention():
            return count(*shapes[0], shapes[1][2]) + count(*node.outputs[0].shape, shapes[1][2])
        case _:
            return 0


def _usual(least: int, most: int | None) -> int:
    return max(least, _USUAL_SIZE if most is None else min(most, _USUAL_SIZE))
