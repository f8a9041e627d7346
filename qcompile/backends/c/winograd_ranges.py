"""Winograd F(2x2,3x3) in integers: which ranges are proven, and the constants that follow.

Outputs are computed in tiles of 2x2 from 4x4 inputs d with 16 products for each channel instead of
36, exactly, because the weights g are transformed with 2G instead of G:

    4 y = A' [(2G g (2G)') * (B' d B)] A

    B' = 1  0 -1  0     2G = 2  0  0     A' = 1  1  1  0
         0  1  1  0          1  1  1          0  1 -1 -1
         0 -1  1  0          1 -1  1
         0  1  0 -1          0  0  2

`*` is a product for each of the 16 positions, summed over the channels, and the shift by 2 at the
end loses nothing. The products are those of unsigned and signed bytes, so the compiler proves:

* Inputs. If the codes of a channel, 0 for padding among them, are within low..high, fifteen
  positions are sums of two codes minus two codes: within +-2 (high - low). With 128 more they are
  unsigned bytes where high - low <= 63. Position (1, 1) is a sum of four codes and gets -4 low.
  All that is computed modulo 256, so channels may differ, and parts of a concatenation in sign.
* Weights. Each of the transformed weights of this very layer is within -128..127.
* Sums. They wrap modulo 2**32, and four times the sum of the convolution has less than 32 bits.
* AVX2 only. Pairs of products, and sums of pairs over a run of channels that is stored for each
  block of filters and position, fit in 16 bits.

What the offsets of the inputs add to an output is a constant, different for the four outputs of a
tile; `start_values` takes it away.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.backends.c.direct_layer import DirectLayer
from qcompile.backends.c.weights import TILE_ROWS, round_up
from qcompile.types import Array, Range

WIDEST = 63
"""High minus low of the input codes: differences of sums of two stay within +-126."""
OFFSET = 128
BYTE = Range(-128, 127)
SUMS = Range(-(1 << 29), (1 << 29) - 1)
PAIR_SUM = (1 << 15) - 1
LONGEST_RUN = 255

A = np.array([[1, 1, 1, 0], [0, 1, -1, -1]])


def has_form(layer: DirectLayer) -> bool:
    """A 3x3 convolution with stride 1, of whole dwords of channels."""
    if len(layer.phases) != 1 or layer.step != (1, 1) or layer.kernel_width != 3:
        return False
    phase = layer.phases[0]
    down, across = phase.taps[0]
    # Packed weights are unpacked from a multiple of 8 codes on.
    whole = layer.channels % 8 == 0 or (layer.channels % 4 == 0 and layer.filters % 2 == 0)
    return (
        phase.taps == ((down, across), (down + 1, across), (down + 2, across))
        and phase.codes.shape[2] == 3 * layer.channels
        and down <= 0
        and across <= 0
        and whole
    )


def sums_fit(layer: DirectLayer) -> bool:
    """Four times every sum of the convolution fits in 32 bits."""
    lows, highs = layer.sum_ranges()
    return SUMS.contains(Range(int(lows.min()), int(highs.max())))


def transformed(layer: DirectLayer, outer: int) -> Array:
    """The layer's weights [filters, channels, 4, 4] after the transformation.

    Args:
        layer: the geometry.
        outer: 2 for 2G, 1 for 2G with its first and last row halved.
    """
    codes = layer.phases[0].codes.astype(np.int16)
    taps = codes.reshape(layer.filters, 3, 3, layer.channels).transpose(0, 3, 1, 2)
    return _transform(_transform(taps, 2, outer), 3, outer)


def are_bytes(weights: Array) -> bool:
    """Transformed weights are signed bytes."""
    return BYTE.contains(Range(int(weights.min()), int(weights.max())))


def _transform(weights: Array, axis: int, outer: int) -> Array:
    first, middle, last = np.moveaxis(weights, axis, 0)
    ends = first + last
    return np.stack([outer * first, ends + middle, ends - middle, outer * last], axis)


def inputs_fit(inputs: Sequence[Range]) -> bool:
    """The transformed inputs are bytes.

    Args:
        inputs: the codes of each channel, that of padding included.
    """
    return all(codes.high - codes.low <= WIDEST for codes in inputs)


def offsets(inputs: Sequence[Range]) -> Array:
    """What makes the transformed inputs unsigned: [channels, 4, 4]."""
    result = np.full((len(inputs), 4, 4), OFFSET, np.int64)
    result[:, 1, 1] = [-4 * codes.low for codes in inputs]
    return result


def start_values(inputs: Sequence[Range], weights: Array) -> Array:
    """Where sums begin: for each block of filters [columns 1 and 2 of rows 0 and 3][filter 16].

    With k the four constants to be taken away from the outputs of a tile, rows 0 and 3 add
    m1 + m2 to the left output and m1 - m2 to the right one, row 3 with the signs reversed. All k
    are even because the offsets are.

    Args:
        inputs: the codes of each channel.
        weights: `transformed` with 2.
    """
    added = offsets(inputs)
    sums = OFFSET * weights.sum(axis=1, dtype=np.int64)
    sums[:, 1, 1] = weights[:, :, 1, 1] @ added[:, 1, 1]
    k = -np.einsum("ai,fij,bj->fab", A, sums, A)
    total, difference = (k[:, :, 0] + k[:, :, 1]) // 2, (k[:, :, 0] - k[:, :, 1]) // 2
    values = np.stack([total[:, 0], difference[:, 0], -total[:, 1], -difference[:, 1]], axis=1)
    # Two blocks can be read at a time.
    padded = np.zeros((round_up(len(values), 2 * TILE_ROWS), 4), np.int64)
    padded[: len(values)] = values
    # Sums wrap, and so may their beginnings.
    return padded.reshape(-1, TILE_ROWS, 4).transpose(0, 2, 1).astype(np.int32)


def pair_runs(layer: DirectLayer, weights: Array) -> Array | None:
    """For AVX2: how many quads of channels add up in 16 bits, run after run.

    Args:
        layer: the geometry.
        weights: `transformed` with 1.

    Returns:
        [blocks of 16 filters, 16 positions, runs], filled up with zeros; None where even the pairs
        of one quad exceed 16 bits.
    """
    quads = layer.channels // 4
    highest = np.full(16, 2 * OFFSET - 1)
    found: list[list[int]] = []
    for first in range(0, layer.filters, TILE_ROWS):
        block = weights[first : first + TILE_ROWS].reshape(-1, quads, 2, 2, 16)
        bounds = [
            highest * np.maximum(sign * block, 0).sum(axis=3, dtype=np.int64) for sign in (1, -1)
        ]
        # Whatever of this is added, in any order, stays below.
        worst = np.concatenate([bound.transpose(0, 2, 1, 3) for bound in bounds])
        worst = worst.reshape(-1, quads, 16)
        total = np.concatenate([np.zeros_like(worst[:, :1]), worst.cumsum(axis=1)], axis=1)
        for position in range(16):
            runs = _runs(total[:, :, position])
            if runs is None:
                return None
            found.append(runs)
    most = max(len(runs) for runs in found)
    table = np.zeros((len(found), most), np.uint8)
    for line, runs in zip(table, found, strict=True):
        line[: len(runs)] = runs
    return table.reshape(-1, 16, most)


def _runs(total: Array) -> list[int] | None:
    """Longest runs such that the increase of every line of `total` over a run is limited."""
    result: list[int] = []
    at, quads = 0, total.shape[1] - 1
    while at < quads:
        ahead = total[:, at + 1 : at + 1 + LONGEST_RUN] - total[:, at : at + 1]
        run = int((ahead.max(axis=0) <= PAIR_SUM).sum())
        if run == 0:
            return None
        result.append(run)
        at += run
    return result
