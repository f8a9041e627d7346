"""Which input rows an operator reads for one output row.

    3x3 convolution, pad 1, stride 2:   row r reads rows 2r-1 .. 2r+1      (Reach 2r + 1)
    2x2 transposed convolution:         row r reads row  r // 2            (Reach (r + 0) / 2)
    sum of two tensors:                 row r reads row  r of both         (Reach r)

Rows are those of images [1, C, H, W]; whatever mixes them otherwise has no reach.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from qcompile.graph import Graph, Op
from qcompile.ops import (
    Add,
    Affine,
    ArgMax,
    AveragePool,
    Concat,
    Conv,
    ConvTranspose,
    Dequantize,
    Div,
    LinearResize,
    Lookup,
    MaxPool,
    Mul,
    NearestResize,
    Pointwise,
    Quantize,
    Rescale,
    Softmax,
    Threshold,
)
from qcompile.passes.store_rows import PackRows, UnpackRows

IMAGE_RANK, CHANNEL_AXIS, ROW_AXIS = 4, 1, 2
ELEMENTWISE = (
    Add,
    Affine,
    Dequantize,
    Div,
    Lookup,
    Mul,
    Pointwise,
    Quantize,
    Rescale,
    Threshold,
    PackRows,
    UnpackRows,
)


@dataclass(frozen=True, slots=True)
class Reach:
    """Output row r needs input rows up to (step * r + ahead) // divisor, or the input's last.

    Attributes:
        source: the value that is read.
        rows: how many rows `source` has.
        step: of the linear bound.
        divisor: of the linear bound.
        ahead: of the linear bound.
        lowest: for each output row the first input row that it or a later one reads.
    """

    source: str
    rows: int
    step: int
    divisor: int
    ahead: int
    lowest: tuple[int, ...]

    def complete(self, row: int, done: int) -> bool:
        """Output row `row` can be computed once `done` rows of the source are there."""
        return done == self.rows or done * self.divisor > row * self.step + self.ahead


def row_axis(op: Op) -> int:
    """The axis of `op`'s output that runs over rows."""
    return ROW_AXIS - 1 if isinstance(op, ArgMax) and not op.keepdims else ROW_AXIS


def reaches(graph: Graph, op: Op, values: Sequence[str]) -> tuple[Reach, ...] | None:
    """What `op` needs of each activation it reads; None if it does not go by rows.

    Args:
        graph: its graph.
        op: the operator.
        values: the activations that it reads (of a joined concatenation the parts).
    """
    shapes = [graph.types[value].shape for value in (*values, op.output)]
    rank = graph.output_type(op).rank
    if any(len(shape) != IMAGE_RANK for shape in shapes[:-1]) or rank != row_axis(op) + 2:
        return None
    if any(shape[0] != 1 for shape in shapes) or not values:
        return None
    rows = shapes[-1][row_axis(op)]
    found = []
    for value, shape in zip(values, shapes, strict=False):
        windows = _windows(graph, op, shape[ROW_AXIS], rows)
        if windows is None:
            return None
        found.append(_reach(value, shape[ROW_AXIS], windows))
    return tuple(found)


def _windows(graph: Graph, op: Op, size: int, rows: int) -> list[tuple[int, int]] | None:
    """(first, last) input row of each output row, perhaps beyond the input."""
    if isinstance(op, Conv | MaxPool | AveragePool):
        kernel = graph.types[op.inputs[1]].shape[2] if isinstance(op, Conv) else op.kernel[0]
        stride, pad, dilation = op.strides[0], op.pads_begin[0], op.dilations[0]
        return [
            (row * stride - pad, row * stride - pad + (kernel - 1) * dilation)
            for row in range(rows)
        ]
    if isinstance(op, ConvTranspose):
        span = (graph.types[op.inputs[1]].shape[2] - 1) * op.dilations[0]
        tops = [row + op.pads_begin[0] for row in range(rows)]
        return [(-(-(top - span) // op.strides[0]), top // op.strides[0]) for top in tops]
    if isinstance(op, NearestResize):
        return [(source, source) for source in op.sources[0]]
    if isinstance(op, LinearResize):
        pairs = zip(op.taps[0].first, op.taps[0].second, strict=True)
        return [(min(pair), max(pair)) for pair in pairs]
    by_channel = isinstance(op, ArgMax | Concat | Softmax) and op.axis == CHANNEL_AXIS
    if not by_channel and not isinstance(op, ELEMENTWISE):
        return None
    if any(_has_rows(graph, value) for value in op.inputs if graph.is_constant(value)):
        return None
    return [(row, row) if size > 1 else (0, 0) for row in range(rows)]


def _has_rows(graph: Graph, value: str) -> bool:
    """A constant image differs from row to row."""
    shape = graph.types[value].shape
    return len(shape) > 1 and math.prod(shape[-2:-1]) > 1 and len(shape) == IMAGE_RANK


def _reach(value: str, size: int, windows: Sequence[tuple[int, int]]) -> Reach:
    """The tightest linear bound of the windows' last rows, and their first rows."""
    lasts = [last for _, last in windows]
    # Pixels are aligned by their edges, or by the centres of the first and the last one.
    slopes = [(size, len(lasts)), (size - 1, max(1, len(lasts) - 1))]
    slopes += [(b - a, 1) for a, b in itertools.pairwise(lasts[:2])]
    bounds = [_bound(lasts, Fraction(*slope)) for slope in slopes]
    step, divisor, ahead = min(bounds, key=lambda bound: _excess(lasts, *bound))
    lowest = [min(max(first, 0), size - 1) for first, _ in windows]
    for row in reversed(range(len(lowest) - 1)):
        lowest[row] = min(lowest[row], lowest[row + 1])
    return Reach(value, size, step, divisor, ahead, tuple(lowest))


def _bound(lasts: Sequence[int], slope: Fraction) -> tuple[int, int, int]:
    """(step, divisor, ahead) of the lowest line with this slope above all `lasts`."""
    step, divisor = slope.numerator, slope.denominator
    ahead = max(last * divisor - row * step for row, last in enumerate(lasts))
    return step, divisor, ahead


def _excess(lasts: Sequence[int], step: int, divisor: int, ahead: int) -> int:
    """Rows that the bound asks for in vain, over all rows."""
    return sum((row * step + ahead) // divisor - last for row, last in enumerate(lasts))
