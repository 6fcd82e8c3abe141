"""The core imports no framework and no engine stack: proven in a subprocess where each of them is blocked and recorded."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BLOCKED = (
    "onnx",
    "onnxruntime",
    "tensorflow",
    "tensorrt",
    "tensorrt_rtx",
    "torch",
    "trt_backend_tf",
    "trt_backend_torch",
)

# The modules where a stack lives, and what is below them: loaded by name when first needed, never on import.
# The same four stand in pyproject.toml, for Ruff and for the import contract.
STACK_MODULES = (
    "trt_backend.emit.onnx",
    "trt_backend.emit.tensorrt",
    "trt_backend.engine.onnxruntime",
    "trt_backend.engine.tensorrt",
)

# Imports each module named on the command line, then runs a line of code. Prints {module: [what it touched or raised]}.
# An attempt counts even where the importer survives it (`try: import torch`), so the finder keeps a record.
PROBE = """
import importlib, json, sys
root, blocked, modules, code = json.loads(sys.argv[1])

class Blocker:
    touched = []
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in blocked:
            self.touched.append(top)
            raise ModuleNotFoundError(f"{name} is blocked in this test", name=name)

def attempt(what, function):
    Blocker.touched = []
    try:
        function()
    except Exception as error:
        Blocker.touched.append(f"{type(error).__name__}: {error}")
    if Blocker.touched:
        findings[what] = Blocker.touched

findings = {}
sys.meta_path.insert(0, Blocker())
sys.path.insert(0, root)
for module in modules:
    attempt(module, lambda: importlib.import_module(module))
if code:
    attempt(code, lambda: exec(code, {}))
loaded = sorted(set(blocked) & {name.partition(".")[0] for name in sys.modules})
if loaded:
    findings["sys.modules"] = loaded
print(json.dumps(findings))
"""


def modules_of(package: Path) -> Iterator[str]:
    """Yield the dotted name of every module of a package, the package first."""
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_stack_module(name: str) -> bool:
    """Whether a module is allowed to import a stack."""
    return any(name == stack or name.startswith(f"{stack}.") for stack in STACK_MODULES)


def findings_of(root: Path, modules: list[str], code: str = "") -> dict[str, list[str]]:
    """Import `modules` from `root`, then run `code`, in a fresh interpreter that has no framework and no stack."""
    request = json.dumps([str(root), BLOCKED, modules, code])
    run = subprocess.run(
        [sys.executable, "-c", PROBE, request], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def test_every_core_module_imports_with_no_framework_and_no_stack() -> None:
    modules = [name for name in modules_of(ROOT / "trt_backend") if not is_stack_module(name)]
    assert "trt_backend.errors" in modules
    assert findings_of(ROOT, modules) == {}


def test_the_public_report_needs_no_framework_and_no_stack() -> None:
    code = "import trt_backend; report = trt_backend.report(); str(report); report.to_dict()"
    assert findings_of(ROOT, [], code) == {}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import torch", ["torch", "ModuleNotFoundError: torch is blocked in this test"]),
        ("import onnx.helper", ["onnx", "ModuleNotFoundError: onnx is blocked in this test"]),
        ("from tensorrt_rtx import Builder", ["tensorrt_rtx", "ModuleNotFoundError: tensorrt_rtx is blocked in this test"]),
        ("try:\n    import tensorflow\nexcept ImportError:\n    tensorflow = None", ["tensorflow"]),
        ("import package.clean", None),
    ],
)  # fmt: skip
def test_the_check_can_fail(tmp_path: Path, source: str, expected: list[str] | None) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "clean.py").write_text("import json\n")
    (package / "suspect.py").write_text(source)
    modules = list(modules_of(package))
    assert modules == ["package", "package.clean", "package.suspect"]
    assert findings_of(tmp_path, modules) == ({"package.suspect": expected} if expected else {})


def test_the_check_sees_an_import_inside_a_call(tmp_path: Path) -> None:
    (tmp_path / "lazy.py").write_text("def report():\n    import onnxruntime\n")
    assert findings_of(tmp_path, ["lazy"]) == {}
    code = "import lazy; lazy.report()"
    assert findings_of(tmp_path, ["lazy"], code)[code][0] == "onnxruntime"


def test_stack_modules_are_told_from_the_core() -> None:
    assert is_stack_module("trt_backend.emit.onnx.elementwise")
    assert is_stack_module("trt_backend.engine.onnxruntime")
    assert not is_stack_module("trt_backend.emit")
    assert not is_stack_module("trt_backend.engine.onnxruntime_options")
