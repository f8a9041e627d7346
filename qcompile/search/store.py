"""Measured results on disk: a search that was stopped, or is repeated, measures nothing twice.

<folder>/ab/ab12...ef.json   one result, named by what it is the result of
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import qcompile
from qcompile.output import write_file
from qcompile.search.measured import Measured

MOST_BYTES = 1 << 20


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/qcompile/search`, or that of the home folder's `.cache`."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base else Path.home() / ".cache") / "qcompile" / "search"


def code_digest() -> str:
    """Of the compiler's own source: another version may measure something else."""
    root = Path(qcompile.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(_sources(root)):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _sources(folder: Path) -> list[Path]:
    """Python files, following links to packages (which `Path.rglob` does not)."""
    found = []
    for path in folder.iterdir():
        if path.is_dir():
            found += _sources(path)
        elif path.suffix == ".py":
            found.append(path)
    return found


def key_of(*parts: Any) -> str:
    """The name of a result: a hash of JSON values that say all that it depends on."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Store:
    """A folder of results. Several searches may use it at once: files are replaced as a whole."""

    folder: Path

    def get(self, key: str) -> Measured | None:
        """The result; None if there is none that can be read."""
        path = self._path(key)
        try:
            if path.stat().st_size > MOST_BYTES:
                return None
            return Measured.from_json(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, AttributeError):
            return None

    def put(self, key: str, result: Measured) -> None:
        """Keeps a result.

        Raises:
            OSError: the disk is full, or the folder cannot be written.
        """
        write_file(self._path(key), json.dumps(result.to_json(), indent=1) + "\n")

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"
