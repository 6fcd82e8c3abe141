"""Fuel: a cap on the number of rewrites, to bisect a wrong answer to a single one."""

from __future__ import annotations

__all__ = ["Fuel"]

from dataclasses import dataclass


@dataclass
class Fuel:
    """Counts rewrites; with a `limit`, no more than that many happen."""

    limit: int | None = None
    spent: int = 0

    @property
    def empty(self) -> bool:
        """Whether the next rewrite must not happen."""
        return self.limit is not None and self.spent >= self.limit

    def burn(self) -> None:
        """Count one rewrite."""
        self.spent += 1
