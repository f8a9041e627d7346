"""The wheel, built from the source distribution, works away from the source tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOT_SOURCE = (
    ".git",
    ".venv",
    "build",
    "dist",
    "*.egg-info",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, made from the sdist as package indexes do, of a copy of the tree."""
    tree = tmp_path_factory.mktemp("source") / "qcompile"
    shutil.copytree(ROOT, tree, symlinks=True, ignore=shutil.ignore_patterns(*NOT_SOURCE))
    dist = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", dist, tree, cwd=dist)
    return next(dist.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`bin` of a fresh environment that has the wheel; its dependencies are borrowed from ours."""
    folder = tmp_path_factory.mktemp("venv")
    run(sys.executable, "-m", "venv", folder, cwd=folder)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    borrowed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "zz_borrowed.pth").write_text("\n".join(sorted(borrowed)) + "\n")
    return folder / "bin"


def test_the_installed_package_is_complete(environment: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.resources as r, pathlib, qcompile;"
        "print(pathlib.Path(qcompile.__file__).parent);"
        "root = pathlib.Path(str(r.files('qcompile.templates')));"
        "print(*sorted(p.relative_to(root).as_posix() for p in root.rglob('*.j2')))"
    )
    installed, templates = run(environment / "python", "-c", code, cwd=tmp_path).splitlines()
    assert Path(installed).is_relative_to(environment.parent)
    in_tree = sorted(
        path.relative_to(ROOT / "templates").as_posix()
        for path in (ROOT / "templates").rglob("*.j2")
    )
    assert templates.split() == in_tree
    assert (Path(installed) / "py.typed").is_file()


def test_no_top_level_modules_besides_ours(environment: Path, tmp_path: Path) -> None:
    site = next((environment.parent / "lib").glob("python*")) / "site-packages"
    assert not [name for name in ("sim", "hw", "templates", "tests") if (site / name).exists()]


def test_it_runs_from_an_empty_folder(environment: Path, tmp_path: Path) -> None:
    assert "--target" in run(environment / "qcompile", "--help", cwd=tmp_path)
    model = ROOT / "examples" / "brain" / "brain_unet.onnx"
    run(environment / "qcompile", model, "--target", "c", "-o", tmp_path / "out", cwd=tmp_path)
    assert (tmp_path / "out" / "model.c").is_file()
    assert (tmp_path / "out" / "Makefile").is_file()


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Standard output of a command that must succeed; our own source tree is not on its path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, cwd=cwd, env=environment
    )
    assert done.returncode == 0, f"{command}: {done.stderr[-2000:]}"
    return done.stdout
