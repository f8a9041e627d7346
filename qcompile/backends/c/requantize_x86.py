"""The epilogue of SIMD kernels on x86: in vectors by hand where its products have 32 bits."""

from __future__ import annotations

import numpy as np

from qcompile.backends.c.levels import Family, Level
from qcompile.backends.c.program import Kernel
from qcompile.numerics import Requantize
from qcompile.ops import SumOp
from qcompile.types import Array, Range

INT32 = Range(-(1 << 31), (1 << 31) - 1)


def level_epilogue(epilogue: Kernel, level: Level, op: SumOp, sums: tuple[Array, Array]) -> Kernel:
    """The kernel that applies the epilogue of `op` at `level`, to rows of int32 sums.

    Args:
        epilogue: the portable kernel.
        level: the instruction set.
        op: whose epilogue it is.
        sums: (lowest, highest) sum of each channel.

    Returns:
        `requantize_x86` for 32-bit products and codes of 8 or 16 bits; else the portable text
        compiled for the level.
    """
    plain = epilogue.at(level)
    settings = dict(epilogue.settings)
    if (
        level.value.family is not Family.X86
        or epilogue.template != "requantize"
        or settings["sums"] != "int32_t"
        or settings["product"] != "int32_t"
        or settings["y"] not in ("uint8_t", "int8_t", "uint16_t", "int16_t")
        or not isinstance(op.epilogue, Requantize)
    ):
        return plain
    # Pivots are compared with limited sums.
    clip = bool(settings["negative"]) or not _products_fit(op.epilogue, sums)
    function = epilogue.function.replace("requantize", "requantize_x86", 1)
    chosen = ("flat", "y", "constants", "one_shift", "one_clamp", "negative")
    # Only rows of any length end in parts of a vector.
    rest = plain.function if settings["flat"] else ""
    return Kernel(
        "requantize_x86",
        function + ("" if clip else "_unclipped"),
        (*((name, settings[name]) for name in chosen), ("clip", clip), ("rest", rest)),
        (*epilogue.requires, plain) if rest else epilogue.requires,
    ).at(level)


def _products_fit(epilogue: Requantize, sums: tuple[Array, Array]) -> bool:
    """Sums that are not limited first give 32-bit products nevertheless."""
    products = [
        limit.astype(object) * np.array(epilogue.multipliers, object)
        + offset * np.array(epilogue.biases, object)
        for limit in sums
        for offset in (0, 1)
    ]
    return all(INT32.contains(Range(min(item), max(item))) for item in products)
