"""The limit of the ternary tanh in its place: what the network was trained towards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from qcompile.graph import Graph, Rewriter
from qcompile.ops import Steps, TernaryTanh

TRAINED_BETA = 8.0
"""Where the published training ends."""
_TOLERANCE = 1e-3


@dataclass(frozen=True, slots=True)
class HardenTernaryTanh:
    """Every `TernaryTanh` becomes sign(x) where |x| > 1/2, else 0.

    Before::

        %y = TernaryTanh 'act'(%x) beta=8

    After::

        %y = Steps 'act'(%x) limits=(-0.5, 0.5) values=(-1, 0, 0, 0, 1)

    This changes the function, the more the smaller beta is: reports name where.
    """

    name: ClassVar[str] = "harden-ternary-tanh"

    def run(self, graph: Graph) -> Graph:
        rewriter = Rewriter(graph)
        for op in graph.ops:
            if isinstance(op, TernaryTanh):
                hard = Steps(
                    name=op.name,
                    inputs=op.inputs,
                    outputs=op.outputs,
                    limits=(-0.5, 0.5),
                    values=(-1.0, 0.0, 0.0, 0.0, 1.0),
                )
                rewriter.replace(op, hard)
        return rewriter.finish()


def soft_betas(graph: Graph) -> dict[str, float]:
    """Operator name -> beta of every ternary tanh."""
    return {op.name: op.beta for op in graph.ops if isinstance(op, TernaryTanh)}


def hardened_warnings(betas: Mapping[str, float]) -> tuple[str, ...]:
    """One line where functions became hard that were not steep yet.

    Args:
        betas: operator name -> beta of each that became hard.
    """
    flat = {name: beta for name, beta in betas.items() if beta < TRAINED_BETA * (1 - _TOLERANCE)}
    if not flat:
        return ()
    name = min(flat, key=lambda name: flat[name])
    others = f" and {len(flat) - 1} more" if len(flat) > 1 else ""
    return (
        f"'{name}'{others}: a ternary tanh of beta {flat[name]:g} became -1, 0, 1, which differs "
        f"from it (training ends at {TRAINED_BETA:g}); compare Dice, or give --ternary-tanh soft",
    )
