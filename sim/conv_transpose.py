"""Transposed convolution: one matrix product, then its taps are laid over the output."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.ops import ConvTranspose
from qcompile.sim.activation import finish_float
from qcompile.sim.conv import Finish, pad_spatial, row_tiles
from qcompile.sim.epilogue import finisher, matrix_dtype
from qcompile.sim.threads import in_lanes
from qcompile.types import Array, TensorType


def run_float(op: ConvTranspose, inputs: Sequence[Array], output: TensorType) -> Array:
    """The real transposed convolution."""
    x, weights = inputs[0], inputs[1]
    bias = inputs[2] if len(inputs) > 2 else None
    result = np.empty(output.shape, x.dtype)
    spread(x, weights, op, result, lambda acc: finish_float(op, acc, bias))
    return result


def run_integer(op: ConvTranspose, inputs: Sequence[Array], output: TensorType) -> Array:
    """Exact sums."""
    dtype = matrix_dtype(op)
    result = np.empty(output.shape, output.integer.storage)
    x, weights = (data.astype(dtype) for data in inputs)
    spread(x, weights, op, result, finisher(op, output))
    return result


def spread(x: Array, weights: Array, op: ConvTranspose, result: Array, finish: Finish) -> None:
    """Writes finish(sums) into `result` [N, M, *spatial].

    Where the taps fill the output without overlap or border (the usual upsampling), tiles of input
    rows are independent and stay in the cache; otherwise everything is one tile.
    """
    kernel = weights.shape[2:]
    borders = (*op.pads_begin, *op.pads_end, *op.output_padding)
    if kernel != op.strides or max(op.dilations) > 1 or any(borders):
        result[...] = finish(accumulate(x, weights, op))
        return

    def run_tiles(tiles: Sequence[tuple[int, int]]) -> None:
        for first, last in tiles:
            rows = slice(first * kernel[0], last * kernel[0])
            result[:, :, rows] = finish(accumulate(x[:, :, first:last], weights, op))

    row_bytes = result.size // x.shape[2] * x.dtype.itemsize
    in_lanes(run_tiles, row_tiles(x.shape[2], row_bytes))


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
