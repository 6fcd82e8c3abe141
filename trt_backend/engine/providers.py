"""Choosing a provider by its name; its stack is imported only then."""

from __future__ import annotations

__all__ = ["PROVIDERS", "load_provider"]

import importlib
from dataclasses import dataclass

from trt_backend.engine.base import EngineProvider
from trt_backend.errors import ProviderUnavailableError


@dataclass(frozen=True)
class _Entry:
    """A provider: its module, the function there that makes it, and what to install for it."""

    module: str
    device: str
    requirement: str


PROVIDERS = {
    "tensorrt": _Entry("trt_backend.engine.tensorrt", "cuda", "trt-backend[tensorrt]"),
    "tensorrt_rtx": _Entry("trt_backend.engine.tensorrt", "cuda", "trt-backend[rtx]"),
    "onnxruntime": _Entry("trt_backend.engine.onnxruntime", "cpu", "onnxruntime"),
}
"""The providers by name, in the order in which "auto" tries them."""


def load_provider(name: str, device: str = "cpu") -> EngineProvider:
    """Return the provider of that name, or for "auto" the first whose stack imports and reads the device's memory.

    Args:
        name: a name, or "auto".
        device: "cpu" or "cuda", where the tensors are; "auto" chooses by it.

    Raises:
        ProviderUnavailableError: the stack is not installed; the message says what to install.
    """
    candidates = [c for c, entry in PROVIDERS.items() if entry.device == device] if name == "auto" else [name]
    missing = [] if candidates else [f"no provider reads the memory of a {device}"]
    for candidate in candidates:
        try:
            return importlib.import_module(PROVIDERS[candidate].module).provider(candidate)
        except ImportError as error:
            requirement = PROVIDERS[candidate].requirement
            missing.append(f"{candidate} is not installed: {error} (pip install '{requirement}')")
    raise ProviderUnavailableError("; ".join(missing))
