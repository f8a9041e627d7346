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

FLOAT_TOLERANCE = 1e-5
"""Relative to the largest element; only operators of float islands may use it."""


@pytest.mark.parametrize("stem", sorted(CASES))
def test_c_equals_simulator(stem: str, tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    chosen = []
    for index, case in enumerate(cases_of(stem)):
        # Parsing the headers of SIMD instructions takes longer than all else of a case, and these
        # kernels have tests of their own: a quarter of the cases has them.
        levels = ALL_LEVELS if index % 4 == 0 else ()
        backend = CBackend(entry=f"case_{index}", levels=levels)
        problems = backend.check(case.graph)
        if problems:
            assert all("3-D images" in problem.reason for problem in problems), problems
            continue
        chosen.append((case, backend.emit(case.graph)))
    library = build([program for _, program in chosen], tmp_path)
    for case, program in chosen:
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
