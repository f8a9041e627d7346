"""What a 3x3 convolution costs, directly and by Winograd: cycles of one core, for the choice.

With p pixels of output, t = p / 4 tiles, C channels, F filters, V = F / (filters of a vector,
rounded up to what the kernel computes at a time), and everything in a cache:

    direct    p * V * 9 C / 4 / dots
    Winograd  t * V * (16 C / 4 / dots + store) + t * C / 32 * transform + C * F * weights

`dots` are the vectors of dot products (four products each) that a kernel sustains in a cycle,
`store` the cycles for the output transform of a vector of a tile and all that is not hidden behind
dot products, `transform` those for the input of a tile, `weights` those for the weights of one
channel of a filter. Both pay alike for the copy into a band and for the epilogue. The numbers are
measured on a Zen 5; only their ratios matter, and those of other machines with the same
instructions differ little where it is not a draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ConvShape:
    """A 3x3 convolution with stride 1; rows and columns are those of the output."""

    channels: int
    filters: int
    rows: int
    columns: int


@dataclass(frozen=True)
class Rates:
    """What a level sustains, see above.

    Attributes:
        filters: in a vector.
        direct: filters that the direct kernel computes at a time, and its `dots`.
        winograd: the same of the Winograd kernel.
        store: cycles.
        transform: cycles for 32 channels.
        weights: cycles.
    """

    filters: int
    direct: tuple[int, float]
    winograd: tuple[int, float]
    store: float
    transform: float
    weights: float


RATES: Mapping[str, Rates] = {
    "AVX2": Rates(8, (8, 1.5), (16, 1.6), 30.0, 40.0, 0.4),
    "VNNI": Rates(8, (8, 1.8), (16, 1.85), 28.0, 32.0, 0.2),
    "VNNI512": Rates(16, (16, 1.7), (16, 1.75), 28.0, 32.0, 0.2),
}


def direct_cycles(shape: ConvShape, rates: Rates) -> float:
    """Cycles of the direct kernel, without what both have."""
    vectors = _vectors(shape, rates, rates.direct[0])
    return shape.rows * shape.columns * vectors * 9 * shape.channels / 4 / rates.direct[1]


def winograd_cycles(shape: ConvShape, rates: Rates) -> float:
    """Cycles of Winograd F(2x2,3x3), without what both have."""
    tiles = -(-shape.rows // 2) * -(-shape.columns // 2)
    vectors = _vectors(shape, rates, rates.winograd[0])
    products = tiles * vectors * (4 * shape.channels / rates.winograd[1] + rates.store)
    inputs = tiles * -(-shape.channels // 32) * rates.transform
    return products + inputs + shape.channels * shape.filters * rates.weights


def winograd_pays(shape: ConvShape, level: str) -> bool:
    """Winograd needs fewer cycles at `level`, one of `RATES`."""
    rates = RATES[level]
    return winograd_cycles(shape, rates) < direct_cycles(shape, rates)


def _vectors(shape: ConvShape, rates: Rates, together: int) -> float:
    return -(-shape.filters // together) * together / rates.filters
