"""Tensors of every kind that the cases of elementwise ops share."""

from __future__ import annotations

__all__ = [
    "BOOLS",
    "BYTES",
    "DOUBLES",
    "FINITE",
    "FLOATS",
    "HALVES",
    "INTS",
    "INT_SCALAR",
    "SCALAR",
    "SPECIAL",
    "UNIT",
]

import math

import torch
from harness import randn

_NAN, _INF = math.nan, math.inf

FLOATS = randn(2, 3)
DOUBLES = randn(2, 3, dtype=torch.float64)
INTS = torch.tensor([[-7, 2, 5], [7, -2, 1]])
BOOLS = torch.tensor([[True, False, True], [False, False, True]])
BYTES = torch.tensor([0, 3, 200], dtype=torch.uint8)
HALVES = torch.tensor([-2.5, -1.5, -0.5, -0.0, 0.0, 0.5, 1.5, 2.5, 3.0])
SPECIAL = torch.tensor([_NAN, _INF, -_INF, -0.0, 0.0, 1.0, -1.0, 0.3, -2.5, 30.0, -30.0, 1e-6])
FINITE = SPECIAL[~SPECIAL.isinf()]  # gelu of infinity varies by kernel
UNIT = torch.tensor([-1.0, -0.9, -1e-4, 0.0, 0.5, 1.0, 1.5, _NAN])
SCALAR, INT_SCALAR = torch.tensor(1.5), torch.tensor(3)
