"""Convolution as matrix products over tiles of output rows.

A tile's patches are copied once into a [C * taps, positions] matrix that stays in the cache, and
one BLAS product makes all output channels of the tile. The sum is exact whenever the dtype holds
every partial sum (float32 below 2**24), so the integer kernel shares all of this.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from qcompile.ops import Conv
from qcompile.sim.activation import finish_float
from qcompile.sim.epilogue import finisher, matrix_dtype
from qcompile.sim.threads import in_lanes
from qcompile.types import Array, Shape, TensorType

TILE_BYTES = 2 << 20
"""Size of a tile's patch matrix: few enough columns for the caches, enough for a fast product."""
TILE_GROUP = 4
"""Tiles come in multiples of this, for as many threads to share."""
SMALL_BYTES = 1 << 16
"""Patch matrices below this are not worth a second thread."""

Finish = Callable[[Array], Array]
"""Turns the sums [N, M, rows, ...] of a tile into its outputs; may work in place."""


def run_float(op: Conv, inputs: Sequence[Array], output: TensorType) -> Array:
    """The real convolution."""
    x, weights = inputs[0], inputs[1]
    bias = inputs[2] if len(inputs) > 2 else None
    result = np.empty(output.shape, x.dtype)
    convolve(x, weights, op, result, lambda acc: finish_float(op, acc, bias))
    return result


def run_integer(op: Conv, inputs: Sequence[Array], output: TensorType) -> Array:
    """Exact sums, each tile finished while it is in the cache."""
    dtype = matrix_dtype(op)
    result = np.empty(output.shape, output.integer.storage)
    convolve(inputs[0], inputs[1].astype(dtype), op, result, finisher(op, output))
    return result


def accumulate(x: Array, weights: Array, op: Conv) -> Array:
    """The sums [N, M, *spatial] of a convolution, in the dtype of `weights`."""
    result = np.empty(op.infer_shape([x.shape, weights.shape]), weights.dtype)
    convolve(x, weights, op, result, lambda acc: acc)
    return result


