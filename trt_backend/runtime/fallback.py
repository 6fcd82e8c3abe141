"""The one place where failures are sorted: contained, or raised."""

from __future__ import annotations

__all__ = ["contain", "reason_of"]

from collections.abc import Callable
from typing import TypeVar

from trt_backend.debug import log
from trt_backend.errors import (
    BuildError,
    OutOfMemoryError,
    Reason,
    ReasonKind,
    RunError,
    UnsupportedError,
    WrongAnswerError,
)

T = TypeVar("T")


def contain(
    attempt: Callable[[], T], what: str, *, strict: bool, failed: Callable[[Reason], None]
) -> T | None:
    """Return what `attempt` returns, or None after handing the reason of its failure to `failed` (`strict` raises it)."""
    try:
        return attempt()
    except Exception as error:  # noqa: BLE001  sorted there
        failed(reason_of(error, what, strict=strict))
        return None


def reason_of(error: Exception, what: str, *, strict: bool) -> Reason:
    """Log a failure and return its reason; `strict` raises it.

    A declared failure (`BuildError`, `RunError`) and a lack of memory are logged as a warning. Anything else is a bug of ours: it is logged
    as an error with its traceback, and the user's program goes on natively.
    """
    if strict:
        raise error
    if isinstance(error, (BuildError, RunError, MemoryError)):
        reason = Reason(_kind(error), what, str(error))
        log.warning("%s; running natively", reason)
    else:
        reason = Reason(ReasonKind.BUG, what, f"{type(error).__name__}: {error}")
        log.error("%s; running natively, please report this", reason, exc_info=error)
    return reason


def _kind(error: BuildError | RunError | MemoryError) -> ReasonKind:
    if isinstance(error, (OutOfMemoryError, MemoryError)):
        return ReasonKind.OUT_OF_MEMORY
    if isinstance(error, UnsupportedError):
        return error.kind
    if isinstance(error, WrongAnswerError):
        return ReasonKind.WRONG_ANSWER
    return ReasonKind.BUILD_FAILED if isinstance(error, BuildError) else ReasonKind.RUN_FAILED
