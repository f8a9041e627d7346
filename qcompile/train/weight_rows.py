"""Weights as a matrix in torch, one row for each output channel: `passes/weight_rows.py`."""

from __future__ import annotations

import torch
from torch import Tensor

from qcompile.graph import Op
from qcompile.ops import ConvTranspose, MatMul


def to_rows(op: Op, weights: Tensor) -> Tensor:
    """Weights as [output channels, n]."""
    if isinstance(op, ConvTranspose):
        grouped = torch.stack(torch.chunk(weights, op.groups, dim=0))
        return grouped.movedim(2, 1).reshape(op.groups * weights.shape[1], -1)
    if isinstance(op, MatMul):
        return weights.T
    return weights.reshape(weights.shape[0], -1)


def from_rows(op: Op, rows: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The inverse of `to_rows`."""
    if isinstance(op, ConvTranspose):
        per_group = shape[0] // op.groups
        split = rows.reshape(op.groups, shape[1], per_group, *shape[2:])
        return split.movedim(2, 1).reshape(shape)
    if isinstance(op, MatMul):
        return rows.T
    return rows.reshape(shape)
