"""Finds group norms in the spelling that exporters give them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from qcompile.graph import Graph, Rewriter
from qcompile.ops import GroupNorm, Reshape
from qcompile.passes.base import until_stable
from qcompile.passes.parameters import add_float, vector


@dataclass(frozen=True, slots=True)
class RecogniseGroupNorm:
    """A norm of a reshaped tensor becomes a group norm of the tensor itself.

    Before (8 channels in 2 groups)::

        %t = Reshape 'a'(%x) shape=[1,2,1024]
        %u = GroupNorm 'n'(%t, @ones, @zeros) groups=2
        %v = Reshape 'b'(%u) shape=[1,8,16,16]
        %y = Affine 's'(%v, @scale, @shift)

    After; `FoldAffine` then takes the Affine into the norm::

        %v = GroupNorm 'n'(%x, @scale', @shift') groups=2
        %y = Affine 's'(%v, @scale, @shift)
    """

    name: ClassVar[str] = "recognise-group-norm"

    def run(self, graph: Graph) -> Graph:
        return until_stable(graph, _recognise_one)


def _recognise_one(graph: Graph) -> Graph | None:
    for norm in graph.ops:
        if not isinstance(norm, GroupNorm):
            continue
        before = graph.producers.get(norm.inputs[0])
        after = graph.only_consumer(norm.output)
        if not isinstance(before, Reshape) or not isinstance(after, Reshape):
            continue
        x = before.inputs[0]
        shape, inner = graph.types[x].shape, before.shape
        if (
            after.shape != shape
            or len(shape) < 3
            or shape[0] != inner[0]
            or shape[1] % inner[1]
            or len(norm.activation.slope) * len(norm.activation.gain) > 1
            or len(norm.activation.shift) > 1
        ):
            continue
        channels, repeats = inner[1], shape[1] // inner[1]
        rewriter = Rewriter(graph)
        inputs = (
            x,
            *(
                add_float(
                    rewriter,
                    f"{norm.name}.{suffix}",
                    np.repeat(vector(graph, norm.inputs, index, channels, default), repeats),
                )
                for index, suffix, default in ((1, "scale", 1.0), (2, "shift", 0.0))
            ),
        )
        rewriter.replace(norm, dataclasses.replace(norm, inputs=inputs, outputs=after.outputs))
        rewriter.remove(after)
        return rewriter.finish()
    return None
