"""Builds the emitted C with the system compiler and compares it with the simulator."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from qcompile.backends.c.compiler import build_c, find_compiler, run_program
from qcompile.backends.c.emitted import CProgram
from qcompile.backends.c.layout import Layout, families
from qcompile.backends.c.plane_codes import decoded
from qcompile.backends.c.render import harness
from qcompile.backends.c.vectors import has_float_island
from qcompile.graph import Graph, Op, Stage
from qcompile.ops import (
    MOVEMENT,
    Add,
    AveragePool,
    Dequantize,
    LinearResize,
    LocalAttention2d,
    Lookup,
    ReduceMean,
)
from qcompile.sim.attention_maps import map_of
from qcompile.sim.compare import Mismatch, compare_arrays, compare_runs
from qcompile.sim.executor import Executor
from qcompile.types import Array

BUILD_FLAGS = {"debug": "-D{entry}_TAPS", "release": "", "portable": "-DQCOMPILE_PORTABLE"}
"""What each build defines."""
FLOAT_LIMIT = 1e-4
"""Largest difference of one float operator, relative to the largest magnitude of its output.

Operators of float islands use the compiler's mathematical functions and another order of additions.
"""
MEANS: tuple[type[Op], ...] = (Add, AveragePool, LinearResize, ReduceMean)
"""Operators that add up their inputs as they are: the limit is relative to the inputs as well."""


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """What the comparison found.

    Attributes:
        mismatch: the first difference, None if all builds agree with the simulator.
        build: 'debug', 'release' or 'portable', where it was seen ('' without one).
        runs: how many inputs were compared.
        values: tensors compared for each input, outputs included.
        elements: elements compared altogether.
        float_difference: largest relative difference of one float operator, None without one.
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
    that the first operator that differs is named. The release build's outputs must be the same, and
    those of a build without SIMD kernels, where the file has any: both use what this machine has.

    Args:
        graph: the INTEGER graph that `program` was emitted from.
        program: the emitted C.
        feeds_list: inputs by value name.

    Raises:
        ToolError: no C compiler, or building or running failed.
    """
    compiler = find_compiler("--verify")
    reference = _Stepwise(graph) if has_float_island(graph) else _Whole(graph)
    values = elements = 0
    mismatch = None
    build = ""
    with tempfile.TemporaryDirectory(prefix="qcompile-") as name:
        folder = Path(name)
        program.artifacts.write(folder)
        (folder / "harness.c").write_text(harness(program.layout), encoding="utf-8")
        data = _execute(program.layout, compiler, folder, "debug", feeds_list)
        debug = [_values(program.layout, stream, debug=True) for stream in data]
        kept = [_kept(program.layout, stream) for stream in data]
        builds = ["release", "portable"] if families(program.layout.steps) else ["release"]
        others = {
            name: [
                _values(program.layout, stream, debug=False)
                for stream in _execute(program.layout, compiler, folder, name, feeds_list)
            ]
            for name in builds
        }
    for index, (feeds, in_arena) in enumerate(zip(feeds_list, debug, strict=True)):
        inside, maps = kept[index]
        all_values = {**in_arena, **inside}
        values = len(all_values)
        elements += sum(array.size for array in all_values.values())
        mismatch, build = reference.compare(feeds, all_values), "debug"
        if mismatch is None:
            mismatch = _compare_maps(graph, {**feeds, **all_values}, maps)
        elements += sum(array.size for array in maps.values())
        for name in builds:
            outputs = others[name][index]
            elements += sum(array.size for array in outputs.values())
            if mismatch is None:
                wanted = {value: all_values[value] for value in outputs}
                mismatch, build = compare_runs(wanted, outputs, graph), name
        if mismatch is not None:
            break
    return VerifyResult(
        mismatch,
        build if mismatch is not None else "",
        len(feeds_list),
        values,
        elements,
        reference.largest,
        FLOAT_LIMIT,
        compiler,
    )


class _Whole:
    """Networks of integers: the simulator's run from the same inputs, equal in every element."""

    largest: float | None = None

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._simulator = Executor(graph)

    def compare(self, feeds: Mapping[str, Array], actual: Mapping[str, Array]) -> Mismatch | None:
        """The first difference between `actual` and the simulator."""
        expected = self._simulator.run(feeds, taps=tuple(actual))
        return compare_runs({value: expected[value] for value in actual}, actual, self.graph)


class _Stepwise:
    """Networks with float islands: each operator simulated from what C computed before it.

    So the last bits of a float sum, which may differ, do not travel: an integer operator must agree
    in every element even behind an island, and each float operator within the limit.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.largest: float | None = None
        self._steps = [(op, Executor(_alone(graph, op))) for op in graph.ops]

    def compare(self, feeds: Mapping[str, Array], actual: Mapping[str, Array]) -> Mismatch | None:
        """The first operator whose result differs from the simulator's, given the same inputs."""
        values = {**feeds, **actual}
        for op, simulator in self._steps:
            given = {value: values[value] for value in simulator.graph.inputs}
            expected = simulator.run(given)
            if op.output not in actual:  # a concatenation that C reads in parts
                values[op.output] = expected[op.output]
                continue
            found = {op.output: actual[op.output]}
            if _is_inexact(self.graph, op):
                terms = 0.0
                if isinstance(op, MEANS):
                    terms = max(map(_magnitude, given.values()))
                relative = relative_difference(expected[op.output], found[op.output], terms)
                self.largest = max(self.largest or 0.0, relative)
                if relative <= FLOAT_LIMIT:
                    continue
            mismatch = compare_runs(expected, found, self.graph)
            if mismatch is not None:
                return mismatch
        return None


