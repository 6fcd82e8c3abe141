"""The one error tree, and `Reason`: why something runs natively instead of in an engine."""

from __future__ import annotations

__all__ = [
    "BuildError",
    "InvalidGraphError",
    "NotReadyError",
    "OptionError",
    "OutOfMemoryError",
    "ProviderUnavailableError",
    "Reason",
    "ReasonKind",
    "RunError",
    "TrtBackendError",
    "UnsupportedError",
    "WrongAnswerError",
]

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class ReasonKind(Enum):
    """The class of a `Reason`: stable strings that machines may match on."""

    NO_RULE = "no lowering rule"
    UNSUPPORTED = "unsupported"
    DTYPE = "unsupported dtype"
    DEVICE = "unsupported device"
    EMPTY = "empty tensor"
    RANDOM = "random numbers"
    GRADIENT = "needs gradients"
    TOO_SMALL = "region too small"
    FUEL = "out of fuel"
    BUILD_FAILED = "build failed"
    RUN_FAILED = "run failed"
    OUT_OF_MEMORY = "out of memory"
    WRONG_ANSWER = "wrong answer"
    SLOWER = "slower than native"
    BUG = "bug"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why `op` runs natively: the kind, one sentence of detail, and the user's source line."""

    kind: ReasonKind
    op: str
    detail: str = ""
    source: str = ""

    def __str__(self) -> str:
        detail = f": {self.detail}" if self.detail else ""
        source = f" [{self.source}]" if self.source else ""
        return f"{self.op}: {self.kind.value}{detail}{source}"


class TrtBackendError(Exception):
    """The base of every error that this package raises on purpose."""


class OptionError(TrtBackendError, ValueError):
    """An option with an unknown name or an illegal value."""


class InvalidGraphError(TrtBackendError, ValueError):
    """An IR graph, or its text form, that breaks a rule of the IR."""


class ProviderUnavailableError(TrtBackendError):
    """The asked-for engine provider cannot be used on this machine."""


class BuildError(TrtBackendError):
    """An engine cannot be built; the region runs natively (`strict=True` raises)."""


class UnsupportedError(BuildError):
    """A lowering or emission rule refuses what it was given, with the reason, and the user's source line where it is known."""

    def __init__(self, detail: str, kind: ReasonKind = ReasonKind.UNSUPPORTED, source: str = "") -> None:
        super().__init__(f"{detail} [{source}]" if source else detail)
        self.detail = detail
        self.kind = kind


class RunError(TrtBackendError):
    """A built engine failed to run; the call runs natively (`strict=True` raises)."""


class WrongAnswerError(RunError):
    """An engine's answer is not native's; the region runs natively from now on (`strict=True` raises)."""


class OutOfMemoryError(BuildError, RunError):
    """No memory is left for a build or a run; the region runs natively and tries again later (`strict=True` raises)."""


class NotReadyError(TrtBackendError):
    """An engine is still being built, or is not worth building yet; this call runs natively, which is no failure.

    Attributes:
        begin: begins the build that the call asks for; called once native has answered it.
    """

    def __init__(self, detail: str, begin: Callable[[], None] | None = None) -> None:
        super().__init__(detail)
        self.begin = begin
