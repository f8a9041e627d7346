"""Epilogues of imported grids of few levels: every sum rounds as the model says, ties included.

With more levels, ties of the mode that goes to even go up, and sums within 2**-24 of the range from
a tie may go either way (`imported_error`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from qcompile.errors import UnsupportedError
from qcompile.graph import Op
from qcompile.lowering.epilogue import curve_of, make_epilogue, rises
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
        code = self.modes[numerator < 0](numerator, denominator)
        return min(max(code, self.codes.low), self.codes.high)

    @property
    def modes(self) -> tuple[Callable[[int, int], int], Callable[[int, int], int]]:
        return _MODES[self.rounding]


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
    grid, codes = output.quantization, output.codes
    if grid is None or grid.imported is None or codes.high - codes.low >= MOST_LEVELS:
        return None
    scale = grid.exact()
    act = activation
    count = max(map(len, (units, biases, act.slope, act.gain, act.shift)))
    curves = [
        curve_of(units[c % len(units)], biases[c % len(biases)], act, c, scale)
        for c in range(count)
    ]
    kind = CodebookKind.UNIFORM if output.codebook is None else output.codebook.kind
    if kind is CodebookKind.TERNARY and not all(map(rises, curves)):
        kind = CodebookKind.UNIFORM  # thresholds of its own are for rising channels alone
    if kind is not CodebookKind.UNIFORM:
        return None
    bounds = (act.low / float(scale), act.high / float(scale))
    try:
        found = staircase_epilogue(op, curves, bounds, ImportedLevels(grid.imported, codes), reach)
    except UnsupportedError:
        return None
    return found.epilogue if found.levels is None else None


def _floor(n: int, d: int) -> int:
    return n // d


def _ceil(n: int, d: int) -> int:
    return -(-n // d)


def _half_up(n: int, d: int) -> int:
    return (2 * n + d) // (2 * d)


def _half_down(n: int, d: int) -> int:
    return -((d - 2 * n) // (2 * d))


def _half_even(n: int, d: int) -> int:
    found, rest = divmod(2 * n + d, 2 * d)
    return found - 1 if rest == 0 and found % 2 else found


_MODES: Mapping[Rounding, tuple[Callable[[int, int], int], Callable[[int, int], int]]] = {
    Rounding.FLOOR: (_floor, _floor),
    Rounding.CEIL: (_ceil, _ceil),
    Rounding.DOWN: (_floor, _ceil),
    Rounding.UP: (_ceil, _floor),
    Rounding.HALF_UP: (_half_up, _half_down),
    Rounding.HALF_DOWN: (_half_down, _half_up),
    Rounding.HALF_EVEN: (_half_even, _half_even),
}
"""Numerator and denominator to a whole number: from 0 upwards, and below 0."""
