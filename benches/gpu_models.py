"""Time whole models on a GPU: eager, Inductor, `backend="trt"` and raw TensorRT, in paired turns of one process.

Their memory is measured after that, each in a process of its own.

    python benches/gpu_models.py                                    # every row: docs/benchmarks-gpu.{json,md,svg}
    python benches/gpu_models.py --rows resnet50:1:fp16 vit:32:fp16 # some; the file keeps the others
    python benches/gpu_models.py --render                           # only write the page and the plot again
    python benches/gpu_models.py --device cpu --rows mobilenetv3:1:fp32 --out /tmp/try.json --rounds 3 --calls 5 --pipelined 5

Each row is printed and kept as soon as it is measured. The figures of a CPU only show that the benchmark works.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import platform
import tempfile
import time
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from gpu_contenders import CONTENDERS, Plan, default_contenders
from gpu_memory import add_memory
from gpu_page import checks, merge, render, table
from gpu_rows import ROWS, Row
from gpu_turns import measure

DOCS = Path(__file__).parent.parent / "docs"
CACHE = Path(tempfile.gettempdir()) / "trt-backend-bench"
PACKAGES = ("torch", "triton", "tensorrt", "onnxruntime", "transformers", "trt-backend")


def main() -> None:
    """Measure, print and keep the rows asked for."""
    arguments = _parse()
    if not arguments.render:
        _measure(arguments)
    for path in render(arguments.out):
        print(f"wrote {path}")


def _measure(arguments: argparse.Namespace) -> None:
    device = torch.device(arguments.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("PyTorch sees no GPU; --device cpu tries the benchmark out")
    if "trt" not in torch.compiler.list_backends():
        raise SystemExit(
            'torch.compile knows no backend "trt" here: install this checkout with `pip install -e .`'
        )
    arguments.cache.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        device, arguments.cache, arguments.rounds, arguments.calls, arguments.pipelined, arguments.options
    )
    run = {
        "device": _device_name(device),
        "versions": _versions(),
        "rounds": plan.rounds,
        "options": plan.options,
    }
    for row in arguments.rows:
        start = time.perf_counter()
        names = arguments.contenders or default_contenders(row, device)
        print(f"\n## {row}\n", flush=True)
        run["date"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
        records = measure(row, names, plan)
        merge(arguments.out, row, records, run)  # what is measured is kept, whatever becomes of the rest
        if device.type == "cuda":
            add_memory(records, row, plan)
            merge(arguments.out, row, records, run)
        current = {name: {**record, "run": run} for name, record in records.items()}
        print(table(row, current))
        print("\n".join(["", *(f"* {line}" for line in checks(row, current))]))
        print(f"\n{row} took {time.perf_counter() - start:.0f} s", flush=True)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", nargs="+", type=_row, default=ROWS, help="model:batch:dtype")
    parser.add_argument(
        "--contenders", type=_contenders, help=f"of {','.join(CONTENDERS)}; all but slow ones if not given"
    )
    parser.add_argument(
        "--out", type=Path, default=DOCS / "benchmarks-gpu.json", help="the file of figures; page and plot beside it"
    )  # fmt: skip
    parser.add_argument("--cache", type=Path, default=CACHE, help="where engines and timings are kept")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each contender, 2 or more")
    parser.add_argument("--calls", type=int, default=30, help="synchronised calls a turn")
    parser.add_argument("--pipelined", type=int, default=100, help="calls a turn with one synchronisation")
    parser.add_argument(
        "--options", type=json.loads, default={}, help='more options of ours, as JSON: \'{"choose": "measured"}\''
    )  # fmt: skip
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: to try it out")
    parser.add_argument("--render", action="store_true", help="measure nothing, write the page and the plot")
    arguments = parser.parse_args()
    if arguments.rounds < 2 or arguments.calls < 1 or arguments.pipelined < 1:
        parser.error("--rounds is 2 or more, --calls and --pipelined are 1 or more")
    return arguments


def _row(text: str) -> Row:
    try:
        return Row.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _contenders(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in CONTENDERS]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(CONTENDERS)}")
    return [name for name in CONTENDERS if name in names]


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU {platform.machine()}"


def _versions() -> dict[str, Any]:
    versions = {"Python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}
    if torch.version.cuda:
        versions["CUDA"] = torch.version.cuda
    return {name: found for name, found in versions.items() if found}


def _version(name: str) -> str | None:
    """Return a package's version by its metadata, or by its own word where it was installed without any."""
    try:
        return version(name)
    except PackageNotFoundError:
        module = name.replace("-", "_")
        if importlib.util.find_spec(module) is None:
            return None
        return getattr(importlib.import_module(module), "__version__", None)


if __name__ == "__main__":
    main()
