"""Builds the emitted C with the system compiler and compares it with the simulator."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from qcompile.backends.c.emitted import CProgram
from qcompile.backends.c.render import Layout, harness
from qcompile.backends.c.vectors import has_float_island
from qcompile.errors import ToolError
from qcompile.graph import Graph, Op
from qcompile.ops import MOVEMENT, Dequantize, Lookup
from qcompile.sim.compare import Mismatch, compare_runs
from qcompile.sim.executor import Executor
from qcompile.types import Array

COMPILERS = ("cc", "gcc", "clang")
COMPILE_SECONDS = 600
FLOAT_LIMIT = 1e-3
"""Largest difference of a float tensor, relative to its largest magnitude, beyond which it counts.

Float islands use the compiler's mathematical functions and another order of additions.
"""
CODE_SHARE = 0.01
"""Share of the codes computed from a float island that may differ."""


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What the comparison found.

    Attributes:
        mismatch: the first difference, None if release and debug builds agree with the simulator.
        build: 'debug' or 'release', where the mismatch was seen ('' without one).
        runs: how many inputs were compared.
        values: tensors compared for each input, outputs included.
        elements: elements compared altogether.
        float_difference: largest relative difference of a float island's tensor, None without one.
        float_limit: the limit it was held to.
        compiler: the command that built the C.
    """

    mismatch: Mismatch | None
    build: str
    runs: int
    values: int
    elements: int
    float_difference: float | None
    float_limit: float
    compiler: str

    @property
    def passed(self) -> bool:
        return self.mismatch is None

    def details(self) -> dict[str, Any]:
        """The measured part, for the report: nothing that depends on the machine's tools."""
        measured: dict[str, Any] = {
            "runs": self.runs,
            "values": self.values,
            "elements": self.elements,
        }
        if self.float_difference is not None:
            measured |= {
                "float_largest_difference": self.float_difference,
                "float_limit": self.float_limit,
            }
        return measured


def verify(
    graph: Graph, program: CProgram, feeds_list: Sequence[Mapping[str, Array]]
) -> VerifyResult:
    """Runs C and simulator on the same inputs and compares every tensor.

    The debug build shares its kernels with the release build but keeps every operator's output, so
    that the first operator that differs is named. The release build's outputs are compared too.

    Args:
        graph: the INTEGER graph that `program` was emitted from.
        program: the emitted C.
        feeds_list: inputs by value name.

    Raises:
        ToolError: no C compiler, or building or running failed.
    """
    compiler = find_compiler()
    simulator = Executor(graph)
    expected = [simulator.run(feeds, taps="all") for feeds in feeds_list]
    tracker = _Floats(graph)
    values = elements = 0
    with tempfile.TemporaryDirectory(prefix="qcompile-") as name:
        folder = Path(name)
        program.artifacts.write(folder)
        (folder / "harness.c").write_text(harness(program.layout), encoding="utf-8")
        for build in ("debug", "release"):
            actual = _execute(program.layout, compiler, folder, build, feeds_list)
            for wanted, found in zip(expected, actual, strict=True):
                compared = {value: wanted[value] for value in found}
                mismatch = tracker.compare(compared, found)
                if build == "debug":
                    values = len(found)
                elements += sum(array.size for array in found.values())
                if mismatch is not None:
                    return VerifyResult(
                        mismatch,
                        build,
                        len(expected),
                        values,
                        elements,
                        tracker.largest,
                        FLOAT_LIMIT,
                        compiler,
                    )
    return VerifyResult(
        None, "", len(expected), values, elements, tracker.largest, FLOAT_LIMIT, compiler
    )


def find_compiler() -> str:
    """The C compiler: $CC, else the first of cc, gcc, clang.

    Raises:
        ToolError: there is none.
    """
    named = os.environ.get("CC", "").strip()
    for command in [named] if named else COMPILERS:
        if shutil.which(command):
            return command
    wanted = f"$CC names '{named}', which does not exist" if named else "no C compiler was found"
    raise ToolError(f"--verify: {wanted}; install gcc, or set CC")


class _Floats:
    """Compares runs; tensors that depend on a float island within a limit, all others exactly."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.largest: float | None = None
        self._inexact: set[str] = set()
        if has_float_island(graph):
            for op in graph.ops:
                if _is_inexact(graph, op) or self._inexact.intersection(op.inputs):
                    self._inexact.update(op.outputs)

    def compare(
        self, expected: Mapping[str, Array], actual: Mapping[str, Array]
    ) -> Mismatch | None:
        """The first difference that counts.

        A float tensor within its limit is taken as equal. A few of the codes computed from it may
        differ, where a float fell on the other side of a rounding limit; class maps likewise.
        """
        accepted = dict(actual)
        for value in self._inexact.intersection(actual):
            wanted = expected[value].astype(np.float64)
            difference = np.abs(wanted - actual[value].astype(np.float64))
            if not self.graph.types[value].is_float:
                # Rare: only as many elements as rounding at a border explains.
                if np.count_nonzero(difference) <= max(1, CODE_SHARE * difference.size):
                    accepted[value] = expected[value]
                continue
            size = max(float(np.abs(wanted).max()), 1e-30)
            relative = float(difference.max()) / size
            self.largest = max(self.largest or 0.0, relative)
            if relative <= FLOAT_LIMIT:
                accepted[value] = expected[value]
        return compare_runs(expected, accepted, self.graph)


def _is_inexact(graph: Graph, op: Op) -> bool:
    exact: tuple[type[Op], ...] = (*MOVEMENT, Lookup, Dequantize)
    return graph.output_type(op).is_float and not isinstance(op, exact)


def _execute(
    layout: Layout,
    compiler: str,
    folder: Path,
    build: str,
    feeds_list: Sequence[Mapping[str, Array]],
) -> list[dict[str, Array]]:
    """Outputs (debug: and every other activation) of each run, in logical order."""
    binary = folder / f"harness-{build}"
    flags = [f"-D{layout.entry.upper()}_TAPS"] if build == "debug" else []
    sources = [str(folder / "harness.c"), str(folder / f"{layout.entry}.c")]
    libraries = ["-lm"] if layout.needs_math else []
    command = [compiler, "-std=c99", "-O2", *flags, "-o", str(binary), *sources, *libraries]
    _run(command, f"{compiler} could not build the emitted C ({build})")
    inputs = folder / "inputs.bin"
    with inputs.open("wb") as stream:
        for feeds in feeds_list:
            for value in layout.graph.inputs:
                dtype = layout.graph.types[value].element.storage
                stream.write(np.ascontiguousarray(feeds[value], dtype=dtype).tobytes())
    results = folder / f"results-{build}.bin"
    arguments = [str(binary), str(inputs), str(results), str(len(feeds_list))]
    _run(arguments, f"the {build} build of the emitted C failed")
    data = results.read_bytes()
    values = list(dict.fromkeys(layout.graph.outputs))
    if build == "debug":
        values += [value for _, value in layout.taps]
    runs = []
    position = 0
    for _ in feeds_list:
        run: dict[str, Array] = {}
        for value in values:
            kind = layout.graph.types[value]
            raw = np.frombuffer(data, kind.element.storage, kind.size, position)
            position += raw.nbytes
            placement = layout.placements[value]
            physical = raw.reshape(placement.physical(kind.shape))
            run[value] = np.transpose(physical, np.argsort(placement.order))
        runs.append(run)
    return runs


def _run(command: Sequence[str], what: str) -> None:
    """Runs a program.

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
