"""Portable kernels compiled once more for wider vectors.

Kernels are plain loops over channels or pixels, which compilers vectorise with whatever
instructions they may use. A step without a kernel of its own for a level runs the same text
compiled for that level.

    max_pool_u8(...)   ->   level >= LEVEL_AVX2 ? max_pool_u8_avx2(...) : max_pool_u8(...)
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping

import numpy as np

from qcompile.backends.c.levels import Level
from qcompile.backends.c.program import Kernel, Step, Variant
from qcompile.backends.c.requantize_x86 import level_epilogue
from qcompile.graph import Op
from qcompile.ops import SumOp

RECOMPILED = (Level.VNNI512, Level.AVX2)
"""Where wider vectors pay; NEON is what compilers use on aarch64 anyway. Operators without sums
would not be faster with AVX-512 than with AVX2."""


def add_recompiled(step: Step, levels: Iterable[Level]) -> None:
    """Adds variants to an integer step for those of `levels` that it has no variant for."""
    chosen = RECOMPILED if isinstance(step.op, SumOp) else (Level.AVX2,)
    wanted = [level for level in levels if level in chosen]
    if not step.variants and wanted and step.kernels:
        portable = step.variant(None)
        portable.calls, step.calls = step.calls, []
        # Copies before and after the calls are the same on every machine.
        words = set(re.findall(r"\w+", " ".join(portable.calls)))
        portable.kernels = [item for item in step.kernels if item.function in words]
    known = {variant.level for variant in step.variants}
    portables = [variant for variant in step.variants if variant.level is None]
    for level in wanted:
        if level not in known and portables:
            step.variants.append(recompiled(portables[0], level, step.op))


def recompiled(portable: Variant, level: Level, op: Op) -> Variant:
    """`portable` with its kernels compiled for `level`; the epilogue of `op` is that of SIMD
    kernels."""
    names: dict[str, str] = {}
    kernels = [_compiled_for(item, level, op, names) for item in portable.kernels]
    return Variant(
        level,
        portable.note,
        portable.follows,
        list(portable.pointers),
        list(portable.locals),
        [_renamed(call, names) for call in portable.calls],
        kernels,
        portable.scratch_bytes,
    )


def _compiled_for(item: Kernel, level: Level, op: Op, names: dict[str, str]) -> Kernel:
    """`item` and what it calls, for `level`; notes the old and new names."""
    if item.shared:
        return item
    if item.template == "requantize" and isinstance(op, SumOp) and op.accumulator is not None:
        sums = op.accumulator.range
        result = level_epilogue(item, level, op, (np.array([sums.low]), np.array([sums.high])))
        names[item.function] = result.function
        return result
    requires = tuple(_compiled_for(required, level, op, names) for required in item.requires)
    settings = tuple(
        (key, _renamed(value, names) if isinstance(value, str) else value)
        for key, value in item.settings
    )
    # Its name says which epilogue it calls, and the level may have another one.
    function = item.function
    for before, after in zip(item.requires, requires, strict=True):
        stem = after.function.removesuffix(f"_{level.value.suffix}")
        function = function.replace(before.function, stem)
    result = dataclasses.replace(item, function=function, requires=requires, settings=settings).at(
        level
    )
    names[item.function] = result.function
    return result


def _renamed(text: str, names: Mapping[str, str]) -> str:
    return re.sub(r"\w+", lambda word: names.get(word[0], word[0]), text)
