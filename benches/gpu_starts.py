"""Time the first result of a fresh process on a GPU: natively, with an engine from the cache, with one built beside.

    python benches/gpu_starts.py                      # ResNet-50, batch 1, fp16: docs/benchmarks-gpu-starts.md
    python benches/gpu_starts.py --row bert:1:fp16 --rounds 5

Every start is a process of its own. The clock starts once the imports are done, `trt_backend_torch` among them, which
brings dynamo and AOTAutograd, and the model and its inputs are on the device, where they have computed once in single
precision: CUDA and cuDNN are loaded. What torch, and we, import only when a first graph is compiled is counted, TensorRT
among it, and shown beside.
"""

from __future__ import annotations

import argparse
import builtins
import importlib
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import torch
from gpu_rows import Row, load

import trt_backend
import trt_backend_torch  # noqa: F401  an import of every start: see above

DOCS = Path(__file__).parent.parent / "docs"


@dataclass(frozen=True)
class Start:
    """A way to start.

    Attributes:
        name: what the table calls it.
        backend: of `torch.compile`; None is eager.
        options: of the backend.
        cached: whether it begins with the engine of the start before it.
        once: whether one round is enough, as it takes a minute.
    """

    name: str
    backend: str | None
    options: dict[str, Any]
    cached: bool = False
    once: bool = False


STARTS = (
    Start("eager", None, {}),
    Start('`backend="eager"`: dynamo, then eager', "eager", {}),
    Start('`backend="aot_eager"`: dynamo and AOTAutograd, then eager', "aot_eager", {}),
    Start('`backend="trt"`, built at the first call', "trt", {"cuda_graphs": True}, once=True),
    Start('`backend="trt"`, from the engine cache', "trt", {"cuda_graphs": True}, cached=True),
    Start('`backend="trt"`, `build="background"`', "trt", {"cuda_graphs": True, "build": "background"}),
)


class FirstResult(NamedTuple):
    """What a process took.

    Attributes:
        seconds: until the result was there.
        imports: the seconds of it that imports took.
        engine_calls: how many calls engines answered.
        exit_code: how the process ended.
    """

    seconds: float
    imports: float
    engine_calls: int
    exit_code: int


def main() -> None:
    """Time each start and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--row", type=Row.parse, default=Row("resnet50", 1, "fp16"), help="model:batch:dtype")
    parser.add_argument("--rounds", type=int, default=3, help="processes for each start")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try it out")
    parser.add_argument("--out", type=Path, default=DOCS / "benchmarks-gpu-starts.md", help="the page")
    arguments = parser.parse_args()
    lines = [
        "| start | first result s | of which imports s | engine calls | exit code |",
        "|---|---:|---:|---:|---:|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        kept = f"{folder}/kept"
        for start in STARTS:
            rounds = 1 if start.once else arguments.rounds
            caches = [kept if start.cached or start.once else f"{folder}/{i}" for i in range(rounds)]
            found = [_in_a_process(start, arguments.row, cache, arguments.device) for cache in caches]
            seconds = statistics.median(result.seconds for result in found)
            imports = statistics.median(result.imports for result in found)
            calls = _listed(result.engine_calls for result in found)
            codes = _listed(result.exit_code for result in found)
            lines.append(f"| {start.name} | {seconds:.2f} | {imports:.2f} | {calls} | {codes} |")
            print(lines[-1], flush=True)
    where = torch.cuda.get_device_name() if arguments.device == "cuda" else "the CPU"
    page = [
        "# First results of a process",
        "Written by `python benches/gpu_starts.py`; no figure here is typed by hand.",
        f"{arguments.row} on {where}: seconds until the first result is there, the median of {arguments.rounds} processes. "
        "They count from after `import trt_backend_torch`, with the model on the device, and include what is imported later.",
        "\n".join(lines),
    ]
    arguments.out.write_text("\n\n".join(page) + "\n", encoding="utf-8")
    print(f"wrote {arguments.out}")


def _listed(values: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(set(values))))


def _in_a_process(start: Start, row: Row, cache: str, device: str) -> FirstResult:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_first_result, args=(theirs, start, row, cache, device))
    process.start()
    seconds, imports, calls = ours.recv()
    process.join()
    return FirstResult(seconds, imports, calls, process.exitcode or 0)


def _first_result(pipe: Connection, start: Start, row: Row, cache: str, device: str) -> None:
    subject = load(row, torch.device(device))
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    call: Any = subject.model
    synchronize()
    begin = time.perf_counter()
    if start.backend is not None:
        options = {**start.options, "cache_dir": cache} if start.options else None
        call = torch.compile(subject.model, backend=start.backend, options=options, dynamic=False)
    with torch.inference_mode(), _timed_imports() as imports:
        call(*subject.inputs)
    synchronize()
    seconds = time.perf_counter() - begin
    calls = sum(region["engine_calls"] for region in trt_backend.report().to_dict()["regions"])
    pipe.send((seconds, sum(imports), calls))


@contextmanager
def _timed_imports() -> Generator[list[float]]:
    """Collect the seconds of each import that no other one asks for."""
    seconds: list[float] = []
    running = 0

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal running
            begin, running = time.perf_counter(), running + 1
            try:
                return function(*arguments, **named)
            finally:
                running -= 1
                if not running:
                    seconds.append(time.perf_counter() - begin)

        return call

    before = builtins.__import__, importlib.import_module
    builtins.__import__, importlib.import_module = map(timed, before)
    try:
        yield seconds
    finally:
        builtins.__import__, importlib.import_module = before


if __name__ == "__main__":
    main()
