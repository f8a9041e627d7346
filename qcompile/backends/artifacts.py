"""What a back end makes: files in memory. Only the command line writes to disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Artifacts:
    """File name (relative, '/' between folders) -> its text or bytes."""

    files: Mapping[str, str | bytes] = field(default_factory=dict)

    def write(self, folder: Path) -> tuple[Path, ...]:
        """Writes every file below `folder` and returns their paths."""
        written = []
        for name, content in sorted(self.files.items()):
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                path.write_text(content, encoding="utf-8", newline="\n")
            else:
                path.write_bytes(content)
            written.append(path)
        return tuple(written)
