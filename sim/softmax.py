"""Softmax along one axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import Softmax
from qcompile.types import Array, TensorType


def run_float(op: Softmax, inputs: Sequence[Array], output: TensorType) -> Array:
    """The real softmax."""
    x = inputs[0]
    result: Array = x - x.max(axis=op.axis, keepdims=True)
    np.exp(result, out=result)
    result /= result.sum(axis=op.axis, keepdims=True)
    return result
