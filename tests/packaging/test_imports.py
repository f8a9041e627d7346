"""Who may import whom, and what stays unloaded until it is needed."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "qcompile"

LAYERS = (
    {"errors", "types", "numerics"},
    {"graph", "fixed_point"},
    {
        "ops",
        "plan",
        "boundary",
        "options",
        "hdl_options",
        "onnx_options",
        "mcu_options",
        "budget_options",
        "format_options",
        "prune_options",
        "data_options",
        "entry_name",
        "devices",
    },
    {"importer", "exporter", "lowering", "packing", "passes", "sim", "hw", "templates"}
    | {"printer", "verifier", "verify_integer", "verify_limits", "fold_file"}
    | {"importance_file", "receptive_field", "footprint", "multiplications"}
    | {"energy_table", "power_counters"},
    {"backends"},
    {
        "config",
        "data",
        "evaluate",
        "feeds",
        "logits",
        "pipeline",
        "plan_file",
        "prune_sweep",
        "pruning",
        "quantization",
        "report",
        "result",
        "search",
        "suggest",
        "output",
        "target_hdl",
        "target_onnx",
        "verify_onnx",
        "targets",
    },
    {"train"},
    {"cli", "progress", "commands"},
)
"""From the ground up: a module imports from its own layer and from those before it."""

ONNX_IS_FOR = {"importer", "exporter"}


def layer_of(module: str) -> int:
    """Index in `LAYERS` of `qcompile.<part>...`."""
    part = module.split(".")[1]
    for index, parts in enumerate(LAYERS):
        if part in parts:
            return index
    raise AssertionError(f"{module}: put '{part}' into LAYERS, and into docs/architecture.md")


def modules() -> Iterator[tuple[str, ast.Module]]:
    """Dotted name and syntax tree of every module except `qcompile` itself."""
    for path in sorted(walk(PACKAGE)):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts != ("__init__",):
            name = ".".join(("qcompile", *(part for part in parts if part != "__init__")))
            yield name, ast.parse(path.read_text(encoding="utf-8"))


def walk(folder: Path) -> Iterator[Path]:
    """Python files under `folder`, following links (`Path.rglob` does so only from Python 3.13)."""
    for path in folder.iterdir():
        if path.is_dir():
            yield from walk(path)
        elif path.suffix == ".py":
            yield path


def is_module(name: str) -> bool:
    """Whether `qcompile.<part>` is a module of ours."""
    part = name.split(".")[1]
    return (PACKAGE / part).is_dir() or (PACKAGE / f"{part}.py").is_file()


def imported(tree: ast.Module) -> Iterator[str]:
    """Every module named by an import statement, wherever it stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "relative imports hide the direction"
            if node.module == "qcompile":
                # `from qcompile import ops` names a module, `import __version__` does not.
                found = (f"qcompile.{alias.name}" for alias in node.names)
                yield from (name for name in found if is_module(name))
            else:
                yield node.module


def test_imports_go_downwards() -> None:
    wrong = [
        f"{name} imports {other}"
        for name, tree in modules()
        for other in imported(tree)
        if other.startswith("qcompile.") and layer_of(other) > layer_of(name)
    ]
    assert not wrong


def test_only_importer_and_exporter_know_onnx() -> None:
    users = {
        name.split(".")[1]
        for name, tree in modules()
        for other in imported(tree)
        if other.split(".")[0] == "onnx"
    }
    assert users <= ONNX_IS_FOR


def test_onnxruntime_is_for_verification_only() -> None:
    users = [
        name
        for name, tree in modules()
        for other in imported(tree)
        if other.split(".")[0] == "onnxruntime"
    ]
    assert users == ["qcompile.verify_onnx"]


def test_torch_is_for_training_only() -> None:
    users = {
        name.split(".")[1]
        for name, tree in modules()
        for other in imported(tree)
        if other.split(".")[0] == "torch"
    }
    assert users == {"train"}


def test_the_command_line_loads_nothing_heavy() -> None:
    code = "import sys, qcompile.cli; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout.split()
    assert not {"torch", "amaranth", "onnx", "onnxruntime"} & set(loaded)
