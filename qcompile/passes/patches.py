"""The inputs that single outputs of a weighted operator are made of, as rows of a matrix.

Conv 3x3 over %x f32[1,16,64,64], 100 of its outputs   ->   f32[1 group, 100, 144]

The weights in the same order are those of `weight_rows.to_rows`: an output is its row of inputs
times its filter's row of weights, plus the bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qcompile.graph import Op
from qcompile.ops import Conv, ConvTranspose, MatMul
from qcompile.types import Array, Shape


@dataclass(frozen=True)
class Positions:
    """Places of an output tensor, whatever the channel.

    Attributes:
        flat: indices into the output without its channel axis.
        coordinates: the same, one array for each axis but the channels'.
    """

    flat: Array
    coordinates: tuple[Array, ...]

    @staticmethod
    def drawn(shape: Shape, op: Op, count: int, generator: np.random.Generator) -> Positions:
        """At most `count` different ones of an output of this shape; all if there are fewer."""
        sizes = position_shape(shape, op) or (1,)
        total = int(np.prod(sizes))
        if total <= count:
            flat = np.arange(total)
        else:
            flat = np.sort(generator.choice(total, count, replace=False))
        return Positions(flat, tuple(np.unravel_index(flat, sizes)))


def position_shape(shape: Shape, op: Op) -> Shape:
    """An output's axes without that of the channels; for convolutions without the batch, too."""
    return shape[:-1] if isinstance(op, MatMul) else shape[2:]


def outputs_at(op: Op, data: Array, positions: Positions) -> Array:
    """Outputs [positions, channels] of the tensor `data` that `op` wrote."""
    if isinstance(op, MatMul):
        return data.reshape(-1, data.shape[-1])[positions.flat]
    return data.reshape(data.shape[1], -1)[:, positions.flat].T


def patches_at(op: Op, x: Array, weights: Shape, positions: Positions) -> Array:
    """Inputs [groups, positions, weights of a filter] of the outputs at `positions`.

    Args:
        op: Conv, ConvTranspose or MatMul; what lies in the padding, and what a tap of a
            ConvTranspose does not meet, is 0.
        x: the operator's input, batch 1.
        weights: the shape of its weights.
        positions: of its output.
    """
    if isinstance(op, MatMul):
        return x.reshape(1, -1, x.shape[-1])[:, positions.flat].astype(np.float32, copy=False)
    assert isinstance(op, Conv | ConvTranspose)
    kernel = weights[2:]
    taps = tuple(np.ndindex(*kernel))
    count = len(positions.flat)
    rows = np.zeros((len(taps), x.shape[1], count), np.float32)
    for index, tap in enumerate(taps):
        inside = np.ones(count, bool)
        where = []
        for axis, place in enumerate(positions.coordinates):
            read, meets = _read(op, axis, tap[axis], place)
            inside &= meets & (read >= 0) & (read < x.shape[2 + axis])
            where.append(read)
        rows[index][:, inside] = x[0][(slice(None), *(read[inside] for read in where))]
    grouped = rows.reshape(len(taps), op.groups, x.shape[1] // op.groups, count)
    return np.ascontiguousarray(grouped.transpose(1, 3, 2, 0)).reshape(op.groups, count, -1)


def _read(op: Conv | ConvTranspose, axis: int, tap: int, place: Array) -> tuple[Array, Array]:
    """The input index that a tap reads for outputs at `place`, and whether it reads one at all."""
    stride, dilation = op.strides[axis], op.dilations[axis]
    if isinstance(op, Conv):
        return place * stride - op.pads_begin[axis] + tap * dilation, np.ones(len(place), bool)
    distance = place + op.pads_begin[axis] - tap * dilation
    return distance // stride, distance % stride == 0
