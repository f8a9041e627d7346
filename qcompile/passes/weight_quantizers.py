"""Weights to codes: the named quantizers.

Each takes a float64 matrix [channels, weights of the channel] and returns codes of the same shape,
one scale per row, the element type and the code book.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qcompile.passes.quantizers.binary import binary
from qcompile.passes.quantizers.dorefa import dorefa
from qcompile.passes.quantizers.exact import exact_rows
from qcompile.passes.quantizers.fixed_point import fxp_em, fxp_paper
from qcompile.passes.quantizers.pow2 import pow2
from qcompile.passes.quantizers.rows import QuantizedRows
from qcompile.passes.quantizers.ternary import ternary, twn
from qcompile.passes.quantizers.uniform import fixed, scaled
from qcompile.plan import Format, Quantizer
from qcompile.types import Array

__all__ = ["QuantizedRows", "exact_rows", "quantize_rows"]


def quantize_rows(rows: Array, chosen: Format) -> QuantizedRows:
    """`rows` in the given format.

    Raises:
        UsageError: the width does not exist for this quantizer.
    """
    return _QUANTIZERS[chosen.quantizer](np.asarray(rows, dtype=np.float64), chosen)


_QUANTIZERS: dict[Quantizer, Callable[[Array, Format], QuantizedRows]] = {
    Quantizer.SCALED: scaled,
    Quantizer.FIXED: fixed,
    Quantizer.TERNARY: ternary,
    Quantizer.TWN: twn,
    Quantizer.BINARY: binary,
    Quantizer.POW2: pow2,
    Quantizer.DOREFA: dorefa,
    Quantizer.FXP_PAPER: fxp_paper,
    Quantizer.FXP_EM: fxp_em,
}
