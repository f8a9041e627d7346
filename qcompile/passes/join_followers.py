"""Which operators run inside the convolution before them: as soon as its rows are there.

Before: Conv -> x -> MaxPool 2x2     After: Conv + MaxPool, two rows of x at a time
        Conv -> x -> ArgMax                 Conv + ArgMax, a row of x at a time

Rows that a convolution has just written are in the processor's cache; later they are in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qcompile.graph import Graph, Op
from qcompile.ops import ArgMax, Conv, MaxPool, Threshold
from qcompile.passes.place_planes import NO_PLANES, PlanePlan
from qcompile.passes.place_tensors import Placement, channels_last

CHANNELS = 1
FEWEST_BYTES = 1 << 20
"""Of what a maximum reads. Less is still in the second-level cache when a step of its own reads it,
and drivers without it are a few per cent faster (measured on a U-Net of 256x256 pixels)."""


@dataclass(frozen=True)
class JoinFollowers:
    """Finds for each `Conv` of integers the first 2x2 maximum or class map that reads it."""

    def run(
        self,
        graph: Graph,
        placements: Mapping[str, Placement],
        planes: PlanePlan = NO_PLANES,
    ) -> Mapping[str, Op]:
        """Name of the convolution -> the operator that runs with it."""
        found: dict[str, Op] = {}
        for op in graph.ops:
            if not isinstance(op, Conv) or op.output in planes.values:
                continue
            kind = graph.types[op.output]
            order = channels_last(kind.rank)
            if (
                kind.is_float
                or kind.rank != 4
                or not placements[op.output].same_memory(order, kind.shape)
            ):
                continue
            for reader in graph.consumers[op.output]:
                if _follows(graph, reader, placements, planes):
                    found[op.name] = reader
                    break
        return found


def _follows(
    graph: Graph, reader: Op, placements: Mapping[str, Placement], planes: PlanePlan
) -> bool:
    """`reader` works row by row, and writes rows that follow each other."""
    if reader.output in planes.values:
        return False
    shape, out = graph.types[reader.inputs[0]].shape, graph.types[reader.output].shape
    placement = placements[reader.output]
    match reader:
        case MaxPool():
            return (
                reader.kernel == reader.strides == (2, 2)
                and {*reader.pads_begin, *reader.pads_end} == {0}
                and {*reader.dilations} == {1}
                and out[2:] == (shape[2] // 2, shape[3] // 2)
                and graph.types[reader.inputs[0]].storage_bytes >= FEWEST_BYTES
                and placement.same_memory(channels_last(len(out)), out)
            )
        case ArgMax():
            return reader.axis == CHANNELS and placement.same_memory(
                channels_last(4) if reader.keepdims else Placement((0, 1, 2)), out
            )
        case Threshold():
            return shape[1] == 1 and placement.same_memory(channels_last(4), out)
    return False
