"""Takes constant factors of queries and keys into the product of the two."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcompile.graph import Graph, Op, Rewriter
from qcompile.ops import IDENTITY, Activation, Affine, BatchMatMul, Mul, Reshape, Transpose
from qcompile.passes.base import until_stable
from qcompile.passes.compose import compose


@dataclass(frozen=True, slots=True)
class FoldFactors:
    """(s * q) @ (s * k) becomes s**2 * (q @ k): the factor is in the epilogue, at no rounding.

    Before::

        %a = Affine(%q, @s, @0)
        %b = Transpose(%a)
        %y = BatchMatMul(%x, %b)

    After::

        %b = Transpose(%q)
        %y = BatchMatMul(%x, %b) activation=gain s
    """

    name: ClassVar[str] = "fold-factors"

    def run(self, graph: Graph) -> Graph:
        return until_stable(graph, _fold_one)


def _fold_one(graph: Graph) -> Graph | None:
    for op in graph.ops:
        if not isinstance(op, BatchMatMul):
            continue
        for value in op.inputs:
            found = _factor(graph, op, value)
            if found is None:
                continue
            scaled, source, factor = found
            activation = compose(Activation(gain=(factor,)), op.activation)
            if activation is None:
                continue
            rewriter = Rewriter(graph)
            rewriter.redirect(scaled.output, source)
            rewriter.replace(op, dataclasses.replace(op, activation=activation))
            return rewriter.finish()
    return None


def _factor(graph: Graph, reader: Op, value: str) -> tuple[Op, str, float] | None:
    """The operator that multiplies by one number before `value`, what it multiplies, by what."""
    while True:
        op = graph.producers.get(value)
        if op is None or graph.only_consumer(value) is not reader:
            return None
        if isinstance(op, Affine) and op.activation == IDENTITY:
            scale, shift = (graph.constants[name] for name in op.inputs[1:3])
            if (shift != 0).any() or len(np.unique(scale)) > 1 or scale[0] <= 0:
                return None
            return op, op.inputs[0], float(scale[0])
        if isinstance(op, Mul) and op.activation == IDENTITY:
            for x, other in (op.inputs, op.inputs[::-1]):
                if graph.is_constant(other) and graph.constants[other].size == 1:
                    factor = float(graph.constants[other].reshape(-1)[0])
                    if factor > 0 and graph.types[x].shape == graph.types[value].shape:
                        return op, x, factor
            return None
        if not isinstance(op, Reshape | Transpose):
            return None
        reader, value = op, op.inputs[0]
