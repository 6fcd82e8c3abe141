"""The file of the GPU benchmark's figures, filled over several runs, and what is made of it: a page and a plot."""

from __future__ import annotations

__all__ = ["checks", "merge", "read", "render", "table"]

import importlib.util
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gpu_contenders import CONTENDERS, INDUCTOR
from gpu_rows import ROWS, SEQUENCE, Row

Record = dict[str, Any]
Records = dict[str, Record]  # of one row, by contender
Figures = dict[str, Records]  # by row

# What issue 3 asks for: times in units of raw TensorRT's and of Inductor's best, and the slack of a single call.
_PIPELINED_TO_RAW = {1: 1.05, 32: 1.03, 128: 1.03}
_SPEEDUP_MODELS, _SPEEDUP_BATCHES, _SPEEDUP = ("resnet50", "bert"), (1, 8, 32), 1.5
_SLACK_MS = 0.025
_MEMORY = 1.1


def read(path: Path) -> Figures:
    """Return the figures of a file; none if there is no file."""
    return json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else {}


def merge(path: Path, row: Row, records: Records, run: Mapping[str, Any]) -> Figures:
    """Put a row's records into the file, each with the facts of its run; a contender's newer record replaces its older."""
    figures = read(path)
    kept = figures.setdefault(str(row), {})
    kept.update({name: {**record, "run": dict(run)} for name, record in records.items()})
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"rows": figures}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    partial.replace(path)
    return figures


def table(row: Row, records: Records) -> str:
    """Return a row's Markdown table: throughput ratios above 1 are faster than what they are compared with."""
    lines = [
        "| contender | p50 ms | p99 ms | issue / interval ms | throughput /s | × eager | × best Inductor | × raw "
        "| memory MiB | first call s | build s | error to fp32 | |",
        "|---|" + "---:|" * 11 + "---|",
    ]
    known = (name for name in CONTENDERS if name in records)
    lines.extend(f"| {name} | {' | '.join(_cells(name, records[name]))} |" for name in known)
    best = next((r["time_ratios"].get("best inductor") for r in records.values() if "time_ratios" in r), None)
    if best is not None:
        lines.append(f"\nThe best Inductor mode for {row} is {best['is']}.")
    return "\n".join(lines)


