"""Linear interpolation, one axis after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import LinearResize
from qcompile.sim.activation import finish_float
from qcompile.sim.epilogue import finish_integer, integer_dtype
from qcompile.types import Array, TensorType


def run_float(op: LinearResize, inputs: Sequence[Array], output: TensorType) -> Array:
    """The real interpolation."""
    weights = [
        tuple((1.0 - float(weight), float(weight)) for weight in taps.weights) for taps in op.taps
    ]
    return finish_float(op, accumulate(inputs[0], op, weights))


def run_integer(op: LinearResize, inputs: Sequence[Array], output: TensorType) -> Array:
    """Integer weights; the sum of an axis never exceeds the sum over all axes."""
    weights = [taps.integer_weights() for taps in op.taps]
    acc = accumulate(inputs[0].astype(integer_dtype(op)), op, weights)
    return finish_integer(op, acc, output)


def accumulate(
    x: Array, op: LinearResize, weights: Sequence[Sequence[tuple[float, float]]]
) -> Array:
    """Weighted sums of the taps along every spatial axis, in the dtype of `x`; nothing is rounded
    between the axes beyond that dtype.

    Args:
        x: [N, C, *spatial].
        op: says which positions the taps read.
        weights: for each axis and output position the weights of the two taps.
    """
    result = x
    for index, (taps, pairs) in enumerate(zip(op.taps, weights, strict=True)):
        axis = index + 2
        shape = [1] * x.ndim
        shape[axis] = len(pairs)
        # dtype first: casting float64 weights inside the product would promote the whole tensor
        first = np.asarray([pair[0] for pair in pairs], x.dtype).reshape(shape)
        second = np.asarray([pair[1] for pair in pairs], x.dtype).reshape(shape)
        low = np.take(result, taps.first, axis)
        high = np.take(result, taps.second, axis)
        low *= first
        high *= second
        low += high
        result = low
    return result
