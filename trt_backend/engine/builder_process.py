"""Building an engine in a process of its own: a builder that crashes, or is killed, costs that build alone.

Rules:
  REQUEST  What to build goes to the child through a pipe, pickled, weights and all; nothing lies in a file.
  ANSWERS  The child's log lines come back as they are made, then the engine or the error. What libraries print goes
           to standard error.
  SAME     The child refuses to build where it sees another device or version than its parent, whose engine it is.
  TURN     One build at a time: builders time kernels, and hold the weights and a context of the device each.
  EXIT     The child ends with its parent, however that ends: its standard input closes. A parent that ends in good
           order kills it, so that the thread that waits for it ends, too.
"""

from __future__ import annotations

__all__ = ["build_apart", "serve"]

import atexit
import copyreg
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import IO, Any

from trt_backend.debug import Dump, log
from trt_backend.engine.base import EngineProvider
from trt_backend.engine.profile import Profile
from trt_backend.errors import BuildError, TrtBackendError
from trt_backend.ir.graph import Array, Constant, Graph, Value
from trt_backend.options import CompileOptions

_turn = threading.Lock()  # the device's
_PATIENCE_SECONDS = 0.5


def build_apart(provider: EngineProvider, graph: Graph, profile: Profile, options: CompileOptions) -> bytes:
    """Return what `provider.build` returns in a process of its own.

    Args:
        provider: one that pickles.
        graph: a legal graph.
        profile: the sizes that the engine is to serve.
        options: the builder's.

    Raises:
        BuildError: the provider refuses, or the process died; the message names the signal or the exit code.
    """
    while not _turn.acquire(timeout=_PATIENCE_SECONDS):
        if not threading.main_thread().is_alive():
            raise BuildError("the interpreter ends")
    try:
        return _build(provider, graph, profile, options)
    finally:
        _turn.release()


def _build(provider: EngineProvider, graph: Graph, profile: Profile, options: CompileOptions) -> bytes:
    identity = provider.identity(options)
    request = log.getEffectiveLevel(), provider.carry(), identity, provider, graph, profile, options
    # No `-m`, which looks for modules in the current folder first; no multiprocessing, which runs the user's script again.
    code = (
        f"import sys; sys.path[:] = {list(map(str, sys.path))}; import {__name__} as builder; builder.serve()"
    )
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # Where it is closed, the child's answers would take its number.
            stderr=subprocess.DEVNULL if sys.stderr is None else None,
            start_new_session=True,  # the terminal's Ctrl-C is the caller's
        )
    except OSError as error:
        raise BuildError(f"the builder's process does not start: {error}") from error
    atexit.register(child.kill)
    try:
        if not threading.main_thread().is_alive():  # atexit's functions may have been called already
            raise BuildError("the interpreter ends")
        outcome = _outcome(child, request)
    finally:
        child.kill()
        with suppress(BrokenPipeError), child:
            atexit.unregister(child.kill)
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _outcome(child: subprocess.Popen[bytes], request: object) -> bytes | Exception:
    """Return what the child answers, after handing on its log."""
    assert child.stdin is not None
    assert child.stdout is not None
    answer: Any
    try:
        _write(request, child.stdin)
        while isinstance(answer := pickle.load(child.stdout), logging.LogRecord):
            log.handle(answer)
    except (BrokenPipeError, EOFError, pickle.UnpicklingError) as error:
        if isinstance(
            error, pickle.UnpicklingError
        ):  # a part of an answer, or what a start-up file of Python's printed
            child.kill()
        code = child.wait()
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        raise BuildError(f"the builder's process died of {how}") from error
    return answer


def _write(message: object, file: IO[bytes]) -> None:
    """Pickle a message: constants with their contents, which a graph else reads when asked."""
    pickler = pickle.Pickler(file, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = {
        **copyreg.dispatch_table,
        Constant: _reduced_constant,
    }
    pickler.dump(message)
    file.flush()


def _reduced_constant(constant: Constant) -> tuple[Any, ...]:
    return _constant, (constant.value, constant.array)


def _constant(value: Value, array: Array) -> Constant:
    return Constant(value, lambda: array)


def serve() -> None:
    """Build what standard input asks for: the whole work of the child."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _write(_answer(answers), answers)


def _answer(answers: IO[bytes]) -> bytes | Exception:
    try:
        level, enter, identity, provider, graph, profile, options = pickle.load(sys.stdin.buffer)
        threading.Thread(target=_end_with_parent, daemon=True).start()
        log.addHandler(_LogToParent(answers))
        log.setLevel(level)
        enter()
        here = provider.identity(options)
        if here != identity:
            return BuildError(f"the builder's process sees {here}, not {identity}")
        return provider.build(graph, profile, options, Dump(None))
    except (TrtBackendError, MemoryError) as error:
        return error
    except Exception as error:  # noqa: BLE001  a bug of ours, which the parent contains; its class may not pickle
        log.exception("in the builder's process")
        return RuntimeError(f"{type(error).__name__}: {error}")


def _end_with_parent() -> None:
    os.read(0, 1)  # not `sys.stdin`, whose lock, held while the interpreter ends, would abort the process
    os._exit(1)


class _LogToParent(logging.Handler):
    """Writes each record, its message and traceback as text, for the parent's log."""

    def __init__(self, answers: IO[bytes]) -> None:
        super().__init__()
        self._answers = answers

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        record.msg, record.args = self.format(record), None
        record.exc_info = record.exc_text = None
        _write(record, self._answers)
