"""What survives an interruption: one file, whole or not at all, of tensors and plain values."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from qcompile.errors import DataError, UsageError

FORMAT = 1


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Replaces the file at `path`.

    Args:
        path: its folder exists.
        content: tensors, numbers, texts, and lists and dictionaries of them.
    """
    half = path.with_name(f".{path.name}.part")
    try:
        with half.open("wb") as stream:
            torch.save({**content, "format": FORMAT}, stream)
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


def load_checkpoint(path: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Reads without running anything that the file may contain.

    Args:
        path: written by `save_checkpoint`, with the `settings` of the run.
        settings: of this run.

    Raises:
        DataError: the file is damaged, or none of ours.
        UsageError: it is of a run with other settings.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = str(error).split("\n")[0]
        raise DataError(f"{path}: is no checkpoint of qcompile ({reason})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DataError(f"{path}: is no checkpoint of qcompile, or of another version")
    before = content["settings"]
    for name in sorted({*before, *settings}):
        if before.get(name) != settings.get(name):
            raise UsageError(
                f"--resume: the checkpoint in {path.parent} was made with {name} "
                f"{before.get(name)}, now it is {settings.get(name)}; repeat the options, or leave "
                f"out --resume to start anew"
            )
    return content
