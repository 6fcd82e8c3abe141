"""The package's logger, and dumps of what a compilation made."""

from __future__ import annotations

__all__ = ["Dump", "log"]

import logging
import re
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from trt_backend.errors import BuildError

log = logging.getLogger("trt_backend")
log.addHandler(logging.NullHandler())


@dataclass(frozen=True)
class Dump:
    """Writes numbered files of one region under `folder`; writes nothing where that is None."""

    folder: Path | None
    _number: count[int] = field(default_factory=count)

    @classmethod
    def of(cls, folder: str | None, name: str) -> Dump:
        """Return the dump of the region `name` below the user's `folder`."""
        return cls(Path(folder, re.sub(r"\W+", "_", name)) if folder is not None else None)

    def __call__(self, name: str, content: object) -> None:
        """Write one file: bytes, or the text of anything else in UTF-8 (BuildError where the folder cannot be written)."""
        if self.folder is None:
            return
        path = self.folder / f"{next(self._number):02d}-{name}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else str(content).encode())
        except OSError as error:
            raise BuildError(f"dump_dir cannot be written: {error}") from error
