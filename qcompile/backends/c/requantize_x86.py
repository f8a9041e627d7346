"""The epilogue of SIMD kernels on x86: in vectors by hand where its products have 32 bits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.backends.c.levels import Family, Level
from qcompile.backends.c.program import Kernel
from qcompile.numerics import Requantize
from qcompile.ops import SumOp
from qcompile.types import Array, Range

INT32 = Range(-(1 << 31), (1 << 31) - 1)
SPLITS = (8, 12, 4)
"""Bits of a sum that may be multiplied apart; the first that suits."""


def level_epilogue(epilogue: Kernel, level: Level, op: SumOp, sums: tuple[Array, Array]) -> Kernel:
    """The kernel that applies the epilogue of `op` at `level`, to rows of int32 sums.

    Args:
        epilogue: the portable kernel.
        level: the instruction set.
        op: whose epilogue it is.
        sums: (lowest, highest) sum of each channel.

    Returns:
        `requantize_x86` for codes of 8 or 16 bits and products of 32 bits, or of a few more in two
        parts; else the portable text compiled for the level.
    """
    plain = epilogue.at(level)
    settings = dict(epilogue.settings)
    if (
        level.value.family is not Family.X86
        or epilogue.template != "requantize"
        or settings["sums"] != "int32_t"
        or settings["y"] not in ("uint8_t", "int8_t", "uint16_t", "int16_t")
        or not isinstance(op.epilogue, Requantize)
    ):
        return plain
    split = 0
    if settings["product"] == "int32_t":
        # Pivots are compared with limited sums.
        clip = bool(settings["negative"]) or not _products_fit(op.epilogue, sums)
    elif settings["negative"]:
        return plain
    else:
        split, clip = _split(op.epilogue, sums), False
        if split == 0:
            split, clip = _split(op.epilogue, (op.epilogue.acc_low, op.epilogue.acc_high)), True
        if split == 0:
            return plain
    function = epilogue.function.replace("requantize", "requantize_x86", 1)
    chosen = ("flat", "y", "constants", "one_shift", "one_clamp", "negative")
    # Only rows of any length end in parts of a vector.
    rest = plain.function if settings["flat"] else ""
    return Kernel(
        "requantize_x86",
        function + ("" if clip else "_unclipped") + (f"_{split}" if split else ""),
        (
            *((name, settings[name]) for name in chosen),
            ("clip", clip),
            ("split", split),
            ("rest", rest),
        ),
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


def _split(epilogue: Requantize, sums: tuple[Sequence[int] | Array, Sequence[int] | Array]) -> int:
    """How many of the lowest bits of a sum are multiplied apart from the others, so that all
    products, and what they add up to, have 32 bits; 0 if no number of bits does that.

        (sum * m + b) >> s = (high * m + b_high + ((low * m + b_low) >> k)) >> (s - k)
    """
    count = max(map(len, (*sums, epilogue.multipliers, epilogue.biases)))
    lows, highs, multipliers, biases = (
        [int(value) for value in np.broadcast_to(np.array(list(values), object), count)]
        for values in (*sums, epilogue.multipliers, epilogue.biases)
    )
    for bits in SPLITS:
        if min(epilogue.shifts) < bits or max(epilogue.shifts) - bits > 31:
            continue
        unit = 1 << bits
        parts = Range(0, 0)
        for low, high, m, b in zip(lows, highs, multipliers, biases, strict=True):
            upper = Range(low >> bits, high >> bits).scaled(m)
            lower = Range(0, unit - 1).scaled(m)
            added = lower + Range(b & (unit - 1), b & (unit - 1))
            whole = upper + Range(b >> bits, b >> bits)
            carry = Range(added.low >> bits, added.high >> bits)
            for part in (upper, lower, added, whole, whole + carry):
                parts = parts.union(part)
        if INT32.contains(parts):
            return bits
    return 0
