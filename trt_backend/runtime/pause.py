"""When what lacked memory is tried again."""

from __future__ import annotations

__all__ = ["Pause"]

from time import monotonic

_SECONDS = 60.0


class Pause:
    """A pause after each lack of memory: of a minute, and then of twice as long each time, so that all tries together cost little."""

    def __init__(self) -> None:
        self._seconds = _SECONDS
        self._end = 0.0

    def begin(self) -> None:
        """Begin a pause."""
        self._end = monotonic() + self._seconds
        self._seconds *= 2

    @property
    def over(self) -> bool:
        """Whether it is time to try again, or nothing ever lacked memory."""
        return monotonic() >= self._end
