"""Which operators stay float, forming islands between integers (`--abits 32`, `--wbits 32`)."""

from __future__ import annotations

from qcompile.graph import Graph, Op
from qcompile.ops import INDICES, Pointwise, Softmax, SumOp


def stays_float(graph: Graph, op: Op) -> bool:
    """Whether an operator of a quantized graph computes in floats.

    An operator that only moves values does so in the type of its output. Where both the operator
    that writes a value and one that reads it stay float, nothing is rounded between the two.
    """
    if isinstance(op, INDICES):
        return graph.types[op.inputs[0]].is_float
    if graph.types[op.output].is_float:
        return True
    if not isinstance(op, SumOp | Pointwise | Softmax):
        return False
    computed = [value for value in op.inputs if not graph.is_constant(value)]
    if any(graph.types[value].is_float for value in computed):
        return True
    return any(
        graph.types[value].is_float and graph.types[value].rank > 1
        for value in (op.inputs[1:2] if isinstance(op, SumOp) else ())
        if graph.is_constant(value)
    )
