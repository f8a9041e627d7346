"""Where in its window a maximum lies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import MaxPoolIndex
from qcompile.sim.conv import pad_spatial, window
from qcompile.sim.max_pool import overhang
from qcompile.types import Array, IntType, TensorType


def run(op: MaxPoolIndex, inputs: Sequence[Array], output: TensorType) -> Array:
    """Codes or floats; what is outside of the input is lower than all of it."""
    x = inputs[0]
    spatial = output.shape[2:]
    lowest: float = -np.inf
    if x.dtype.kind in "iu":
        x = x.astype(np.int64)
        lowest = IntType(64).low
    ends = overhang(x.shape[2:], spatial, op.kernel, op.strides, op.dilations, op.pads_begin)
    padded = pad_spatial(x, op.pads_begin, ends, lowest)
    best = np.full(output.shape, lowest, x.dtype)
    result = np.zeros(output.shape, output.integer.storage)
    for position, tap in enumerate(np.ndindex(*op.kernel)):
        view = padded[:, :, *window(tap, op.strides, op.dilations, 0, spatial[0], spatial)]
        higher = view > best
        np.copyto(best, view, where=higher)
        result[higher] = position
    return result
