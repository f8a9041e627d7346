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


@dataclass(frozen=True)
class Statistics:
    """Extremes over everything seen, and a random sample of elements (float32, one axis)."""

    low: float
    high: float
    sample: Array = field(repr=False)

    @property
    def magnitude(self) -> float:
        return max(abs(self.low), abs(self.high))


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
    names = graph.activations()
    per_image = max(512, SAMPLES_PER_TENSOR // max(1, len(feeds)))
    lows = dict.fromkeys(names, np.inf)
    highs = dict.fromkeys(names, -np.inf)
    samples: dict[str, list[Array]] = {name: [] for name in names}
    for index, feed in enumerate(feeds):
        with np.errstate(all="ignore"):  # what matters of it is found below
            values = executor.run(feed, taps="all")
        for position, name in enumerate(names):
            flat = (values[name] if name in values else feed[name]).reshape(-1)
            low, high = finite_range(graph, name, flat)
            lows[name] = min(lows[name], low)
            highs[name] = max(highs[name], high)
            if flat.size <= per_image:
                chosen = flat
            else:
                generator = np.random.default_rng((seed, index, position))
                chosen = flat[generator.integers(0, flat.size, per_image)]
            samples[name].append(chosen.astype(np.float32))
        if progress is not None:
            progress(index + 1, len(feeds))
    return Calibration(
        {
            name: Statistics(lows[name], highs[name], np.concatenate(samples[name]))
            for name in names
        },
        len(feeds),
    )


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
