"""What a network's writer gives to TensorRT."""

from __future__ import annotations

import pickle
from types import SimpleNamespace

import numpy as np
import pytest

from trt_backend.emit.tensorrt.network import NetworkWriter
from trt_backend.emit.tensorrt.stacks import stack_of
from trt_backend.ir.types import DType


@pytest.mark.parametrize("dtype", [DType.FLOAT16, DType.FLOAT32, DType.INT32, DType.INT64, DType.BOOL])
def test_weights_that_came_from_another_process(dtype: DType) -> None:
    """TensorRT 8.6 compares dtype objects by identity, and unpickled arrays bring their own."""
    stack = stack_of("tensorrt", "8.6.0")
    assert stack is not None
    trt = SimpleNamespace(__version__="8.6.0", Weights=lambda array: array)
    array = pickle.loads(pickle.dumps(np.ones((2, 3), dtype.numpy)))
    given = NetworkWriter(trt, None, stack, set()).weights(array, dtype)
    wanted = np.dtype(np.int32 if dtype is DType.INT64 else dtype.numpy)
    assert given.dtype is wanted
    np.testing.assert_array_equal(given, array)
    assert dtype is DType.INT64 or np.shares_memory(given, array)
