"""Finds layer norms that were exported as means, a root and a quotient."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcompile.graph import Graph, Op, Rewriter
from qcompile.ops import (
    IDENTITY,
    Add,
    Affine,
    Div,
    LayerNorm,
    Mul,
    ReduceMean,
    Reshape,
    Sqrt,
    Transpose,
)
from qcompile.passes.base import until_stable
from qcompile.types import Shape


@dataclass(frozen=True, slots=True)
class RecogniseLayerNorm:
    """(x - mean(x)) / sqrt(mean((x - mean(x))**2) + epsilon) becomes a layer norm.

    Before::

        %m = ReduceMean(%x) axes=[2] keepdims
        %d = Add(%x, %m) weights=(1, -1)
        %q = Mul(%d, %d)
        %v = ReduceMean(%q) axes=[2] keepdims
        %e = Affine(%v, @one, @epsilon)
        %s = Sqrt(%e)
        %y = Div(%d, %s)

    After; `FoldLastAxis` then takes gain and shift::

        %y = LayerNorm(%x) axis=2

    Also where the mean is taken over several last axes (a Reshape joins them), over axis 1, over
    others (a Transpose brings them last), and where the quotient is a product with 1 / root.
    """

    name: ClassVar[str] = "recognise-layer-norm"

    def run(self, graph: Graph) -> Graph:
        return until_stable(graph, _recognise_one)


@dataclass(frozen=True, slots=True)
class _Norm:
    x: str
    axes: tuple[int, ...]
    epsilon: float


def _recognise_one(graph: Graph) -> Graph | None:
    for op in graph.ops:
        for centred, root in _quotients(graph, op):
            found = _matched(graph, centred, root)
            if found is not None:
                return _replaced(graph, op, found)
    return None


def _quotients(graph: Graph, op: Op) -> list[tuple[str, str]]:
    """Values (a, r) of which `op` computes a / r."""
    if isinstance(op, Div) and op.activation == IDENTITY:
        return [(op.inputs[0], op.inputs[1])]
    found = []
    if isinstance(op, Mul) and op.activation == IDENTITY:
        for a, b in (op.inputs, op.inputs[::-1]):
            inverse = graph.producers.get(b)
            if isinstance(inverse, Div) and _is_one(graph, inverse.inputs[0]):
                found.append((a, inverse.inputs[1]))
    return found


def _is_one(graph: Graph, value: str) -> bool:
    return graph.is_constant(value) and bool((graph.constants[value] == 1).all())


def _matched(graph: Graph, centred: str, root: str) -> _Norm | None:
    sqrt = graph.producers.get(root)
    if not isinstance(sqrt, Sqrt):
        return None
    variance, epsilon = _without_epsilon(graph, sqrt.inputs[0])
    mean = graph.producers.get(variance)
    if not isinstance(mean, ReduceMean) or not mean.keepdims or mean.activation != IDENTITY:
        return None
    square = graph.producers.get(mean.inputs[0])
    if not isinstance(square, Mul) or square.inputs[0] != square.inputs[1]:
        return None
    sources = [_centred(graph, value, mean.axes) for value in (centred, square.inputs[0])]
    if sources[0] is None or sources[0] != sources[1] or square.activation != IDENTITY:
        return None
    return _Norm(sources[0], mean.axes, epsilon)


def _without_epsilon(graph: Graph, value: str) -> tuple[str, float]:
    """A value without the number that is added to it, and this number."""
    op = graph.producers.get(value)
    if isinstance(op, Affine) and op.activation == IDENTITY:
        scale, shift = (graph.constants[name] for name in op.inputs[1:3])
        if (scale == 1).all() and len(np.unique(shift)) == 1 and shift[0] >= 0:
            return op.inputs[0], float(shift[0])
    if isinstance(op, Add) and op.weights == (1, 1) and op.activation == IDENTITY:
        for x, other in (op.inputs, op.inputs[::-1]):
            if graph.is_constant(other) and graph.constants[other].size == 1:
                epsilon = float(graph.constants[other].reshape(-1)[0])
                if epsilon >= 0:
                    return x, epsilon
    return value, 0.0


def _centred(graph: Graph, value: str, axes: tuple[int, ...]) -> str | None:
    """x, if the value is x minus its mean over `axes`."""
    op = graph.producers.get(value)
    if not isinstance(op, Add) or op.weights != (1, -1) or op.activation != IDENTITY:
        return None
    x, mean = op.inputs[0], graph.producers.get(op.inputs[1])
    if not isinstance(mean, ReduceMean) or not mean.keepdims or mean.activation != IDENTITY:
        return None
    return x if mean.inputs == (x,) and mean.axes == axes else None


def _replaced(graph: Graph, op: Op, found: _Norm) -> Graph:
    """`op` as a layer norm of one axis, with what brings the axes there and back."""
    shape = graph.types[found.x].shape
    rank = len(shape)
    rewriter = Rewriter(graph)
    before: list[Op] = []
    after: list[Op] = []
    value, result = found.x, op.output
    axes = found.axes
    if axes != (1,) and axes != tuple(range(rank - len(axes), rank)):
        order = (*(axis for axis in range(rank) if axis not in axes), *axes)
        moved = rewriter.add_value(f"{op.output}.last")
        before.append(
            Transpose(
                name=rewriter.fresh(f"{op.name}.last"),
                inputs=(value,),
                outputs=(moved,),
                permutation=order,
            )
        )
        back = rewriter.add_value(f"{op.output}.norm")
        after.append(
            Transpose(
                name=rewriter.fresh(f"{op.name}.back"),
                inputs=(back,),
                outputs=(result,),
                permutation=tuple(order.index(axis) for axis in range(rank)),
            )
        )
        value, result = moved, back
        shape = tuple(shape[axis] for axis in order)
    if len(axes) > 1:
        kept = rank - len(axes)
        joined: Shape = (*shape[:kept], math.prod(shape[kept:]))
        flat = rewriter.add_value(f"{op.output}.joined")
        before.append(
            Reshape(
                name=rewriter.fresh(f"{op.name}.joined"),
                inputs=(value,),
                outputs=(flat,),
                shape=joined,
            )
        )
        rows = rewriter.add_value(f"{op.output}.rows")
        after.insert(
            0,
            Reshape(
                name=rewriter.fresh(f"{op.name}.apart"),
                inputs=(rows,),
                outputs=(result,),
                shape=shape,
            ),
        )
        value, result = flat, rows
        shape = joined
    axis = 1 if axes == (1,) else len(shape) - 1
    norm = LayerNorm(
        name=op.name, inputs=(value,), outputs=(result,), axis=axis, epsilon=found.epsilon
    )
    rewriter.replace(op, *before, norm, *after)
    return rewriter.finish()
