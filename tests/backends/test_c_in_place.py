"""Operators that write over their dying input."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from qcompile.backends.c.backend import CBackend, CProgram
from qcompile.backends.c.layout import value_name
from qcompile.backends.c.levels import Level
from qcompile.sim.executor import Executor
from tests.backends.compile_c import build, call
from tests.random_graphs import random_graph

LEAST = {"Add", "Mul", "Rescale", "Lookup"}
"""Kinds of operators that must be among those tested."""


def in_place(program: CProgram) -> set[str]:
    """The kinds of operators whose output lies where one of their inputs lay."""
    offsets = program.layout.release.offsets
    return {
        step.op.kind
        for step in program.layout.steps
        for value in step.in_place
        if value_name(step.op.output) in offsets
        and offsets.get(value_name(value)) == offsets[value_name(step.op.output)]
    }


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_the_result_is_the_same(tmp_path: Path) -> None:
    found, kinds = [], set()
    for seed in range(70, 120):
        graph, feeds = random_graph(seed)
        program = CBackend(f"g{seed}", levels=(Level.AVX2,)).emit(graph)
        if in_place(program):
            found.append((seed, graph, feeds, program))
            kinds |= in_place(program)
    assert kinds >= LEAST
    library = build([program for _, _, _, program in found], tmp_path, flags=("-O2",))
    for seed, graph, feeds, program in found:
        expected, actual = Executor(graph).run(feeds), call(library, program, feeds)
        for value in graph.outputs:
            np.testing.assert_array_equal(
                actual[value], expected[value], err_msg=f"seed {seed}: {value}"
            )
