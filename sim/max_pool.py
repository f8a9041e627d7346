"""Maximum over a sliding window."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import MaxPool
from qcompile.sim.conv import pad_spatial, window
from qcompile.types import Array, IntType, TensorType


def run(op: MaxPool, inputs: Sequence[Array], output: TensorType) -> Array:
    """Any element type; padding is the lowest value of the type."""
    x = inputs[0]
    spatial = output.shape[2:]
    lowest = output.element.low if isinstance(output.element, IntType) else -np.inf
    ends = overhang(x.shape[2:], spatial, op.kernel, op.strides, op.dilations, op.pads_begin)
    result = pad_spatial(x, op.pads_begin, ends, lowest)
    # The maximum separates: one axis after the other takes sum(kernel), not prod(kernel), steps.
    for axis, size in enumerate(spatial):
        positions = result.shape[2:]
        positions = (*positions[:axis], size, *positions[axis + 1 :])
        views = []
        for k in range(op.kernel[axis]):
            tap = [0] * len(spatial)
            strides = [1] * len(spatial)
            tap[axis] = k
            strides[axis] = op.strides[axis]
            views.append(
                result[:, :, *window(tap, strides, op.dilations, 0, positions[0], positions)]
            )
        best = views[0].copy()
        for view in views[1:]:
            np.maximum(best, view, out=best)
        result = best
    return result


def overhang(
    spatial_in: Sequence[int],
    spatial_out: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads_begin: Sequence[int],
) -> tuple[int, ...]:
    """End pads at which the padded input ends exactly with the last window; negative where it
    does not reach the end of the input."""
    return tuple(
        (count - 1) * stride + dilation * (k - 1) + 1 - size - begin
        for size, count, k, stride, dilation, begin in zip(
            spatial_in, spatial_out, kernel, strides, dilations, pads_begin, strict=True
        )
    )
