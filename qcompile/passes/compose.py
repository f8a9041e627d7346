"""When two activations in a row are one activation."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from qcompile.ops.activation import Activation

_Vector = tuple[float, ...]


def compose(first: Activation, second: Activation) -> Activation | None:
    """The activation equal to `second(first(z))` for every z, or None where there is none.

    An `Activation` is leaky, then gain and shift, then clip. So `second` is appended part by part:

    * leaky after a function that keeps the sign of z multiplies the slopes; after one that is never
      negative it changes nothing; with slope 0 it is a clip at zero;
    * gain and shift after no clip multiply through; after a clip its bounds move along, which
      takes one gain and shift for all channels;
    * clip after clip narrows the bounds.
    """
    result = _then_leaky(first, second.slope)
    if result is not None:
        result = _then_affine(result, second.gain, second.shift)
    return None if result is None else _then_clip(result, second.low, second.high)


def shrink(vector: Sequence[float]) -> _Vector:
    """Per-channel values that are all equal become one value."""
    values = tuple(float(value) for value in vector)
    return values[:1] if len(set(values)) == 1 else values


def _then_leaky(first: Activation, slope: _Vector) -> Activation | None:
    if slope == (1.0,) or first.is_nonnegative:
        return first
    if _keeps_sign(first):
        # Below a finite bound, leaky has to keep the order for the bound to move along with it.
        ordered = min(slope) >= 0
        if first.low == -math.inf and (first.high == math.inf or ordered):
            return dataclasses.replace(first, slope=_product(first.slope, slope))
        if len(slope) == 1 and ordered:
            low = first.low * slope[0] + 0.0
            return dataclasses.replace(first, slope=_product(first.slope, slope), low=low)
        return None
    return _then_clip(first, 0.0, math.inf) if slope == (0.0,) else None


def _then_affine(first: Activation, gain: _Vector, shift: _Vector) -> Activation | None:
    if gain == (1.0,) and shift == (0.0,):
        return first
    if first.low == 0 and first.high == math.inf and _keeps_sign(first):
        # A clip at zero of a sign-keeping function is a ReLU, which leaves the clip free again.
        first = dataclasses.replace(first, slope=(0.0,), low=-math.inf)
    low, high = first.low, first.high
    if low != -math.inf or high != math.inf:
        if len(gain) > 1 or len(shift) > 1 or gain[0] == 0:
            return None
        ends = sorted((gain[0] * low + shift[0], gain[0] * high + shift[0]))
        low, high = ends[0], ends[1]
    return Activation(
        first.slope,
        _product(first.gain, gain),
        _sum(_product(first.shift, gain), shift),
        low,
        high,
    )


def _then_clip(first: Activation, low: float, high: float) -> Activation:
    return dataclasses.replace(
        first, low=min(max(first.low, low), high), high=min(max(first.high, low), high)
    )


def _keeps_sign(function: Activation) -> bool:
    """The result is negative only where z is, and not negative where z is not."""
    return (
        function.shift == (0.0,)
        and min(function.gain) > 0
        and min(function.slope) >= 0
        and function.low <= 0 <= function.high
    )


def _product(a: _Vector, b: _Vector) -> _Vector:
    return shrink((np.array(a) * np.array(b)).tolist())


def _sum(a: _Vector, b: _Vector) -> _Vector:
    return shrink((np.array(a) + np.array(b)).tolist())
