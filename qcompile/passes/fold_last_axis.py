"""Folds products and sums with constant vectors along the last axis into what is before them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcompile.graph import Graph, Rewriter
from qcompile.ops import IDENTITY, Add, LayerNorm, MatMul, Mul
from qcompile.passes.base import until_stable
from qcompile.passes.parameters import add_float, exact, vector
from qcompile.types import Array


@dataclass(frozen=True, slots=True)
class FoldLastAxis:
    """The bias of a linear layer over tokens, and gain and shift of a layer norm.

    Before::

        %t = MatMul(%x, @w)               x [1, tokens, features]
        %y = Add(%t, @b)                  b [features]

    After::

        %y = MatMul(%x, @w, @b)

    `FoldAffine` does the same along axis 1, where convolutions have their channels.
    """

    name: ClassVar[str] = "fold-last-axis"
    into_weights: bool = True

    def run(self, graph: Graph) -> Graph:
        return until_stable(graph, lambda graph: _fold_one(graph, self.into_weights))


def _fold_one(graph: Graph, into_weights: bool) -> Graph | None:
    for op in graph.ops:
        if isinstance(op, Add | Mul):
            edited = _folded(graph, op, into_weights)
            if edited is not None:
                return edited
    return None


def _folded(graph: Graph, op: Add | Mul, into_weights: bool) -> Graph | None:
    fixed = [graph.is_constant(name) for name in op.inputs]
    if sum(fixed) != 1:
        return None
    which = fixed.index(True)
    producer = graph.producers.get(op.inputs[1 - which])
    if not isinstance(producer, MatMul | LayerNorm) or producer.activation != IDENTITY:
        return None
    shape = graph.types[producer.output].shape
    if (
        graph.only_consumer(producer.output) is not op
        or graph.types[op.output].shape != shape
        or producer.channel_axis(len(shape)) != len(shape) - 1
    ):
        return None
    data = _last_axis(graph.constants[op.inputs[which]], shape)
    if data is None:
        return None
    size = shape[-1]
    if isinstance(op, Add):
        scale = np.full(size, float(op.weights[1 - which]))
        shift = data * op.weights[which]
    else:
        scale, shift = data, np.zeros(size)
    weighted = isinstance(producer, MatMul)
    weights = graph.types[producer.inputs[1]] if weighted else None
    fixed_grid = weights is not None and (not into_weights or weights.quantization is not None)
    if fixed_grid and (scale != 1).any():
        return None
    rewriter = Rewriter(graph)
    bias = vector(graph, producer.inputs, 2, size, 0.0) * scale + shift
    first = producer.inputs[1] if len(producer.inputs) > 1 else None
    if weighted and (scale == 1).all():
        assert first is not None
    else:
        old = np.ones(size) if first is None else exact(graph, first)
        first = add_float(
            rewriter, f"{producer.name}.{'weight' if weighted else 'scale'}", old * scale
        )
    folded = dataclasses.replace(
        producer,
        inputs=(producer.inputs[0], first, add_float(rewriter, f"{producer.name}.bias", bias)),
        outputs=op.outputs,
        activation=op.activation,
    )
    rewriter.replace(producer, folded)
    rewriter.remove(op)
    return rewriter.finish()


def _last_axis(data: Array, shape: tuple[int, ...]) -> Array | None:
    """`data` as a double vector if it broadcasts to `shape` along the last axis alone."""
    if data.ndim > len(shape) or any(size != 1 for size in data.shape[:-1]):
        return None
    return np.array(np.broadcast_to(data.astype("float64").reshape(-1), (shape[-1],)))
