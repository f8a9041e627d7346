"""Channels whose ternary code falls while the sum rises: their weights are negated."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcompile.graph import Graph, Op, Rewriter
from qcompile.ops import Conv, ConvTranspose, MatMul
from qcompile.passes.fold_affine import scaled_outputs
from qcompile.passes.imported_formats import is_imported
from qcompile.types import Array, CodebookKind, IntType

_Weighted = Conv | ConvTranspose | MatMul
_KINDS = (CodebookKind.TERNARY, CodebookKind.BINARY)


@dataclass(frozen=True, slots=True)
class RaiseChannels:
    """Negative gains of norms go into the weights before them, where the output is ternary.

    Before::

        %y = Conv 'c'(%x, @w, @b) gain=(2, -3)         %y on the grid -1, 0, 1

    After, with both signs of filter 1 exchanged, which rounds nothing::

        %y = Conv 'c'(%x, @w', @b') gain=(2, 3)

    Codes then rise with the sum in every channel, and two thresholds for each channel say them.
    """

    name: ClassVar[str] = "raise-channels"

    def run(self, graph: Graph) -> Graph:
        rewriter = Rewriter(graph)
        for op in graph.ops:
            signs = _signs(graph, op) if isinstance(op, _Weighted) else None
            if isinstance(op, _Weighted) and signs is not None:
                rewriter.replace(op, _negated(graph, rewriter, op, signs))
        return rewriter.finish()


def _signs(graph: Graph, op: _Weighted) -> Array | None:
    """-1 for each channel that falls, 1 for the others; None where there is nothing to do."""
    kind = graph.output_type(op)
    if (
        not is_imported(kind)
        or kind.codebook is None
        or kind.codebook.kind not in _KINDS
        or op.activation.slope != (1.0,)
        or min(op.activation.gain) >= 0
    ):
        return None
    channels = kind.shape[op.channel_axis(kind.rank)]
    signs = np.where(np.broadcast_to(op.activation.gain, (channels,)) < 0, -1, 1)
    falls = scaled_outputs(op, graph.constants[op.inputs[1]] * 0.0 + 1, signs) < 0
    element, codes = graph.types[op.inputs[1]].element, graph.constants[op.inputs[1]]
    if isinstance(element, IntType) and (-codes[falls].astype(np.int64) > element.high).any():
        return None  # the lowest code has no negative
    return signs


def _negated(graph: Graph, rewriter: Rewriter, op: _Weighted, signs: Array) -> Op:
    inputs = list(op.inputs)
    for position, name in enumerate(op.inputs[1:], start=1):
        data = graph.constants[name]
        found = scaled_outputs(op, data, signs) if position == 1 else data * signs
        inputs[position] = rewriter.add_constant(name, found.astype(data.dtype), graph.types[name])
    gain = tuple(abs(value) for value in op.activation.gain)
    activation = dataclasses.replace(op.activation, gain=gain)
    return dataclasses.replace(op, inputs=tuple(inputs), activation=activation)
