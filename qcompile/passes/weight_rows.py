"""Weights as a matrix: one row for each output channel."""

from __future__ import annotations

import numpy as np

from qcompile.graph import Op
from qcompile.ops import Conv, ConvTranspose, MatMul
from qcompile.types import Array


def channel_axis(op: Op) -> int:
    """The axis of the weights that output channels lie on (within a group for ConvTranspose)."""
    return 1 if isinstance(op, ConvTranspose | MatMul) else 0


def to_rows(op: Op, weights: Array) -> Array:
    """Weights as [output channels, n]; the filters of one group are neighbours."""
    if isinstance(op, ConvTranspose):
        grouped = np.stack(np.split(weights, op.groups, axis=0))
        return np.moveaxis(grouped, 2, 1).reshape(op.groups * weights.shape[1], -1)
    if isinstance(op, MatMul):
        return weights.T
    return weights.reshape(weights.shape[0], -1)


def from_rows(op: Op, rows: Array, shape: tuple[int, ...]) -> Array:
    """The inverse of `to_rows`."""
    if isinstance(op, ConvTranspose):
        per_group = shape[0] // op.groups
        split = rows.reshape(op.groups, shape[1], per_group, *shape[2:])
        return np.moveaxis(split, 2, 1).reshape(shape)
    if isinstance(op, MatMul):
        return np.ascontiguousarray(rows.T)
    return rows.reshape(shape)


def to_columns(op: Op, weights: Array) -> Array:
    """Weights as [input channels, n]: all that one input channel is multiplied with."""
    if isinstance(op, ConvTranspose | MatMul):
        return weights.reshape(weights.shape[0], -1)
    assert isinstance(op, Conv)
    grouped = weights.reshape(op.groups, -1, *weights.shape[1:])
    return np.moveaxis(grouped, 2, 1).reshape(op.groups * weights.shape[1], -1)