def _alone(graph: Graph, op: Op) -> Graph:
    """`op` as a graph of its own."""
    used = (*op.inputs, *op.outputs)
    return Graph(
        graph.name,
        Stage.INTEGER,
        tuple(value for value in dict.fromkeys(op.inputs) if value not in graph.constants),
        op.outputs,
        (op,),
        {value: graph.types[value] for value in used},
        {value: graph.constants[value] for value in used if value in graph.constants},
    )


def _magnitude(values: Array) -> float:
    return float(np.abs(values[np.isfinite(values)]).max(initial=0.0))


def relative_difference(expected: Array, actual: Array, terms: float = 0.0) -> float:
    """Largest difference relative to the largest magnitude; infinite for NaN against a number.

    `terms` is the magnitude of what was added up: a sum can cancel to much less than its terms,
    whose last bits then show.
    """
    wanted, found = expected.astype(np.float64), actual.astype(np.float64)
    same = (wanted == found) | (np.isnan(wanted) & np.isnan(found))
    if same.all():
        return 0.0
    with np.errstate(invalid="ignore"):
        difference = np.abs(wanted - found)[~same].max()
    size = max(_magnitude(wanted), terms, 1e-30)
    return float(difference) / size if np.isfinite(difference) else float("inf")


def _is_inexact(graph: Graph, op: Op) -> bool:
    """The operator computes in floats, rather than moving them or crossing the boundary."""
    exact: tuple[type[Op], ...] = (*MOVEMENT, Lookup, Dequantize)
    return graph.output_type(op).is_float and not isinstance(op, exact)


def _execute(
    layout: Layout,
    compiler: str,
    folder: Path,
    build: str,
    feeds_list: Sequence[Mapping[str, Array]],
) -> list[BytesIO]:
    """What each run writes: outputs and, of the debug build, every tap."""
    flags = BUILD_FLAGS[build].format(entry=layout.entry.upper()).split()
    binary = build_c(compiler, folder, layout, "harness", ["-O2", *flags], build)
    inputs = folder / "inputs.bin"
    with inputs.open("wb") as stream:
        for feeds in feeds_list:
            for value in layout.graph.inputs:
                dtype = layout.graph.types[value].element.storage
                stream.write(np.ascontiguousarray(feeds[value], dtype=dtype).tobytes())
    results = folder / f"results-{build}.bin"
    arguments = [str(binary), str(inputs), str(results), str(len(feeds_list))]
    run_program(arguments, f"the {build} build of the emitted C failed")
    data = results.read_bytes()
    size = len(data) // len(feeds_list)
    return [BytesIO(data[index * size : (index + 1) * size]) for index in range(len(feeds_list))]


def _values(layout: Layout, stream: BytesIO, debug: bool) -> dict[str, Array]:
    """The next values of a run, in logical order: outputs, and the other activations of the debug
    build."""
    values = list(dict.fromkeys(layout.graph.outputs))
    if debug:
        values += [value for _, value in layout.taps]
    run: dict[str, Array] = {}
    for value in values:
        kind = layout.graph.types[value]
        if value in layout.planes:
            planes = layout.planes[value]
            raw = _read(stream, np.dtype(np.uint8), planes.size(kind.shape))
            run[value] = decoded(raw, kind.shape, planes).astype(kind.element.storage)
            continue
        raw = _read(stream, kind.element.storage, kind.size)
        placement = layout.placements[value]
        physical = raw.reshape(placement.physical(kind.shape))
        run[value] = np.transpose(physical, np.argsort(placement.order))
    return run


def _kept(layout: Layout, stream: BytesIO) -> tuple[dict[str, Array], dict[str, Array]]:
    """Behind the values of the debug build, what it kept: tensors of the network by name, and the
    attention over windows by operator name, as [heads, positions, rows, columns]."""
    values, maps = {}, {}
    for _, step, kept in layout.kept:
        if kept.value is None:
            data = _read(stream, np.dtype(np.uint16), kept.count).reshape(kept.shape)
            maps[step.op.name] = data.transpose(3, 2, 0, 1)
        else:
            storage = layout.graph.types[kept.value].element.storage
            values[kept.value] = _read(stream, storage, kept.count).reshape(kept.shape)
    return values, maps


def _read(stream: BytesIO, dtype: np.dtype[Any], count: int) -> Array:
    return np.frombuffer(stream.read(count * dtype.itemsize), dtype, count)


def _compare_maps(
    graph: Graph, values: Mapping[str, Array], maps: Mapping[str, Array]
) -> Mismatch | None:
    """The first weight of attention that differs from what the simulator computes from the same
    queries, keys and values."""
    for name, found in maps.items():
        op = graph.by_name[name]
        assert isinstance(op, LocalAttention2d)
        expected = map_of(graph, op, values)
        mismatch = compare_arrays(op.label(), f"{op.output} attention", expected, found)
        if mismatch is not None:
            return mismatch
    return None
