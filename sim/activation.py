"""The last step of a float sum operator: bias, then the fused activation."""

from __future__ import annotations

import math

import numpy as np

from qcompile.ops import Activation, SumOp
from qcompile.types import Array, per_channel


def finish_float(op: SumOp, acc: Array, bias: Array | None = None) -> Array:
    """activation(acc + bias). `acc` is given away: the result may be computed in its memory."""
    axis = op.channel_axis(acc.ndim)
    if bias is not None:
        shape = [1] * acc.ndim
        shape[axis] = bias.size
        acc += bias.reshape(shape)
    return apply_in_place(op.activation, acc, axis)


def apply_in_place(activation: Activation, z: Array, axis: int) -> Array:
    """`activation.apply` without temporary arrays for the usual functions."""
    if activation.is_identity:
        return z
    if activation.slope == (0.0,):
        np.maximum(z, z.dtype.type(0), out=z)
    elif activation.slope != (1.0,):
        slope = per_channel(activation.slope, str(z.dtype), axis, z.ndim)
        if slope.min() > 0 and slope.max() <= 1:
            np.maximum(z, z * slope, out=z)
        else:
            np.multiply(z, slope, out=z, where=z < 0)
    if activation.gain != (1.0,):
        z *= per_channel(activation.gain, str(z.dtype), axis, z.ndim)
    if activation.shift != (0.0,):
        z += per_channel(activation.shift, str(z.dtype), axis, z.ndim)
    if activation.low != -math.inf or activation.high != math.inf:
        np.clip(z, z.dtype.type(activation.low), z.dtype.type(activation.high), out=z)
    return z
