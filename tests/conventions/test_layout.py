"""The conventions that a reader counts on and no linter knows: packages, docstrings, `__all__`, imports at the top."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = (
    ROOT / "trt_backend",
    ROOT / "integrations" / "torch" / "trt_backend_torch",
    ROOT / "integrations" / "tf" / "trt_backend_tf",
)
FIRST_PARTY = {package.name for package in PACKAGES}
MODULES = [path for package in PACKAGES for path in sorted(package.rglob("*.py"))]

every_module = pytest.mark.parametrize(
    "path", [pytest.param(path, id=path.relative_to(ROOT).as_posix()) for path in MODULES]
)


def undocumented(tree: ast.Module) -> Iterator[str]:
    """Yield the module, and its public classes and functions, that have no docstring."""
    if ast.get_docstring(tree) is None:
        yield "the module"
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if not node.name.startswith("_") and ast.get_docstring(node) is None:
            yield node.name


def defines_all(tree: ast.Module) -> bool:
    """Whether the module assigns `__all__`, annotated or not."""
    assigned = [
        target
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    return any(isinstance(target, ast.Name) and target.id == "__all__" for target in assigned)


def late_imports(tree: ast.Module) -> Iterator[str]:
    """Yield each first-party import inside a function, with its line.

    A provider that must load late is named by a string and loaded through importlib, which this does not see.
    """
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for node in {inner for function in functions for inner in ast.walk(function)}:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = ["." * node.level + (node.module or "")]
        else:
            continue
        yield from (
            f"line {node.lineno}: {name}"
            for name in names
            if name.startswith(".") or name.partition(".")[0] in FIRST_PARTY
        )


def parse(path: Path) -> ast.Module:
    """Parse a module's source."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@pytest.mark.parametrize("folder", ["integrations", "integrations/torch", "integrations/tf"])
def test_a_folder_named_as_a_framework_is_no_package(folder: str) -> None:
    assert (ROOT / folder).is_dir()
    assert not (ROOT / folder / "__init__.py").exists(), "an __init__.py here shadows the framework"


def test_tests_are_no_packages() -> None:
    # tests/ is on the path for its helpers, so tests/torch/__init__.py would shadow torch.
    assert sorted((ROOT / "tests").rglob("__init__.py")) == []


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.name)
def test_every_package_folder_has_an_init(package: Path) -> None:
    folders = {path.parent for path in package.rglob("*.py")}
    assert sorted(folder for folder in folders if not (folder / "__init__.py").exists()) == []


@every_module
def test_public_names_are_documented(path: Path) -> None:
    assert list(undocumented(parse(path))) == []


@every_module
def test_modules_define_all(path: Path) -> None:
    assert path.stem in {"__init__", "__main__"} or defines_all(parse(path))


@every_module
def test_first_party_imports_stand_at_the_top(path: Path) -> None:
    assert sorted(late_imports(parse(path))) == []


def test_the_checks_can_fail() -> None:
    bad = ast.parse("""
class Undocumented: pass
async def undocumented(): pass
class _Private:
    def method(self):
        from trt_backend.ir import graph
        def inner():
            import trt_backend_torch.backend
            from . import sibling
""")
    assert list(undocumented(bad)) == ["the module", "Undocumented", "undocumented"]
    assert not defines_all(bad)
    assert sorted(late_imports(bad)) == [
        "line 6: trt_backend.ir",
        "line 8: trt_backend_torch.backend",
        "line 9: .",
    ]


def test_the_checks_can_pass() -> None:
    good = ast.parse('''
"""A module."""
__all__: list[str] = ["f"]
import importlib
from trt_backend import errors
def f():
    """Load a provider by name."""
    import json
    return importlib.import_module("trt_backend.engine.onnxruntime")
''')
    assert list(undocumented(good)) == []
    assert defines_all(good)
    assert list(late_imports(good)) == []
