"""Run a saved model in a process that has only loaded it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]

_LOAD_AND_CALL = """
import json, sys
import numpy as np
import tensorflow as tf
import trt_backend, trt_backend_tf

folder, given, told = sys.argv[1:]
function = tf.saved_model.load(folder).signatures["serving_default"]
arrays, answers = dict(np.load(given)), {}
for call in sorted({name.partition("/")[0] for name in arrays}):
    inputs = {n.partition("/")[2]: tf.constant(a) for n, a in arrays.items() if n.startswith(call + "/")}
    answers |= {f"{call}/{name}": value.numpy() for name, value in function(**inputs).items()}
np.savez(told, **answers)
print(json.dumps(trt_backend.report().to_dict()))
"""


def answers_of_a_fresh_process(
    folder: Path, calls: Sequence[Mapping[str, Any]]
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Move a model, so that nothing can lead back to its converter, and call its default signature.

    Returns:
        The answers by the names of outputs, one for each call, and the report of that process.
    """
    moved = folder.with_name(f"{folder.name} elsewhere")
    folder.rename(moved)
    given, told = moved.with_suffix(".given.npz"), moved.with_suffix(".told.npz")
    np.savez(given, **{f"{i}/{name}": value for i, call in enumerate(calls) for name, value in call.items()})
    printed = run_script(_LOAD_AND_CALL, moved, given, told)
    answers = np.load(told)
    by_call = [
        {name.partition("/")[2]: answers[name] for name in answers if name.startswith(f"{i}/")}
        for i in range(len(calls))
    ]
    return by_call, json.loads(printed.strip().splitlines()[-1])


def run_script(script: str, *arguments: object) -> str:
    """Run a script in a process of its own, which must end well, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'integrations' / 'tf'}"},
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout
