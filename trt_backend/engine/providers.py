"""Choosing a provider by its name; its stack is imported only then."""

from __future__ import annotations

__all__ = ["PROVIDERS", "load_provider"]

import importlib

from trt_backend.engine.base import EngineProvider
from trt_backend.errors import ProviderUnavailableError

PROVIDERS = {"onnxruntime": "trt_backend.engine.onnxruntime"}
"""The module of each provider, in the order in which "auto" tries them."""


def load_provider(name: str) -> EngineProvider:
    """Return the provider of that name, or for "auto" the first whose stack imports.

    Raises:
        ProviderUnavailableError: the stack is not installed; the message says what to install.
    """
    candidates = list(PROVIDERS) if name == "auto" else [name]
    missing: list[str] = []
    for candidate in candidates:
        try:
            module = importlib.import_module(PROVIDERS[candidate])
        except ImportError as error:
            missing.append(f"{candidate} needs the package {error.name} (pip install {error.name})")
        else:
            return module.provider()
    raise ProviderUnavailableError("; ".join(missing))
