"""Planners of operators with constant weights: window, matrix-vector unit, requantiser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.backends.hdl.patterns import transposed_axis, window_axis
from qcompile.backends.hdl.planner import (
    divisors,
    lanes_to_serialise,
    refuse,
    tensor_stream,
)
from qcompile.errors import Unsupported
from qcompile.graph import Graph, Op
from qcompile.hw.axis import AxisPattern, copying
from qcompile.hw.block import Block
from qcompile.hw.channelwise import ChannelWeights, Channelwise
from qcompile.hw.matrix_vector import MatrixVector
from qcompile.hw.products import MULTIPLIER_18, MultiplierSize, choose_products
from qcompile.hw.requantize import Requantize
from qcompile.hw.stage import Fold, Stage
from qcompile.hw.streams import TensorStream, WindowStream
from qcompile.hw.window import Window
from qcompile.ops import Conv, ConvTranspose, MatMul, SumOp
from qcompile.types import Array

WIDEST_CODE = 16
TOLERATED_WAITS = 1.02
"""Cycles of a window, relative to its beats, that need no larger buffer."""


@dataclass(frozen=True, slots=True)
class _Layer:
    """A weighted sum as a window over each axis and one matrix for each phase.

    `weights` is [phases, M, C / groups, taps_y * taps_x].
    """

    rows: AxisPattern
    columns: AxisPattern
    groups: int
    weights: Array


def gather(graph: Graph, op: Op) -> _Layer:
    """The gathering form of Conv, ConvTranspose and MatMul."""
    weights = graph.constants[op.inputs[1]]
    source, target = graph.types[op.inputs[0]], graph.output_type(op)
    if isinstance(op, MatMul):
        point = copying(1, (0,))
        return _Layer(point, point, 1, weights.T[None, :, :, None])
    height, width = source.shape[2:]
    if isinstance(op, Conv):
        rows = window_axis(op, 0, weights.shape[2], height, target.shape[2])
        columns = window_axis(op, 1, weights.shape[3], width, target.shape[3])
        flat = weights.reshape(*weights.shape[:2], -1)
        return _Layer(rows, columns, op.groups, flat[None])
    assert isinstance(op, ConvTranspose)
    upper = transposed_axis(op, 0, weights.shape[2], height, target.shape[2])
    lower = transposed_axis(op, 1, weights.shape[3], width, target.shape[3])
    # [C, M / groups, kh, kw] -> [M, C / groups, kh, kw], one zero row and column for "no tap".
    split = np.stack(np.split(weights, op.groups, axis=0))
    direct = split.transpose(0, 2, 1, 3, 4).reshape(target.shape[1], -1, *weights.shape[2:])
    padded = np.pad(direct, ((0, 0), (0, 0), (0, 1), (0, 1)))
    phases = [
        padded[:, :, _or_last(ys)][:, :, :, _or_last(xs)].reshape(*padded.shape[:2], -1)
        for ys in upper.choices
        for xs in lower.choices
    ]
    return _Layer(upper.pattern, lower.pattern, op.groups, np.stack(phases))


def _or_last(choices: Sequence[int | None]) -> list[int]:
    """Indices of kernel taps; None is the row of zeros behind them."""
    return [-1 if choice is None else choice for choice in choices]


class WeightedPlanner:
    """Conv, ConvTranspose, MatMul. Depthwise convolutions take the channelwise unit."""

    def refusal(self, graph: Graph, op: Op) -> Unsupported | None:
        if not graph.is_constant(op.inputs[1]):
            return refuse(op, "has computed weights", "use --target c")
        weights = graph.types[op.inputs[1]].integer
        codes = graph.types[op.inputs[0]].integer
        if max(weights.bits, codes.bits) > WIDEST_CODE:
            return refuse(
                op, f"has codes of more than {WIDEST_CODE} bits", "use fewer --wbits or --abits"
            )
        rank = graph.types[op.inputs[0]].rank
        if isinstance(op, MatMul) and rank != 2:
            return refuse(op, f"multiplies a tensor of {rank} axes", "use a 1x1 convolution")
        return None

    def folds(self, graph: Graph, op: Op) -> Sequence[Fold]:
        layer = gather(graph, op)
        filters, channels = layer.weights.shape[1:3]
        if _is_depthwise(layer):
            return tuple(Fold(1, lanes) for lanes in divisors(filters))
        per_group = filters // layer.groups
        return tuple(Fold(pe, simd) for pe in divisors(per_group) for simd in divisors(channels))

    def stage(self, graph: Graph, op: Op, fold: Fold, multiplier: MultiplierSize | None) -> Stage:
        assert isinstance(op, SumOp)
        assert op.accumulator is not None
        assert op.epilogue is not None
        layer = gather(graph, op)
        kind, target = graph.types[op.inputs[0]], graph.output_type(op)
        rows, columns = layer.rows, layer.columns
        source = tensor_stream(kind, fold.simd)
        weights = graph.types[op.inputs[1]].integer
        unit: Block
        if _is_depthwise(layer):
            window = Window(source, rows, columns, source.groups, 1)
            unit = Channelwise(
                _flags(window),
                rows.positions,
                columns.positions,
                ChannelWeights(layer.weights[:, :, 0, :], weights),
                op.accumulator,
                multiplier or MULTIPLIER_18,
            )
            parallel = fold.simd
        else:
            phases, filters, channels, taps = layer.weights.shape
            folds = filters // layer.groups // fold.pe
            window = _window(source, layer, folds)
            words = channels // fold.simd
            # [phase, group, fold, PE, word, SIMD, tap] -> [..., PE, tap and word, SIMD]
            matrix = layer.weights.reshape(
                phases, layer.groups, folds, fold.pe, words, fold.simd, taps
            ).transpose(0, 1, 2, 3, 6, 4, 5)
            matrix = matrix.reshape(phases, layer.groups, folds, fold.pe, taps * words, fold.simd)
            unit = MatrixVector(
                _flags(window),
                rows.positions,
                columns.positions,
                np.ascontiguousarray(matrix).astype(np.int64),
                weights,
                op.accumulator,
                choose_products(weights, kind.integer, layer.weights, multiplier),
                multiplier or MULTIPLIER_18,
            )
            parallel = fold.pe
        sums = unit.outputs[0]
        assert isinstance(sums, TensorStream)
        lanes = lanes_to_serialise(parallel, _flags(window).fold_beats)
        requantize = Requantize(sums, op.epilogue, target.integer, lanes)
        return Stage(op, (op.inputs[0],), (window, unit, requantize), fold, (window.demand,))


def _window(source: TensorStream, layer: _Layer, folds: int) -> Window:
    """The window of a matrix-vector unit; where strides make its writer and its reader wait for
    each other, with a row more of buffer."""
    window = Window(source, layer.rows, layer.columns, layer.groups, folds)
    if window.cycles <= TOLERATED_WAITS * _flags(window).beats:
        return window
    return Window(source, layer.rows, layer.columns, layer.groups, folds, extra=source.width)


def _flags(window: Window) -> WindowStream:
    stream = window.outputs[0]
    assert isinstance(stream, WindowStream)
    return stream


def _is_depthwise(layer: _Layer) -> bool:
    """One filter for each channel, each reading only that channel."""
    _, filters, channels, _ = layer.weights.shape
    return bool(channels == 1 and filters == layer.groups and filters > 1)
