"""Planner of attention over windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.backends.hdl.elementwise import trimmed
from qcompile.backends.hdl.planner import divisors, refuse, tensor_stream
from qcompile.errors import Unsupported
from qcompile.graph import Graph, Op
from qcompile.hw.attention_scores import AttentionScores
from qcompile.hw.attention_sums import AttentionSums
from qcompile.hw.axis import copying, sliding
from qcompile.hw.block import Block
from qcompile.hw.products import MULTIPLIER_18, MultiplierSize
from qcompile.hw.requantize import Requantize
from qcompile.hw.softmax import Softmax
from qcompile.hw.stage import Fold, Stage
from qcompile.hw.streams import TensorStream, WindowStream
from qcompile.hw.window import Window
from qcompile.ops import LocalAttention2d
from qcompile.types import Array, IntType, Range


@dataclass(frozen=True, slots=True)
class _Walk:
    """In which order the channels of a pixel pass.

    Attributes:
        parts: parts of the queries and keys that pass one after the other, for all positions each:
            heads, or beats of heads of one channel.
        separate: whether each lane is a head of its own.
        repeats: how often the weights of a part meet values.
    """

    parts: int
    separate: bool
    repeats: int


class LocalAttentionPlanner:
    """Line buffers of keys and values; scores, softmax, weighted sums, requantiser.

    `pe` lanes of values, `simd` of queries and keys, both within a head. Heads of one channel and
    one value pass `pe` at a time.
    """

    def refusal(self, graph: Graph, op: Op) -> Unsupported | None:
        for name, value in zip(("queries", "keys", "values"), op.inputs, strict=False):
            if graph.is_constant(value):
                return refuse(op, f"has constant {name}", "use --target c")
        return None

    def folds(self, graph: Graph, op: Op) -> Sequence[Fold]:
        assert isinstance(op, LocalAttention2d)
        channels, values = (graph.types[op.inputs[port]].shape[1] for port in (0, 2))
        if channels == values == op.heads:
            return tuple(Fold(lanes, 1) for lanes in divisors(channels))
        return tuple(
            Fold(pe, simd)
            for pe in divisors(values // op.heads)
            for simd in divisors(channels // op.heads)
        )

    def stage(self, graph: Graph, op: Op, fold: Fold, multiplier: MultiplierSize | None) -> Stage:
        assert isinstance(op, LocalAttention2d)
        assert op.accumulator is not None
        assert op.epilogue is not None
        assert op.widths is not None
        size = multiplier or MULTIPLIER_18
        kinds = [graph.types[value] for value in op.inputs[:3]]
        separate = kinds[0].shape[1] == kinds[2].shape[1] == op.heads
        lanes = (fold.pe if separate else fold.simd,) * 2 + (fold.pe,)
        queries, keys, values = map(tensor_stream, kinds, lanes)
        walk = _Walk(queries.groups, True, 1)
        if not separate:
            walk = _Walk(op.heads, False, values.groups // op.heads)
        height, width = queries.height, queries.width
        rows, columns = (
            sliding(size, op.kernel[axis], 1, 1, op.pads_begin[axis], positions)
            for axis, (size, positions) in enumerate(((keys.height, height), (keys.width, width)))
        )
        repeated = repeats(queries, walk.parts, op.positions)
        gathered = Window(keys, rows, columns, walk.parts)
        weighted = Window(values, rows, columns, values.groups)

        relative = graph.constants[op.inputs[3]].astype(np.int64)
        scored = op.score_reach(kinds[0], kinds[1], relative)
        scores = AttentionScores(
            repeated.output,
            gathered.output,
            height,
            width,
            _in_beats(relative.reshape(-1, op.positions), walk, queries.lanes),
            op.widths.key_bits,
            IntType.holding(scored),
            separate,
            size,
        )
        # A weight is asked for when a position has been scored, or when its values have passed.
        interval = max(repeated.output.fold_beats, walk.repeats)
        softmax = Softmax(
            scores.output,
            op.positions,
            trimmed(op.widths.powers),
            op.widths.levels,
            IntType.holding(Range(0, op.widths.levels)),
            op.widths.index_shift,
            separate,
            min(interval, op.widths.levels.bit_length()),
        )
        blocks: list[Block] = [scores, softmax]
        weights: TensorStream | WindowStream = softmax.output
        if walk.repeats > 1:
            again = repeats(softmax.output, walk.parts, walk.repeats)
            blocks.append(again)
            weights = again.output
        sums = AttentionSums(weights, weighted.output, height, width, op.accumulator, size)
        lanes_out = next(
            count
            for count in divisors(values.lanes)
            if values.lanes // count <= weighted.output.fold_beats
        )
        target = graph.output_type(op).integer
        requantize = Requantize(sums.output, op.epilogue, target, lanes_out)
        return Stage(
            op,
            op.inputs[:3],
            (*blocks, sums, requantize),
            fold,
            (repeated.demand, gathered.demand, weighted.demand),
            ((repeated,), (gathered,), (weighted,)),
            (0, 0, len(blocks)),
            blocks.index(softmax),
        )


def repeats(stream: TensorStream, groups: int, times: int) -> Window:
    """Each pixel, each group of its words so many times."""
    rows, columns = (copying(size, range(size)) for size in (stream.height, stream.width))
    return Window(stream, rows, columns, groups, times)


def _in_beats(relative: Array, walk: _Walk, lanes: int) -> Array:
    """Embeddings [C, positions] in the order of the keys: [beats of a pixel, lanes]."""
    channels, positions = relative.shape
    words = channels // walk.parts // lanes
    split = relative.reshape(walk.parts, words, lanes, positions)
    return np.ascontiguousarray(split.transpose(0, 3, 1, 2)).reshape(-1, lanes)
