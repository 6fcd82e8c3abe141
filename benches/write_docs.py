"""Run every benchmark, show what it prints, and keep that in docs/benchmarks.md: `python benches/write_docs.py`."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import date
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "benchmarks.md"
SECTIONS = {
    "torch_models.py": "Models on the CPU",
    "overhead.py": "What a call costs beside the engine",
    "partition.py": "Partitioning random graphs",
}
PACKAGES = ("torch", "onnxruntime", "numpy")


def processor() -> str:
    """Return the processor's name as Linux gives it, or what Python knows."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(": ")[2] for line in info.read_text().splitlines()] if info.exists() else []
    return next((name for name in names if name and not name.isdigit() and " " in name), platform.machine())


def run(script: str) -> str:
    """Run one benchmark and return what it printed, line by line as it comes."""
    lines: list[str] = []
    with subprocess.Popen([sys.executable, str(HERE / script)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode:
        raise SystemExit(f"{script} failed with exit status {process.returncode}")
    return "".join(lines)


def main() -> None:
    """Write the page."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    page = [
        "# Benchmarks\n",
        f"Written by `make bench` on {date.today()}: {processor()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {packages}. Ratios compare runs that took turns; a shared machine is noisy, "
        "so read the quartiles too.\n",
    ]
    for script, title in SECTIONS.items():
        print(f"\n{title}\n")
        page += [f"## {title}\n", f"`python benches/{script}`\n", run(script)]
    PAGE.write_text("\n".join(page))


if __name__ == "__main__":
    main()
