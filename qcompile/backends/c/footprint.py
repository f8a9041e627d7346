"""Flash and RAM that an emitted program takes on a Cortex-M4, measured with its compiler."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qcompile.backends.c.emitted import CProgram
from qcompile.backends.c.layout import Layout, all_kernels, value_name
from qcompile.backends.c.program import Kernel

COMPILER = "arm-none-eabi-gcc"
FLAGS = ("-std=c99", "-Os", "-mcpu=cortex-m4", "-mthumb")
SECONDS = 300
SHOWN = 3
"""The largest tensors of the arena that the report names."""


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a program needs of a microcontroller, in bytes.

    Code and stack are None where no compiler for the processor was found.

    Attributes:
        constant_bytes: all `const` data of the program.
        code_bytes: its instructions.
        arena_bytes: working memory.
        stack_bytes: the deepest chain of calls, library functions left out.
        input_bytes: the caller's inputs.
        output_bytes: the caller's outputs.
        largest: what takes most of the arena where it is largest: (value, rows held, all rows,
            bytes).
        multiplications_again: what computing rows again costs, to save memory.
        compiler: what measured code and stack, with its options.
    """

    constant_bytes: int
    code_bytes: int | None
    arena_bytes: int
    stack_bytes: int | None
    input_bytes: int
    output_bytes: int
    largest: tuple[tuple[str, int, int, int], ...]
    multiplications_again: int
    compiler: str | None

    @property
    def flash_bytes(self) -> int:
        """Constants and, where measured, instructions."""
        return self.constant_bytes + (self.code_bytes or 0)

    @property
    def ram_bytes(self) -> int:
        """Arena and, where measured, stack; inputs and outputs are the caller's."""
        return self.arena_bytes + (self.stack_bytes or 0)

    @property
    def flash_text(self) -> str:
        """What the flash is made of."""
        if self.code_bytes is None:
            return "constants alone: there is no arm-none-eabi-gcc to compile the code"
        return f"constants {self.constant_bytes:,}, code {self.code_bytes:,}"

    @property
    def ram_text(self) -> str:
        """What the RAM is made of."""
        stack = "stack not measured" if self.stack_bytes is None else f"stack {self.stack_bytes:,}"
        return f"arena {self.arena_bytes:,}, {stack}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for `report.json`."""
        largest = [
            {"value": value, "rows_held": held, "rows": rows, "bytes": size}
            for value, held, rows, size in self.largest
        ]
        return dataclasses.asdict(self) | {
            "flash_bytes": self.flash_bytes,
            "ram_bytes": self.ram_bytes,
            "largest": largest,
        }


def measure(program: CProgram) -> Footprint:
    """The footprint; code and stack only where the compiler is installed and takes the program."""
    graph = program.layout.graph
    code, stack = _compiled(program) if shutil.which(COMPILER) else (None, None)
    return Footprint(
        constant_bytes=program.constant_bytes,
        code_bytes=code,
        arena_bytes=program.arena_bytes,
        stack_bytes=stack,
        input_bytes=sum(graph.types[value].storage_bytes for value in graph.inputs),
        output_bytes=sum(graph.types[value].storage_bytes for value in set(graph.outputs)),
        largest=_largest(program.layout),
        multiplications_again=program.multiplications_again,
        compiler=None if code is None else " ".join((COMPILER, *FLAGS)),
    )


def _compiled(program: CProgram) -> tuple[int | None, int | None]:
    """(bytes of code, bytes of stack); None if the compiler fails."""
    entry = program.layout.entry
    with tempfile.TemporaryDirectory(prefix="qcompile-") as name:
        folder = Path(name)
        program.artifacts.write(folder)
        command = [COMPILER, *FLAGS, "-fstack-usage", "-c", f"{entry}.c", "-o", "model.o"]
        if _run(command, folder) is None:
            return None, None
        sizes = _run(["arm-none-eabi-size", "-A", "model.o"], folder)
        if sizes is None:
            return None, None
        usage = (folder / "model.su").read_text(encoding="utf-8")
    sections = re.findall(r"^(\.\S+)\s+(\d+)", sizes, re.MULTILINE)
    code = sum(int(size) for section, size in sections if section.startswith(".text"))
    frames = {
        function.split(".")[0]: int(size)
        for function, size in re.findall(r":([^:\s]+)\t(\d+)\t", usage)
    }
    kernels = all_kernels(program.layout.steps)
    deepest = max((_depth(item, frames) for item in kernels), default=0)
    return code, frames.get(f"{entry}_run", 0) + deepest


def _depth(item: Kernel, frames: Mapping[str, int]) -> int:
    """Stack of a kernel and of what it calls; functions that were inlined have no frame."""
    below = max((_depth(required, frames) for required in item.requires), default=0)
    return frames.get(item.function, 0) + below


def _run(command: list[str], folder: Path) -> str | None:
    """What a program printed, None if it failed."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _largest(layout: Layout) -> tuple[tuple[str, int, int, int], ...]:
    """The largest tensors in the arena, with the rows that are held of each."""
    found = []
    for step in layout.steps:
        for value in step.outputs:
            if value_name(value) not in layout.release.offsets:
                continue
            held = rows = 1
            size = layout.graph.types[value].storage_bytes
            if layout.rows is not None and value in layout.rows.held:
                held, rows = layout.rows.held[value], layout.rows.rows[value]
            found.append((value, held, rows, size // rows * held))
    return tuple(sorted(found, key=lambda item: -item[-1])[:SHOWN])
