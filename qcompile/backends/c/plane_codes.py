"""Bit planes from and to codes of a byte each, for the layers that work on bytes."""

from __future__ import annotations

import numpy as np

from qcompile.backends.c.program import Pointer, Step, kernel
from qcompile.passes.place_planes import BitPlanes, PlaneCodes, stripe
from qcompile.types import Array, Shape

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
    step: Step, name: str, value: str, ctype: str, shape: Shape, layout: BitPlanes
) -> str:
    """Pointer `name` to the codes of `value`, channels last, unpacked before the step."""
    source = read_planes(step, f"{name}_planes", value)
    step.scratch(ctype, name, int(np.prod(shape)))
    item = kernel("unpack_planes", [ctype], type=ctype)
    described = _describe(step, f"{name}_image", shape, layout)
    step.before.append(f"{step.use(item)}({described}, {source}, {name});")
    return name


def plan_packing(
    step: Step, name: str, value: str, ctype: str, shape: Shape, layout: BitPlanes
) -> str:
    """Pointer `name` to codes, channels last, that become the planes of `value` after the step."""
    target = write_planes(step, f"{name}_planes", value)
    step.scratch(ctype, name, int(np.prod(shape)))
    item = kernel("pack_planes", [ctype], type=ctype)
    described = _describe(step, f"{name}_image", shape, layout)
    step.after.append(f"{step.use(item)}({described}, {name}, {target});")
    return name


def _describe(step: Step, name: str, shape: Shape, layout: BitPlanes) -> str:
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
