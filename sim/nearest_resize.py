"""Nearest-neighbour resize."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import NearestResize
from qcompile.types import Array, TensorType


def run(op: NearestResize, inputs: Sequence[Array], output: TensorType) -> Array:
    """Any element type."""
    result = inputs[0]
    for axis, sources in enumerate(op.sources):
        if sources != tuple(range(result.shape[axis + 2])):
            result = np.take(result, sources, axis=axis + 2)
    return result
