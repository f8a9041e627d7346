"""Planners of operators that treat channels one by one over a window, or over the whole map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.backends.hdl.patterns import average_axis, linear_axis, window_axis
from qcompile.backends.hdl.planner import (
    channels_of,
    divisors,
    lanes_to_serialise,
    refuse,
    tensor_stream,
)
from qcompile.errors import Unsupported
from qcompile.graph import Graph, Op
from qcompile.hw.block import Block
from qcompile.hw.channelwise import Channelwise, TapWeights
from qcompile.hw.global_sum import GlobalSum
from qcompile.hw.products import MULTIPLIER_18, MultiplierSize
from qcompile.hw.reduce_max import ReduceMax
from qcompile.hw.requantize import Requantize
from qcompile.hw.stage import Fold, Stage
from qcompile.hw.streams import TensorStream, WindowStream
from qcompile.hw.window import Window
from qcompile.ops import AveragePool, LinearResize, MaxPool, ReduceMean, SumOp


def channel_folds(graph: Graph, op: Op) -> Sequence[Fold]:
    """Any number of lanes that divides the channels of the first input."""
    return tuple(Fold(1, lanes) for lanes in divisors(channels_of(graph.types[op.inputs[0]])))


class MaxPoolPlanner:
    """Window, then the largest of its taps."""

    def refusal(self, graph: Graph, op: Op) -> Unsupported | None:
        return None

    def folds(self, graph: Graph, op: Op) -> Sequence[Fold]:
        return channel_folds(graph, op)

    def stage(self, graph: Graph, op: Op, fold: Fold, multiplier: MultiplierSize | None) -> Stage:
        assert isinstance(op, MaxPool)
        source = tensor_stream(graph.types[op.inputs[0]], fold.simd)
        shape = graph.output_type(op).shape
        rows = window_axis(op, 0, op.kernel[0], source.height, shape[2])
        columns = window_axis(op, 1, op.kernel[1], source.width, shape[3])
        window = Window(source, rows, columns, source.groups, 1, pad_value=source.element.low)
        flags = window.outputs[0]
        assert isinstance(flags, WindowStream)
        largest = ReduceMax(flags, shape[2], shape[3])
        return Stage(op, (op.inputs[0],), (window, largest), fold, (window.demand,))


class TapPlanner:
    """AveragePool and LinearResize: integer weights of the position, the same for all channels."""

    def refusal(self, graph: Graph, op: Op) -> Unsupported | None:
        if isinstance(op, LinearResize):
            try:
                for axis, taps in enumerate(op.taps):
                    linear_axis(taps, graph.types[op.inputs[0]].shape[2 + axis])
            except ValueError as error:
                return refuse(op, str(error), "resize by less, or with mode nearest")
        return None

    def folds(self, graph: Graph, op: Op) -> Sequence[Fold]:
        return channel_folds(graph, op)

    def stage(self, graph: Graph, op: Op, fold: Fold, multiplier: MultiplierSize | None) -> Stage:
        assert isinstance(op, SumOp)
        assert op.accumulator is not None
        assert op.epilogue is not None
        source = tensor_stream(graph.types[op.inputs[0]], fold.simd)
        target = graph.output_type(op)
        if isinstance(op, LinearResize):
            upper = linear_axis(op.taps[0], source.height)
            lower = linear_axis(op.taps[1], source.width)
        else:
            assert isinstance(op, AveragePool)
            upper = average_axis(op, 0, source.height, target.shape[2])
            lower = average_axis(op, 1, source.width, target.shape[3])
        rows, columns = upper.pattern, lower.pattern
        window = Window(source, rows, columns, source.groups, 1)
        flags = window.outputs[0]
        assert isinstance(flags, WindowStream)
        unit = Channelwise(
            flags,
            rows.positions,
            columns.positions,
            TapWeights(_numbers(upper.choices), _numbers(lower.choices)),
            op.accumulator,
            multiplier or MULTIPLIER_18,
        )
        sums = unit.outputs[0]
        assert isinstance(sums, TensorStream)
        lanes = lanes_to_serialise(fold.simd, flags.fold_beats)
        requantize = Requantize(sums, op.epilogue, target.integer, lanes)
        return Stage(op, (op.inputs[0],), (window, unit, requantize), fold, (window.demand,))


def _numbers(choices: tuple[tuple[int | None, ...], ...]) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(weight or 0 for weight in weights) for weights in choices)


class GlobalPlanner:
    """ReduceMean over both spatial axes."""

    def refusal(self, graph: Graph, op: Op) -> Unsupported | None:
        assert isinstance(op, ReduceMean)
        kind = graph.types[op.inputs[0]]
        if kind.rank != 4 or op.axes != (2, 3):
            return refuse(
                op, f"averages axes {list(op.axes)}, not both spatial ones", "use --target c"
            )
        return None

    def folds(self, graph: Graph, op: Op) -> Sequence[Fold]:
        return channel_folds(graph, op)

    def stage(self, graph: Graph, op: Op, fold: Fold, multiplier: MultiplierSize | None) -> Stage:
        assert isinstance(op, ReduceMean)
        assert op.accumulator is not None
        assert op.epilogue is not None
        source = tensor_stream(graph.types[op.inputs[0]], fold.simd)
        total = GlobalSum(source, op.accumulator)
        sums = total.outputs[0]
        assert isinstance(sums, TensorStream)
        lanes = lanes_to_serialise(fold.simd, source.pixels)
        blocks: tuple[Block, ...] = (
            total,
            Requantize(sums, op.epilogue, graph.output_type(op).integer, lanes),
        )
        demand = np.array([source.pixels], dtype=np.int64)
        return Stage(op, (op.inputs[0],), blocks, fold, (demand,))
