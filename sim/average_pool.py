"""Mean over a sliding window."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import AveragePool
from qcompile.sim.activation import finish_float
from qcompile.sim.conv import pad_spatial, window
from qcompile.sim.epilogue import finish_integer, integer_dtype
from qcompile.sim.max_pool import overhang
from qcompile.types import Array, Shape, TensorType


def run_float(op: AveragePool, inputs: Sequence[Array], output: TensorType) -> Array:
    """Means of real numbers."""
    x = inputs[0]
    acc = window_sums(x, op, output.shape)
    acc /= divisor_grid(op, x.shape, output.shape, x.dtype)
    return finish_float(op, acc)


def run_integer(op: AveragePool, inputs: Sequence[Array], output: TensorType) -> Array:
    """Sums brought to the common divisor of all windows."""
    dtype = integer_dtype(op)
    x = inputs[0]
    acc = window_sums(x.astype(dtype), op, output.shape)
    common = op.common_divisor(x.shape[2:], output.shape[2:])
    grid = divisor_grid(op, x.shape, output.shape, np.dtype(np.int64))
    acc *= (common // grid).astype(dtype)
    return finish_integer(op, acc, output)


def window_sums(x: Array, op: AveragePool, shape: Shape) -> Array:
    """Sums [N, C, *spatial] over the windows, padding being 0, in the dtype of `x`."""
    spatial = shape[2:]
    ends = overhang(x.shape[2:], spatial, op.kernel, op.strides, op.dilations, op.pads_begin)
    padded = pad_spatial(x, op.pads_begin, ends)
    acc = np.zeros(shape, x.dtype)
    for tap in np.ndindex(*op.kernel):
        acc += padded[:, :, *window(tap, op.strides, op.dilations, 0, spatial[0], spatial)]
    return acc


def divisor_grid(
    op: AveragePool, shape_in: Shape, shape_out: Shape, dtype: np.dtype[np.generic]
) -> Array:
    """Each window's divisor, [*spatial]."""
    grid: Array = np.ones((1,) * (len(shape_out) - 2), dtype)
    for axis, counts in enumerate(op.divisors(shape_in[2:], shape_out[2:])):
        vector = [1] * grid.ndim
        vector[axis] = len(counts)
        grid = grid * np.asarray(counts, dtype).reshape(vector)
    return grid
