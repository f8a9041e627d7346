"""A patch times its filter's row of weights is the float kernel's output, at the same place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from qcompile.graph import Op
from qcompile.ops import Conv, ConvTranspose, MatMul
from qcompile.passes.patches import Positions, outputs_at, patches_at
from qcompile.passes.weight_rows import channel_axis, from_rows, to_columns, to_rows
from qcompile.sim.table import KERNELS
from qcompile.types import Array, Shape, TensorType

RNG = np.random.default_rng(4)


def conv(**fields: Any) -> Conv:
    plain = {"strides": (1, 1), "pads_begin": (0, 0), "pads_end": (0, 0), "dilations": (1, 1)}
    return Conv(name="op", inputs=("x", "w", "b"), outputs=("y",), **(plain | fields))


def transposed(**fields: Any) -> ConvTranspose:
    plain = {"strides": (2, 2), "pads_begin": (0, 0), "pads_end": (0, 0), "dilations": (1, 1)}
    plain["output_padding"] = (0, 0)
    return ConvTranspose(name="op", inputs=("x", "w", "b"), outputs=("y",), **(plain | fields))


MATMUL = MatMul(name="op", inputs=("x", "w", "b"), outputs=("y",))

CASES: list[tuple[Op, Shape, Shape]] = [
    (conv(), (1, 3, 6, 7), (4, 3, 3, 2)),
    (conv(pads_begin=(2, 0), pads_end=(1, 3)), (1, 3, 6, 7), (4, 3, 3, 3)),
    (conv(strides=(2, 3), pads_begin=(1, 1)), (1, 2, 7, 9), (5, 2, 3, 3)),
    (conv(dilations=(2, 3), pads_begin=(2, 1), pads_end=(2, 1)), (1, 2, 8, 9), (3, 2, 3, 3)),
    (conv(groups=3, strides=(2, 2), pads_end=(1, 1)), (1, 6, 6, 6), (9, 2, 3, 3)),
    (conv(groups=4, pads_begin=(1, 1), pads_end=(1, 1)), (1, 4, 5, 5), (8, 1, 3, 3)),
    (conv(strides=(2,), dilations=(2,), pads_begin=(1,), pads_end=(0,)), (1, 3, 9), (4, 3, 3)),
    (
        conv(strides=(1, 2, 1), dilations=(1, 1, 2), pads_begin=(1, 0, 1), pads_end=(0, 1, 1)),
        (1, 2, 4, 5, 6),
        (3, 2, 2, 3, 2),
    ),
    (transposed(), (1, 3, 4, 5), (3, 4, 2, 2)),
    (transposed(), (1, 3, 4, 5), (3, 4, 5, 3)),
    (transposed(pads_begin=(1, 0), pads_end=(1, 2)), (1, 3, 4, 5), (3, 4, 4, 3)),
    (transposed(output_padding=(1, 1), pads_begin=(1, 1)), (1, 3, 4, 4), (3, 2, 3, 3)),
    (transposed(strides=(3, 1), dilations=(1, 2), groups=2), (1, 6, 4, 4), (6, 2, 2, 3)),
    (transposed(groups=4, pads_end=(1, 1)), (1, 4, 4, 4), (4, 1, 3, 3)),
    (transposed(pads_begin=(-1, -2), pads_end=(-1, 0)), (1, 2, 3, 3), (2, 3, 2, 2)),
    (
        transposed(
            strides=(2,), pads_begin=(0,), pads_end=(1,), dilations=(1,), output_padding=(1,)
        ),
        (1, 4, 5),
        (4, 3, 3),
    ),
    (MATMUL, (1, 6), (6, 4)),
    (MATMUL, (1, 3, 5, 6), (6, 4)),
    (MATMUL, (6,), (6, 4)),
]


def random(shape: Shape) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(("op", "shape", "kernel"), CASES)
@pytest.mark.parametrize("count", [7, 10_000])
def test_patches_times_rows_are_the_outputs(
    op: Op, shape: Shape, kernel: Shape, count: int
) -> None:
    x, weights = random(shape), random(kernel)
    groups = getattr(op, "groups", 1)
    bias = random(
        (kernel[1] * groups if isinstance(op, ConvTranspose) else to_rows(op, weights).shape[0],)
    )
    kind = TensorType(op.infer_shape([shape, kernel, bias.shape]))
    function = KERNELS[type(op)].float_
    assert function is not None
    wanted = function(op, [x, weights, bias], kind)
    positions = Positions.drawn(kind.shape, op, count, np.random.default_rng(1))
    outputs = outputs_at(op, wanted, positions)
    patches = patches_at(op, x, kernel, positions)
    rows = to_rows(op, weights).reshape(groups, -1, patches.shape[2])
    sums = np.matmul(patches, rows.transpose(0, 2, 1)).transpose(1, 0, 2)
    np.testing.assert_allclose(sums.reshape(outputs.shape) + bias, outputs, atol=1e-5)
    assert patches.dtype == np.float32
    everything = kind.size // len(bias)
    assert len(outputs) == min(count, everything) == len(np.unique(positions.flat))
    if count >= everything:
        assert np.sort(outputs, axis=None) == pytest.approx(np.sort(wanted, axis=None))


@pytest.mark.parametrize(("op", "shape", "kernel"), CASES)
def test_rows_and_back(op: Op, shape: Shape, kernel: Shape) -> None:
    weights = random(kernel)
    rows = to_rows(op, weights)
    np.testing.assert_array_equal(from_rows(op, rows, kernel), weights)
    assert rows.shape[0] % kernel[channel_axis(op)] == 0


@pytest.mark.parametrize(("op", "shape", "kernel"), CASES)
def test_a_column_is_all_that_its_input_channel_is_multiplied_with(
    op: Op, shape: Shape, kernel: Shape
) -> None:
    """Without these weights the channel may hold anything."""
    weights = random(kernel)
    axis = len(shape) - 1 if isinstance(op, MatMul) else 1
    numbers = np.arange(1.0, weights.size + 1).reshape(kernel)  # 0 marks what is taken out
    columns = to_columns(op, numbers)
    assert columns.shape[0] == shape[axis]
    function = KERNELS[type(op)].float_
    assert function is not None
    for channel, column in enumerate(columns):
        without = np.where(np.isin(numbers, column), np.float32(0), weights)
        x = random(shape)
        other = x.copy()
        np.moveaxis(other, axis, 0)[channel] += 1
        kind = TensorType(op.infer_shape([shape, kernel]))
        bare = [function(op, [data, without], kind) for data in (x, other)]
        np.testing.assert_array_equal(bare[0], bare[1])
        full = [function(op, [data, weights], kind) for data in (x, other)]
        assert not np.array_equal(full[0], full[1])
