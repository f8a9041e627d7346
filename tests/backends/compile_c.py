"""Compiles emitted C into a shared library and calls it."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from qcompile.backends.c.backend import CProgram
from qcompile.types import Array

STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")


def build(
    programs: Sequence[CProgram],
    folder: Path,
    compiler: str = "gcc",
    flags: Sequence[str] = ("-O1",),
) -> ctypes.CDLL:
    """One library of several programs, whose entry names differ."""
    sources = []
    for program in programs:
        entry = program.layout.entry
        program.artifacts.write(folder / entry)
        sources.append(str(folder / entry / f"{entry}.c"))
    library = folder / "cases.so"
    command = [compiler, *STRICT, *flags, "-shared", "-fPIC", "-o", str(library), *sources, "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]
    return ctypes.CDLL(str(library))


def call(library: ctypes.CDLL, program: CProgram, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Outputs of one run; the arena is exactly as large as announced."""
    graph = program.layout.graph
    arrays = [
        np.ascontiguousarray(feeds[value]).astype(graph.types[value].element.storage)
        for value in graph.inputs
    ]
    results = {
        value: np.zeros(graph.types[value].shape, graph.types[value].element.storage)
        for value in dict.fromkeys(graph.outputs)
    }
    arena = np.full(program.arena_bytes + 16, 0xA5, np.uint8)
    start = -arena.ctypes.data % 16
    pointers = [array.ctypes.data for array in [*arrays, *results.values()]]
    function = getattr(library, f"{program.layout.entry}_run")
    status = function(*map(ctypes.c_void_p, [*pointers, arena.ctypes.data + start]))
    assert status == 0
    assert (arena[start + program.arena_bytes :] == 0xA5).all()
    assert (arena[:start] == 0xA5).all()
    return results
