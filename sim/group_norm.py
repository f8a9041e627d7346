"""Group and instance normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import GroupNorm
from qcompile.sim.activation import finish_float
from qcompile.types import Array, TensorType


def run_float(op: GroupNorm, inputs: Sequence[Array], output: TensorType) -> Array:
    """Statistics in float64, the result in the dtype of the input."""
    x = inputs[0]
    images, channels = x.shape[:2]
    rows = x.reshape(images, op.groups, -1)
    mean = rows.mean(axis=2, dtype=np.float64, keepdims=True)
    centred = rows - mean  # float64: biased variance without cancellation
    variance = np.einsum("ngk,ngk->ng", centred, centred)[..., None] / rows.shape[2]
    inverse = 1.0 / np.sqrt(variance + op.epsilon)
    # Scale and inverse deviation meet in float64, per channel; then float32 as everywhere.
    gain = np.repeat(inverse[..., 0], channels // op.groups, axis=1)
    if len(inputs) > 1:
        gain = gain * inputs[1].astype(np.float64)
    spread = (images, channels, *(1,) * (x.ndim - 2))
    result = (centred.reshape(x.shape) * gain.reshape(spread)).astype(x.dtype)
    return finish_float(op, result, inputs[2] if len(inputs) > 2 else None)
