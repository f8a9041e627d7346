"""Time and energy of the emitted C on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from qcompile.backends.c.compiler import build_c, find_compiler, run_program
from qcompile.backends.c.emitted import CProgram
from qcompile.backends.c.render import timing
from qcompile.errors import ToolError
from qcompile.power_counters import Counter, spent
from qcompile.types import Array

SECONDS = 2.0
"""How long the network runs again and again."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Of a build with -O3, single-threaded, for one input.

    Attributes:
        runs: how often the network ran.
        seconds: the median run.
        joules: of one run: what all processor packages spent meanwhile, with everything else that
            they did, divided by the runs; None where no counter can be read.
    """

    runs: int
    seconds: float
    joules: float | None


def measure_program(
    program: CProgram,
    feed: Mapping[str, Array],
    counters: Sequence[Counter],
    seconds: float | None = None,
) -> Measurement:
    """Builds the program and runs it for some seconds.

    Args:
        program: the emitted C.
        feed: one input.
        counters: energy counters of the machine, from `find_counters`; may be empty.
        seconds: how long; `SECONDS` if None.

    Raises:
        ToolError: no C compiler, or building or running failed.
    """
    compiler = find_compiler("--measure")
    layout = program.layout
    with tempfile.TemporaryDirectory(prefix="qcompile-") as name:
        folder = Path(name)
        program.artifacts.write(folder)
        (folder / "timing.c").write_text(timing(layout), encoding="utf-8")
        binary = build_c(compiler, folder, layout, "timing", ["-O3"])
        inputs = folder / "inputs.bin"
        with inputs.open("wb") as stream:
            for value in layout.graph.inputs:
                dtype = layout.graph.types[value].element.storage
                stream.write(np.ascontiguousarray(feed[value], dtype=dtype).tobytes())
        before = [counter.read() for counter in counters]
        limit = SECONDS if seconds is None else seconds
        said = run_program([str(binary), str(inputs), str(limit)], "the emitted C failed")
        after = [counter.read() for counter in counters]
    try:
        runs, median, _ = (float(word) for word in said.split())
    except ValueError:
        raise ToolError(f"--measure: the timing program said '{said.strip()[:80]}'") from None
    joules = spent(counters, before, after) / 1e6 / (runs + 1) if counters else None
    return Measurement(int(runs), median, joules)
