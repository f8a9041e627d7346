"""Calibration: what values every tensor takes on real images.

float graph + images  ->  Calibration: value name -> extremes and a sample of its elements
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from qcompile.errors import ModelError
from qcompile.graph import Graph
from qcompile.types import Array

SAMPLES_PER_TENSOR = 65536
"""Elements kept of one tensor over all images."""

MOST_CHANNELS = 4096
"""Tensors with more indices on axis 1 are taken as one channel."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """What one tensor looks like over all images.

    Attributes:
        lows, highs: extremes of everything seen, for each index of axis 1 (the channels), float64.
        sample: all channels at random positions, float32 [positions, channels].
    """

    lows: Array = field(repr=False)
    highs: Array = field(repr=False)
    sample: Array = field(repr=False)

    @property
    def low(self) -> float:
        return float(self.lows.min())

    @property
    def high(self) -> float:
        return float(self.highs.max())

    @property
    def magnitude(self) -> float:
        return max(abs(self.low), abs(self.high))

    def scaled(self, factors: Array) -> Statistics:
        """Those of the tensor times one positive factor for each channel."""
        return Statistics(
            self.lows * factors, self.highs * factors, self.sample * factors.astype(np.float32)
        )


@dataclass(frozen=True)
class Calibration:
    """Statistics of every activation of a float graph, by value name."""

    values: Mapping[str, Statistics] = field(default_factory=dict)
    images: int = 0


def calibrate(
    graph: Graph,
    feeds: Sequence[Mapping[str, Array]],
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Calibration:
    """Runs the float graph on every feed and keeps extremes and samples of all activations.

    Args:
        graph: a float graph.
        feeds: network inputs by name, already preprocessed.
        seed: of the sampling positions; equal seeds give equal samples.
        progress: called with (done, total) images.

    Raises:
        ModelError: a tensor becomes infinite or NaN, so no scale can hold it.
    """
    from qcompile.sim.executor import Executor

    executor = Executor(graph)
    collected = {name: _Collector(graph, name, len(feeds)) for name in graph.activations()}
    for index, feed in enumerate(feeds):
        with np.errstate(all="ignore"):  # what matters of it is found below
            values = {**feed, **executor.run(feed, taps="all")}
        for position, (name, collector) in enumerate(collected.items()):
            collector.add(values[name], np.random.default_rng((seed, index, position)))
        if progress is not None:
            progress(index + 1, len(feeds))
    return Calibration(
        {name: collector.result() for name, collector in collected.items()},
        len(feeds),
    )


class _Collector:
    """Extremes and samples of one value, image after image."""

    def __init__(self, graph: Graph, name: str, images: int) -> None:
        shape = graph.types[name].shape
        self.graph, self.name = graph, name
        self.channels = shape[1] if len(shape) > 1 and shape[1] <= MOST_CHANNELS else 1
        self.positions = max(16, SAMPLES_PER_TENSOR // (max(1, images) * self.channels))
        self.lows = np.full(self.channels, np.inf)
        self.highs = np.full(self.channels, -np.inf)
        self.samples: list[Array] = []

    def add(self, data: Array, generator: np.random.Generator) -> None:
        finite_range(self.graph, self.name, data)
        if self.channels == 1:
            rows = data.reshape(1, -1)
        else:
            rows = np.moveaxis(data, 1, 0).reshape(self.channels, -1)
        self.lows = np.minimum(self.lows, rows.min(axis=1))
        self.highs = np.maximum(self.highs, rows.max(axis=1))
        if rows.shape[1] > self.positions:
            rows = rows[:, generator.integers(0, rows.shape[1], self.positions)]
        self.samples.append(rows.T.astype(np.float32))

    def result(self) -> Statistics:
        return Statistics(self.lows, self.highs, np.concatenate(self.samples))


def finite_range(graph: Graph, name: str, data: Array) -> tuple[float, float]:
    """The extremes of a float tensor.

    Args:
        graph: the float graph that computed it.
        name: of the value.
        data: any shape, not empty.

    Raises:
        ModelError: it holds infinities or NaN.
    """
    low, high = float(data.min()), float(data.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        producer = graph.producers.get(name)
        where = f"input '{name}'" if producer is None else producer.label()
        raise ModelError(
            f"{where}: values reach {low} to {high} in float arithmetic; check the weights, and "
            f"--input-scale, --input-mean and --input-std"
        )
    return low, high
