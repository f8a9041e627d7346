"""What a convolution costs, by each kernel that takes it: cycles of one core, for the choice.

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

Ternary weights can be added instead (`conv_ternary`). With P positions, columns of padding among
them, E entries of all lists of pairs of filters and W weights in the lists that are built:

    ternary   P * (E / adds + F / 2 * pair + C * inputs) + W / 2 * weights + F / 2 * setup
    portable  h * w * F * (9 C * product + output) + 9 C * F * unpack

Fitted to 19 layers of a U-Net with 15 to 70 % of the weights not 0, within 25 %, and to tiny
images. In portable C `pair` and `output` have the epilogue in them, as it is slow there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

BLOCK, CHUNK = 16, 32
"""Filters and channels of the unit that costs are counted in."""


@dataclass(frozen=True)
class ConvShape:
    """A convolution; rows and columns are those of the output. Winograd needs 3x3 and stride 1."""

    channels: int
    filters: int
    rows: int
    columns: int
    taps: int = 9


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
    return pixels * blocks * shape.taps * shape.channels / rates.direct


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


@dataclass(frozen=True)
class TernaryShape:
    """What the ternary kernel does for a layer.

    Attributes:
        positions: at which sums are computed, those between rows included.
        entries: of all lists.
        pairs: of filters.
        channels: of the input.
        weights: that become entries, as often as that happens.
        single: no two codes of the input can be added in 8 bits.
        wide: sums need 32 bits.
    """

    positions: int
    entries: int
    pairs: int
    channels: int
    weights: int
    single: bool
    wide: bool


@dataclass(frozen=True)
class TernaryRates:
    """What a level sustains, see above.

    Attributes:
        adds: bytes in a cycle; where they are added in 8 bits, and where in 16.
        pair: cycles of two filters at a position; with 16-bit sums, and with 32-bit sums.
        inputs: cycles of a channel at a position.
        weights: cycles of two weights.
    """

    adds: tuple[float, float]
    pair: tuple[float, float]
    inputs: float
    weights: float


TERNARY_RATES: Mapping[str, TernaryRates] = {
    "portable": TernaryRates((22.9, 15.2), (7.2, 14.2), 1.0, 5.0),
    "AVX2": TernaryRates((41.6, 23.9), (0.9, 5.6), 0.8, 6.7),
    "VNNI": TernaryRates((38.0, 22.0), (1.4, 6.5), 0.8, 6.9),
    "VNNI512": TernaryRates((38.9, 36.9), (1.4, 3.8), 0.8, 6.9),
}
PRODUCT, OUTPUT, UNPACK = 0.068, 5.4, 3.0
"""Cycles of a product, an output and a weight of the portable kernel."""
SETUP = 300.0
"""Cycles of a pair of filters, however small the image is."""
CLEARLY = 0.9
"""Below this share of another kernel's cycles a kernel takes its place."""


def ternary_cycles(shape: TernaryShape, rates: TernaryRates) -> float:
    """Cycles of the ternary kernel."""
    adds = shape.entries / rates.adds[int(shape.single)]
    pairs = shape.pairs * rates.pair[int(shape.wide)]
    position = adds + pairs + shape.channels * rates.inputs
    return shape.positions * position + shape.weights / 2 * rates.weights + shape.pairs * SETUP


def portable_cycles(shape: ConvShape) -> float:
    """Cycles of the portable kernel."""
    products = shape.taps * shape.channels
    outputs = shape.rows * shape.columns * shape.filters
    return outputs * (products * PRODUCT + OUTPUT) + products * shape.filters * UNPACK


def ternary_pays(ternary: TernaryShape, shape: ConvShape, level: str, winograd: bool) -> bool:
    """Additions need clearly fewer cycles than products at `level`, of `TERNARY_RATES`.

    Args:
        ternary: what would be added.
        shape: of the layer.
        level: the instructions.
        winograd: Winograd takes the layer, too.
    """
    if level == "portable":
        others = portable_cycles(shape)
    else:
        others = direct_cycles(shape, RATES[level])
        if winograd:
            others = min(others, winograd_cycles(shape, RATES[level]))
    return ternary_cycles(ternary, TERNARY_RATES[level]) < CLEARLY * others