def convolve(x: Array, weights: Array, op: Conv, result: Array, finish: Finish) -> None:
    """Writes finish(sums) into `result` [N, M, *spatial], tile by tile.

    Args:
        x: [N, C, *spatial], unpadded, of any dtype.
        weights: [M, C / groups, *kernel] in the dtype of the sums.
        op: strides, pads, dilations and groups.
        result: any dtype that `finish` returns.
        finish: gets sums [N, M, rows, ...] that it may overwrite.
    """
    dtype = weights.dtype
    spatial_out = result.shape[2:]
    kernel = weights.shape[2:]
    if op.groups > 1 and weights.shape[1] == 1:
        padded = pad_spatial(x.astype(dtype, copy=False), op.pads_begin, op.pads_end)
        _depthwise(padded, weights, op, result, finish)
        return
    groups = op.groups
    channels = weights.shape[1]
    matrix = weights.reshape(groups, weights.shape[0] // groups, -1)
    taps = tuple(np.ndindex(*kernel))
    pads = (*op.pads_begin, *op.pads_end)
    plain = len(taps) == 1 and all(stride == 1 for stride in op.strides) and not any(pads)
    row_bytes = len(taps) * x.shape[1] * dtype.itemsize * int(np.prod(spatial_out[1:]))

    def run_tiles(tiles: Sequence[tuple[int, int]]) -> None:
        # One of each for all tiles: fresh memory would cost a page fault every 4 kB.
        slab = buffer = np.empty(0, dtype)
        for first, last in tiles:
            tile_shape = (last - first, *spatial_out[1:])
            if not plain and buffer.shape[2:] != tile_shape:
                slab = _slab(x.shape, kernel, op, last - first, dtype)
                buffer = np.empty((x.shape[1], len(taps), *tile_shape), dtype)
            for image in range(x.shape[0]):
                if plain:
                    patches = x[image, :, first:last].astype(dtype, copy=False)
                else:
                    _fill_slab(slab, x[image], op, first * op.strides[0])
                    for index, tap in enumerate(taps):
                        rows = last - first
                        where = window(tap, op.strides, op.dilations, 0, rows, spatial_out)
                        buffer[:, index] = slab[(slice(None), *where)]
                    patches = buffer
                columns = patches.reshape(groups, channels * len(taps), -1)
                acc = np.matmul(matrix, columns).reshape(1, -1, *tile_shape)
                result[image : image + 1, :, first:last] = finish(acc)

    in_lanes(run_tiles, row_tiles(spatial_out[0], row_bytes))


def _slab(shape: Shape, kernel: Shape, op: Conv, rows: int, dtype: np.dtype[np.generic]) -> Array:
    """Memory [C, *padded] for the padded input rows that `rows` output rows read."""
    extent = op.dilations[0] * (kernel[0] - 1) + 1
    others = [
        begin + size + end
        for size, begin, end in zip(shape[3:], op.pads_begin[1:], op.pads_end[1:], strict=True)
    ]
    return np.zeros((shape[1], (rows - 1) * op.strides[0] + extent, *others), dtype)


def _fill_slab(slab: Array, x: Array, op: Conv, top: int) -> None:
    """Copies what the input [C, *spatial] has of the padded rows from `top` on; the rest is 0."""
    start = top - op.pads_begin[0]
    first = min(max(0, start), x.shape[1])
    last = max(first, min(x.shape[1], start + slab.shape[1]))
    begin, end = max(0, first - start), max(0, last - start)
    inside = tuple(
        slice(begin, begin + size)
        for begin, size in zip(op.pads_begin[1:], x.shape[2:], strict=True)
    )
    slab[:, :begin] = 0
    slab[:, end:] = 0
    slab[(slice(None), slice(begin, end), *inside)] = x[:, first:last]


def _depthwise(padded: Array, weights: Array, op: Conv, result: Array, finish: Finish) -> None:
    """One input channel a group: shifted products added up, no matrix."""
    spatial_out = result.shape[2:]
    images, channels = padded.shape[:2]
    multiplicity = weights.shape[0] // op.groups
    taps = tuple(np.ndindex(*weights.shape[2:]))
    factors = weights.reshape(channels, multiplicity, len(taps))
    row_bytes = weights.shape[0] * padded.dtype.itemsize * int(np.prod(spatial_out[1:]))

    def run_tiles(tiles: Sequence[tuple[int, int]]) -> None:
        for first, last in tiles:
            tile_shape = (last - first, *spatial_out[1:])
            for image in range(images):
                acc = np.zeros((channels, multiplicity, *tile_shape), padded.dtype)
                product = np.empty_like(acc)
                for index, tap in enumerate(taps):
                    where = window(tap, op.strides, op.dilations, first, last, spatial_out)
                    view = padded[image][(slice(None), *where)]
                    factor = factors[:, :, index].reshape(
                        channels, multiplicity, *(1,) * len(spatial_out)
                    )
                    np.multiply(view[:, None], factor, out=product)
                    acc += product
                done = finish(acc.reshape(1, -1, *tile_shape))
                result[image : image + 1, :, first:last] = done

    in_lanes(run_tiles, row_tiles(spatial_out[0], 2 * row_bytes))


def pad_spatial(x: Array, begins: Sequence[int], ends: Sequence[int], value: float = 0) -> Array:
    """`x` [N, C, *spatial] with constant borders; negative pads crop. `x` itself if none."""
    if not any(begins) and not any(ends):
        return x
    crop = tuple(
        slice(max(0, -begin), size - max(0, -end))
        for begin, end, size in zip(begins, ends, x.shape[2:], strict=True)
    )
    x = x[:, :, *crop]
    begins = [max(0, begin) for begin in begins]
    shape: Shape = tuple(
        begin + size + max(0, end)
        for begin, end, size in zip(begins, ends, x.shape[2:], strict=True)
    )
    padded = np.full((*x.shape[:2], *shape), value, x.dtype)
    inside = tuple(
        slice(begin, begin + size) for begin, size in zip(begins, x.shape[2:], strict=True)
    )
    padded[:, :, *inside] = x
    return padded


def window(
    tap: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    first: int,
    last: int,
    spatial_out: Sequence[int],
) -> tuple[slice, ...]:
    """Where the padded input holds what kernel position `tap` meets, for output rows first..last-1
    (rows being the first spatial axis) and every position of the other axes."""
    parts = []
    for axis, size in enumerate(spatial_out):
        low, high = (first, last) if axis == 0 else (0, size)
        start = tap[axis] * dilations[axis] + low * strides[axis]
        parts.append(slice(start, start + (high - low - 1) * strides[axis] + 1, strides[axis]))
    return tuple(parts)


def row_tiles(rows: int, row_bytes: int) -> list[tuple[int, int]]:
    """(first, last + 1) of equal tiles of output rows of about `TILE_BYTES`.

    Their number is a multiple of `TILE_GROUP` unless there is little to do, and depends on the
    shapes alone: so do the digits of float results.
    """
    if rows * row_bytes < SMALL_BYTES:
        return [(0, rows)]
    groups = -(-rows * row_bytes // (TILE_BYTES * TILE_GROUP))
    count = min(rows, groups * TILE_GROUP)
    return [(rows * i // count, rows * (i + 1) // count) for i in range(count)]
