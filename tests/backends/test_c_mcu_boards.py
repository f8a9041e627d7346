"""Programs for microcontrollers on microcontrollers: Cortex-M in qemu."""

from __future__ import annotations

from pathlib import Path

import pytest

from qcompile.backends.c.backend import CBackend
from qcompile.backends.c.vectors import has_float_island
from qcompile.types import IntType
from tests.backends.cross import MACHINES
from tests.backends.networks import image, unet
from tests.backends.test_c_cross import OPERATORS, UNETS, compare
from tests.op_cases import cases_of
from tests.random_graphs import random_graph

BOARDS = [
    pytest.param(name, marks=() if name == "cortex-m4" else pytest.mark.slow)
    for name, machine in MACHINES.items()
    if machine.board
]
GRAPHS = 30


@pytest.fixture(params=BOARDS)
def board(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    machine = MACHINES[name]
    if machine.missing:
        pytest.skip(f"{machine.missing}: not installed")
    return name


def test_unets(board: str, tmp_path: Path) -> None:
    """Of two levels and of four, whose long skip connections are computed again or packed."""
    runs = []
    for name, (weights, kind, codes) in UNETS.items():
        graph = unet(weights, kind, codes, base=16, size=20)
        program = CBackend(f"unet_{name}", mcu=True).emit(graph)
        runs.append((name, graph, program, dict(image(graph))))
    deep = unet(codes=IntType(5), size=64, depth=3)
    program = CBackend("deep", mcu=True).emit(deep)
    assert program.multiplications_again > 0
    assert any(step.op.kind == "UnpackRows" for step in program.layout.steps)
    runs.append(("deep", deep, program, dict(image(deep))))
    compare(board, runs, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("stem", OPERATORS)
def test_operators(board: str, stem: str, tmp_path: Path) -> None:
    runs = []
    for index, case in enumerate(cases_of(stem)):
        backend = CBackend(f"case_{index}", mcu=True)
        if not backend.check(case.graph) and not has_float_island(case.graph):
            program = backend.emit(case.graph)
            runs.append((case.name, case.graph, program, dict(case.feeds)))
    compare(board, runs, tmp_path)


@pytest.mark.slow
def test_random_graphs(board: str, tmp_path: Path) -> None:
    runs = []
    for seed in range(GRAPHS):
        graph, feeds = random_graph(seed)
        program = CBackend(f"graph_{seed}", mcu=True).emit(graph)
        runs.append((f"seed {seed}", graph, program, dict(feeds)))
    compare(board, runs, tmp_path)
