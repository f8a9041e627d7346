"""Every operator as a chain of blocks computes what the simulator computes."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.backends.hdl.flow import StreamGraph
from qcompile.backends.hdl.table import PLANNERS
from qcompile.sim.executor import Executor
from qcompile.types import Array
from tests.op_cases import OpCase, all_cases

MOST_FOLDS = 4


def accepted(case: OpCase) -> bool:
    streams = StreamGraph(case.graph)
    return bool(streams.ops) and not list(streams.refused())


ACCEPTED = [case for case in all_cases() if accepted(case)]


def as_taps(case: OpCase) -> dict[str, Array]:
    return Executor(case.graph).run(case.feeds, taps="all")


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.name)
def test_the_blocks_compute_what_the_simulator_does(case: OpCase) -> None:
    streams = StreamGraph(case.graph)
    taps = {**case.feeds, **as_taps(case)}
    rng = np.random.default_rng(len(case.name))
    folds = streams.folds()
    for op in streams.ops:
        choices = list(folds[op.name])
        for index in rng.permutation(len(choices))[:MOST_FOLDS]:
            stage = streams.stage(op, choices[index])
            found = stage.compute(*(taps[value] for value in stage.values))
            expected = taps[op.output]
            np.testing.assert_array_equal(found.reshape(expected.shape), expected)


def test_every_planned_operator_has_accepted_cases() -> None:
    seen = {type(op) for case in ACCEPTED for op in StreamGraph(case.graph).ops}
    assert seen == set(PLANNERS)
