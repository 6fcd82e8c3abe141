"""The torch integration: `torch.compile(model, backend="trt")`, and `explain`."""

from __future__ import annotations

__all__ = ["explain", "trt"]

from trt_backend_torch.backend import explain, trt
