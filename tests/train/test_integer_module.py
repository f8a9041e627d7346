"""The integer network in torch gives the integers of the simulator, operator by operator."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch

from qcompile.graph import Graph
from qcompile.sim.executor import Executor
from qcompile.train.integer_module import IntegerModule
from qcompile.types import Array
from tests.op_cases import CASES, cases_of
from tests.random_graphs import random_graph

FLOAT_TOLERANCE = 1e-5
"""Of float operators alone: other libraries add in another order."""


def compare(graph: Graph, feeds: Mapping[str, Array], taps: tuple[str, ...]) -> None:
    expected = Executor(graph).run(feeds, taps)
    given = {
        name: torch.from_numpy(data.astype(np.float32 if data.dtype.kind == "f" else np.int64))
        for name, data in feeds.items()
    }
    found = IntegerModule(graph)(given, taps)
    for name in (*taps, *graph.outputs):
        data = found[name].numpy()
        if graph.types[name].is_float:
            np.testing.assert_allclose(data, expected[name], FLOAT_TOLERANCE, FLOAT_TOLERANCE)
        else:
            np.testing.assert_array_equal(data, expected[name].astype(np.int64), name)


@pytest.mark.parametrize("stem", CASES)
def test_operators(stem: str) -> None:
    for case in cases_of(stem):
        compare(case.graph, case.feeds, ())


@pytest.mark.parametrize("start", range(0, 120, 30))
def test_random_graphs(start: int) -> None:
    for seed in range(start, start + 30):
        graph, feeds = random_graph(seed)
        compare(graph, feeds, tuple(op.output for op in graph.ops))


def test_sums_beyond_float64() -> None:
    """Wide powers of two times 16 bits: 59 bits of sum."""
    from qcompile.graph import Stage
    from qcompile.numerics import Requantize
    from qcompile.ops import Conv
    from qcompile.types import IntType, TensorType

    rng = np.random.default_rng(1)
    weights = np.array([[[[1 << 32]], [[3]]], [[[-(1 << 32)]], [[1]]]], dtype=np.int64)
    kind = TensorType((1, 2, 4, 4), IntType(24))
    epilogue = Requantize((1,), (1,), (1,), (-(2**62),), (2**62,), (-(2**58),), (2**58,))
    conv = Conv(
        name="conv",
        inputs=("x", "w"),
        outputs=("y",),
        strides=(1, 1),
        pads_begin=(0, 0),
        pads_end=(0, 0),
        dilations=(1, 1),
        epilogue=epilogue,
        accumulator=IntType(59),
    )
    types = {
        "x": kind,
        "w": TensorType(weights.shape, IntType(34)),
        "y": TensorType((1, 2, 4, 4), IntType(64)),
    }
    graph = Graph("wide", Stage.INTEGER, ("x",), ("y",), (conv,), types, {"w": weights})
    x = rng.integers(-(2**23), 2**23, kind.shape).astype(np.int32)
    compare(graph, {"x": x}, ())
