"""qcompile's C: compiled, built for each set of instructions, and held against the simulator."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from qcompile.data import random_feeds
from qcompile.graph import Graph
from qcompile.options import CompileOptions
from qcompile.pipeline import compile_model
from qcompile.sim.executor import Executor

from .networks import Setting
from .peers import AVX2, NATIVE
from .rivals import WARM_UP, Rival, Running

TIMER = Path(__file__).with_name("timer.c")
CLOCK = Path(__file__).with_name("nanoseconds.h")
PORTABLE = "portable C99"


@dataclass(frozen=True)
class Build:
    """Flags besides -O3, and the instructions they leave."""

    name: str
    instructions: str
    flags: tuple[str, ...] = ()


BUILDS = (
    Build("as it is", NATIVE),
    Build("level 2", NATIVE, ("-DQCOMPILE_LEVEL_MAX=2",)),
    Build("level 1", AVX2, ("-DQCOMPILE_LEVEL_MAX=1",)),
    Build("portable", PORTABLE, ("-DQCOMPILE_PORTABLE",)),
)
"""What is chosen at run time, and what lesser machines run. A build that turns out to use the
instructions of the one before it is left out."""


@dataclass(frozen=True)
class Compiled:
    """A compiled network in its folder.

    Attributes:
        macs: products of the dense network.
        share: non-zero weights of all.
    """

    setting: Setting
    folder: Path
    macs: int
    share: float

    @property
    def pixels(self) -> Path:
        return self.folder / "input.bin"

    @property
    def expected(self) -> bytes:
        return (self.folder / "expected.bin").read_bytes()


def compile_network(setting: Setting, folder: Path) -> Compiled:
    """Emits the C of a network with one input and one output, with random pixels and the
    simulator's result for them."""
    folder.mkdir(parents=True, exist_ok=True)
    options = CompileOptions(wbits=setting.wbits, abits=setting.abits)
    result = compile_model(setting.model, options)
    result.artifacts.write(folder)
    graph = result.integer_graph
    feeds = random_feeds(graph, seed=1, count=1)[0]
    outputs = Executor(graph).run(feeds)
    compiled = Compiled(setting, folder, result.report.totals.macs, _share(graph))
    compiled.pixels.write_bytes(np.ascontiguousarray(feeds[graph.inputs[0]]).tobytes())
    expected = np.ascontiguousarray(outputs[graph.outputs[0]])
    (folder / "expected.bin").write_bytes(expected.tobytes())
    return compiled


def _share(graph: Graph) -> float:
    weights = [
        graph.constants[value]
        for op in graph.ops
        for value in op.inputs[1:]
        if value in graph.constants
    ]
    used = sum(int(np.count_nonzero(data)) for data in weights)
    return used / max(1, sum(data.size for data in weights))


def port_macros(header: str) -> list[str]:
    """What `timer.c` must be told of the ports: compiler flags, from the emitted header."""
    call = re.search(r"int model_run\((.*?)\);", header, re.DOTALL)
    names = re.findall(r"#define (\w+)_ELEMENTS", header)
    types = re.findall(r"(\w+) \*", call[1] if call else "")[: len(names)]
    if len(names) != 2 or len(types) != 2:
        raise ValueError("the timer is for networks with one input and one output")
    flags = []
    for port, name, ctype in zip(("INPUT", "OUTPUT"), names, types, strict=True):
        flags += [f"-D{port}_TYPE={ctype}", f"-D{port}_ELEMENTS={name}_ELEMENTS"]
    known = "model_instructions" in header
    instructions = "model_instructions()" if known else '"portable C"'
    return [*flags, f"-DINSTRUCTIONS={instructions}"]


def build(compiled: Compiled, choice: Build, threads: int, compiler: str = "gcc") -> Path:
    """The timer for one build; nothing but -O3, and -fopenmp for more than one thread."""
    program = compiled.folder / f"{choice.name.replace(' ', '-')}-{threads}"
    flags = ["-std=c99", "-O3", *choice.flags, *(["-fopenmp"] if threads > 1 else [])]
    header = (compiled.folder / "model.h").read_text()
    sources = [str(TIMER), str(compiled.folder / "model.c")]
    command = [compiler, *flags, *port_macros(header), f"-I{compiled.folder}", "-s", "-o"]
    subprocess.run([*command, str(program), *sources, "-lm"], check=True)
    return program


@dataclass(frozen=True)
class LayerTime:
    """What one step of the program took.

    Attributes:
        kernel: which of its variants ran, '' where there is no choice.
        macs: products of the dense layer.
        seconds: at best of all runs.
    """

    operator: str
    name: str
    kernel: str
    macs: int
    seconds: float


def layer_times(compiled: Compiled, choice: Build, seconds: float) -> tuple[str, list[LayerTime]]:
    """Runs a profiled build on one thread for about the given time.

    Returns:
        The instructions in use, and every step.
    """
    flags = ["-DMODEL_PROFILE", "-DMODEL_PROFILE_CLOCK=nanoseconds", "-include", str(CLOCK)]
    profiled = Build(f"{choice.name} profile", choice.instructions, (*choice.flags, *flags))
    program = build(compiled, profiled, threads=1)
    process = Running(Rival("", choice.instructions, (str(program), str(compiled.pixels))), 1)
    times, _ = process.batch(WARM_UP)
    process.batch(max(1, round(seconds / min(times))))
    rows = [line.split("\t") for line in process.close().splitlines()]
    found = [
        LayerTime(operator, name, kernel, int(macs), int(nanoseconds) / 1e9)
        for operator, name, kernel, macs, nanoseconds in rows
    ]
    return process.note, found


def make_rivals(compiled: Compiled, threads: int) -> list[Rival]:
    """All builds whose output has the simulator's bits.

    Raises:
        RuntimeError: one has not.
    """
    rivals: list[Rival] = []
    seen: set[str] = set()
    for choice in BUILDS:
        program = build(compiled, choice, threads)
        output = compiled.folder / "output.bin"
        command = (str(program), str(compiled.pixels))
        rival = Rival("", choice.instructions, (*command, str(output)))
        process = Running(rival, threads)
        process.close()
        name = f"qcompile {compiled.setting.name}, {process.note}"
        if output.read_bytes() != compiled.expected:
            raise RuntimeError(f"{name}: the result is not the simulator's")
        if process.note not in seen:
            size = program.stat().st_size
            rivals.append(replace(rival, name=name, command=command, artefact_bytes=size))
        seen.add(process.note)
    return rivals
