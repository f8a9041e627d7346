"""The order in which each tensor's elements lie in memory.

Before: shapes in the model's logical order.     After: value -> `Placement`.

    graph input  f32[1,3,64,64]   natural         (the caller's array)
    activation   u6[1,16,64,64]   channels last   (0, 2, 3, 1)
    graph output u2[1,64,64]      natural
    constant     i8[1,16,1,1]     natural
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from qcompile.graph import Graph
from qcompile.types import Shape


@dataclass(frozen=True, slots=True)
class Placement:
    """`order[i]` is the logical axis at physical position i, the last being contiguous."""

    order: tuple[int, ...]

    def physical(self, shape: Shape) -> Shape:
        return tuple(shape[axis] for axis in self.order)

    def strides(self, shape: Shape) -> tuple[int, ...]:
        """Elements between neighbours along each logical axis."""
        result = [0] * len(shape)
        step = 1
        for axis in reversed(self.order):
            result[axis] = step
            step *= shape[axis]
        return tuple(result)

    def same_memory(self, other: Placement, shape: Shape) -> bool:
        """Both placements put every element at the same address."""
        ours, theirs = self.strides(shape), other.strides(shape)
        return all(size == 1 or a == b for size, a, b in zip(shape, ours, theirs, strict=True))


def natural(rank: int) -> Placement:
    """The model's own order, row-major."""
    return Placement(tuple(range(rank)))


def channels_last(rank: int) -> Placement:
    """Axis 1 moved to the end for rank 3 and more, else the natural order."""
    if rank < 3:
        return natural(rank)
    return Placement((0, *range(2, rank), 1))


def split_axes(shape: Shape, axis: int, placement: Placement) -> tuple[int, int, int]:
    """(outer, size, inner): how many elements lie before, along and inside a logical axis."""
    physical = placement.physical(shape)
    position = placement.order.index(axis)
    return math.prod(physical[:position]), shape[axis], math.prod(physical[position + 1 :])


@dataclass(frozen=True)
class PlaceTensors:
    """Public tensors and constants in the model's order, everything else channels-last."""

    def run(self, graph: Graph) -> Mapping[str, Placement]:
        """Value name -> placement, for every value of the graph."""
        public = {*graph.inputs, *graph.outputs, *graph.constants}
        return {
            value: natural(kind.rank) if value in public else channels_last(kind.rank)
            for value, kind in graph.types.items()
        }
