"""Normalisation of many rows against the formula in Python's integers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qcompile.errors import GraphError
from qcompile.ops import LayerNorm, NormWidths
from qcompile.sim.group_norm import normalise_rows
from qcompile.types import Array, IntType
from tests.op_cases.build import activation
from tests.op_cases.group_norm import norm_widths

OP = LayerNorm(name="norm", inputs=("x",), outputs=("y",), axis=1, epsilon=1e-5)
SMALL = NormWidths(root_bits=2, epsilon=1, inverse_bits=20, drop_bits=6)


def formula(widths: NormWidths, row: list[int]) -> list[int]:
    """As `NormWidths` states it."""
    count, first = len(row), sum(row)
    variance = count * sum(x * x for x in row) - first * first
    root = math.isqrt((variance << (2 * widths.root_bits)) + widths.epsilon)
    inverse = (1 << widths.inverse_bits) // root
    return [((count * x - first) * inverse) >> widths.drop_bits for x in row]


@pytest.mark.parametrize(("bits", "count"), [(2, 1), (8, 48), (16, 96), (24, 3000)])
def test_many_rows(bits: int, count: int) -> None:
    """Rows of all magnitudes; variances of 24-bit codes pass 64 bits."""
    rng = np.random.default_rng(bits)
    element = IntType(bits)
    widths = norm_widths(activation(element, 1, count), 1, 8, 3)
    limits = np.repeat([1, 1 << (bits // 2), element.high], 5)[:, None]
    rows = rng.integers(-limits, limits + 1, (15, count))
    rows[0], rows[-1, 0], rows[-2] = element.high, element.low, element.low
    largest = count * int(np.square(rows).sum(axis=1).max())
    assert (largest >= 1 << 63) == (bits == 24)
    found = rows.copy()
    normalise_rows(OP, widths, found)
    assert found.tolist() == [formula(widths, row) for row in rows.tolist()]


@pytest.mark.parametrize(
    ("widths", "row", "message"),
    [
        (SMALL, [1 << 32, 0, 0, 0], "the sum of 4 squares exceeds 64 bits"),
        (NormWidths(2, 0, 20, 6), [5, 5, 5, 5], "the integer epsilon is 0 and a group is constant"),
        (
            NormWidths(2, 10**6, 65, 6),
            [4000, 0, 0, 0],
            "products reach 15965447449297836000, beyond 64 bits",
        ),
        (NormWidths(2, 1, 64, 6), [3, 3, 3, 3], "products reach 0, beyond 64 bits"),
    ],
)
def test_one_row_that_does_not_fit(widths: NormWidths, row: list[int], message: str) -> None:
    rows: Array = np.array([[1, 0, 0, 0], row, [0, 0, 1, 0]], np.int64)
    with pytest.raises(GraphError, match=f"^LayerNorm 'norm': {message}"):
        normalise_rows(OP, widths, rows)
