"""Transposed convolution: one matrix product, then its taps are laid over the output."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import ConvTranspose
from qcompile.sim.activation import finish_float
from qcompile.sim.conv import pad_spatial
from qcompile.sim.epilogue import finish_integer, matrix_dtype
from qcompile.types import Array, TensorType


def run_float(op: ConvTranspose, inputs: Sequence[Array], output: TensorType) -> Array:
    """The real transposed convolution."""
    bias = inputs[2] if len(inputs) > 2 else None
    return finish_float(op, accumulate(inputs[0], inputs[1], op), bias)


def run_integer(op: ConvTranspose, inputs: Sequence[Array], output: TensorType) -> Array:
    """Exact sums."""
    dtype = matrix_dtype(op)
    return finish_integer(
        op, accumulate(inputs[0].astype(dtype), inputs[1].astype(dtype), op), output
    )


def accumulate(x: Array, weights: Array, op: ConvTranspose) -> Array:
    """The sums [N, M, *spatial] in the common dtype of `x` [N, C, ...] and `weights`
    [C, M / groups, *kernel]; positions that no input reaches are 0."""
    kernel = weights.shape[2:]
    taps = tuple(np.ndindex(*kernel))
    images, channels, *spatial = x.shape
    groups = op.groups
    matrix = weights.reshape(groups, channels // groups, -1).transpose(0, 2, 1)
    columns = x.reshape(images, groups, channels // groups, -1)
    # [N, groups * M / groups, taps, *spatial]
    product = np.matmul(matrix, columns).reshape(images, -1, len(taps), *spatial)
    filters = product.shape[1]
    if kernel == op.strides and all(dilation == 1 for dilation in op.dilations):
        full = _interleave(product, kernel)
    else:
        extent = tuple(
            (size - 1) * stride + dilation * (k - 1) + 1
            for size, stride, dilation, k in zip(
                spatial, op.strides, op.dilations, kernel, strict=True
            )
        )
        full = np.zeros((images, filters, *extent), x.dtype)
        for index, tap in enumerate(taps):
            target = tuple(
                slice(t * dilation, t * dilation + (size - 1) * stride + 1, stride)
                for t, dilation, size, stride in zip(
                    tap, op.dilations, spatial, op.strides, strict=True
                )
            )
            full[:, :, *target] += product[:, :, index]
    ends = [extra - end for extra, end in zip(op.output_padding, op.pads_end, strict=True)]
    cropped = pad_spatial(full, [-begin for begin in op.pads_begin], ends)
    return np.ascontiguousarray(cropped)


def _interleave(product: Array, kernel: Sequence[int]) -> Array:
    """[N, M, taps, *spatial] -> [N, M, *(spatial * kernel)]: taps that never overlap."""
    images, filters, _, *spatial = product.shape
    rank = len(kernel)
    split = product.reshape(images, filters, *kernel, *spatial)
    order = [0, 1]
    for axis in range(rank):
        order += [2 + rank + axis, 2 + axis]
    sizes = [size * k for size, k in zip(spatial, kernel, strict=True)]
    return split.transpose(order).reshape(images, filters, *sizes)
