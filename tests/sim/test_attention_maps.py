"""Attention maps: the weights that the sums were made with."""

from __future__ import annotations

import numpy as np

from qcompile.ops import LocalAttention2d
from qcompile.sim.attention_maps import attention_maps
from qcompile.sim.epilogue import apply_epilogue
from qcompile.sim.executor import Executor
from tests.op_cases import cases_of


def test_maps_give_the_output() -> None:
    for case in cases_of("local_attention2d"):
        (op,) = case.graph.ops
        assert isinstance(op, LocalAttention2d)
        assert op.widths is not None
        (found,) = attention_maps(case.graph, case.feeds).values()
        values = case.feeds["v"][0].astype(np.int64)
        pads = zip(op.pads_begin, op.pads_end, strict=True)
        padded = np.pad(values, ((0, 0), *pads))
        heads, positions, height, width = found.shape
        assert (heads, positions) == (op.heads, op.positions)
        assert np.abs(found.sum(1, dtype=np.int64) - op.widths.levels).max() <= positions / 2
        acc = np.zeros((1, values.shape[0], height, width), np.int64)
        for position in range(positions):
            y, x = divmod(position, op.kernel[1])
            seen = padded[:, y : y + height, x : x + width]
            acc[0] += seen * found[:, position].repeat(values.shape[0] // heads, 0).astype(np.int64)
        kind = case.graph.types["y"]
        assert op.epilogue is not None
        codes = apply_epilogue(op.epilogue, acc, 1, kind.integer.storage)
        np.testing.assert_array_equal(codes, Executor(case.graph).run(case.feeds)["y"])