def checks(row: Row, records: Records) -> list[str]:
    """Return a line for each thing that a row must show and that these records can tell."""
    ours, raw, nothing = (_usable(records, name) for name in ("ours", "raw", "nothing"))
    if ours is None:
        return ["ours has no figures: nothing is shown"]
    lines: list[str] = []
    ratios = ours["time_ratios"]
    if "raw" in ratios and row.batch in _PIPELINED_TO_RAW:
        limit, value = _PIPELINED_TO_RAW[row.batch], ratios["raw"]["pipelined"][0]
        pace = _pace(records, "ours", "raw")
        lines.append(_verdict(f"pipelined, {value:.3f}x of raw", f"at most {limit}x", value <= limit, pace))
    if row.batch == 1 and raw is not None and nothing is not None and _same_run(ours, raw, nothing):
        # Timed like ours, but for a synchronisation, which raw's has in it: pipelined calls find warmer caches.
        nothing_ms = nothing["latency_p50_ms"] - nothing.get("idle_synchronise_ms", 0.0)
        floor = raw["latency_p50_ms"] + nothing_ms
        text = (
            f"one synchronised call {ours['latency_p50_ms']:.3f} ms; raw {raw['latency_p50_ms']:.3f} ms, dynamo and AOT "
            f"{nothing_ms:.3f} ms ({nothing['interval_ms']:.3f} ms pipelined), over both "
            f"{1e3 * (ours['latency_p50_ms'] - floor):+.0f} us"
        )
        met = ours["latency_p50_ms"] <= floor + _SLACK_MS
        pace = _pace(records, "ours", "raw", "nothing")
        lines.append(_verdict(text, f"at most {1e3 * _SLACK_MS:.0f} us over", met, pace))
        both = _usable(records, "nothing-then-raw")
        if both is not None and _same_run(ours, both):
            over = 1e3 * (ours["latency_p50_ms"] - both["latency_p50_ms"])
            lines.append(f"both in one call {both['latency_p50_ms']:.3f} ms, over which {over:+.0f} us")
    if "best inductor" in ratios and row.model in _SPEEDUP_MODELS and row.batch in _SPEEDUP_BATCHES:
        value = 1 / ratios["best inductor"]["pipelined"][0]
        text = f"{value:.2f}x the throughput of {ratios['best inductor']['is']}"
        pace = _pace(records, "ours", ratios["best inductor"]["is"])
        lines.append(_verdict(text, f"at least {_SPEEDUP}x", value >= _SPEEDUP, pace))
    if "best native" in ratios and "best inductor" in ratios:  # eager alone is no rival
        measured = _usable(records, "ours-measured")
        decides = measured is not None and _same_run(ours, measured)
        name = "ours-measured" if decides else "ours"
        base = records[name]["time_ratios"]["best native"]
        value = 1 / base["pipelined"][0]
        text = f"{value:.3f}x the throughput of the best native mode, {base['is']}"
        if decides:
            always = 1 / ratios["best native"]["pipelined"][0]
            text += f', where choose="measured" decides; {always:.3f}x where an engine always runs'
        lines.append(_verdict(text, "at least 1.0x", value >= 1, _pace(records, name, base["is"])))
    if raw is not None and "memory_bytes" in ours and "memory_bytes" in raw and _same_run(ours, raw):
        weights = ours["weight_bytes"]
        limit = _MEMORY * (raw["memory_bytes"] + weights)
        text = (
            f"{_mib(ours['memory_bytes'])} MiB of GPU memory; raw {_mib(raw['memory_bytes'])} (its engine "
            f"{_mib(raw['engine_bytes'])}), native weights {_mib(weights)}"
        )
        peaks = (
            f"PyTorch held at most {_mib(ours['peak_allocated_bytes'])} MiB for ours beside weights and inputs, "
            f"{_mib(raw['peak_allocated_bytes'])} for raw, whose engine has {_mib(raw['scratch_bytes'])} of scratch"
        )
        met = ours["memory_bytes"] <= limit
        lines.append(_verdict(text, f"at most {_mib(limit)} MiB", met, peaks))
    return lines


def render(path: Path) -> list[Path]:
    """Write the page, and the plot where matplotlib is installed, beside the file of figures; return what was written."""
    figures = read(path)
    page, plot = path.with_suffix(".md"), path.with_suffix(".svg")
    written = [page]
    if importlib.util.find_spec("matplotlib") is not None:
        _plot(figures, plot)
        written.insert(0, plot)
    lines = _page(figures, path.name, plot if plot.exists() else None)
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return written


def _page(figures: Figures, name: str, plot: Path | None) -> Iterable[str]:
    yield "# Benchmarks on a GPU\n"
    yield f"Written by `python benches/gpu_models.py` from {name}; no figure here is typed by hand.\n"
    yield (
        "All contenders of a row ran in one process and took turns. p50 and p99 are those of one call with a "
        "synchronisation; throughput is that of many calls with one synchronisation, the median over turns, and the "
        "ratios are ratios of throughputs, turn by turn, so that more is better. Issue is how long the CPU took to queue "
        "such a call: where it is close to the interval, the time from call to call, the CPU sets the pace, or the "
        "device's queue is full. Memory is what eager, ours and raw hold on the device after a few calls, each in a "
        "process of its own with engines from the cache, native weights included except for raw; what PyTorch keeps "
        "between calls for reuse is not. The first call includes compiling and "
        "building; build is the engine's alone, none where the cache had it. The error is the largest "
        "difference to eager in fp32, relative to its largest value. `nothing` computes nothing: it is what dynamo and AOTAutograd cost. `raw` "
        "is TensorRT's ONNX parser under one CUDA graph, its inputs and outputs always in the same memory. `nothing-then-raw` is both in one call. Weights are random, images 224x224, BERT's sequences "
        f"{SEQUENCE} tokens, the UNet's latents 4x64x64.\n"
    )
    if plot is not None:
        yield f"![Throughput against the best Inductor mode]({plot.name})\n"
    for row in _ordered(figures):
        records = figures[str(row)]
        yield f"## {row.model}, batch {row.batch}, {row.dtype}\n"
        yield table(row, records) + "\n"
        yield from (f"* {line}" for line in checks(row, records))
        yield ""
        yield from (f"{line}\n" for line in _runs(records))


