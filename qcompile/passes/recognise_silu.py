"""Finds the swish functions, which exporters write as products of x and a gate of x."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import ClassVar

from qcompile.graph import Graph, Op, Rewriter
from qcompile.ops import (
    IDENTITY,
    Activation,
    Affine,
    HardSigmoid,
    HardSwish,
    Mul,
    Rescale,
    Sigmoid,
    Silu,
)
from qcompile.passes.base import until_stable
from qcompile.passes.compose import compose
from qcompile.passes.fuse_activations import function_of

_TOLERANCE = 1e-5
"""Relative; constants such as 1/6 come rounded to float32."""


@dataclass(frozen=True, slots=True)
class RecogniseSilu:
    """x * Sigmoid(x) becomes Silu(x), and x * (a clipped line through x) becomes HardSwish(x).

    Before::

        %t = Affine 'add'(%x, @one, @three)
        %u = Rescale 'clip'(%t) activation=clip(0, 6)
        %v = Affine 'sixth'(%u, @sixth, @zero)
        %y = Mul 'mul'(%x, %v)

    After::

        %y = HardSwish 'mul'(%x)

    One pointwise function of one tensor is one table later, where the product of two tensors would
    round twice. A factor that is left over (as in x * clip(x + 3, 0, 6)) becomes a `Rescale`.
    Run it after `FoldAffine`, which turns constant operands into `Affine`.
    """

    name: ClassVar[str] = "recognise-silu"

    def run(self, graph: Graph) -> Graph:
        return until_stable(graph, _recognise_one)


def _recognise_one(graph: Graph) -> Graph | None:
    for op in graph.ops:
        if not isinstance(op, Mul) or len(set(op.inputs)) != 2:
            continue
        for x, gate in (op.inputs, op.inputs[::-1]):
            found = _swish(graph, x, gate)
            if found is not None:
                return _replaced(graph, op, x, *found)
    return None


def _replaced(
    graph: Graph, op: Mul, x: str, kind: type[Silu] | type[HardSwish], factor: float
) -> Graph | None:
    """`op` as the function `kind` of x, followed by the factor and the activation of `op`."""
    scaled = compose(Activation(gain=(factor,)), op.activation)
    if scaled is None:
        return None
    if len(scaled.gain) == 1 and math.isclose(scaled.gain[0], 1.0, rel_tol=_TOLERANCE):
        scaled = dataclasses.replace(scaled, gain=(1.0,))
    rewriter = Rewriter(graph)
    if scaled == IDENTITY:
        rewriter.replace(op, kind(name=op.name, inputs=(x,), outputs=op.outputs))
        return rewriter.finish()
    value = rewriter.add_value(f"{op.name}.swish", graph.types[op.output])
    rewriter.replace(
        op,
        kind(name=rewriter.fresh(f"{op.name}.swish"), inputs=(x,), outputs=(value,)),
        Rescale(name=op.name, inputs=(value,), outputs=op.outputs, activation=scaled),
    )
    return rewriter.finish()


def _swish(graph: Graph, x: str, gate: str) -> tuple[type[Silu] | type[HardSwish], float] | None:
    """Which function, and times what, x * gate is."""
    producer = graph.producers.get(gate)
    if isinstance(producer, Sigmoid) and producer.inputs == (x,):
        return Silu, 1.0
    if isinstance(producer, HardSigmoid) and producer.inputs == (x,):
        line = Activation(gain=(producer.alpha,), shift=(producer.beta,), low=0.0, high=1.0)
    else:
        chain = _function_between(graph, x, producer)
        if chain is None:
            return None
        line = chain
    high = line.high
    if line.slope != (1.0,) or line.low != 0 or not 0 < high < math.inf:
        return None
    if len(line.gain) > 1 or len(line.shift) > 1:
        return None
    matches = math.isclose(line.gain[0] / high, 1 / 6, rel_tol=_TOLERANCE) and math.isclose(
        line.shift[0] / high, 1 / 2, rel_tol=_TOLERANCE
    )
    if not matches:
        return None
    return HardSwish, 1.0 if math.isclose(high, 1.0, rel_tol=_TOLERANCE) else high


def _function_between(graph: Graph, x: str, last: Op | None) -> Activation | None:
    """The activation that the chain of Affine and Rescale from `x` to `last` computes."""
    total = IDENTITY
    while isinstance(last, (Affine, Rescale)):
        own = function_of(graph, last)
        composed = None if own is None else compose(own, total)
        if composed is None:
            return None
        total = composed
        if last.inputs[0] == x:
            return total
        last = graph.producers.get(last.inputs[0])
    return None
