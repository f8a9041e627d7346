"""Whole accelerators against the simulator: every tensor of every frame, by CXXRTL."""

from __future__ import annotations

from pathlib import Path

import pytest

from qcompile.backends.hdl.backend import HdlBackend
from qcompile.backends.hdl.cxxrtl import find_compiler
from qcompile.backends.hdl.stimulus import Stalls
from qcompile.backends.hdl.verify import HdlVerifyResult, verify
from qcompile.graph import Graph
from tests.backends.hdl_models import MODELS, compiled, feeds

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="there is no C++ compiler")

STALLS = (Stalls(0.5, 0.6, 3), Stalls(0.9, 0.1, 4))
FRAMES = 4
"""Without stalls the interval of the last one is that of the steady state."""


def check(graph: Graph, backend: HdlBackend | None = None) -> HdlVerifyResult:
    plan = (backend or HdlBackend()).plan(graph)
    result = verify(graph, plan.design, feeds(graph, FRAMES), stalls=STALLS)
    assert result.compiled
    assert result.values == len(plan.design.taps)
    assert result.runs == 1 + len(STALLS)
    return result


@needs_compiler
@pytest.mark.parametrize("name", MODELS)
def test_a_small_network(name: str, tmp_path: Path) -> None:
    graph = compiled(MODELS[name](), tmp_path, wbits="4", abits="6")
    check(graph)
