"""Which concatenations need not exist in memory: a convolution reads their parts directly.

Before: skip, up -> Concat -> x -> Conv     After: skip, up -> Conv (gathers from both)

The joined tensor is the largest of a U-Net; without it the arena shrinks and a copy is saved.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qcompile.graph import Graph, Op
from qcompile.ops import Concat, Conv
from qcompile.passes.choose_kernels import KernelChoice
from qcompile.passes.place_planes import NO_PLANES, PlanePlan
from qcompile.passes.place_tensors import Placement, channels_last

MOST_PARTS = 4


@dataclass(frozen=True)
class JoinConcats:
    """Finds each `Concat` of channels that only ungrouped `Conv`s read."""

    def run(
        self,
        graph: Graph,
        choices: Mapping[str, KernelChoice],
        placements: Mapping[str, Placement],
        planes: PlanePlan = NO_PLANES,
    ) -> Mapping[str, Concat]:
        """Value name of the concatenation -> the operator that need not run."""
        found = {}
        for op in graph.ops:
            if not isinstance(op, Concat) or op.axis != 1 or len(op.inputs) > MOST_PARTS:
                continue
            readers = graph.consumers[op.output]
            in_planes = {value in planes.values for value in op.inputs}
            in_planes |= {reader.name in planes.native for reader in readers}
            if (
                readers
                and op.output not in graph.outputs
                and all(_gathers(reader, op.output, choices) for reader in readers)
                and all(_readable(graph, placements, value) for value in op.inputs)
                and len(in_planes) == 1
            ):
                found[op.output] = op
        return found


def _gathers(reader: Op, value: str, choices: Mapping[str, KernelChoice]) -> bool:
    """`reader` is a convolution that can gather `value` from several places."""
    return (
        isinstance(reader, Conv)
        and reader.groups == 1
        and choices[reader.name].kernel == "conv"
        and reader.inputs[0] == value
    )


def _readable(graph: Graph, placements: Mapping[str, Placement], value: str) -> bool:
    """The convolution can gather from where `value` lies."""
    shape = graph.types[value].shape
    return value not in graph.constants and placements[value].same_memory(
        channels_last(len(shape)), shape
    )
