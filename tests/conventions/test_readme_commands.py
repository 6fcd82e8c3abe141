"""What the documents tell a newcomer to type exists, and every example is numbered and mentioned."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "ARCHITECTURE.md")
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def makefile_targets(text: str) -> dict[str, bool]:
    """Map each target of a Makefile to whether a `##` comment documents it."""
    return {
        name: "## " in rest for name, rest in re.findall(r"^([a-z][a-z-]*):(?!=)(.*)$", text, re.MULTILINE)
    }


def named_targets(text: str) -> set[str]:
    """Return the targets that a document names: `make X` in code, inline or in a block, several in a row included."""
    blocks = re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL)
    blocks += [f"\n{line}\n" for line in re.findall(r"^(?: {4}|\t).*$", text, re.MULTILINE)]
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    rows = re.findall(r"(?:^|\n|&&|;)[ \t$]*make((?: +[a-z][a-z-]*)+)", "\n".join([*blocks, *inline]))
    return {target for row in rows for target in row.split()}


TARGETS = makefile_targets((ROOT / "Makefile").read_text(encoding="utf-8"))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_named_make_target_exists(document: str) -> None:
    assert named_targets((ROOT / document).read_text(encoding="utf-8")) - set(TARGETS) == set()


def test_the_readme_names_the_two_commands() -> None:
    assert {"demo", "test"} <= named_targets((ROOT / "README.md").read_text(encoding="utf-8"))


def test_every_target_is_documented() -> None:
    assert [name for name, documented in TARGETS.items() if not documented] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_example_that_a_document_names_exists(document: str) -> None:
    named = set(re.findall(r"examples/\w+\.py", (ROOT / document).read_text(encoding="utf-8")))
    assert sorted(named - {f"examples/{path.name}" for path in EXAMPLES}) == []


def test_examples_are_numbered_without_gaps() -> None:
    assert [path.name[:3] for path in EXAMPLES] == [f"{i:02}_" for i in range(1, len(EXAMPLES) + 1)]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_mentioned(example: Path) -> None:
    assert f"examples/{example.name}" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_check_can_fail() -> None:
    text = "Run `make nothing`, or make sense of it.\n\n```sh\nmake demo\ncd x && make missing gone\n```\n\n    make indented\n"
    assert named_targets(text) == {"nothing", "demo", "missing", "gone", "indented"}
    assert makefile_targets("A := b\nall: x ## All\nx:\n\techo\n") == {"all": True, "x": False}
