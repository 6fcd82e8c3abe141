"""Run benchmarks, show what they print, and keep that in docs/: `python benches/write_docs.py benchmarks` (or another page)."""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
DOCS = HERE.parent / "docs"


@dataclass(frozen=True)
class Page:
    """A page of docs/: the command that writes it, the packages it names, and the title of each benchmark."""

    command: str
    packages: tuple[str, ...]
    sections: dict[str, str]


PAGES = {
    "benchmarks": Page(
        "make bench",
        ("torch", "onnxruntime", "numpy"),
        {
            "torch_models.py": "Models on the CPU",
            "overhead.py": "What a call costs beside the engine",
            "partition.py": "Partitioning random graphs",
        },
    ),
    "benchmarks-tf": Page(
        "make bench-tf",
        ("tensorflow-cpu", "onnxruntime", "numpy"),
        {
            "tf_models.py": "SavedModels on the CPU",
            "tf_overhead.py": "What a call costs beside the engine",
        },
    ),
}


def processor() -> str:
    """Return the processor's name as Linux gives it, or what Python knows."""
    info = Path("/proc/cpuinfo")
    names = (
        [line.partition(": ")[2] for line in info.read_text(encoding="utf-8").splitlines()]
        if info.exists()
        else []
    )
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
    """Write one page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", choices=PAGES)
    name = parser.parse_args().page
    page = PAGES[name]
    packages = ", ".join(f"{package} {version(package)}" for package in page.packages)
    lines = [
        "# Benchmarks\n",
        f"Written by `{page.command}` on {date.today()}: {processor()}, {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {packages}. Ratios compare runs that took turns; a shared machine is noisy, "
        "so read the quartiles too.\n",
    ]
    for script, title in page.sections.items():
        print(f"\n{title}\n")
        lines += [f"## {title}\n", f"`python benches/{script}`\n", run(script)]
    (DOCS / f"{name}.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
