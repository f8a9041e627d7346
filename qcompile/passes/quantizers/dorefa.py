"""`dorefa`: tanh-normalised uniform weights (Zhou et al., DoReFa-Net, 2016)."""

from __future__ import annotations

import numpy as np

from qcompile.errors import UsageError
from qcompile.passes.quantizers.rows import QuantizedRows
from qcompile.plan import Format
from qcompile.types import Array, Codebook, CodebookKind, IntType

MOST_BITS = 8


def dorefa(rows: Array, chosen: Format) -> QuantizedRows:
    """w' = 2 * round((2**k - 1) * (tanh(w) / (2 * max|tanh(W)|) + 1/2)) / (2**k - 1) - 1.

    Ties go to the even neighbour. The weights then lie in -1..1 without 0; their codes are the odd
    numbers -(2**k - 1)..2**k - 1, in units of 1 / (2**k - 1), for the whole tensor.

    Raises:
        UsageError: there is no such width.
    """
    if not 2 <= chosen.bits <= MOST_BITS:
        raise UsageError(
            f"--quantizer dorefa has weights of 2 to {MOST_BITS} bits, not {chosen.bits}; choose "
            f"one of these as --wbits"
        )
    steps = 2**chosen.bits - 1
    squashed = np.tanh(rows)
    largest = float(np.abs(squashed).max(initial=0.0)) or 1.0
    index = np.rint(steps * (squashed / (2 * largest) + 0.5)).astype(np.int64)
    scales = np.full(rows.shape[0], 1 / steps)
    return QuantizedRows(2 * index - steps, scales, *code_book(chosen.bits))


def code_book(bits: int) -> tuple[IntType, Codebook]:
    """Type and code book of the odd numbers of at most `bits` bits, and their negatives."""
    book = Codebook(CodebookKind.DOREFA, 2**bits, f"dorefa {bits} bit")
    return IntType(bits + 1, narrow=True), book
