"""Fuses activations, and norms that follow them, into the sums before them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from qcompile.graph import Graph, Rewriter
from qcompile.ops import IDENTITY, Activation, Affine, Rescale, SumOp
from qcompile.passes.base import until_stable
from qcompile.passes.compose import compose, shrink
from qcompile.passes.parameters import vector


@dataclass(frozen=True, slots=True)
class FuseActivations:
    """Merges `Rescale` (Relu, LeakyRelu, PRelu, Clip) and `Affine` into the operator before them.

    Before::

        %t = Conv 'c'(%x, @w, @b)
        %u = Rescale 'r'(%t) activation=relu
        %y = Affine 'bn'(%u, @scale, @shift)

    After::

        %y = Conv 'c'(%x, @w, @b) activation=relu+affine

    Only where the two functions are together one `Activation` (see `compose`) and nobody else reads
    the value between them. Any sum operator takes part: Add, AveragePool, GroupNorm, ...
    """

    name: ClassVar[str] = "fuse-activations"

    def run(self, graph: Graph) -> Graph:
        return until_stable(graph, _fuse_one)


def _fuse_one(graph: Graph) -> Graph | None:
    for op in graph.ops:
        if not isinstance(op, (Rescale, Affine)):
            continue
        producer = graph.producers.get(op.inputs[0])
        if not isinstance(producer, SumOp) or graph.only_consumer(producer.output) is not op:
            continue
        function = function_of(graph, op)
        fused = None if function is None else compose(producer.activation, function)
        axis = producer.channel_axis(graph.types[producer.output].rank)
        if fused is None or (axis != 1 and not _is_scalar(fused)):
            continue
        rewriter = Rewriter(graph)
        rewriter.replace(
            producer, dataclasses.replace(producer, outputs=op.outputs, activation=fused)
        )
        rewriter.remove(op)
        return rewriter.finish()
    return None


def function_of(graph: Graph, op: Rescale | Affine) -> Activation | None:
    """What `op` does to its input, as one activation."""
    if isinstance(op, Rescale):
        return op.activation
    channels = graph.types[op.output].shape[1]
    affine = Activation(
        gain=shrink(vector(graph, op.inputs, 1, channels, 1.0).tolist()),
        shift=shrink(vector(graph, op.inputs, 2, channels, 0.0).tolist()),
    )
    return affine if op.activation == IDENTITY else compose(affine, op.activation)


def _is_scalar(activation: Activation) -> bool:
    return len(activation.slope) == len(activation.gain) == len(activation.shift) == 1
