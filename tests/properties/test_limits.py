"""Random networks whose codes have random limits: lowered, they are kept and agree everywhere."""

from __future__ import annotations

import dataclasses

from qcompile.ops import SumOp
from qcompile.verifier import verify
from tests.properties.test_random_networks import (
    compiled,
    examples,
    needs_gcc,
    network,
    quick_compiler,
)
from tests.random_limits import added_limits

__all__ = ["quick_compiler"]


@needs_gcc
@examples(20)
def test_c_equals_the_simulator(seed: int, layers: int) -> None:
    with added_limits(seed), network(seed, layers) as found:
        result = compiled(found.path, dataclasses.replace(found.options, verify=True))
        assert result.verified
        verify(result.integer_graph)


def test_random_networks_have_limits_by_channel() -> None:
    """Most of them, written by sums and read by others."""
    written = read = 0
    for seed in range(20):
        with added_limits(seed), network(seed, 5, benign=True) as found:
            graph = compiled(found.path, found.options).integer_graph
        limited = {
            name
            for name, kind in graph.types.items()
            if kind.limits is not None and not kind.limits.is_per_tensor
        }
        sums = [op for op in graph.ops if isinstance(op, SumOp)]
        written += any(op.output in limited for op in sums)
        read += any(limited.intersection(op.inputs) for op in sums)
    assert written >= 10
    assert read >= 5
