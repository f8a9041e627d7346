"""Scales as ONNX files hold them.

%y u6 s=0.0312345678901   ->   %y u6 s=0.0312345679849386
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcompile.graph import Graph, Rewriter
from qcompile.ops import SumOp


@dataclass(frozen=True, slots=True)
class RoundScales:
    """Rounds every scale and activation parameter to float32.

    Run before the plan is written and the graph is lowered for a target whose files hold float32:
    file, plan and simulator then say the same numbers, and a file that is imported again gives the
    same integers.
    """

    name: ClassVar[str] = "round-scales"

    def run(self, graph: Graph) -> Graph:
        rewriter = Rewriter(graph)
        for value, kind in graph.types.items():
            if kind.quantization is not None:
                scale = _float32(kind.quantization.scale)
                quantization = dataclasses.replace(kind.quantization, scale=scale)
                rewriter.set_type(value, dataclasses.replace(kind, quantization=quantization))
        for op in graph.ops:
            if isinstance(op, SumOp) and not op.activation.is_identity:
                rounded = dataclasses.replace(
                    op.activation,
                    slope=_float32(op.activation.slope),
                    gain=_float32(op.activation.gain),
                    shift=_float32(op.activation.shift),
                )
                rewriter.replace(op, dataclasses.replace(op, activation=rounded))
        return rewriter.finish()


def _float32(values: Iterable[float]) -> tuple[float, ...]:
    return tuple(np.asarray(tuple(values), dtype=np.float32).tolist())
