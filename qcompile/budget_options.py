"""What may be said of budgets on the command line, and what contradicts what."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from qcompile.errors import UsageError

if TYPE_CHECKING:
    from qcompile.options import CompileOptions

LEAST_MEAN_BITS, MOST_MEAN_BITS = 2.0, 8.0
MEAN_QUANTIZERS = ("scaled", "fixed")


def check_budgets(options: CompileOptions) -> None:
    """
    Raises:
        UsageError: a value is out of range, or two options contradict each other.
    """
    mean = options.mean_wbits
    if mean is None:
        return
    if not math.isfinite(mean) or not LEAST_MEAN_BITS <= mean <= MOST_MEAN_BITS:
        raise UsageError(
            f"--mean-wbits: {mean:g} is out of range; use {LEAST_MEAN_BITS:g} to {MOST_MEAN_BITS:g}"
        )
    if options.quantizer not in MEAN_QUANTIZERS:
        raise UsageError(
            f"--mean-wbits: --quantizer {options.quantizer} has no widths to choose from; "
            f"use scaled or fixed"
        )
    if not options.wbits.isdigit() or not mean <= int(options.wbits) <= MOST_MEAN_BITS:
        raise UsageError(
            f"--mean-wbits: with it, --wbits is the widest that a layer may have, at least the "
            f"mean and at most 8, not {options.wbits}; leave --wbits out"
        )
