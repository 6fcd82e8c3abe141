"""Comparing arrays in tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

TOLERANCE = {"float16": 4e-3, "bfloat16": 2e-2, "float32": 2e-5, "float64": 1e-9}


def assert_same(got: Sequence[np.ndarray], wanted: Sequence[np.ndarray], factor: float = 1.0) -> None:
    """Require equal dtypes, shapes and elements, floats within the tolerance of their type times `factor`."""
    assert len(got) == len(wanted)
    for left, right in zip(got, wanted, strict=True):
        assert (left.dtype, left.shape) == (right.dtype, right.shape)
        tolerance = TOLERANCE.get(right.dtype.name, 0) * factor
        wide: Any = np.float64 if tolerance else right.dtype
        np.testing.assert_allclose(left.astype(wide), right.astype(wide), rtol=tolerance, atol=tolerance)
