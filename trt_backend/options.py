"""`CompileOptions`: everything that a user may set, checked where it enters."""

from __future__ import annotations

__all__ = ["CompileOptions"]

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trt_backend.errors import OptionError

_PROVIDERS = ("auto", "onnxruntime")


@dataclass(frozen=True)
class CompileOptions:
    """The options of one compilation.

    Attributes:
        provider: which engines run regions: "onnxruntime" (CPU), or "auto" for the best of this machine.
        min_block_size: regions with fewer compute ops (views do not count) stay native; 1 or more.
        threads: threads of one CPU engine; None for as many as the framework uses.
        freeze_weights: build weights into engines where that pays; each call compares their contents, so that they are
            never stale. False has engines read them as inputs: slower, but without a second copy in memory.
        max_engines: how many sets of weights of one region are kept frozen at a time; 1 or more.
        strict: raise where a region cannot be built or run, instead of running it natively.
        fuel: build at most this many regions of a graph and leave the rest native, to bisect a wrong answer.
        dump_dir: a folder to write every region's IR, after each pass, and its model to.
    """

    provider: str = "auto"
    min_block_size: int = 3
    threads: int | None = None
    freeze_weights: bool = True
    max_engines: int = 4
    strict: bool = False
    fuel: int | None = None
    dump_dir: str | None = None

    def __post_init__(self) -> None:
        if self.provider not in _PROVIDERS:
            legal = ", ".join(map(repr, _PROVIDERS))
            raise OptionError(
                f"provider={self.provider!r} is none of {legal}{_suggest(str(self.provider), _PROVIDERS)}"
            )
        _check_count("min_block_size", self.min_block_size, least=1, optional=False)
        _check_count("threads", self.threads, least=1)
        _check_type("freeze_weights", self.freeze_weights, bool)
        _check_count("max_engines", self.max_engines, least=1, optional=False)
        _check_count("fuel", self.fuel, least=0)
        _check_type("strict", self.strict, bool)
        _check_type("dump_dir", self.dump_dir, (str, type(None)))

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any] | None) -> CompileOptions:
        """Return the options that a user's dictionary asks for.

        Raises:
            OptionError: an unknown name (the message says what was probably meant) or an illegal value.
        """
        given = dict(options or {})
        known = [field.name for field in dataclasses.fields(cls)]
        for name in given:
            if name not in known:
                raise OptionError(
                    f"unknown option {name!r}{_suggest(str(name), known)}; known: {', '.join(known)}"
                )
        return cls(**given)


def _suggest(given: str, known: tuple[str, ...] | list[str]) -> str:
    close = difflib.get_close_matches(given, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _check_count(name: str, value: object, *, least: int, optional: bool = True) -> None:
    if value is None and optional:
        return
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        none = " or None" if optional else ""
        raise OptionError(f"{name}={value!r} is no integer of {least} or more{none}")


def _check_type(name: str, value: object, legal: type | tuple[type, ...]) -> None:
    if not isinstance(value, legal):
        names = " or ".join(t.__name__ for t in (legal if isinstance(legal, tuple) else (legal,)))
        raise OptionError(
            f"{name}={value!r} is {type(value).__name__}, not {names.replace('NoneType', 'None')}"
        )
