"""Bit planes from and to codes of a byte each, for the layers that work on bytes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.backends.c.levels import Level
from qcompile.backends.c.program import Pointer, Step, kernel
from qcompile.passes.place_planes import BitPlanes, PlaneCodes, stripe
from qcompile.types import Array, Shape

CONVERTED_AT = Level.AVX2
LOW_AND_RISE = {PlaneCodes.UNIT: (0, 1), PlaneCodes.SIGN: (-1, 2), PlaneCodes.TERNARY: (-1, 1)}
"""Of each kind: the code without any bit, and what each plane adds."""


def read_planes(step: Step, name: str, value: str) -> str:
    """Pointer `name` to the planes of `value`."""
    step.pointers.append(Pointer("uint8_t", name, value))
    return name


def write_planes(step: Step, name: str, value: str) -> str:
    """Pointer `name` to the planes of the output `value`."""
    step.pointers.append(Pointer("uint8_t", name, value, writes=True))
    return name


def plan_unpacking(
    step: Step,
    name: str,
    value: str,
    ctype: str,
    shape: Shape,
    layout: BitPlanes,
    levels: Sequence[Level],
) -> str:
    """Pointer `name` to the codes of `value`, channels last, unpacked before the step."""
    source = read_planes(step, f"{name}_planes", value)
    step.scratch(ctype, name, int(np.prod(shape)))
    described = describe_planes(step, f"{name}_image", shape, layout)
    step.before += _at_levels(
        step, levels, "unpack_planes", ctype, shape, f"({described}, {source}, {name});"
    )
    return name


def plan_packing(
    step: Step,
    name: str,
    value: str,
    ctype: str,
    shape: Shape,
    layout: BitPlanes,
    levels: Sequence[Level],
) -> str:
    """Pointer `name` to codes, channels last, that become the planes of `value` after the step."""
    target = write_planes(step, f"{name}_planes", value)
    step.scratch(ctype, name, int(np.prod(shape)))
    described = describe_planes(step, f"{name}_image", shape, layout)
    step.after += _at_levels(
        step, levels, "pack_planes", ctype, shape, f"({described}, {name}, {target});"
    )
    return name


def _at_levels(
    step: Step, levels: Sequence[Level], template: str, ctype: str, shape: Shape, arguments: str
) -> list[str]:
    """The call of a conversion, compiled for vectors where the machine has them."""
    whole = shape[1] % 8 == 0
    suffix = "_whole" if whole else ""
    item = kernel(template, [ctype], suffix=suffix, type=ctype, whole=whole)
    if CONVERTED_AT not in levels:
        return [f"{step.use(item)}{arguments}"]
    wide = item.at(CONVERTED_AT)
    return [
        f"#if defined({CONVERTED_AT.value.family.value})",
        f"if (level >= {CONVERTED_AT.macro}) {{",
        f"    {step.use(wide)}{arguments}",
        "} else",
        "#endif",
        "{",
        f"    {step.use(item)}{arguments}",
        "}",
    ]


def describe_planes(step: Step, name: str, shape: Shape, layout: BitPlanes) -> str:
    """Adds the descriptor of an image in planes; returns the expression that passes it."""
    low, rise = LOW_AND_RISE[layout.codes]
    return step.shape(
        "planes_image",
        name,
        channels=shape[1],
        height=shape[2],
        width=shape[3],
        stripe=stripe(shape),
        planes=layout.planes,
        low=low,
        rise=rise,
    )


def decoded(memory: Array, shape: Shape, layout: BitPlanes) -> Array:
    """The codes [1, C, H, W] of a tensor in planes, given its bytes (uint8, 1-D)."""
    _, channels, height, width = shape
    rows = stripe(shape)
    planes = memory.reshape(channels, layout.planes, rows, width)
    bits = np.unpackbits(planes[..., None], axis=-1, bitorder="little")
    low, rise = LOW_AND_RISE[layout.codes]
    codes = low + rise * bits.astype(np.int8).sum(axis=1)
    # [channel, row of a stripe, column, stripe] -> [channel, stripe, row, column]
    image = codes.transpose(0, 3, 1, 2).reshape(channels, 8 * rows, width)
    return np.ascontiguousarray(image[None, :, :height])
