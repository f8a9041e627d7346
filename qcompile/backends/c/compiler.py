"""The C compiler of this machine, and running what it builds."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from qcompile.backends.c.layout import Layout
from qcompile.errors import ToolError

COMPILERS = ("cc", "gcc", "clang")
COMPILE_SECONDS = 600


def find_compiler(flag: str) -> str:
    """The C compiler: $CC (options included), else the first of cc, gcc, clang.

    Args:
        flag: what needs it, for the message.

    Raises:
        ToolError: there is none.
    """
    named = os.environ.get("CC", "").strip()
    for command in [named] if named else COMPILERS:
        words = shlex.split(command)
        if words and shutil.which(words[0]):
            return command
    wanted = f"$CC names '{named}', which does not exist" if named else "no C compiler was found"
    raise ToolError(f"{flag}: {wanted}; install gcc, or set CC")


def build_c(
    compiler: str,
    folder: Path,
    layout: Layout,
    harness: str,
    flags: Sequence[str],
    build: str = "",
) -> Path:
    """Builds the program in `folder` with its `harness`.c; returns the path of the binary.

    Args:
        compiler: from `find_compiler`.
        folder: holds the emitted files and the harness.
        layout: of the program.
        harness: stem of the file with `main`.
        flags: of the compiler.
        build: tells builds of one harness apart.

    Raises:
        ToolError: it could not be built.
    """
    binary = folder / f"{harness}-{build or 'program'}"
    sources = [str(folder / f"{harness}.c"), str(folder / f"{layout.entry}.c")]
    libraries = ["-lm"] if layout.needs_math else []
    command = [*shlex.split(compiler), "-std=c99", *flags, "-o", str(binary), *sources, *libraries]
    run_program(command, f"{compiler} could not build the emitted C ({build or harness})")
    return binary


def run_program(command: Sequence[str], what: str) -> str:
    """Runs a program and returns what it printed.

    Raises:
        ToolError: it failed; its last words are in the message.
    """
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=COMPILE_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolError(f"{what}: {error}; check the compiler") from error
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip()[-300:]
        raise ToolError(f"{what} (exit {done.returncode}): {words or 'no message'}")
    return done.stdout
