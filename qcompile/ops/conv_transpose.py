"""Transposed convolution over any number of spatial axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.errors import ShapeError
from qcompile.ops.sum_op import SumOp, weighted_reach
from qcompile.types import Array, Range, Shape, TensorType


@dataclass(frozen=True, slots=True, kw_only=True)
class ConvTranspose(SumOp):
    """Inputs: x [1, C, *spatial], constant weights [C, M / groups, *kernel], optional bias [M].

    Output [1, M, *spatial] with spatial = (in - 1) * stride + output_padding +
    dilation * (kernel - 1) + 1 - pads_begin - pads_end. Pads may be negative (the importer makes
    them so from `output_shape`): then the output is extended by positions that only have the bias.
    """

    strides: tuple[int, ...]
    pads_begin: tuple[int, ...]
    pads_end: tuple[int, ...]
    dilations: tuple[int, ...]
    output_padding: tuple[int, ...]
    groups: int = 1

    def infer_shape(self, shapes: Sequence[Shape]) -> Shape:
        x, weights = shapes[0], shapes[1]
        if len(weights) != len(x) or len(x) < 3 or weights[0] != x[1] or x[1] % self.groups:
            raise ShapeError(
                f"{self.label()}: weights of shape {list(weights)} with {self.groups} group(s) "
                f"do not fit the input of shape {list(x)}; check the model or --input-shape"
            )
        spatial = tuple(
            (size - 1) * stride + extra + dilation * (kernel - 1) + 1 - begin - end
            for size, stride, extra, dilation, kernel, begin, end in zip(
                x[2:],
                self.strides,
                self.output_padding,
                self.dilations,
                weights[2:],
                self.pads_begin,
                self.pads_end,
                strict=True,
            )
        )
        if min(spatial) < 1:
            raise ShapeError(
                f"{self.label()}: the output would have shape {list(spatial)}; its pads "
                f"{list(self.pads_begin)}, {list(self.pads_end)} are too large"
            )
        return (x[0], weights[1] * self.groups, *spatial)

    def reach(self, types: Sequence[TensorType], constants: Sequence[Array | None]) -> Range:
        """A bound that takes every kernel tap as meeting an input: with a stride, fewer do."""
        weights = constants[1]
        assert weights is not None
        per_group = np.stack(np.split(weights.astype("int64"), self.groups, axis=0))
        rows = np.moveaxis(per_group, 2, 1).reshape(self.groups * weights.shape[1], -1)
        return weighted_reach(rows.clip(min=0).sum(1), rows.clip(max=0).sum(1), types[0].codes)
