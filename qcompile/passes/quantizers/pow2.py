"""`pow2`: the code book of incremental network quantization (Zhou et al., 2017)."""

from __future__ import annotations

import math

import numpy as np

from qcompile.errors import UsageError
from qcompile.passes.quantizers.rows import QuantizedRows
from qcompile.plan import Format
from qcompile.types import Array, Codebook, CodebookKind, IntType

MOST_BITS = 7


def pow2(rows: Array, chosen: Format) -> QuantizedRows:
    """0 and +-2**n, n2 <= n <= n1, for the whole tensor.

    n1 = floor(log2(4 max|W| / 3)), n2 = n1 + 1 - 2**(bits - 2); 2**n stands for magnitudes from
    3/4 * 2**n up to 3/2 * 2**n, the smallest one for those from half of it. Codes are 2**(n - n2).

    Raises:
        UsageError: there is no such width.
    """
    exponents = exponent_count(chosen.bits)
    largest = float(np.abs(rows).max(initial=0.0)) or 1.0
    top = math.floor(math.log2(4 * largest / 3))
    bottom = top + 1 - exponents
    codes = np.zeros(rows.shape, dtype=np.int64)
    for exponent in range(bottom, top + 1):
        lower = 2.0**exponent * (0.5 if exponent == bottom else 0.75)
        codes[np.abs(rows) >= lower] = 1 << (exponent - bottom)
    codes *= np.sign(rows).astype(np.int64)
    scales = np.full(rows.shape[0], 2.0**bottom)
    return QuantizedRows(codes, scales, *code_book(exponents))


def exponent_count(bits: int) -> int:
    """How many powers of two a width has.

    Raises:
        UsageError: there is no such width.
    """
    if not 2 <= bits <= MOST_BITS:
        raise UsageError(
            f"--quantizer pow2 has 2 to {MOST_BITS} bits, not {bits}; choose one of these as "
            f"--wbits"
        )
    return int(2 ** (bits - 2))


def code_book(exponents: int) -> tuple[IntType, Codebook]:
    """Type and code book of 0 and +-2**0..+-2**(exponents - 1)."""
    levels = 2 * exponents + 1
    bits = (levels - 1).bit_length()
    book = Codebook(CodebookKind.POW2, levels, f"pow2 {bits} bit")
    return IntType(exponents + 1, narrow=True), book
