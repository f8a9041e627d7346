"""What a 3x3 convolution costs, directly and by Winograd: cycles of one core, for the choice.

With w x h pixels of output, t tiles of 2x2, C channels, F filters and V = F / 16, rounded up to
what the kernel computes at a time, while everything is in a cache:

    direct    h * max(w, wait) * V * 9 C / direct
    Winograd  t * V * (16 C / winograd + store) + t * C / 32 * inputs + C * F * weights

`direct` and `winograd` are the products of 4 channels by 16 filters that a kernel sustains in a
cycle, times 4; `wait` the pixels whose sums keep the multipliers busy; `store` the cycles for the
output transform of a tile, `inputs` those for the inputs of a tile and 32 channels, `weights` those
for the weights of one channel and filter. Both pay alike for the copy into a band and for the
epilogue.

The numbers are fitted to 30 layers of 4x4 to 256x256 pixels and 4 to 512 channels on a Zen 5, and
give the faster one in all but those within 10 %. Only their ratios matter: other processors with
the same instructions decide differently at most where it is nearly a draw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

BLOCK, CHUNK = 16, 32
"""Filters and channels of the unit that costs are counted in."""


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
        lanes: filters that the direct kernel computes at least.
        together: filters that the Winograd kernel computes at a time if there are more than 16.
        direct: products in a cycle.
        winograd: the same; of a layer with at most 16 filters, and of others.
        wait: pixels.
        store: cycles.
        inputs: cycles.
        weights: cycles.
    """

    lanes: int
    together: int
    direct: float
    winograd: tuple[float, float]
    wait: int
    store: float
    inputs: float
    weights: float


RATES: Mapping[str, Rates] = {
    "AVX2": Rates(8, 16, 3.3, (3.3, 3.3), 5, 54.0, 21.0, 2.1),
    "VNNI": Rates(8, 16, 3.8, (4.1, 4.1), 5, 40.0, 10.0, 1.6),
    "VNNI512": Rates(16, 32, 7.2, (4.4, 7.9), 10, 0.0, 24.0, 1.4),
}


def direct_cycles(shape: ConvShape, rates: Rates) -> float:
    """Cycles of the direct kernel, without what both have."""
    blocks = -(-shape.filters // rates.lanes) * rates.lanes / BLOCK
    pixels = shape.rows * max(shape.columns, rates.wait)
    return pixels * blocks * 9 * shape.channels / rates.direct


def winograd_cycles(shape: ConvShape, rates: Rates) -> float:
    """Cycles of Winograd F(2x2,3x3), without what both have."""
    alone = shape.filters <= BLOCK
    together = BLOCK if alone else rates.together
    blocks = -(-shape.filters // together) * together / BLOCK
    tiles = -(-shape.rows // 2) * -(-shape.columns // 2)
    products = 16 * shape.channels / rates.winograd[0 if alone else 1]
    chunks = -(-shape.channels // CHUNK)
    cycles = tiles * (blocks * (products + rates.store) + chunks * rates.inputs)
    return cycles + shape.channels * shape.filters * rates.weights


def winograd_pays(shape: ConvShape, level: str) -> bool:
    """Winograd needs fewer cycles at `level`, one of `RATES`."""
    rates = RATES[level]
    return winograd_cycles(shape, rates) < direct_cycles(shape, rates)
