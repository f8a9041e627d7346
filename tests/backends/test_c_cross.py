"""Emitted C on other processors: Arm with and without dot products, and Cortex-M."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from qcompile.backends.c.backend import CBackend, CProgram
from qcompile.backends.c.levels import NEON_LEVELS
from qcompile.backends.c.vectors import has_float_island
from qcompile.errors import QCompileError
from qcompile.feeds import integer_feed
from qcompile.graph import Graph
from qcompile.packing import TernaryPacking
from qcompile.pipeline import compile_model
from qcompile.sim.executor import Executor
from qcompile.types import Array, CodebookKind, IntType
from tests.backends.cross import MACHINES
from tests.backends.networks import image, unet
from tests.backends.test_c_depthwise import CASES as DEPTHWISE
from tests.backends.test_c_direct import CASES as DIRECT
from tests.op_cases import cases_of
from tests.properties.compiled import example
from tests.random_graphs import random_graph

OPERATORS = (
    "conv",
    "conv_transpose",
    "matmul",
    "affine",
    "add",
    "average_pool",
    "linear_resize",
    "max_pool",
    "nearest_resize",
    "concat",
    "arg_max",
    "lookup",
    "quantize",
    "dequantize",
)
"""Those with kernels of their own; the others share these, or copy."""
VECTOR_CASES = {
    **{f"direct-{name}": cases for name, cases in DIRECT.items()},
    **{f"depthwise-{name}": cases for name, cases in DEPTHWISE.items()},
}
NETWORKS = 12
GRAPHS = 30

Feeds = dict[str, Array]


def compare(machine: str, runs: list[tuple[str, Graph, CProgram, Feeds]], folder: Path) -> None:
    """Every output of every program equals the simulator's in every element."""
    chosen = MACHINES[machine]
    assert runs
    found = chosen.run([(program, feeds) for _, _, program, feeds in runs], folder)
    for (name, graph, _, feeds), actual in zip(runs, found, strict=True):
        expected = Executor(graph).run(feeds)
        for value in graph.outputs:
            np.testing.assert_array_equal(
                actual[value], expected[value], err_msg=f"{machine}, {name}: {value}"
            )


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    missing = MACHINES[name].missing
    if missing:
        pytest.skip(f"{missing}: not installed")
    return name


INSTRUCTIONS = """\
#include <stdio.h>
#include "net.h"

int main(void)
{
    return puts(net_instructions()) < 0 ? 1 : 0;
}
"""


def test_instructions(machine: str, tmp_path: Path) -> None:
    CBackend("net").emit(unet()).artifacts.write(tmp_path)
    (tmp_path / "tell.c").write_text(INSTRUCTIONS)
    chosen = MACHINES[machine]
    assert chosen.execute(["tell.c", "net.c"], tmp_path).strip() == chosen.instructions


def selected(stem: str) -> Iterator[tuple[str, Graph, CProgram, Feeds]]:
    for index, case in enumerate(cases_of(stem)):
        backend = CBackend(entry=f"case_{index}")
        if backend.check(case.graph) or has_float_island(case.graph):
            continue  # 3-D images, and sums of floats, whose last bits may differ
        yield case.name, case.graph, backend.emit(case.graph), case.feeds


@pytest.mark.slow
@pytest.mark.parametrize("stem", OPERATORS)
def test_operators(machine: str, stem: str, tmp_path: Path) -> None:
    compare(machine, list(selected(stem)), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["aarch64", "aarch64-newer"], indirect=True)
@pytest.mark.parametrize("name", VECTOR_CASES)
def test_kernels_for_vectors(machine: str, name: str, tmp_path: Path) -> None:
    """What those of x86 are tested with: whole and broken blocks of filters, limits, packings."""
    runs = []
    for index, make in enumerate(VECTOR_CASES[name]):
        case = make(np.random.default_rng(index))
        packing = (TernaryPacking.TWO_BITS, TernaryPacking.FIVE_PER_BYTE)[index % 2]
        backend = CBackend(f"case_{index}", ternary_packing=packing, levels=NEON_LEVELS)
        program = backend.emit(case.graph)
        source = str(program.artifacts.files[f"case_{index}.c"])
        assert "int8x16_t" in source
        runs.append((case.name, case.graph, program, dict(case.feeds)))
    compare(machine, runs, tmp_path)


@pytest.mark.slow
def test_random_graphs(machine: str, tmp_path: Path) -> None:
    runs = []
    for seed in range(GRAPHS):
        graph, feeds = random_graph(seed)
        program = CBackend(f"graph_{seed}").emit(graph)
        runs.append((f"seed {seed}", graph, program, dict(feeds)))
    compare(machine, runs, tmp_path)


@pytest.mark.slow
def test_random_networks(machine: str, tmp_path: Path) -> None:
    runs = []
    for seed in range(NETWORKS):
        folder = tmp_path / f"seed{seed}"
        folder.mkdir()
        found = example(seed, folder, benign=False)
        try:
            graph = compile_model(found.path, found.options).integer_graph
        except QCompileError:
            continue  # refused for a stated reason, which other tests look at
        if has_float_island(graph):
            continue
        program = CBackend(f"network_{seed}").emit(graph)
        feeds = integer_feed(found.feeds[0], graph, found.specs)
        runs.append((f"seed {seed}", graph, program, dict(feeds)))
    assert len(runs) > NETWORKS // 3
    compare(machine, runs, tmp_path)


UNETS = {
    "4x6": (IntType(4, narrow=True), CodebookKind.UNIFORM, IntType(6, signed=False)),
    "8x8": (IntType(8, narrow=True), CodebookKind.UNIFORM, IntType(8, signed=False)),
    "ternary": (IntType(2, narrow=True), CodebookKind.TERNARY, IntType(2, narrow=True)),
    "binary": (IntType(2, narrow=True), CodebookKind.BINARY, IntType(4)),
}


def test_unets(machine: str, tmp_path: Path) -> None:
    """Two levels with 16 channels and more, so that whole blocks of filters occur."""
    runs = []
    for name, (weights, kind, codes) in UNETS.items():
        graph = unet(weights, kind, codes, base=16, size=20)
        program = CBackend(f"unet_{name}").emit(graph)
        runs.append((name, graph, program, dict(image(graph))))
    compare(machine, runs, tmp_path)
