"""Every operator case: emitted C and simulator agree in every element."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from qcompile.backends.c.backend import CBackend
from qcompile.backends.c.levels import ALL_LEVELS
from qcompile.ops import OPERATORS
from qcompile.sim.executor import Executor
from tests.backends.compile_c import build, call
from tests.op_cases import CASES, cases_of
from tests.op_cases.side_by_side import side_by_side

BATCH = 8
"""Cases in one program: they share kernels, and the headers of SIMD instructions, which take longer
to compile than all else: every other program has them."""
FLOAT_TOLERANCE = 1e-5
"""Relative to the largest element; only operators of float islands may use it."""


@pytest.mark.parametrize("stem", sorted(CASES))
def test_c_equals_simulator(stem: str, tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    chosen = []
    for case in cases_of(stem):
        problems = CBackend().check(case.graph)
        if problems:
            assert all("3-D images" in problem.reason for problem in problems), problems
        else:
            chosen.append(case)
    batches = [
        side_by_side(f"case_{start}", chosen[start : start + BATCH])
        for start in range(0, len(chosen), BATCH)
    ]
    programs = [
        CBackend(entry=case.name, levels=ALL_LEVELS if number % 2 == 0 else ()).emit(case.graph)
        for number, case in enumerate(batches)
    ]
    library = build(programs, tmp_path)
    for case, program in zip(batches, programs, strict=True):
        expected = Executor(case.graph).run(case.feeds)
        actual = call(library, program, case.feeds)
        for value in case.graph.outputs:
            message = f"{case.name}: {value}"
            if case.graph.types[value].is_float and stem not in ("dequantize", "lookup"):
                scale = max(1.0, float(np.abs(expected[value]).max()))
                np.testing.assert_allclose(
                    actual[value], expected[value], atol=FLOAT_TOLERANCE * scale, err_msg=message
                )
            else:
                np.testing.assert_array_equal(actual[value], expected[value], err_msg=message)


def test_every_operator_has_cases() -> None:
    stems = {re.sub(r"(?<=[a-z])([A-Z])", r"_\1", op.__name__).lower() for op in OPERATORS}
    stems = {stem.replace("mat_mul", "matmul") for stem in stems}
    assert stems == set(CASES)
