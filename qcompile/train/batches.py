"""Several images at a time through a graph that was written for one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from qcompile.graph import Graph, Op
from qcompile.ops import (
    ArgMax,
    BatchMatMul,
    Concat,
    Gather,
    LayerNorm,
    MatMul,
    Pad,
    ReduceMean,
    Reshape,
    Slice,
    Softmax,
    Transpose,
)


def is_batchable(graph: Graph) -> bool:
    """Whether every operator leaves axis 0, of size 1 in the graph, alone."""
    activations = [*graph.inputs, *(value for op in graph.ops for value in op.outputs)]
    if any(graph.types[value].shape[:1] != (1,) for value in activations):
        return False
    return all(_keeps_batch(graph, op) for op in graph.ops)


def _keeps_batch(graph: Graph, op: Op) -> bool:
    match op:
        case Transpose():
            return op.permutation[0] == 0
        case Concat() | ArgMax() | Softmax() | Gather() | LayerNorm():
            return op.axis != 0
        case Pad():
            return not op.begins[0] and not op.ends[0]
        case ReduceMean():
            return 0 not in op.axes
        case Slice():
            return op.sizes[0] == 1
        case BatchMatMul():
            ranks = {graph.types[value].rank for value in op.inputs}
            return min(ranks) > 2 and len(ranks) == 1
        case Reshape() | MatMul():
            return len(graph.types[op.inputs[0]].shape) > 1
    # Broadcasting of operands with fewer axes would meet the batch with another axis.
    ranks = {graph.types[value].rank for value in op.inputs if not graph.is_constant(value)}
    return len(ranks) <= 1


def image_slices(graph: Graph, batchable: bool, feeds: Mapping[str, Tensor]) -> tuple[slice, ...]:
    """The parts of axis 0 that go through the graph together: all, or one image after the other.

    Args:
        graph: what is run.
        batchable: see `is_batchable`.
        feeds: the graph's inputs, several images of each along axis 0.
    """
    if batchable or all(tuple(feeds[name].shape) == graph.types[name].shape for name in feeds):
        return (slice(None),)
    count = next(iter(feeds.values())).shape[0]
    return tuple(slice(index, index + 1) for index in range(count))


def part_of(values: Mapping[str, Tensor], images: slice) -> dict[str, Tensor]:
    """These images of every value."""
    return {name: data[images] for name, data in values.items()}


def joined(parts: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The inverse of `part_of`; values without a batch axis get one."""
    if len(parts) == 1:
        return parts[0]
    result = {}
    for name, first in parts[0].items():
        has_batch = first.ndim > 0 and first.shape[0] == 1
        join = torch.cat if has_batch else torch.stack
        result[name] = join([part[name] for part in parts])
    return result
