"""`ensemble.json`: the networks of an ensemble, beside their files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcompile.errors import UsageError

ENSEMBLE_FILE = "ensemble.json"
FORMAT = "qcompile ensemble"
VERSION = 1
LEAST_MEMBERS = 2
MAX_FILE_BYTES = 16 << 20


@dataclass(frozen=True, slots=True)
class MemberFile:
    """
    Attributes:
        model: the ONNX file.
        plan: how it is to be quantised; None: as the command says.
    """

    model: Path
    plan: Path | None = None


def find_members(places: Sequence[Path]) -> tuple[MemberFile, ...]:
    """The networks of `--models`: ONNX files, or one folder (or its `ensemble.json`).

    A folder without `ensemble.json` stands for the ONNX files in it, by name.

    Raises:
        UsageError: files are missing, damaged or too few.
    """
    if len(places) == 1 and places[0].name == ENSEMBLE_FILE and places[0].is_file():
        return read_ensemble(places[0])
    if len(places) == 1 and places[0].is_dir():
        folder = places[0]
        if (folder / ENSEMBLE_FILE).is_file():
            return read_ensemble(folder / ENSEMBLE_FILE)
        places = sorted(folder.glob("*.onnx"))
        if not places:
            raise UsageError(f"--models {folder}: has no {ENSEMBLE_FILE} and no .onnx files")
    for place in places:
        if not place.is_file():
            known = "is a folder beside other models" if place.is_dir() else "no such file"
            raise UsageError(f"--models {place}: {known}; give ONNX files, or one ensemble folder")
    return _several(tuple(MemberFile(place) for place in places), "--models")


def read_ensemble(path: Path) -> tuple[MemberFile, ...]:
    """The members of an ensemble; their files lie in the folder of `path`.

    Raises:
        UsageError: the file is damaged, or names files elsewhere.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise UsageError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        raise UsageError(f"{path}: is no JSON; 'qcompile ensemble' writes such files") from None
    if not isinstance(table, dict) or table.get("format") != FORMAT:
        raise UsageError(f"{path}: is no ensemble; 'qcompile ensemble' writes such files")
    if table.get("version") != VERSION:
        raise UsageError(
            f"{path}: has version {table.get('version')}, this program reads {VERSION}"
        )
    rows = table.get("members")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UsageError(f"{path}: 'members' is no list of tables")
    return _several(
        tuple(
            MemberFile(
                _beside(path, row.get("model")),
                None if row.get("plan") is None else _beside(path, row["plan"]),
            )
            for row in rows
        ),
        str(path),
    )


def ensemble_text(members: Sequence[Mapping[str, Any]], details: Mapping[str, Any]) -> str:
    """The content of `ensemble.json`.

    Args:
        members: for each `model`, perhaps `plan` (names of files beside it), and whatever else.
        details: of the whole.
    """
    table = {"format": FORMAT, "version": VERSION, **details, "members": list(members)}
    return json.dumps(table, indent=1) + "\n"


def _beside(path: Path, name: object) -> Path:
    if not isinstance(name, str) or not name or Path(name).name != name or "\\" in name:
        raise UsageError(f"{path}: '{name}' is no name of a file beside it")
    found = path.parent / name
    if not found.is_file():
        raise UsageError(f"{path}: names '{name}', which is not there")
    return found


def _several(members: tuple[MemberFile, ...], place: str) -> tuple[MemberFile, ...]:
    if len(members) < LEAST_MEMBERS:
        raise UsageError(
            f"{place}: {len(members)} network(s); disagreement takes at least {LEAST_MEMBERS}"
        )
    return members
