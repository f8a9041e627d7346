"""Elements of one axis by their indices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import Gather
from qcompile.types import Array, TensorType


def run(op: Gather, inputs: Sequence[Array], output: TensorType) -> Array:
    """Any element type."""
    return np.take(inputs[0], op.indices, axis=op.axis)
