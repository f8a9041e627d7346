"""Planners of operators that only move codes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qcompile.backends.hdl.elementwise import gathered, identity_demand
from qcompile.backends.hdl.planner import channels_of, divisors, refuse, tensor_stream
from qcompile.backends.hdl.pooling import channel_folds
from qcompile.errors import Unsupported
from qcompile.graph import Graph, Op
from qcompile.hw.axis import AxisPattern, copying
from qcompile.hw.concat import Concat as ConcatBlock
from qcompile.hw.depth_to_space import DepthToSpace as DepthToSpaceBlock
from qcompile.hw.products import MultiplierSize
from qcompile.hw.slice_channels import SliceChannels
from qcompile.hw.stage import Fold, Stage, raster_demand
from qcompile.ops import Concat, DepthToSpace, NearestResize, Pad, PadMode, Slice


class ConcatPlanner:
    """Beats of the inputs in turn, pixel by pixel."""

    def refusal(self, graph: Graph, op: Op) -> Unsupported | None:
        assert isinstance(op, Concat)
        if op.axis != 1:
            return refuse(op, f"joins axis {op.axis}", "use axis 1 (channels), or --target c")
        if any(graph.is_constant(value) for value in op.inputs):
            return refuse(op, "joins a constant", "use --target c")
        return None

    def folds(self, graph: Graph, op: Op) -> Sequence[Fold]:
        common = np.gcd.reduce([channels_of(graph.types[value]) for value in op.inputs])
        return tuple(Fold(1, lanes) for lanes in divisors(int(common)))

    def stage(self, graph: Graph, op: Op, fold: Fold, multiplier: MultiplierSize | None) -> Stage:
        sources = tuple(tensor_stream(graph.types[value], fold.simd) for value in op.inputs)
        block = ConcatBlock(sources, graph.output_type(op).integer)
        demand = (identity_demand(sources[0]),) * len(sources)
        return Stage(op, op.inputs, (block,), fold, demand)


class GatherPlanner:
    """NearestResize, and Pad and Slice along the spatial axes."""

    def refusal(self, graph: Graph, op: Op) -> Unsupported | None:
        if graph.types[op.inputs[0]].rank != 4:
            return refuse(op, "moves elements that are no pixels", "use --target c")
        if isinstance(op, Pad) and (op.begins[1] or op.ends[1]):
            return refuse(op, "pads channels", "use --target c")
        if isinstance(op, Slice) and any(step < 1 for step in op.steps):
            return refuse(op, "reads backwards", "use positive steps, or --target c")
        try:
            axis_patterns(graph, op)
        except ValueError:
            return refuse(op, "reads rows or columns backwards", "use --target c")
        return None

    def folds(self, graph: Graph, op: Op) -> Sequence[Fold]:
        return channel_folds(graph, op)

    def stage(self, graph: Graph, op: Op, fold: Fold, multiplier: MultiplierSize | None) -> Stage:
        source = tensor_stream(graph.types[op.inputs[0]], fold.simd)
        rows, columns = axis_patterns(graph, op)
        pad_value = op.code or 0 if isinstance(op, Pad) else 0
        blocks = gathered(source, rows, columns, pad_value)
        return Stage(op, (op.inputs[0],), blocks, fold, (blocks[0].demand,))


def axis_patterns(graph: Graph, op: Op) -> tuple[AxisPattern, AxisPattern]:
    """Which input row (column) each output row (column) copies.

    Raises:
        ValueError: the sources descend somewhere.
    """
    shape = graph.types[op.inputs[0]].shape
    patterns = []
    for axis in (2, 3):
        size = shape[axis]
        if isinstance(op, NearestResize):
            sources: Sequence[int] = op.sources[axis - 2]
        elif isinstance(op, Slice):
            first, count, step = op.starts[axis], op.sizes[axis], op.steps[axis]
            sources = [first + index * step for index in range(count)]
        else:
            assert isinstance(op, Pad)
            outside = range(-op.begins[axis], size + op.ends[axis])
            if op.mode is PadMode.EDGE:
                sources = [min(max(p, 0), size - 1) for p in outside]
            elif op.mode is PadMode.REFLECT:
                last = size - 1
                sources = [last - abs(last - abs(p)) for p in outside]
            else:
                sources = outside
        patterns.append(copying(size, sources))
    return patterns[0], patterns[1]


class SlicePlanner:
    """A crop, or a choice of channels."""

    spatial = GatherPlanner()

    def refusal(self, graph: Graph, op: Op) -> Unsupported | None:
        assert isinstance(op, Slice)
        kind = graph.types[op.inputs[0]]
        channels = op.sizes[1] != kind.shape[1] or op.steps[1] < 1
        if channels and op.sizes[2:] != kind.shape[2:]:
            return refuse(op, "takes a part of channels and of rows or columns at once", "split it")
        return self.spatial.refusal(graph, op)

    def folds(self, graph: Graph, op: Op) -> Sequence[Fold]:
        assert isinstance(op, Slice)
        channels = channels_of(graph.types[op.inputs[0]])
        if op.sizes[1] == channels:
            return channel_folds(graph, op)
        if op.steps[1] > 1:
            return (Fold(1, 1),)
        aligned = np.gcd.reduce([channels, op.starts[1], op.sizes[1]])
        return tuple(Fold(1, lanes) for lanes in divisors(int(aligned)))

    def stage(self, graph: Graph, op: Op, fold: Fold, multiplier: MultiplierSize | None) -> Stage:
        assert isinstance(op, Slice)
        source = tensor_stream(graph.types[op.inputs[0]], fold.simd)
        if op.sizes[1] == source.channels:
            return self.spatial.stage(graph, op, fold, multiplier)
        stop = op.starts[1] + (op.sizes[1] - 1) * op.steps[1] + 1
        block = SliceChannels(source, op.starts[1], stop, op.steps[1])
        return Stage(op, (op.inputs[0],), (block,), fold, (identity_demand(source),))


class DepthToSpacePlanner:
    """A ring of rows that is read in another order."""

    def refusal(self, graph: Graph, op: Op) -> Unsupported | None:
        return None

    def folds(self, graph: Graph, op: Op) -> Sequence[Fold]:
        assert isinstance(op, DepthToSpace)
        channels, block = channels_of(graph.output_type(op)), op.block**2
        if op.column_major or channels == 1:
            # Neighbouring channels go to different pixels: whole blocks, or one by one.
            return (Fold(1, 1), *(Fold(1, block * lanes) for lanes in divisors(channels)))
        return tuple(Fold(1, lanes) for lanes in divisors(channels))

    def stage(self, graph: Graph, op: Op, fold: Fold, multiplier: MultiplierSize | None) -> Stage:
        assert isinstance(op, DepthToSpace)
        source = tensor_stream(graph.types[op.inputs[0]], fold.simd)
        block = DepthToSpaceBlock(source, op.block, op.column_major)
        rows = np.arange(source.height * op.block) // op.block
        # A row of blocks leaves when it has arrived whole.
        columns = np.full(source.width * op.block, source.width - 1)
        demand = raster_demand(rows, columns, source.width)
        return Stage(op, (op.inputs[0],), (block,), fold, (demand,))
