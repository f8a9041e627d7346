"""Where an output position of Resize lies in the input: exact rational coordinates.

Formulas: ONNX operator documentation, Resize, `coordinate_transformation_mode`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from qcompile.importer.node import Node

HALF = Fraction(1, 2)

MODES = (
    "half_pixel",
    "half_pixel_symmetric",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "tf_half_pixel_for_nn",
    "tf_crop_and_resize",
)

LARGEST_DENOMINATOR = 4096


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis that is resized: sizes, the scale, and the part of the input to read (crop)."""

    size_in: int
    size_out: int
    scale: Fraction
    begin: Fraction = Fraction(0)
    end: Fraction = Fraction(1)


def exact_scale(scale: float) -> Fraction:
    """The simple fraction that a float32 scale stands for (5/3 for 1.6666666), else its value.

    Rounded scales would shift the coordinates at ties and give weights without a small common
    denominator.
    """
    simple = Fraction(scale).limit_denominator(LARGEST_DENOMINATOR)
    if simple > 0 and np.float32(float(simple)) == np.float32(scale):
        return simple
    return Fraction(scale)


def coordinates(node: Node, mode: str, axis: Axis) -> tuple[Fraction, ...]:
    """The input coordinate of every output position; integers are the centres of elements."""
    if mode == "tf_crop_and_resize":
        return _cropped(node, axis)
    result = sampled(mode, axis)
    if result is None:
        node.malformed(f"coordinate_transformation_mode '{mode}' does not exist")
    return result


def sampled(mode: str, axis: Axis) -> tuple[Fraction, ...] | None:
    """`coordinates` of the modes that read the whole axis; None if there is no such mode."""
    size_in, size_out, scale = axis.size_in, axis.size_out, axis.scale
    positions = range(size_out)
    if scale == 1 and size_in == size_out:
        return tuple(Fraction(p) for p in positions)
    match mode:
        case "half_pixel":
            return tuple((p + HALF) / scale - HALF for p in positions)
        case "pytorch_half_pixel":
            if size_out == 1:
                return (Fraction(0),)
            return tuple((p + HALF) / scale - HALF for p in positions)
        case "half_pixel_symmetric":
            offset = Fraction(size_in, 2) * (1 - Fraction(size_out) / (scale * size_in))
            return tuple(offset + (p + HALF) / scale - HALF for p in positions)
        case "align_corners":
            step = Fraction(size_in - 1, size_out - 1) if size_out > 1 else Fraction(0)
            return tuple(p * step for p in positions)
        case "asymmetric":
            return tuple(p / scale for p in positions)
        case "tf_half_pixel_for_nn":
            return tuple((p + HALF) / scale for p in positions)
        case _:
            return None


def _cropped(node: Node, axis: Axis) -> tuple[Fraction, ...]:
    last = axis.size_in - 1
    if axis.size_out == 1:
        result: Sequence[Fraction] = (HALF * (axis.begin + axis.end) * last,)
    else:
        step = (axis.end - axis.begin) * last / (axis.size_out - 1)
        result = [axis.begin * last + p * step for p in range(axis.size_out)]
    if min(result) < 0 or max(result) > last:
        node.refuse(
            "tf_crop_and_resize reads outside of the input",
            "crop inside the input; extrapolation is not supported",
        )
    return tuple(result)
