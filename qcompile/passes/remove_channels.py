"""Cuts channels out of values, and their parameters out of the operators around them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from qcompile.graph import Graph, Op, Rewriter
from qcompile.ops import (
    Activation,
    Add,
    Affine,
    Conv,
    ConvTranspose,
    Div,
    GroupNorm,
    LocalAttention2d,
    MatMul,
    Mul,
    Reshape,
    Slice,
    SumOp,
)
from qcompile.passes.channel_classes import Channel, loses_heads
from qcompile.passes.masked_constants import Constants, answer_to
from qcompile.passes.parameters import add_float, vector
from qcompile.types import Array

ALL_ZERO: Constants = MappingProxyType({})


def remove_channels(
    graph: Graph, removed: frozenset[Channel], constants: Constants = ALL_ZERO
) -> Graph:
    """The graph without the given channels, a union of whole `channel_classes`.

    Args:
        graph: a float graph.
        removed: what goes.
        constants: what removed channels hold everywhere (see `masked_constants`), zero where not
            said. It goes into the biases of the operators that read them.
    """
    kept: dict[str, Array] = {}
    for name in sorted({name for name, _ in removed}):
        count = graph.types[name].shape[1]
        kept[name] = np.array([c for c in range(count) if (name, c) not in removed], dtype="int64")
    rewriter = Rewriter(graph)
    knife = _Knife(graph, rewriter, kept, constants)
    for op in graph.ops:
        if any(name in kept for name in (*op.inputs, *op.outputs)):
            rewriter.replace(op, knife.cut(op))
    for name in kept:
        rewriter.forget_type(name)
    return rewriter.finish()


@dataclass(frozen=True, slots=True)
class _Knife:
    """`kept` has, for each value that loses channels, the indices that stay."""

    graph: Graph
    rewriter: Rewriter
    kept: Mapping[str, Array]
    constants: Constants

    def cut(self, op: Op) -> Op:
        outputs = self.kept.get(op.output)
        by_channel = isinstance(op, SumOp) and op.channel_axis(self._rank(op.output)) == 1
        if isinstance(op, SumOp) and by_channel and outputs is not None:
            op = dataclasses.replace(op, activation=_cut_activation(op.activation, outputs))
        match op:
            case Conv():
                return self._cut_conv(op)
            case ConvTranspose():
                return self._cut_conv_transpose(op)
            case MatMul():
                return self._cut_matmul(op)
            case Affine():
                return dataclasses.replace(op, inputs=self._parameters(op))
            case GroupNorm():
                size = self.graph.types[op.inputs[0]].shape[1] // op.groups
                groups = len(self.kept[op.inputs[0]]) // size
                return dataclasses.replace(op, inputs=self._parameters(op), groups=groups)
            case LocalAttention2d():
                return self._cut_attention(op)
            case Add() | Mul() | Div():
                return dataclasses.replace(op, inputs=self._operands(op))
            case Reshape():
                shape = (op.shape[0], len(self.kept[op.output]), *op.shape[2:])
                return dataclasses.replace(op, shape=shape)
            case Slice():
                before = int(np.count_nonzero(self._indices(op.inputs[0]) < op.starts[1]))
                starts = (op.starts[0], before, *op.starts[2:])
                sizes = (op.sizes[0], len(self._indices(op.output)), *op.sizes[2:])
                return dataclasses.replace(op, starts=starts, sizes=sizes)
        return op

    def _rank(self, name: str) -> int:
        return self.graph.types[name].rank

    def _indices(self, name: str) -> Array:
        return self.kept.get(name, np.arange(self.graph.types[name].shape[1]))

    def _cut_conv(self, op: Conv) -> Conv:
        weights = self.graph.constants[op.inputs[1]]
        ins, outs = self._indices(op.inputs[0]), self._indices(op.output)
        groups = op.groups
        weights = weights[outs]
        if groups == 1:
            weights = weights[:, ins]
        else:
            groups = len(ins) // weights.shape[1]
        return dataclasses.replace(op, inputs=self._with(op, weights, outs), groups=groups)

    def _cut_conv_transpose(self, op: ConvTranspose) -> ConvTranspose:
        weights = self.graph.constants[op.inputs[1]]
        ins, outs = self._indices(op.inputs[0]), self._indices(op.output)
        groups = op.groups
        weights = weights[ins]
        if groups == 1:
            weights = weights[:, outs]
        else:
            groups = len(outs) // weights.shape[1]
        return dataclasses.replace(op, inputs=self._with(op, weights, outs), groups=groups)

    def _cut_matmul(self, op: MatMul) -> MatMul:
        if self._rank(op.inputs[0]) > 2:
            return op
        ins, outs = self._indices(op.inputs[0]), self._indices(op.output)
        weights = self.graph.constants[op.inputs[1]][ins][:, outs]
        return dataclasses.replace(op, inputs=self._with(op, weights, outs))

    def _cut_attention(self, op: LocalAttention2d) -> LocalAttention2d:
        """Embeddings go with the queries, factors with the values; heads that are empty go."""
        queries = self._indices(op.inputs[0])
        relative = self.graph.constants[op.inputs[3]]
        heads = op.heads
        if loses_heads(self.graph, op):
            heads = len(queries) * heads // len(relative)
        names = [*op.inputs[:3], add_float(self.rewriter, op.inputs[3], relative[queries])]
        for name in op.inputs[4:]:
            data = self.graph.constants[name][self._indices(op.output)]
            names.append(add_float(self.rewriter, name, data))
        return dataclasses.replace(op, inputs=tuple(names), heads=heads)

    def _with(
        self, op: Conv | ConvTranspose | MatMul, weights: Array, outs: Array
    ) -> tuple[str, ...]:
        """The inputs of `op` with new weights and the bias of the outputs that stay."""
        names = [op.inputs[0], add_float(self.rewriter, f"{op.name}.weight", weights)]
        answer = answer_to(self.graph, op, self.constants)
        if answer is not None:
            answer = answer + vector(self.graph, op.inputs, 2, answer.size, 0.0)
            names.append(add_float(self.rewriter, f"{op.name}.bias", answer[outs]))
        elif len(op.inputs) == 3:
            bias = self.graph.constants[op.inputs[2]][outs]
            names.append(add_float(self.rewriter, f"{op.name}.bias", bias))
        return tuple(names)

    def _parameters(self, op: Affine | GroupNorm) -> tuple[str, ...]:
        outputs = self.kept[op.output]
        names = (
            add_float(self.rewriter, f"{op.name}.{suffix}", self.graph.constants[name][outputs])
            for name, suffix in zip(op.inputs[1:], ("scale", "shift"), strict=False)
        )
        return (op.inputs[0], *names)

    def _operands(self, op: Op) -> tuple[str, ...]:
        """Constants lose what lies along the channel axis of the output."""
        rank = self._rank(op.output)
        names: list[str] = []
        for name in op.inputs:
            if self.graph.is_constant(name):
                data = self.graph.constants[name]
                axis = 1 - (rank - data.ndim)
                if axis >= 0 and data.shape[axis] > 1:
                    data = np.take(data, self.kept[op.output], axis=axis)
                    name = add_float(self.rewriter, name, data)
            names.append(name)
        return tuple(names)


def _cut_activation(function: Activation, outputs: Array) -> Activation:
    def part(vector: tuple[float, ...]) -> tuple[float, ...]:
        return vector if len(vector) == 1 else tuple(vector[index] for index in outputs)

    return dataclasses.replace(
        function,
        slope=part(function.slope),
        gain=part(function.gain),
        shift=part(function.shift),
    )
