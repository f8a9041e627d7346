"""Compiles emitted C into a shared library and calls it."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from qcompile.backends.c.backend import CBackend, CProgram
from qcompile.backends.c.levels import X86_LEVELS, Level
from qcompile.packing import TernaryPacking
from qcompile.sim.executor import Executor
from qcompile.types import Array
from tests.op_cases.case import OpCase

STRICT = ("-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")
KEEP = "-DQCOMPILE_KEEP_FLAGS"
SANITIZERS = ("-O0", KEEP, "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")


def build(
    programs: Sequence[CProgram],
    folder: Path,
    compiler: str = "gcc",
    flags: Sequence[str] = ("-O1",),
) -> ctypes.CDLL:
    """One library of several programs, whose entry names differ.

    Kernels are not optimised further, which would take most of the time: `--verify` does that.
    """
    sources = []
    for program in programs:
        entry = program.layout.entry
        program.artifacts.write(folder / entry)
        sources.append(str(folder / entry / f"{entry}.c"))
    library = folder / "cases.so"
    command = [
        compiler,
        *STRICT,
        KEEP,
        *flags,
        "-shared",
        "-fPIC",
        "-o",
        str(library),
        *sources,
        "-lm",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]
    return ctypes.CDLL(str(library))


def build_capped(
    programs: Sequence[CProgram], folder: Path, flags: Sequence[str] = ()
) -> ctypes.CDLL:
    """One library for all levels: the cap is its variable `level_cap`."""
    cap = folder / "cap.h"
    cap.write_text("__attribute__((weak)) int level_cap = 0;\n")
    capped = ("-O1", "-include", str(cap), "-DQCOMPILE_LEVEL_MAX=level_cap", *flags)
    return build(programs, folder, flags=capped)


def capped(library: ctypes.CDLL, program: CProgram, level: Level | None) -> bool:
    """Caps the library's level; False where the machine lacks it."""
    ctypes.c_int.in_dll(library, "level_cap").value = 0 if level is None else level.value.rank
    name = getattr(library, f"{program.layout.entry}_instructions")
    name.restype = ctypes.c_char_p
    return level is None or name() == level.value.shown.encode()


def check_levels(
    case: OpCase, folder: Path, packing: TernaryPacking = TernaryPacking.TWO_BITS
) -> CProgram:
    """Portable C and all levels of the machine return what the simulator does."""
    program = CBackend(ternary_packing=packing).emit(case.graph)
    library = build_capped([program], folder)
    expected = Executor(case.graph).run(case.feeds)
    for level in (None, *X86_LEVELS):
        if capped(library, program, level):
            actual = call(library, program, case.feeds)
            for value in case.graph.outputs:
                message = f"{case.name}, {value}: {level}"
                np.testing.assert_array_equal(actual[value], expected[value], err_msg=message)
    return program


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
