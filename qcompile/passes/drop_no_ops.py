"""Removes operators that change nothing, or repeat what their readers repeat themselves, and merges
movements that undo each other."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import ClassVar

from qcompile.graph import Graph, Op, Rewriter
from qcompile.ops import (
    IDENTITY,
    Add,
    ArgMax,
    AveragePool,
    Concat,
    Conv,
    LinearResize,
    MaxPool,
    Mul,
    NearestResize,
    Pad,
    PadMode,
    Rescale,
    Reshape,
    Slice,
    Transpose,
)
from qcompile.passes.base import until_stable
from qcompile.passes.bypass import bypass


@dataclass(frozen=True, slots=True)
class DropNoOps:
    """Drops identities and needless Expands; merges chains of Reshape or Transpose; gives zero Pads
    to convolutions.

    Before::

        %t = Transpose 'a'(%x) permutation=[0,2,3,1]
        %u = Transpose 'b'(%t) permutation=[0,3,1,2]
        %v = Pad 'p'(%u) begins=[0,0,1,1] ends=[0,0,1,1]
        %y = Conv 'c'(%v, @w) pads_begin=[0,0] pads_end=[0,0]

    After::

        %y = Conv 'c'(%x, @w) pads_begin=[1,1] pads_end=[1,1]

    Outputs of the graph keep their names.
    """

    name: ClassVar[str] = "drop-no-ops"

    def run(self, graph: Graph) -> Graph:
        return until_stable(graph, _drop_one)


def _drop_one(graph: Graph) -> Graph | None:
    for op in graph.ops:
        edited = bypass(graph, op) if _changes_nothing(graph, op) else None
        edited = edited or _merge_reshapes(graph, op)
        edited = edited or _merge_transposes(graph, op)
        edited = edited or _squeeze_arg_max(graph, op)
        edited = edited or _fold_pad(graph, op)
        edited = edited or _drop_expansion(graph, op)
        if edited is not None:
            return edited
    return None


def _changes_nothing(graph: Graph, op: Op) -> bool:
    shape = graph.types[op.inputs[0]].shape
    match op:
        case Rescale():
            return op.activation.is_identity and op.epilogue is None
        case Reshape():
            return op.shape == shape
        case Transpose():
            return op.permutation == tuple(range(len(shape)))
        case Pad():
            return not any(op.begins) and not any(op.ends)
        case Slice():
            return op.sizes == shape and all(step == 1 for step in op.steps)
        case NearestResize():
            return all(
                sources == tuple(range(size))
                for sources, size in zip(op.sources, shape[2:], strict=True)
            )
        case LinearResize():
            return op.activation.is_identity and all(
                taps.first == tuple(range(size)) and not any(taps.weights)
                for taps, size in zip(op.taps, shape[2:], strict=True)
            )
        case Concat():
            return len(op.inputs) == 1
        case MaxPool():
            return graph.types[op.output].shape == shape and set(op.kernel) == {1}
    return False


def _merge_reshapes(graph: Graph, op: Op) -> Graph | None:
    if not isinstance(op, Reshape):
        return None
    before = graph.producers.get(op.inputs[0])
    if not isinstance(before, Reshape):
        return None
    rewriter = Rewriter(graph)
    rewriter.replace(op, dataclasses.replace(op, inputs=before.inputs))
    return rewriter.finish()


def _merge_transposes(graph: Graph, op: Op) -> Graph | None:
    if not isinstance(op, Transpose):
        return None
    before = graph.producers.get(op.inputs[0])
    if not isinstance(before, Transpose):
        return None
    permutation = tuple(before.permutation[axis] for axis in op.permutation)
    if permutation == tuple(range(len(permutation))):
        merged = bypass(graph, op, before.inputs[0])
        if merged is not None:
            return merged
    rewriter = Rewriter(graph)
    rewriter.replace(op, dataclasses.replace(op, inputs=before.inputs, permutation=permutation))
    return rewriter.finish()


def _squeeze_arg_max(graph: Graph, op: Op) -> Graph | None:
    """ArgMax and the Reshape that removes its axis are one ArgMax."""
    before = graph.producers.get(op.inputs[0])
    if not isinstance(op, Reshape) or not isinstance(before, ArgMax) or not before.keepdims:
        return None
    squeezed = dataclasses.replace(before, outputs=op.outputs, keepdims=False)
    shape = graph.types[before.inputs[0]].shape
    if graph.only_consumer(before.output) is not op or squeezed.infer_shape([shape]) != op.shape:
        return None
    rewriter = Rewriter(graph)
    rewriter.replace(before, squeezed)
    rewriter.remove(op)
    return rewriter.finish()


def _fold_pad(graph: Graph, op: Op) -> Graph | None:
    """A pad by zeros in front of an operator that pads by zeros itself."""
    if not isinstance(op, (Conv, AveragePool)):
        return None
    pad = graph.producers.get(op.inputs[0])
    if (
        not isinstance(pad, Pad)
        or pad.mode is not PadMode.CONSTANT
        or pad.value != 0
        or any((*pad.begins[:2], *pad.ends[:2]))
    ):
        return None
    begins = tuple(a + b for a, b in zip(op.pads_begin, pad.begins[2:], strict=True))
    ends = tuple(a + b for a, b in zip(op.pads_end, pad.ends[2:], strict=True))
    inputs = (pad.inputs[0], *op.inputs[1:])
    folded: Op
    if isinstance(op, Conv):
        folded = dataclasses.replace(op, inputs=inputs, pads_begin=begins, pads_end=ends)
    else:
        # The zeros of the Pad were counted as elements; pads of the pool itself perhaps not.
        uncounted = any((*op.pads_begin, *op.pads_end)) and not op.count_include_pad
        if op.ceil_mode or uncounted:
            return None
        folded = dataclasses.replace(
            op, inputs=inputs, pads_begin=begins, pads_end=ends, count_include_pad=True
        )
    rewriter = Rewriter(graph)
    rewriter.replace(op, folded)
    return rewriter.finish()


def _drop_expansion(graph: Graph, op: Op) -> Graph | None:
    """A tensor that is repeated along axes (an Expand) for sums and products that would repeat it
    themselves."""
    source = _expanded(graph, op)
    readers = graph.consumers[op.output]
    if source is None or not readers or op.output in graph.outputs:
        return None
    edits = []
    for reader in readers:
        if not isinstance(reader, Add | Mul):
            return None
        inputs = tuple(source if value == op.output else value for value in reader.inputs)
        shapes = [graph.types[value].shape for value in inputs]
        if reader.infer_shape(shapes) != graph.output_type(reader).shape:
            return None
        edits.append((reader, dataclasses.replace(reader, inputs=inputs)))
    rewriter = Rewriter(graph)
    for reader, edited in edits:
        rewriter.replace(reader, edited)
    return rewriter.finish()


def _expanded(graph: Graph, op: Op) -> str | None:
    """What `op` repeats along axes of size 1, and does nothing else to; None if it does more."""
    match op:
        case NearestResize():
            shape = graph.types[op.inputs[0]].shape
            sizes = zip(op.sources, shape[2:], strict=True)
            if all(size == 1 or sources == tuple(range(size)) for sources, size in sizes):
                return op.inputs[0]
        case Mul():
            fixed = [graph.is_constant(value) for value in op.inputs]
            if sum(fixed) != 1 or op.activation != IDENTITY:
                return None
            x = op.inputs[fixed.index(False)]
            ones = (graph.constants[op.inputs[fixed.index(True)]] == 1).all()
            if ones and graph.types[x].rank == graph.output_type(op).rank:
                return x
    return None
