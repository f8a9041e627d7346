"""Tensors of many tiles, and the choice of exact dtypes, against plain int64 arithmetic."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from qcompile.errors import GraphError
from qcompile.graph import Graph
from qcompile.numerics import Requantize, Thresholds, requantize, threshold
from qcompile.ops import Add, Conv, ConvTranspose, Rescale, SumOp
from qcompile.sim import conv, conv_transpose
from qcompile.sim.epilogue import CHUNK_BYTES, finish_integer, integer_dtype, matrix_dtype
from qcompile.sim.executor import Executor
from qcompile.types import Array, IntType, TensorType, per_channel
from tests.op_cases.build import STYLES, Style, activation, codes, sum_case, weights


def epilogue_in_int64(op: SumOp, acc: Array) -> Array:
    """The contract on whole tensors with `np.where`."""
    epilogue = op.epilogue

    def along(vector: tuple[int, ...]) -> Array:
        return per_channel(vector, "int64", op.channel_axis(acc.ndim), acc.ndim)

    if isinstance(epilogue, Thresholds):
        limits = [along(row) for row in epilogue.thresholds]
        return np.asarray(threshold(acc, limits, epilogue.low, epilogue.step, np.where))
    assert isinstance(epilogue, Requantize)
    a = np.minimum(np.maximum(acc, along(epilogue.acc_low)), along(epilogue.acc_high))
    m, b = along(epilogue.multipliers), along(epilogue.biases)
    if epilogue.negative is not None:
        below = a < along(epilogue.negative.pivots)
        m = np.where(below, along(epilogue.negative.multipliers), m)
        b = np.where(below, along(epilogue.negative.biases), b)
    shifts, lows, highs = along(epilogue.shifts), along(epilogue.lows), along(epilogue.highs)
    return np.asarray(requantize(a, m, b, shifts, lows, highs, np.where))


def sole(graph: Graph) -> SumOp:
    op = graph.ops[0]
    assert isinstance(op, SumOp)
    return op


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize(
    ("strides", "pads"), [((1, 1), (1, 1)), ((2, 1), (2, 0)), ((3, 2), (0, 2))]
)
def test_convolutions_of_many_tiles(
    style: Style, strides: tuple[int, int], pads: tuple[int, int]
) -> None:
    rng = np.random.default_rng(1)
    x = activation(IntType(6, signed=False), 1, 20, 130, 61)
    w, data = weights(rng, (5, 20, 3, 3), 0, 5, bits=4)
    op = Conv(
        name="conv",
        inputs=("x", "w"),
        outputs=("y",),
        strides=strides,
        pads_begin=pads,
        pads_end=pads[::-1],
        dilations=(1, 2),
    )
    case = sum_case(rng, "tiles", op, {"x": x, "w": w}, {"w": data}, style)
    final = sole(case.graph)
    assert isinstance(final, Conv)
    plain = conv.accumulate(case.feeds["x"].astype(np.int64), data.astype(np.int64), final)
    actual = Executor(case.graph).run(case.feeds)["y"]
    np.testing.assert_array_equal(actual, epilogue_in_int64(final, plain))


@pytest.mark.parametrize("style", STYLES)
def test_transposed_convolutions_of_many_parts(style: Style) -> None:
    rng = np.random.default_rng(2)
    x = activation(IntType(6, signed=False), 1, 9, 70, 70)
    w, data = weights(rng, (9, 7, 2, 2), 1, 7, bits=4)
    op = ConvTranspose(
        name="up",
        inputs=("x", "w"),
        outputs=("y",),
        strides=(2, 2),
        pads_begin=(0, 0),
        pads_end=(0, 0),
        dilations=(1, 1),
        output_padding=(0, 0),
    )
    case = sum_case(rng, "parts", op, {"x": x, "w": w}, {"w": data}, style)
    final = sole(case.graph)
    assert isinstance(final, ConvTranspose)
    plain = conv_transpose.accumulate(
        case.feeds["x"].astype(np.int64), data.astype(np.int64), final
    )
    actual = Executor(case.graph).run(case.feeds)["y"]
    np.testing.assert_array_equal(actual, epilogue_in_int64(final, plain))


@pytest.mark.parametrize("style", STYLES)
def test_elementwise_sums_of_many_parts(style: Style) -> None:
    rng = np.random.default_rng(3)
    x = activation(IntType(8), 1, 11, 130, 131)
    assert x.size * 4 > 2 * CHUNK_BYTES
    op = Add(name="add", inputs=("a", "b"), outputs=("y",), weights=(300, -77))
    case = sum_case(rng, "parts", op, {"a": x, "b": x}, {}, style)
    plain = 300 * case.feeds["a"].astype(np.int64) - 77 * case.feeds["b"].astype(np.int64)
    actual = Executor(case.graph).run(case.feeds)["y"]
    np.testing.assert_array_equal(actual, epilogue_in_int64(sole(case.graph), plain))


@pytest.mark.parametrize(
    ("bits", "matrix", "elementwise"),
    [
        (25, "float32", "int32"),
        (26, "float64", "int32"),
        (54, "float64", "int64"),
        (55, "int64", "int64"),
    ],
)
def test_dtypes_hold_every_partial_sum(bits: int, matrix: str, elementwise: str) -> None:
    op = Rescale(
        name="r",
        inputs=("x",),
        outputs=("y",),
        epilogue=Thresholds(((0,),), 0),
        accumulator=IntType(bits),
    )
    assert matrix_dtype(op) == np.dtype(matrix)
    assert integer_dtype(op) == np.dtype(elementwise)
    assert np.dtype(matrix).type(op.accumulator.low) == op.accumulator.low  # type: ignore[union-attr]
    unsigned = dataclasses.replace(op, accumulator=IntType(32, signed=False))
    assert integer_dtype(unsigned) == np.dtype(np.int64)


def test_the_largest_sums_stay_exact_at_the_edge_of_float32() -> None:
    """Around 2**24 a float32 sum beyond the bound would lose its last bit."""
    rng = np.random.default_rng(4)
    x = TensorType((1, 2, 1, 8), IntType(16))
    w = TensorType((1, 2, 1, 1), IntType(16))
    for factor in (255, 256, 257, 511, 513, 32767):
        data = np.array([factor, 1], np.int16).reshape(w.shape)
        op = Conv(
            name="edge",
            inputs=("x", "w"),
            outputs=("y",),
            strides=(1, 1),
            pads_begin=(0, 0),
            pads_end=(0, 0),
            dilations=(1, 1),
        )
        feed = codes(rng, x)
        feed[0, :, 0, :2] = [[32767, -32768], [32767, -32767]]
        case = sum_case(
            rng, "edge", op, {"x": x, "w": w}, {"w": data}, Style.TENSOR, "random",
            IntType(16), {"x": feed},
        )  # fmt: skip
        final = sole(case.graph)
        limit = int(feed[0, 0, 0, 0]) * factor + 32767
        exact = dataclasses.replace(final, epilogue=Thresholds(((limit,),), 0))
        graph = dataclasses.replace(case.graph, ops=(exact,))
        plain = (feed.astype(np.int64) * np.array([factor, 1]).reshape(1, 2, 1, 1)).sum(1)[:, None]
        actual = Executor(graph).run({"x": feed})["y"]
        np.testing.assert_array_equal(actual, plain >= limit)
        assert actual[0, 0, 0, 0] == 1


def test_missing_or_too_wide_accumulators_are_refused() -> None:
    op = Rescale(name="r", inputs=("x",), outputs=("y",), epilogue=Thresholds(((0,),), 0))
    kind = activation(IntType(8), 1, 2)
    acc = np.zeros((1, 2), np.int64)
    with pytest.raises(GraphError, match=r"Rescale .r.: .*accumulator"):
        finish_integer(op, acc, kind)
    wide = dataclasses.replace(op, accumulator=IntType(64, signed=False))
    with pytest.raises(GraphError, match="64 bits"):
        finish_integer(wide, acc, kind)
