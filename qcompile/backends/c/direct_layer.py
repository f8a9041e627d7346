"""A layer of the direct convolution: one form for Conv, ConvTranspose and MatMul.

conv 3x3, pad 1      one phase, a segment for each kernel row at (-1, -1), (0, -1), (1, -1)
conv transpose 2x2   four phases with a segment at (0, 0), outputs two pixels apart
matmul               one row of outputs, a segment at (0, 0)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.backends.c.weights import TILE_DEPTH, round_up
from qcompile.types import Array, Range


@dataclass(frozen=True)
class Part:
    """A tensor whose channels are (some of) the input's: the expression that points to it."""

    pointer: str
    ctype: str
    channels: int

    @property
    def bytes(self) -> str:
        """The pointer, as one to unsigned bytes."""
        return self.pointer if self.ctype == "uint8_t" else f"(const uint8_t *){self.pointer}"


def byte_offset(inputs: Range, signed: bool) -> int:
    """What is added to codes so that they are unsigned bytes, or signed ones; 0 if they are."""
    return min(0, 127 - inputs.high) if signed else max(0, -inputs.low)


@dataclass(frozen=True)
class Phase:
    """Outputs that meet the same taps.

    Attributes:
        taps: for each segment of the weights the place (down, across) that it reads first, relative
            to the output's own row and column times the step between outputs.
        codes: the weights [filters, segments, codes of a segment].
        rows: of outputs.
        columns: of outputs.
        place: of the first output, in elements.
    """

    taps: tuple[tuple[int, int], ...]
    codes: Array
    rows: int
    columns: int
    place: int

    @property
    def depth(self) -> int:
        """Bytes of the unpacked weights of a filter."""
        return len(self.taps) * round_up(self.codes.shape[2], TILE_DEPTH)


@dataclass(frozen=True)
class DirectLayer:
    """One layer as the driver sees it.

    Attributes:
        parts: the input, [height, width, channels] altogether.
        size: (height, width) of the input.
        inputs: which codes the input has, padding included.
        step: (down, across): input pixels between neighbouring outputs of a phase.
        phases: what is computed; all have segments of one length.
        kernel_width: taps of a segment that lie side by side (1: it is one tap).
        y_row: elements between rows of outputs of a phase.
        y_step: elements between outputs of a row.
        signed: the products take signed bytes of the input, as those of NEON do.
        abreast: neighbouring outputs whose filters follow each other as if they were one's.
    """

    parts: tuple[Part, ...]
    size: tuple[int, int]
    inputs: Range
    step: tuple[int, int]
    phases: tuple[Phase, ...]
    kernel_width: int
    y_row: int
    y_step: int
    signed: bool = False
    abreast: int = 1

    @property
    def channels(self) -> int:
        return sum(part.channels for part in self.parts)

    @property
    def filters(self) -> int:
        return int(self.phases[0].codes.shape[0])

    @property
    def segment(self) -> int:
        """Bytes of a segment of weights."""
        return round_up(self.phases[0].codes.shape[2], TILE_DEPTH)

    @property
    def offset(self) -> int:
        """What makes every code of the input a byte that the products take."""
        return byte_offset(self.inputs, self.signed)

    @property
    def bytes(self) -> Range:
        """What the products see of the input."""
        return Range(self.inputs.low + self.offset, self.inputs.high + self.offset)

    @property
    def columns(self) -> int:
        return max(phase.columns for phase in self.phases)

    @property
    def rows(self) -> int:
        return max(phase.rows for phase in self.phases)

    @property
    def weight_bytes(self) -> int:
        """All weights, unpacked."""
        return sum(self.filters * phase.depth for phase in self.phases)

    def two_abreast(self) -> DirectLayer | None:
        """The same layer with pairs of phases as one of twice the filters, if they allow that:
        neighbouring outputs of a transposed convolution that meet the same taps."""
        merged = []
        for left, right in zip(self.phases[::2], self.phases[1::2], strict=False):
            beside = right.place - left.place == self.filters
            if not beside or (left.taps, left.columns) != (right.taps, right.columns):
                return None
            codes = np.concatenate([left.codes, right.codes])
            merged.append(dataclasses.replace(left, codes=codes))
        if not merged or len(self.phases) % 2 or self.y_step != 2 * self.filters:
            return None
        return dataclasses.replace(self, phases=tuple(merged), abreast=2)

    def fits(self) -> bool:
        """Bytes times signed bytes; sums wrap, but end where they must."""
        span = self.inputs.high - self.inputs.low
        codes = [phase.codes for phase in self.phases if phase.codes.size]
        return 0 < span <= 255 and all(c.min() >= -128 and c.max() <= 127 for c in codes)

    def starts(self) -> Array:
        """What takes the offset of the inputs out of each sum: [phases * filters]."""
        return -self.offset * np.concatenate(
            [phase.codes.sum(axis=(1, 2), dtype=np.int64) for phase in self.phases]
        )

    def sum_ranges(self) -> tuple[Array, Array]:
        """(lowest, highest) sum of each filter."""
        lows, highs = [], []
        for phase in self.phases:
            positive = np.maximum(phase.codes, 0).sum(axis=(1, 2), dtype=np.int64)
            negative = np.minimum(phase.codes, 0).sum(axis=(1, 2), dtype=np.int64)
            lows.append(positive * self.inputs.low + negative * self.inputs.high)
            highs.append(positive * self.inputs.high + negative * self.inputs.low)
        return np.min(lows, axis=0), np.max(highs, axis=0)


