"""Epilogues of imported grids of few levels: every sum rounds as the model says, ties included.

With more levels, ties of the mode that goes to even go up, and sums within 2**-24 of the range from
a tie may go either way (`imported_error`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from qcompile.errors import UnsupportedError
from qcompile.graph import Op
from qcompile.lowering.epilogue import curve_of, make_epilogue
from qcompile.lowering.staircase import staircase_epilogue
from qcompile.numerics import Epilogue
from qcompile.ops.activation import Activation
from qcompile.types import CodebookKind, Range, Rounding, TensorType

MOST_LEVELS = 16
"""Beyond, the thresholds that ties to even may need would cost more than they bring."""


@dataclass(frozen=True, slots=True)
class ImportedLevels:
    """The codes of a grid, by its rounding mode."""

    rounding: Rounding
    codes: Range

    def level(self, numerator: int, denominator: int) -> int:
        """The code of numerator / denominator steps, exactly."""
        code = _rounded(self.rounding, numerator, denominator)
        return min(max(code, self.codes.low), self.codes.high)


def imported_or_made(
    op: Op,
    units: Sequence[Fraction],
    biases: Sequence[Fraction],
    activation: Activation,
    output: TensorType,
    reach: Range,
) -> Epilogue:
    """`make_epilogue`, or the exact one of an imported grid of few levels."""
    real = (op, units, biases, activation, output, reach)
    return few_levels_epilogue(*real) or make_epilogue(*real)


def few_levels_epilogue(
    op: Op,
    units: Sequence[Fraction],
    biases: Sequence[Fraction],
    activation: Activation,
    output: TensorType,
    reach: Range,
) -> Epilogue | None:
    """The exact epilogue of an imported grid; None for other outputs, and where there is none.

    Arguments as for `make_epilogue`.
    """
    grid, book = output.quantization, output.codebook
    uniform = book is None or book.kind is CodebookKind.UNIFORM
    codes = output.codes
    if (
        grid is None
        or grid.imported is None
        or not uniform
        or codes.high - codes.low >= MOST_LEVELS
    ):
        return None
    scale = grid.exact()
    act = activation
    count = max(map(len, (units, biases, act.slope, act.gain, act.shift)))
    curves = [
        curve_of(units[c % len(units)], biases[c % len(biases)], act, c, scale)
        for c in range(count)
    ]
    bounds = (act.low / float(scale), act.high / float(scale))
    try:
        found = staircase_epilogue(op, curves, bounds, ImportedLevels(grid.imported, codes), reach)
    except UnsupportedError:
        return None
    return found.epilogue if found.levels is None else None


def _rounded(rounding: Rounding, numerator: int, denominator: int) -> int:
    if rounding is Rounding.FLOOR:
        return numerator // denominator
    if rounding is Rounding.CEIL:
        return -(-numerator // denominator)
    magnitude, sign = abs(numerator), -1 if numerator < 0 else 1
    whole, rest = divmod(magnitude, denominator)
    up = {
        Rounding.UP: rest > 0,
        Rounding.DOWN: False,
        Rounding.HALF_UP: 2 * rest >= denominator,
        Rounding.HALF_DOWN: 2 * rest > denominator,
        Rounding.HALF_EVEN: 2 * rest > denominator or (2 * rest == denominator and whole % 2 == 1),
    }[rounding]
    return sign * (whole + int(up))
