"""The explicit list of packages, because a package that is missing there vanishes silently."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_package_list_is_the_tree() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert sorted(setuptools["packages"]) == packages_of(ROOT / "qcompile", "qcompile")


def test_the_linked_folders_are_mapped() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    links = {path.name for path in (ROOT / "qcompile").iterdir() if path.is_symlink()}
    assert setuptools["package-dir"] == {f"qcompile.{name}": name for name in links}
    for name in links:
        assert (ROOT / "qcompile" / name).resolve() == ROOT / name


def test_every_folder_with_python_files_is_a_package() -> None:
    for folder in [ROOT / name for name in ("qcompile", "sim", "hw", "templates")]:
        for path in folder.rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), f"{path.parent} has no __init__.py"


def packages_of(folder: Path, name: str) -> list[str]:
    """Names of the package in `folder` and of all below it; `qcompile/sim` is a link to `sim`."""
    found = [name]
    for path in sorted(folder.iterdir()):
        if (path / "__init__.py").is_file():
            found += packages_of(path, f"{name}.{path.name}")
    return sorted(found)
