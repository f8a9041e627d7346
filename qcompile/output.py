"""Writing the output folder: complete or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from qcompile.errors import UsageError


def check_output(folder: Path) -> None:
    """Refuses early what could not be written late.

    Raises:
        UsageError: `folder` (or what it lies in) is a file.
    """
    for place in (folder, *folder.parents):
        if place.is_dir():
            return
        if place.exists() or place.is_symlink():
            raise UsageError(f"--output {folder}: {place} is no folder; choose another path")


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Writes all files into a hidden folder inside `folder`, then moves them out one by one.

    Files of the same names are replaced, others stay. After an error nothing half-written is left.

    Args:
        folder: created with its parents if need be.
        files: relative paths with '/' -> content.

    Raises:
        UsageError: the folder is a file, or something in it stands in the way.
        OSError: the disk is full, or the like.
    """
    check_output(folder)
    for name in files:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or not path.parts:
            raise ValueError(f"'{name}' is no path inside the output folder")
        if (folder / path).is_dir():
            raise UsageError(f"--output {folder}: '{name}' is a folder there; remove it")
    folder.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".qcompile-", dir=folder))
    try:
        for name, content in files.items():
            target = staging / name
            target.parent.mkdir(parents=True, exist_ok=True)
            data = content.encode("utf-8") if isinstance(content, str) else content
            target.write_bytes(data)
        for name in files:
            final = folder / name
            final.parent.mkdir(parents=True, exist_ok=True)
            os.replace(staging / name, final)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_file(path: Path, text: str) -> None:
    """One file, whole or not at all.

    Raises:
        UsageError: `path` is a folder.
    """
    if path.is_dir():
        raise UsageError(f"{path}: is a folder; give the name of a file")
    write_files(path.parent, {path.name: text})
