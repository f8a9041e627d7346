"""Permutation of axes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import Transpose
from qcompile.types import Array, TensorType


def run(op: Transpose, inputs: Sequence[Array], output: TensorType) -> Array:
    """Any element type."""
    return np.ascontiguousarray(inputs[0].transpose(op.permutation))
