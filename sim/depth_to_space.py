"""Blocks of channels to blocks of pixels."""

from __future__ import annotations

from collections.abc import Sequence

from qcompile.ops import DepthToSpace
from qcompile.types import Array, TensorType


def run(op: DepthToSpace, inputs: Sequence[Array], output: TensorType) -> Array:
    """Any element type."""
    x = inputs[0]
    images, _, height, width = x.shape
    block = op.block
    if op.column_major:
        split = x.reshape(images, -1, block, block, height, width).transpose(0, 1, 4, 2, 5, 3)
    else:
        split = x.reshape(images, block, block, -1, height, width).transpose(0, 3, 4, 1, 5, 2)
    return split.reshape(images, -1, height * block, width * block)
