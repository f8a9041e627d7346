"""Functions with the values -a, 0, a are roundings to a grid of three codes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from qcompile.graph import Graph, Op, Rewriter
from qcompile.ops import Activation, FakeQuantize, Rescale, Steps
from qcompile.types import Rounding


@dataclass(frozen=True, slots=True)
class TernaryGrids:
    """`Steps` to -a, 0 and a becomes the `FakeQuantize` of these codes, which is exact.

    Before::

        %y = Steps 'act'(%x) limits=(-0.25, 0.25) values=(-1, 0, 0, 0, 1)

    After, with a = 1 (limits of a / 2 need no `Rescale`)::

        %t = Rescale 'act.scale'(%x) activation=affine
        %y = FakeQuantize 'act'(%t) scale=1 low=-1 high=1

    `AbsorbQuantizers` makes it the type of the sum before: two integer thresholds for each channel.
    A function that is -a or a at its limits rounds halves away from zero.
    """

    name: ClassVar[str] = "ternary-grids"

    def run(self, graph: Graph) -> Graph:
        rewriter = Rewriter(graph)
        for op in graph.ops:
            rounding = ternary_rounding(op) if isinstance(op, Steps) else None
            if isinstance(op, Steps) and rounding is not None:
                rewriter.replace(op, *_rounded(graph, rewriter, op, rounding))
        return rewriter.finish()


def has_ternary(graph: Graph) -> bool:
    """Whether the pass finds something."""
    return any(isinstance(op, Steps) and ternary_rounding(op) is not None for op in graph.ops)


def ternary_rounding(op: Steps) -> Rounding | None:
    """How a function with the values -a, 0, a rounds at its limits -t, t; None for others.

    Half a step (of a difference of two signs) is none of the codes; it counts as 0.
    """
    if len(op.limits) != 2 or op.limits[0] != -op.limits[1]:
        return None
    low, at_low, middle, at_high, high = op.values
    if middle != 0 or low != -high or high == 0:
        return None
    if (at_low, at_high) == (low, high):
        return Rounding.HALF_UP
    half = at_low == -at_high and at_high in (0, high / 2)
    return Rounding.HALF_EVEN if half else None


def _rounded(graph: Graph, rewriter: Rewriter, op: Steps, rounding: Rounding) -> tuple[Op, ...]:
    height, limit = Fraction(op.values[-1]), Fraction(op.limits[-1])
    gain = _towards_zero(height / (2 * limit))
    scale = abs(op.values[-1])

    def quantizer(source: str) -> FakeQuantize:
        return FakeQuantize(
            name=op.name,
            inputs=(source,),
            outputs=op.outputs,
            scale=scale,
            low=-1,
            high=1,
            rounding=rounding,
        )

    if gain == 1.0:
        return (quantizer(op.inputs[0]),)
    value = rewriter.add_value(f"{op.name}.scaled", graph.types[op.inputs[0]])
    rescale = Rescale(
        name=rewriter.fresh(f"{op.name}.scale"),
        inputs=op.inputs,
        outputs=(value,),
        activation=Activation(gain=(gain,)),
    )
    return rescale, quantizer(value)


def _towards_zero(ratio: Fraction) -> float:
    """The double next to `ratio` that is not beyond it: what is at the limit does not pass it."""
    found = float(ratio)
    return math.nextafter(found, 0.0) if abs(Fraction(found)) > abs(ratio) else found
