"""What rows of softmax codes add up to: sums over many keys then need fewer bits."""

from __future__ import annotations

from qcompile.graph import Graph
from qcompile.ops import BatchMatMul, Reshape, Softmax, Transpose


def row_mass(graph: Graph, op: BatchMatMul) -> int | None:
    """What the codes of a row of the first factor add up to at most, where it is a softmax along
    this axis: every quotient is rounded up by at most a half. None if nothing is known.

    `graph` is quantized, or integer.
    """
    value = op.inputs[0]
    axis = graph.types[value].rank - 1
    while True:
        producer = graph.producers.get(value)
        match producer:
            case Softmax():
                kind = graph.types[producer.output]
                if producer.axis != axis or kind.is_float or kind.quantization is None:
                    return None
                if graph.types[producer.inputs[0]].is_float:
                    return None  # lowered as a float softmax, whose sums are rounded otherwise
                levels = producer.levels or round(1 / kind.quantization.exact())
                return levels + (kind.shape[axis] + 1) // 2
            case Reshape():
                before, after = graph.types[producer.inputs[0]].shape, producer.shape
                if axis != len(after) - 1 or before[-1:] != after[-1:]:
                    return None
                axis = len(before) - 1
            case Transpose():
                axis = producer.permutation[axis]
            case _:
                return None
        value = producer.inputs[0]
