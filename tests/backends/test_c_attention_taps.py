"""The weights of attention that builds with taps keep are the simulator's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from qcompile.backends.c.backend import CBackend
from qcompile.backends.c.levels import Level
from qcompile.ops import LocalAttention2d
from qcompile.sim.attention_maps import attention_maps
from tests.op_cases import OpCase, cases_of
from tests.op_cases.side_by_side import side_by_side

CASES = [case for case in cases_of("local_attention2d") if not case.graph.types["y"].is_float]


@pytest.fixture(autouse=True)
def quick_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Small programs take longer to compile than to run."""
    script = tmp_path / "cc-o0"
    script.write_text('#!/bin/sh\nexec gcc "$@" -O0 -DQCOMPILE_KEEP_FLAGS\n')
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))


def form_of(case: OpCase) -> str:
    (op,) = case.graph.ops
    assert isinstance(op, LocalAttention2d)
    types = case.graph.types
    if types["q"].shape[3] >= 16:
        return "rows"
    return "channels" if op.heads == types["q"].shape[1] == types["v"].shape[1] else "pixels"


@pytest.mark.parametrize("levels", [(), (Level.AVX2,)])
def test_kept_weights(levels: tuple[Level, ...]) -> None:
    some = [*CASES[:2], CASES[-1]] if levels else CASES
    case = side_by_side("attention", some)
    backend = CBackend(keeps_attention=True, levels=levels)
    program = backend.emit(case.graph)
    result = backend.verify(case.graph, program, [case.feeds])
    assert result.passed
    maps = attention_maps(case.graph, case.feeds).values()
    outputs = sum(case.graph.types[value].size for value in case.graph.outputs)
    builds = 3 if levels else 2
    assert result.elements == sum(item.size for item in maps) + builds * outputs
    plain = CBackend(levels=levels).emit(case.graph)
    assert program.arena_bytes == plain.arena_bytes
    assert "attention_kept" not in str(plain.artifacts.files["model.c"])


@pytest.mark.parametrize("form", ["pixels", "channels", "rows"])
def test_a_difference_is_found(form: str) -> None:
    """Weights that the C stores one too large are reported, though all tensors agree."""
    case = next(case for case in CASES if form_of(case) == form)
    backend = CBackend(keeps_attention=True, levels=())
    program = backend.emit(case.graph)
    stored = "= (uint16_t)scores[i];" if form == "pixels" else "= (uint16_t)weight;"
    text = str(program.artifacts.files["model.c"])
    assert text.count(stored) == 1
    wrong = text.replace(stored, stored[:-1] + " + 1;")
    files = {**program.artifacts.files, "model.c": wrong}
    artifacts = dataclasses.replace(program.artifacts, files=files)
    changed = dataclasses.replace(program, artifacts=artifacts)
    found = backend.verify(case.graph, changed, [case.feeds])
    assert found.mismatch is not None
    assert found.build == "debug"
    assert found.mismatch.value == "y attention"
    assert found.mismatch.index == (0, 0, 0, 0)