def conv_layer(
    parts: Sequence[Part],
    size: tuple[int, int],
    out_size: tuple[int, int],
    inputs: Range,
    codes: Array,
    stride: tuple[int, int],
    pad: tuple[int, int],
    dilation: tuple[int, int],
) -> DirectLayer:
    """Convolution with the weights `codes` [filters, kernel rows, kernel columns, channels]."""
    filters, height, width = codes.shape[:3]
    joined = dilation[1] == 1
    taps = tuple(
        (ky * dilation[0] - pad[0], kx * dilation[1] - pad[1])
        for ky in range(height)
        for kx in range(1 if joined else width)
    )
    phase = Phase(taps, codes.reshape(filters, len(taps), -1), *out_size, 0)
    row = out_size[1] * filters
    kernel_width = width if joined else 1
    return DirectLayer(tuple(parts), size, inputs, stride, (phase,), kernel_width, row, filters)


def conv_transpose_layer(
    part: Part,
    size: tuple[int, int],
    out_size: tuple[int, int],
    inputs: Range,
    phases_y: Sequence[Sequence[tuple[int, int]]],
    phases_x: Sequence[Sequence[tuple[int, int]]],
    codes: Sequence[Array],
) -> DirectLayer:
    """Transposed convolution; the phases are those of `phase_taps`, for rows and columns.

    Args:
        part: the input.
        size: of the input.
        out_size: of the output.
        inputs: codes of the input.
        phases_y: for each phase of the rows the (tap, input offset) pairs that reach it.
        phases_x: the same for columns.
        codes: for each phase the weights [filters, taps, channels].
    """
    strides = len(phases_y), len(phases_x)
    filters = codes[0].shape[0]
    phases = []
    for index, weights in enumerate(codes):
        py, px = divmod(index, strides[1])
        taps = tuple((dy, dx) for _, dy in phases_y[py] for _, dx in phases_x[px])
        rows, columns = (
            -(-(extent - phase) // stride)
            for extent, phase, stride in zip(out_size, (py, px), strides, strict=True)
        )
        place = (py * out_size[1] + px) * filters
        phases.append(Phase(taps, weights, rows, columns, place))
    row = strides[0] * out_size[1] * filters
    return DirectLayer((part,), size, inputs, (1, 1), tuple(phases), 1, row, strides[1] * filters)


def matmul_layer(part: Part, rows: int, inputs: Range, matrix: Array) -> DirectLayer:
    """Product of `rows` rows with the matrix [inputs, outputs]."""
    codes = matrix.T[:, None, None, :]
    return conv_layer([part], (1, rows), (1, rows), inputs, codes, (1, 1), (0, 0), (1, 1))
