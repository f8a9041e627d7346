"""Rounding to a grid of real numbers, as other tools compute it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from qcompile.ops import FakeQuantize
from qcompile.types import Array, Rounding, TensorType


def run_float(op: FakeQuantize, inputs: Sequence[Array], output: TensorType) -> Array:
    """Float32 throughout: a division, the rounding, the clamp and a product."""
    x = inputs[0]
    scale = x.dtype.type(op.scale)
    if op.binary:
        return np.where(x >= 0, scale, -scale)
    with np.errstate(over="ignore"):
        steps: Array = x / scale
    codes = ROUNDINGS[op.rounding](steps)
    np.clip(codes, x.dtype.type(op.low), x.dtype.type(op.high), out=codes)
    codes *= scale
    return codes


def _up(x: Array) -> Array:
    return np.asarray(np.copysign(np.ceil(np.abs(x)), x))


def _half_up(x: Array) -> Array:
    return np.asarray(np.copysign(np.floor(np.abs(x) + x.dtype.type(0.5)), x))


def _half_down(x: Array) -> Array:
    return np.asarray(np.copysign(np.ceil(np.abs(x) - x.dtype.type(0.5)), x))


ROUNDINGS: Mapping[Rounding, Callable[[Array], Array]] = {
    Rounding.HALF_EVEN: np.rint,
    Rounding.HALF_UP: _half_up,
    Rounding.HALF_DOWN: _half_down,
    Rounding.UP: _up,
    Rounding.DOWN: np.trunc,
    Rounding.CEIL: np.ceil,
    Rounding.FLOOR: np.floor,
}
"""As in QONNX: HALF_UP and UP go away from zero, HALF_DOWN and DOWN towards it."""
