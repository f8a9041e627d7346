"""Limits of codes, from the clamps that make them to the sums that rely on them."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.ops import MOVEMENT, SumOp
from qcompile.ops.code_limits import by_channel
from qcompile.sim.executor import Executor
from qcompile.verifier import verify
from tests.random_graphs import random_graph
from tests.sim.reference import run_reference

SEEDS = range(60)


@pytest.mark.parametrize("seed", SEEDS)
def test_every_value_keeps_its_limits(seed: int) -> None:
    """The reference also asserts that no sum leaves its accumulator, which the limits narrow."""
    graph, feeds = random_graph(seed)
    verify(graph)
    expected = run_reference(graph, feeds)
    actual = Executor(graph).run(feeds, taps="all")
    for op in graph.ops:
        np.testing.assert_array_equal(actual[op.output], expected[op.output], err_msg=op.label())
        kind = graph.types[op.output]
        if kind.limits is not None:
            for channel, codes in enumerate(by_channel(kind)):
                part = expected[op.output][:, channel]
                assert codes.low <= part.min(), op.label()
                assert part.max() <= codes.high, op.label()


def test_sums_and_movement_read_limited_values() -> None:
    readers = {
        type(op)
        for seed in SEEDS
        for graph in (random_graph(seed)[0],)
        for op in graph.ops
        if any(
            kind.limits is not None and not kind.limits.is_per_tensor
            for kind in graph.input_types(op)
        )
    }
    assert len([kind for kind in readers if issubclass(kind, SumOp)]) >= 5
    assert len([kind for kind in readers if issubclass(kind, MOVEMENT)]) >= 5