def _cells(name: str, record: Record) -> list[str]:
    if "error" in record:
        return [*[""] * 11, f"failed: {_plain(record['error'])}"]
    computes = name != "nothing"
    ratios = record["time_ratios"]
    times = [1 / ratios[base]["pipelined"][0] if base in ratios else None for base in _RATIO_COLUMNS]
    return [
        f"{record['latency_p50_ms']:.3f}",
        f"{record['latency_p99_ms']:.3f}",
        f"{record['issue_ms']:.3f} / {record['interval_ms']:.3f}",
        f"{record['throughput']:.0f}" if computes else "",
        *("" if value is None or not computes else f"{value:.2f}" for value in times),
        _mib(record["memory_bytes"]) if "memory_bytes" in record else "",
        f"{record['first_call_seconds']:.1f}",
        f"{record['engine_build_seconds']:.1f}" if record.get("engine_build_seconds") is not None else "",
        f"{record['error_to_fp32']:.0e}" if computes else "",
        _plain(record.get("note", "")) if computes else f"{1e3 * record['interval_ms']:.0f} us a call",
    ]


_RATIO_COLUMNS = ("eager", "best inductor", "raw")


def _runs(records: Records) -> Iterable[str]:
    """Name each run that these records come from; ratios are within one run."""
    runs: dict[str, list[str]] = {}
    for name in (name for name in CONTENDERS if name in records):
        run = records[name]["run"]
        versions = ", ".join(f"{package} {version}" for package, version in run["versions"].items())
        runs.setdefault(f"{run['date']}, {run['device']}, {versions}", []).append(name)
    for run, names in runs.items():
        yield f"{run}{': ' + ', '.join(names) if len(runs) > 1 else ''}."


def _verdict(text: str, target: str, met: bool, why: str) -> str:
    """Return a check's line; where it is missed, with what may tell why."""
    return f"met: {text} ({target})" if met else f"MISSED: {text} ({target}); {why}"


def _pace(records: Records, *names: str) -> str:
    """Say how much of the time from call to call the CPU was busy issuing them."""
    return ", ".join(
        f"{name} issues in {record['issue_ms']:.3f} of {record['interval_ms']:.3f} ms"
        for name in names
        if (record := _usable(records, name)) is not None
    )


def _usable(records: Records, name: str) -> Record | None:
    record = records.get(name)
    return None if record is None or "error" in record else record


def _same_run(*records: Record) -> bool:
    return len({record.get("run", {}).get("date") for record in records}) == 1


def _mib(size: float) -> str:
    return f"{size / 2**20:.0f}"


def _plain(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _ordered(figures: Figures) -> list[Row]:
    """Return the rows in the order of `ROWS`, then others."""
    rows = sorted(map(Row.parse, figures))
    return sorted(rows, key=lambda row: ROWS.index(row) if row in ROWS else len(ROWS))


def _plot(figures: Figures, path: Path) -> None:
    """Draw throughputs in units of the best Inductor mode's."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = path.name
    from matplotlib import pyplot as plt

    rivals = [name for name in CONTENDERS if name not in (*INDUCTOR, "nothing", "nothing-then-raw")]
    speeds = {
        row: {name: _speed(figures[str(row)].get(name, {})) for name in rivals} for row in _ordered(figures)
    }
    rows = [row for row, of_row in speeds.items() if any(of_row.values())]
    shown = [name for name in rivals if any(speeds[row][name] for row in rows)]
    height = 0.8 / max(1, len(shown))
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.45 * len(rows)), layout="constrained")
    for i, name in enumerate(shown):
        places = [y + (i - (len(shown) - 1) / 2) * height for y in range(len(rows))]
        axes.barh(places, [speeds[row][name] or 0.0 for row in rows], height, label=name)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{row.model}, batch {row.batch}, {row.dtype}" for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("throughput, best Inductor mode = 1")
    if shown:
        figure.legend(loc="outside upper right", ncols=len(shown))
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def _speed(record: Record) -> float | None:
    base = record.get("time_ratios", {}).get("best inductor")
    return None if base is None else 1 / base["pipelined"][0]
