"""Moves transposes out of channels-last graphs until they meet and cancel."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from qcompile.graph import Graph, Op, Rewriter
from qcompile.ops import (
    Add,
    ArgMax,
    Concat,
    Div,
    FakeQuantize,
    Mul,
    Pad,
    Pointwise,
    ReduceMean,
    Rescale,
    Slice,
    Softmax,
    SumOp,
    Transpose,
)
from qcompile.passes.base import until_stable
from qcompile.passes.drop_no_ops import DropNoOps
from qcompile.types import TensorType

_Permutation = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MoveTransposes:
    """Makes the inside of a channels-last (tf2onnx) graph channels-first.

    Before::

        %a = Transpose 't1'(%conv) permutation=[0,2,3,1]
        %b = Add 'add'(%a, @c)
        %y = Transpose 't2'(%b) permutation=[0,3,1,2]

    After, with c' the transposed constant::

        %y = Add 'add'(%conv, @c')

    Transposes to channels-last sink through operators that work element by element, along an axis
    or by position; transposes to channels-first rise through them. What does not cancel ends up at
    the graph's borders, or at an operator that mixes axes (Reshape).
    """

    name: ClassVar[str] = "move-transposes"

    def run(self, graph: Graph) -> Graph:
        graph = DropNoOps().run(until_stable(graph, _share_one))
        while (moved := until_stable(graph, _move_one)) is not graph:
            graph = DropNoOps().run(until_stable(moved, _share_one))
        return graph


def _share_one(graph: Graph) -> Graph | None:
    """Equal transposes of one value become one."""
    seen: dict[tuple[str, _Permutation], Transpose] = {}
    for op in graph.ops:
        if not isinstance(op, Transpose):
            continue
        twin = seen.setdefault((op.inputs[0], op.permutation), op)
        if twin is not op and op.output not in graph.outputs:
            rewriter = Rewriter(graph)
            rewriter.remove(op)
            rewriter.redirect(op.output, twin.output)
            return rewriter.finish()
    return None


def _move_one(graph: Graph) -> Graph | None:
    for op in graph.ops:
        edited = _sink(graph, op)
        if edited is None and isinstance(op, Transpose):
            edited = _raise(graph, op)
        if edited is not None:
            return edited
    return None


def _to_last(rank: int) -> _Permutation:
    return (0, *range(2, rank), 1)


def _to_first(rank: int) -> _Permutation:
    return (0, rank - 1, *range(1, rank - 1))


def _inverse(permutation: _Permutation) -> _Permutation:
    return tuple(permutation.index(axis) for axis in range(len(permutation)))


def _sink(graph: Graph, op: Op) -> Graph | None:
    """op(to_last(x), ...) becomes to_last(op'(x, ...))."""
    rank = graph.types[op.output].rank
    permutation = _to_last(rank)
    if rank < 3 or not _movable(graph, op) or all(map(graph.is_constant, op.inputs)):
        return None
    sources = []
    for name in op.inputs:
        if graph.is_constant(name):
            sources.append(name)
            continue
        before = graph.producers.get(name)
        if not isinstance(before, Transpose) or before.permutation != permutation:
            return None
        sources.append(before.inputs[0])
    rewriter = Rewriter(graph)
    inputs = _with_constants(graph, rewriter, sources, _inverse(permutation))
    kind = graph.types[op.output]
    inner = rewriter.add_value(f"{op.output}.first", _permuted(kind, _inverse(permutation)))
    moved = dataclasses.replace(_with_axes(op, permutation), inputs=inputs, outputs=(inner,))
    back = Transpose(
        name=rewriter.fresh(f"{op.name}.transpose"),
        inputs=(inner,),
        outputs=op.outputs,
        permutation=permutation,
    )
    rewriter.replace(op, moved, back)
    return rewriter.finish()


def _raise(graph: Graph, transpose: Transpose) -> Graph | None:
    """to_first(op(x, ...)) becomes op'(to_first(x), ...)."""
    rank = len(transpose.permutation)
    permutation = _to_first(rank)
    op = graph.producers.get(transpose.inputs[0])
    if (
        rank < 4
        or transpose.permutation != permutation
        or op is None
        or not _movable(graph, op)
        or graph.only_consumer(op.output) is not transpose
    ):
        return None
    rewriter = Rewriter(graph)
    inputs = []
    before: list[Op] = []
    for name in _with_constants(graph, rewriter, op.inputs, permutation):
        if name not in graph.types or graph.is_constant(name):
            inputs.append(name)
            continue
        value = rewriter.add_value(f"{name}.first", _permuted(graph.types[name], permutation))
        before.append(
            Transpose(
                name=rewriter.fresh(f"{op.name}.transpose"),
                inputs=(name,),
                outputs=(value,),
                permutation=permutation,
            )
        )
        inputs.append(value)
    moved = dataclasses.replace(
        _with_axes(op, _inverse(permutation)), inputs=tuple(inputs), outputs=transpose.outputs
    )
    rewriter.replace(op, *before, moved)
    rewriter.remove(transpose)
    return rewriter.finish()


def _movable(graph: Graph, op: Op) -> bool:
    """The operator means the same under any order of axes, up to its own axis numbers."""
    rank = graph.types[op.output].rank
    if isinstance(op, SumOp):
        function = op.activation
        if not len(function.slope) == len(function.gain) == len(function.shift) == 1:
            return False
    if isinstance(op, (Add, Mul, Div)):
        return all(
            graph.types[name].rank == rank for name in op.inputs if not graph.is_constant(name)
        )
    if isinstance(op, (ReduceMean, ArgMax)):
        return op.keepdims
    return isinstance(op, (Pointwise, Rescale, Softmax, Concat, Pad, Slice, FakeQuantize))


def _with_axes(op: Op, permutation: _Permutation) -> Op:
    """`op` for an input whose axis `permutation[i]` was axis i before."""
    back = _inverse(permutation)
    match op:
        case Softmax() | Concat() | ArgMax():
            return dataclasses.replace(op, axis=permutation[op.axis])
        case ReduceMean():
            return dataclasses.replace(op, axes=tuple(sorted(permutation[a] for a in op.axes)))
        case Pad():
            return dataclasses.replace(
                op,
                begins=tuple(op.begins[a] for a in back),
                ends=tuple(op.ends[a] for a in back),
            )
        case Slice():
            return dataclasses.replace(
                op,
                starts=tuple(op.starts[a] for a in back),
                sizes=tuple(op.sizes[a] for a in back),
                steps=tuple(op.steps[a] for a in back),
            )
    return op


def _with_constants(
    graph: Graph, rewriter: Rewriter, names: Sequence[str], permutation: _Permutation
) -> tuple[str, ...]:
    """The operands with constants of more than one element transposed."""
    result = []
    for name in names:
        if graph.is_constant(name) and graph.constants[name].size > 1:
            data = graph.constants[name]
            full = data.reshape((1,) * (len(permutation) - data.ndim) + data.shape)
            moved = full.transpose(permutation).copy()
            kind = graph.types[name]
            name = rewriter.add_constant(
                f"{name}.first", moved, dataclasses.replace(kind, shape=moved.shape)
            )
        result.append(name)
    return tuple(result)


def _permuted(kind: TensorType, permutation: _Permutation) -> TensorType:
    return dataclasses.replace(kind, shape=tuple(kind.shape[axis] for axis in permutation))
