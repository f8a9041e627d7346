"""Weights that lie on a grid already: their codes are read, not rounded.

A network trained with quantized weights and exported with them holds few values: multiples of one
step, powers of two, signs. The grid may differ by channel (a norm that was folded into the weights
scales its rows). What float32 arithmetic did to the values, up to 2**-21 of the largest in the
row, does not hide the grid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from qcompile.passes.quantizers import dorefa, pow2
from qcompile.passes.quantizers.fixed_point import fxp_em, on_paper_grid
from qcompile.passes.quantizers.rows import QuantizedRows, largest_magnitudes
from qcompile.passes.quantizers.uniform import fixed
from qcompile.plan import Format, Quantizer
from qcompile.types import TERNARY, Array, Codebook, CodebookKind, IntType

TOLERANCE = 2.0**-21
"""Of the largest magnitude of a row."""

LARGEST_CODE = 255
"""Steps that a row's largest weight may have on an equal-step grid to be taken for one."""


def exact_rows(rows: Array, chosen: Format) -> QuantizedRows | None:
    """The codes of weights that lie on a grid which `chosen` has room for; None for others.

    Of several grids the one of fewest bits counts: weights -a, 0, a are ternary, also where 8 bits
    were asked for. `codebook.exact` of the result is set.

    Args:
        rows: [channels, n].
        chosen: the format that is wanted. `scaled` accepts every grid of at most its width; other
            quantizers only their own (`fixed`: power-of-two steps).
    """
    rows = np.asarray(rows, dtype=np.float64)
    if rows.size == 0 or not np.isfinite(rows).all():
        return None
    if chosen.quantizer is Quantizer.FXP_PAPER:
        # Not by quantizing once more, which would wrap the level 1.0 to 0.
        paper = on_paper_grid(rows, chosen)
        return None if paper is None else _marked(paper)
    if chosen.quantizer in _VERBATIM:
        return _unchanged(rows, _VERBATIM[chosen.quantizer](rows, chosen))
    found = [grid for grid in _grids(rows) if _accepts(chosen, grid)]
    if not found:
        return None
    return _marked(min(found, key=lambda grid: grid.codebook.storage_bits(grid.element)))


_VERBATIM: dict[Quantizer, Callable[[Array, Format], QuantizedRows]] = {
    Quantizer.FIXED: fixed,
    Quantizer.FXP_EM: fxp_em,
}
"""Quantizers that leave what lies on their grid as it is, to the last bit."""

_KINDS = {
    Quantizer.TERNARY: (CodebookKind.TERNARY, CodebookKind.BINARY),
    Quantizer.TWN: (CodebookKind.TERNARY, CodebookKind.BINARY),
    Quantizer.BINARY: (CodebookKind.BINARY,),
    Quantizer.POW2: (CodebookKind.POW2, CodebookKind.TERNARY, CodebookKind.BINARY),
    Quantizer.DOREFA: (CodebookKind.DOREFA, CodebookKind.BINARY),
}


def _unchanged(rows: Array, quantized: QuantizedRows) -> QuantizedRows | None:
    return None if (quantized.reals() != rows).any() else _marked(quantized)


def _marked(rows: QuantizedRows) -> QuantizedRows:
    return dataclasses.replace(rows, codebook=dataclasses.replace(rows.codebook, exact=True))


def _accepts(chosen: Format, grid: QuantizedRows) -> bool:
    allowed = _KINDS.get(chosen.quantizer, tuple(CodebookKind))
    room = 2 if chosen.quantizer in (Quantizer.TERNARY, Quantizer.TWN) else chosen.bits
    fits = grid.codebook.storage_bits(grid.element) <= room
    return grid.codebook.kind in allowed and fits


def _grids(rows: Array) -> list[QuantizedRows]:
    found = []
    steps = _equal_steps(rows)
    if steps is not None:
        found.append(_named(*steps))
    powers = _powers_of_two(rows)
    if powers is not None:
        found.append(powers)
    return found


def _named(codes: Array, scales: Array) -> QuantizedRows:
    """The smallest code book that holds integers of equal steps."""
    magnitudes = np.abs(codes)
    largest = int(magnitudes.max())
    if largest <= 1:
        if (magnitudes == 1).all():
            return QuantizedRows(codes, scales, TERNARY, Codebook(CodebookKind.BINARY, 2))
        return QuantizedRows(codes, scales, TERNARY, Codebook(CodebookKind.TERNARY, 3))
    if (magnitudes % 2 == 1).all():
        return QuantizedRows(codes, scales, *dorefa.code_book(largest.bit_length()))
    element = IntType(1 + largest.bit_length(), narrow=True)
    book = Codebook(CodebookKind.UNIFORM, element.high - element.low + 1)
    return QuantizedRows(codes, scales, element, book)


def _equal_steps(rows: Array) -> tuple[Array, Array] | None:
    """Integer codes and a step for each row, the largest step that divides the whole row."""
    scales = largest_magnitudes(rows)
    for index, row in enumerate(rows):
        largest = scales[index]
        fractions = np.unique(np.abs(row)) / largest
        if fractions.size > 4 * LARGEST_CODE:
            return None
        count = _steps_of(fractions)
        if count is None:
            return None
        scales[index] = largest / count
    return np.rint(rows / scales[:, None]).astype(np.int64), scales


def _steps_of(fractions: Array) -> int | None:
    """The fewest equal steps from 0 to 1 that hit all fractions."""
    counts = np.arange(1, LARGEST_CODE + 1)
    places = fractions[:, None] * counts
    codes = np.rint(places)
    hit = (np.abs(places - codes) <= TOLERANCE * counts).all(axis=0)
    # What is no zero is none on the grid either, however small.
    hit &= ((codes > 0) == (fractions[:, None] > 0)).all(axis=0)
    return int(counts[hit][0]) if hit.any() else None


def _powers_of_two(rows: Array) -> QuantizedRows | None:
    """Codes 2**n in units of each row's smallest weight."""
    magnitudes = np.abs(rows)
    live = magnitudes > 0
    smallest = np.where(live, magnitudes, np.inf).min(axis=1)
    smallest = np.where(np.isfinite(smallest), smallest, 1.0)
    ratios = np.where(live, magnitudes / smallest[:, None], 1.0)
    exponents = np.rint(np.log2(ratios))
    powers = np.exp2(exponents)
    if (np.abs(ratios - powers) > TOLERANCE * powers).any():
        return None
    count = int(exponents.max()) + 1
    if count > pow2.exponent_count(pow2.MOST_BITS):
        return None
    codes = (np.sign(rows) * powers).astype(np.int64)
    return QuantizedRows(codes, smallest, *pow2.code_book(count))
