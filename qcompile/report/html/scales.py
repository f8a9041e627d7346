"""Colours, axes and number formats that several pictures share.

Both palettes are of ColorBrewer (RdYlBu and YlGnBu), which colour-blind readers can tell apart; no
picture says anything by colour alone.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

DARK_INK, LIGHT_INK = "#15191d", "#ffffff"


@dataclass(frozen=True, slots=True)
class Swatch:
    """A fill, the colour of text on it, and what it stands for."""

    fill: str
    ink: str
    label: str


UNKNOWN = Swatch("#c3c9d0", DARK_INK, "not measured")
FLOATS = Swatch("#c3c9d0", DARK_INK, "float")
NO_WEIGHTS = Swatch("#c3c9d0", DARK_INK, "no weights")

NOTABLE = 0.005
"""Change of Dice that gets a colour; validation sets of tens of images tell no less."""

SQNR_BOUNDS = (10.0, 15.0, 20.0, 25.0, 30.0, 40.0)
SQNR_SWATCHES = (
    Swatch("#d73027", LIGHT_INK, "under 10"),
    Swatch("#fc8d59", DARK_INK, "10 to 15"),
    Swatch("#fee090", DARK_INK, "15 to 20"),
    Swatch("#ffffbf", DARK_INK, "20 to 25"),
    Swatch("#e0f3f8", DARK_INK, "25 to 30"),
    Swatch("#91bfdb", DARK_INK, "30 to 40"),
    Swatch("#4575b4", LIGHT_INK, "40 and more"),
)
"""Decibels. From experience with U-Nets: 25 dB at the output costs next to no Dice, under 10 dB
anything."""

_BIT_FILLS = {
    1: "#ffffd9",
    2: "#edf8b1",
    3: "#c7e9b4",
    4: "#7fcdbb",
    5: "#41b6c4",
    6: "#1d91c0",
    7: "#225ea8",
    8: "#253494",
}
_MANY_BITS = "#081d58"
FLOAT_BITS = 32


def sqnr_swatch(decibels: float | None) -> Swatch:
    """The colour of a layer's SQNR."""
    if decibels is None:
        return UNKNOWN
    return SQNR_SWATCHES[bisect.bisect_right(SQNR_BOUNDS, decibels)]


def bits_swatch(bits: int | None) -> Swatch:
    """The colour of a width; 32 is float, None has no weights."""
    if bits is None:
        return NO_WEIGHTS
    if bits == FLOAT_BITS:
        return FLOATS
    label = "1 bit" if bits == 1 else f"{bits} bits"
    return Swatch(_BIT_FILLS.get(bits, _MANY_BITS), DARK_INK if bits <= 5 else LIGHT_INK, label)


SAME = 1e-6
"""Numbers of one axis that differ by less, relatively, are one."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A linear or logarithmic axis from `low` to `high` with its ticks (numbers of the data)."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Where a number lies: 0 at the low end, 1 at the high end, not beyond."""
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(max(value, self.low))
        return min(1.0, max(0.0, (at - low) / (high - low)))

    def percent(self, value: float) -> str:
        """The same in per cent, as SVG takes it: it stretches with the page, text does not."""
        return f"{100 * self.place(value):.2f}%"


def linear_axis(values: Sequence[float], ticks: int = 5, zero: bool = False) -> Axis:
    """An axis that ends at ticks of 1, 2 or 5 times a power of ten.

    Args:
        values: what must fit, at least one.
        ticks: about so many.
        zero: must fit, too.
    """
    low, high = min(values), max(values)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    if high - low <= SAME * max(1.0, abs(low), abs(high)):
        margin = abs(high) / 10 if abs(high) > SAME else 1.0
        low, high = low - margin, high + margin
    step = _nice((high - low) / ticks)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    places = tuple(round(index * step, 10) for index in range(first, last + 1))
    return Axis(places[0], places[-1], places)


def _nice(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))


def log_axis(values: Sequence[float]) -> Axis:
    """A logarithmic axis with ticks at up to five round numbers, or at powers of ten.

    Where all values are alike it is linear: there are no round numbers between them.

    Args:
        values: what must fit, at least one; above 0.
    """
    low, high = min(values) / 1.1, max(values) * 1.1
    if high < 2 * low:
        return linear_axis(values)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 3, 5), (1, 2, 5), (1,)):
        marks = [factor * 10.0**power for power in powers for factor in factors]
        ticks = tuple(mark for mark in marks if low <= mark <= high)
        if len(ticks) <= 5:
            break
    return Axis(low, high, ticks, log=True)


def bytes_text(count: float) -> str:
    """'812 B', '75.5 kB', '1.98 MB': three digits, thousands of 1000."""
    return _with_unit(count, ("B", "kB", "MB", "GB"))


def tick_text(count: float) -> str:
    """As `bytes_text`, without digits that say nothing: '50 kB', '1.5 MB'."""
    text, unit = bytes_text(count).split()
    return f"{float(text):g} {unit}"


def amount_text(count: float) -> str:
    """'812', '75.5 k', '167 M', '4.02 G'."""
    return _with_unit(count, ("", "k", "M", "G", "T"))


def _with_unit(count: float, units: Sequence[str]) -> str:
    """Three digits of a count; units are 1000 apart."""
    power = 0
    while power + 1 < len(units) and count >= (999.5 if power else 1000):
        count, power = count / 1000, power + 1
    digits = 0 if power == 0 or count >= 99.95 else 1 if count >= 9.995 else 2
    return f"{count:.{digits}f} {units[power]}".rstrip()


def minus(text: str) -> str:
    """A number with a minus sign as wide as its plus."""
    return text.replace("-", "−")


def decibel_text(decibels: float | None) -> str:
    """'21.5', '−3.0'; nothing for None."""
    return "" if decibels is None else minus(f"{round(decibels, 1) + 0.0:.1f}")


def number(value: float) -> str:
    """'0.25', '−7.5', '12': up to three digits, without zeros at the end."""
    return minus(f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}")


def share_text(share: float) -> str:
    """A share in per cent: '0', '< 0.01 %', '0.35 %', '12 %'."""
    percent = 100 * share
    if percent == 0:
        return "0 %"
    if percent < 0.01:
        return "< 0.01 %"
    return f"{percent:.2f} %" if percent < 10 else f"{percent:.0f} %"
