"""Random graphs: C and simulator agree in every element of every output."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qcompile.backends.c.backend import CBackend
from qcompile.sim.executor import Executor
from tests.backends.compile_c import build, call
from tests.random_graphs import random_graph


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.integers(0, 1 << 32), min_size=6, max_size=6, unique=True))
def test_c_equals_simulator(seeds: list[int]) -> None:
    """Several graphs an example, because one compiler call costs more than a graph."""
    made = [random_graph(seed) for seed in seeds]
    programs = [CBackend(f"g{i}").emit(graph) for i, (graph, _) in enumerate(made)]
    with tempfile.TemporaryDirectory() as folder:
        library = build(programs, Path(folder), flags=("-O1",))
        for seed, (graph, feeds), program in zip(seeds, made, programs, strict=True):
            expected = Executor(graph).run(feeds)
            actual = call(library, program, feeds)
            for value in graph.outputs:
                np.testing.assert_array_equal(
                    actual[value], expected[value], err_msg=f"seed {seed}: {value}"
                )
