"""How weights and values spread over their codes: what the histograms of `report.html` show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qcompile.graph import Graph, Op
from qcompile.multiplications import weight_type
from qcompile.report.layers import real_scale
from qcompile.types import Array, TensorType

BINS = 64
"""Bins inside the range of the codes, about; fewer for a few numbers."""
PER_BIN = 40
"""Numbers for each bin that make it worth drawing."""
MARGIN = 0.14
"""Of that range, shown on either side."""
SAMPLE = 16384
"""Elements of a tensor that are counted, for each image; evenly spread."""


@dataclass(frozen=True, slots=True)
class Histogram:
    """Two distributions over one axis: float numbers, and what the codes make of them.

    Attributes:
        start: left edge of the first bin of `real`.
        width: of a bin of `real`.
        real: counts of float numbers; the first and the last bin hold all that is farther out.
        bar_start: left edge of the first bar.
        bar_width: of a bar: one code, or several.
        bars: counts of codes; empty for a float tensor.
        low: below it a float number is clipped; None for a float tensor.
        high: above it a float number is clipped.
        below: float numbers that are clipped at the lower end.
        above: those at the upper end.
        smallest: float number counted.
        largest: float number counted.
        step: from one code to the next; 0 for a float tensor.
        in_steps: whether the axis counts steps of the quantiser instead of real units.
    """

    start: float
    width: float
    real: tuple[int, ...]
    bar_start: float
    bar_width: float
    bars: tuple[int, ...]
    low: float | None
    high: float | None
    below: int
    above: int
    smallest: float
    largest: float
    step: float
    in_steps: bool = False

    @property
    def clipped(self) -> float:
        """Share of the float numbers that lie outside the range of the codes."""
        return (self.below + self.above) / max(1, sum(self.real))


@dataclass(frozen=True, slots=True)
class LayerHistograms:
    """Of one operator: its weights and its output; None where there is nothing to compare."""

    weights: Histogram | None = None
    output: Histogram | None = None


class OutputHistograms:
    """Collects those of all outputs, image by image."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._counts: dict[str, _Counts] = {}

    def add(self, value: str, real: Array, codes: Array) -> None:
        """Counts one tensor of one image.

        Args:
            value: name of the tensor in the compiled network.
            real: what the float network has there.
            codes: what the compiled one has, same shape.
        """
        kind = self._graph.types[value]
        step = max(1, real.size // SAMPLE) | 1  # odd: not in step with rows and columns
        seen = real.reshape(-1)[::step].astype(np.float64)
        found = codes.reshape(-1)[::step].astype(np.float64)
        scale = real_scale(kind)
        unit = 1.0
        if scale is not None:
            unit = float(scale.max())
            if scale.size > 1:
                spread = np.broadcast_to(scale / unit, real.shape).reshape(-1)[::step]
                seen = seen / spread
        if value not in self._counts:
            self._counts[value] = _Counts.of(kind, unit, seen, BINS)
        self._counts[value].add(seen, found * unit)

    def result(self) -> dict[str, Histogram]:
        """By value name."""
        return {value: counts.histogram() for value, counts in self._counts.items()}


def layer_histograms(
    float_graph: Graph, integer_graph: Graph, outputs: Mapping[str, Histogram]
) -> dict[str, LayerHistograms]:
    """By operator name, for operators that have at least one of the two.

    Args:
        float_graph: the network that was quantised.
        integer_graph: the compiled network.
        outputs: from `OutputHistograms`.
    """
    result = {}
    for op in integer_graph.ops:
        found = LayerHistograms(
            _weight_histogram(float_graph, integer_graph, op), outputs.get(op.output)
        )
        if found != LayerHistograms():
            result[op.name] = found
    return result


def _weight_histogram(float_graph: Graph, integer_graph: Graph, op: Op) -> Histogram | None:
    """In steps, since every output channel has a scale of its own."""
    kind = weight_type(integer_graph, op)
    origin = float_graph.producers.get(op.output) or float_graph.by_name.get(op.name)
    if kind is None or kind.is_float or kind.quantization is None or type(origin) is not type(op):
        return None
    assert origin is not None
    real = float_graph.constants.get(origin.inputs[1])
    codes = integer_graph.constants[op.inputs[1]]
    if real is None or real.shape != codes.shape:
        return None
    factors = kind.quantization.factors(codes.shape).astype(np.float64)
    steps = (real.astype(np.float64) / factors).reshape(-1)
    bins = min(BINS, max(BINS // 4, steps.size // PER_BIN))
    counts = _Counts.of(kind, 1.0, steps, bins)
    counts.add(steps, codes.astype(np.float64).reshape(-1))
    return counts.histogram(in_steps=True)


@dataclass(slots=True)
class _Counts:
    """Running counts of one histogram; fields as in `Histogram`."""

    start: float
    width: float
    real: Array
    bar_start: float
    bar_width: float
    bars: Array
    low: float | None
    high: float | None
    step: float
    below: int = 0
    above: int = 0
    smallest: float = np.inf
    largest: float = -np.inf

    @staticmethod
    def of(kind: TensorType, unit: float, first: Array, wanted: int) -> _Counts:
        """Bins for a tensor.

        Args:
            kind: its codes decide the range.
            unit: axis units of one code.
            first: numbers in axis units; a float tensor's range is theirs.
            wanted: bins inside the range, about.
        """
        if kind.is_float or kind.quantization is None:
            low, high = float(first.min()), float(first.max())
            span = high - low or 1.0
            count = round(wanted * (1 + 2 * MARGIN))
            width = span * (1 + 2 * MARGIN) / count
            nothing = np.zeros(0, np.int64)
            counts = np.zeros(count, np.int64)
            return _Counts(low - MARGIN * span, width, counts, low, span, nothing, None, None, 0.0)
        held = kind.limits.range if kind.limits is not None else kind.integer.range
        levels = held.high - held.low + 1
        group = -(-levels // wanted)
        parts = max(1, wanted // levels)
        bars = -(-levels // group)
        width = group / parts
        outside = max(1, round(MARGIN * levels / width))
        first_edge = held.low - 0.5
        return _Counts(
            (first_edge - outside * width) * unit,
            width * unit,
            np.zeros(bars * parts + 2 * outside, np.int64),
            first_edge * unit,
            group * unit,
            np.zeros(bars, np.int64),
            first_edge * unit,
            (held.high + 0.5) * unit,
            unit,
        )

    def add(self, real: Array, found: Array) -> None:
        """Counts float numbers, and what the codes stand for, both in axis units."""
        self.real += _binned(real, self.start, self.width, self.real.size)
        if self.bars.size:
            self.bars += _binned(found, self.bar_start, self.bar_width, self.bars.size)
        if self.low is not None and self.high is not None:
            self.below += int(np.count_nonzero(real < self.low))
            self.above += int(np.count_nonzero(real > self.high))
        self.smallest = min(self.smallest, float(real.min()))
        self.largest = max(self.largest, float(real.max()))

    def histogram(self, in_steps: bool = False) -> Histogram:
        return Histogram(
            self.start,
            self.width,
            tuple(map(int, self.real)),
            self.bar_start,
            self.bar_width,
            tuple(map(int, self.bars)),
            self.low,
            self.high,
            self.below,
            self.above,
            self.smallest,
            self.largest,
            self.step,
            in_steps,
        )


def _binned(numbers: Array, start: float, width: float, count: int) -> Array:
    place = np.clip(np.floor((numbers - start) / width), 0, count - 1).astype(np.int64)
    return np.bincount(place, minlength=count)
