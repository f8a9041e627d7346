"""Planners of operators that work on each element, or on the channels of each pixel."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from qcompile.backends.hdl.planner import channels_of, divisors, refuse, tensor_stream
from qcompile.backends.hdl.pooling import channel_folds
from qcompile.errors import Unsupported
from qcompile.graph import Graph, Op
from qcompile.hw.add import Add as AddBlock
from qcompile.hw.arg_max import ArgMax as ArgMaxBlock
from qcompile.hw.axis import AxisPattern, copying
from qcompile.hw.block import Block
from qcompile.hw.broadcast import Broadcast
from qcompile.hw.lookup import Lookup as LookupBlock
from qcompile.hw.multiply import Multiply
from qcompile.hw.products import MultiplierSize
from qcompile.hw.requantize import Requantize
from qcompile.hw.softmax import Softmax as SoftmaxBlock
from qcompile.hw.stage import Fold, Stage
from qcompile.hw.streams import TensorStream, WindowStream
from qcompile.hw.take import Take
from qcompile.hw.window import Window
from qcompile.numerics import Thresholds
from qcompile.ops import Add, Affine, ArgMax, Lookup, Mul, Rescale, Softmax, SumOp, Threshold
from qcompile.types import Array


def identity_demand(stream: TensorStream) -> Array:
    """Output pixel t needs the inputs up to pixel t."""
    return np.arange(1, stream.pixels + 1, dtype=np.int64)


def requantized(graph: Graph, op: SumOp, *before: Block) -> tuple[Block, ...]:
    """`before`, then the requantiser of `op` at the same number of lanes."""
    assert op.epilogue is not None
    sums = before[-1].outputs[0]
    assert isinstance(sums, TensorStream)
    target = graph.output_type(op).integer
    return (*before, Requantize(sums, op.epilogue, target, sums.lanes))


class BinaryPlanner:
    """Add and Mul: two computed tensors, or one and a constant for each channel.

    An operand of one pixel ([1, C, 1, 1]) or of one channel ([1, 1, H, W]) is repeated.
    """

    def refusal(self, graph: Graph, op: Op) -> Unsupported | None:
        shape = graph.output_type(op).shape
        for value in op.inputs:
            given = graph.types[value].shape
            aligned = (1,) * (len(shape) - len(given)) + given
            differs = tuple(a != b for a, b in zip(aligned, shape, strict=True))
            spatial, channels = any(differs[2:]), differs[1]
            one_pixel = max(aligned[2:], default=1) == 1
            if graph.is_constant(value):
                fits = one_pixel
                what = "a constant"
            else:
                fits = len(given) == len(shape) and (
                    not spatial or (one_pixel and not channels and all(differs[2:]))
                )
                what = "a tensor"
            if not fits:
                return refuse(
                    op,
                    f"combines {what} of shape {list(given)} into shape {list(shape)}",
                    "use operands of one shape, of one pixel or of one channel, or --target c",
                )
        return None

    def folds(self, graph: Graph, op: Op) -> Sequence[Fold]:
        return tuple(Fold(1, lanes) for lanes in divisors(channels_of(graph.output_type(op))))

    def stage(self, graph: Graph, op: Op, fold: Fold, multiplier: MultiplierSize | None) -> Stage:
        assert isinstance(op, Add | Mul)
        assert op.accumulator is not None
        target = graph.output_type(op)
        whole = tensor_stream(target, fold.simd)
        operands: list[TensorStream | tuple[int, ...]] = []
        feeders: list[tuple[Block, ...]] = []
        demand: list[Array] = []
        for value in op.inputs:
            if graph.is_constant(value):
                operands.append(tuple(graph.constants[value].reshape(-1).tolist()))
                continue
            kind = graph.types[value]
            operands.append(tensor_stream(dataclasses.replace(kind, shape=target.shape), fold.simd))
            if channels_of(kind) != whole.channels:
                source = tensor_stream(kind, 1)
                feeders.append((Broadcast(source, whole.channels, fold.simd),))
                demand.append(identity_demand(whole))
            elif kind.size < target.size:
                source = tensor_stream(kind, fold.simd)
                blocks = repeated(source, whole.height, whole.width)
                feeders.append(blocks)
                demand.append(blocks[0].demand)
            else:
                feeders.append(())
                demand.append(identity_demand(whole))
        unit: Block
        if isinstance(op, Add):
            unit = AddBlock(operands[0], operands[1], op.weights, op.accumulator)
        else:
            unit = Multiply(operands[0], operands[1], op.accumulator)
        values = tuple(value for value in op.inputs if not graph.is_constant(value))
        chain = requantized(graph, op, unit)
        return Stage(op, values, chain, fold, tuple(demand), tuple(feeders))


def repeated(source: TensorStream, height: int, width: int) -> tuple[Window, Take]:
    """One pixel repeated over a map."""
    rows, columns = copying(1, (0,) * height), copying(1, (0,) * width)
    return gathered(source, rows, columns)


def gathered(
    source: TensorStream, rows: AxisPattern, columns: AxisPattern, pad_value: int = 0
) -> tuple[Window, Take]:
    """Pixels copied along both axes."""
    window = Window(source, rows, columns, source.groups, 1, pad_value=pad_value)
    flags = window.outputs[0]
    assert isinstance(flags, WindowStream)
    return (window, Take(flags))


class AffinePlanner:
    """A product with one integer for each channel."""

    def refusal(self, graph: Graph, op: Op) -> Unsupported | None:
        return None

    def folds(self, graph: Graph, op: Op) -> Sequence[Fold]:
        return channel_folds(graph, op)

    def stage(self, graph: Graph, op: Op, fold: Fold, multiplier: MultiplierSize | None) -> Stage:
        assert isinstance(op, Affine)
        assert op.accumulator is not None
        source = tensor_stream(graph.types[op.inputs[0]], fold.simd)
        factors = tuple(graph.constants[op.inputs[1]].tolist())
        blocks = requantized(graph, op, Multiply(source, factors, op.accumulator))
        return Stage(op, (op.inputs[0],), blocks, fold, (identity_demand(source),))


class RescalePlanner:
    """The requantiser alone."""

    def refusal(self, graph: Graph, op: Op) -> Unsupported | None:
        return None

    def folds(self, graph: Graph, op: Op) -> Sequence[Fold]:
        return channel_folds(graph, op)

    def stage(self, graph: Graph, op: Op, fold: Fold, multiplier: MultiplierSize | None) -> Stage:
        assert isinstance(op, Rescale)
        assert op.epilogue is not None
        source = tensor_stream(graph.types[op.inputs[0]], fold.simd)
        block = Requantize(source, op.epilogue, graph.output_type(op).integer, source.lanes)
        return Stage(op, (op.inputs[0],), (block,), fold, (identity_demand(source),))


class LookupPlanner:
    """A table a lane."""

    def refusal(self, graph: Graph, op: Op) -> Unsupported | None:
        return None

    def folds(self, graph: Graph, op: Op) -> Sequence[Fold]:
        return channel_folds(graph, op)

    def stage(self, graph: Graph, op: Op, fold: Fold, multiplier: MultiplierSize | None) -> Stage:
        assert isinstance(op, Lookup)
        source = tensor_stream(graph.types[op.inputs[0]], fold.simd)
        rows = np.atleast_2d(graph.constants[op.inputs[1]]).tolist()
        table = tuple(tuple(row) for row in rows)
        block = LookupBlock(source, table, op.lowest, graph.output_type(op).integer)
        return Stage(op, (op.inputs[0],), (block,), fold, (identity_demand(source),))


class ArgMaxPlanner:
    """Index of the largest channel of each pixel."""

    def refusal(self, graph: Graph, op: Op) -> Unsupported | None:
        assert isinstance(op, ArgMax)
        if op.axis != 1:
            return refuse(op, f"runs along axis {op.axis}", "use axis 1 (channels), or --target c")
        return None

    def folds(self, graph: Graph, op: Op) -> Sequence[Fold]:
        return channel_folds(graph, op)

    def stage(self, graph: Graph, op: Op, fold: Fold, multiplier: MultiplierSize | None) -> Stage:
        assert isinstance(op, ArgMax)
        source = tensor_stream(graph.types[op.inputs[0]], fold.simd)
        block = ArgMaxBlock(source, graph.output_type(op).integer, op.last)
        return Stage(op, (op.inputs[0],), (block,), fold, (identity_demand(source),))


class ThresholdPlanner:
    """A comparison: one exact threshold."""

    def refusal(self, graph: Graph, op: Op) -> Unsupported | None:
        return None

    def folds(self, graph: Graph, op: Op) -> Sequence[Fold]:
        return channel_folds(graph, op)

    def stage(self, graph: Graph, op: Op, fold: Fold, multiplier: MultiplierSize | None) -> Stage:
        assert isinstance(op, Threshold)
        assert op.code_limit is not None
        source = tensor_stream(graph.types[op.inputs[0]], fold.simd)
        # code > limit is code >= limit + 1; a limit outside the codes stays outside.
        low, high = source.element.low, source.element.high + 1
        first = min(max(op.code_limit + 1, low), high)
        epilogue = Thresholds(((first,),), 0)
        block = Requantize(source, epilogue, graph.output_type(op).integer, source.lanes)
        return Stage(op, (op.inputs[0],), (block,), fold, (identity_demand(source),))


class SoftmaxPlanner:
    """The softmax over the channels of each pixel."""

    def refusal(self, graph: Graph, op: Op) -> Unsupported | None:
        assert isinstance(op, Softmax)
        kind = graph.types[op.inputs[0]]
        if op.axis != 1 or kind.rank == 3:
            return refuse(op, f"runs along axis {op.axis}", "use axis 1 (channels), or --target c")
        if len(op.inputs) > 1:
            return refuse(op, "leaves elements out by a mask", "use --target c")
        return None

    def folds(self, graph: Graph, op: Op) -> Sequence[Fold]:
        return channel_folds(graph, op)

    def stage(self, graph: Graph, op: Op, fold: Fold, multiplier: MultiplierSize | None) -> Stage:
        assert isinstance(op, Softmax)
        source = tensor_stream(graph.types[op.inputs[0]], fold.simd)
        target = graph.output_type(op).integer
        block = SoftmaxBlock(source, source.groups, trimmed(op.table), op.levels, target)
        return Stage(op, (op.inputs[0],), (block,), fold, (identity_demand(source),))


def trimmed(powers: Sequence[int]) -> tuple[int, ...]:
    """A table that stands for its last entry from the end on, without repetitions of that."""
    last = len(powers) - 1
    while last and powers[last - 1] == powers[-1]:
        last -= 1
    return tuple(powers[: last + 1])
