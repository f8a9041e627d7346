"""Sums of values, weighted by an attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from amaranth.hdl import Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.block import Block
from qcompile.hw.delay import delayed
from qcompile.hw.fold_sums import FoldSums
from qcompile.hw.products import MULTIPLIER_18, MultiplierSize
from qcompile.hw.streams import TensorStream, WindowStream, element_shape
from qcompile.types import Array, IntType, Range


@dataclass(frozen=True, slots=True)
class AttentionSums(Block):
    """The sum of weight * value over the positions of each window, for each lane of the values.

    The values have one word a position and all words of a pixel as folds; a beat of the weights
    meets every beat of them. Throughput: one beat a cycle. Ports: `i0` weights, `i1` values, `o0`.

    Attributes:
        weights: of one lane, which all lanes of the values share, or of as many lanes.
        values: as many beats.
        height: output rows.
        width: output columns.
        accumulator: type that holds every sum (proven: sums never wrap).
        size: the multiplier of the family.
    """

    weights: TensorStream | WindowStream
    values: WindowStream
    height: int
    width: int
    accumulator: IntType
    size: MultiplierSize = MULTIPLIER_18

    def __post_init__(self) -> None:
        if self.weights.beats != self.values.beats:
            raise ValueError(
                f"{self.weights.beats} beats of weights, {self.values.beats} of values"
            )
        if self.weights.lanes not in (1, self.values.lanes):
            raise ValueError(f"{self.weights.lanes} weights for {self.values.lanes} values a beat")
        if self.values.pixels != self.height * self.width:
            raise ValueError(
                f"{self.values.pixels} windows do not make {self.height} x {self.width}"
            )

    @property
    def inputs(self) -> tuple[TensorStream | WindowStream, WindowStream]:
        return self.weights, self.values

    @property
    def output(self) -> TensorStream:
        lanes = self.values.lanes
        channels = self.values.folds * lanes
        return TensorStream(self.height, self.width, channels, self.accumulator, lanes)

    @property
    def outputs(self) -> tuple[TensorStream]:
        return (self.output,)

    def compute(self, *frames: Array) -> tuple[Array, ...]:
        weights, values = frames
        products = (weights * values).reshape(-1, self.values.fold_beats, self.values.lanes)
        return (products.sum(axis=1, dtype=np.int64),)

    def create(self) -> wiring.Component:
        return AttentionSumsUnit(self)

    @property
    def product(self) -> Range:
        return (self.weights.element.range * self.values.element.range).union(Range(0, 0))

    @property
    def delay(self) -> int:
        """Cycles from accepting a beat to its products."""
        return 2

    @property
    def cycles(self) -> int:
        return self.values.beats

    @property
    def latency(self) -> int:
        return FoldSums.latency_behind(self.delay)

    @property
    def ram_bits(self) -> int:
        lanes, folds = self.values.lanes, self.values.fold_beats
        return FoldSums.ram_bits(lanes, self.accumulator, self.delay, folds)

    @property
    def multipliers(self) -> int:
        return self.values.lanes * self.size.tiles(self.weights.element, self.values.element)


class AttentionSumsUnit(wiring.Component):
    """Hardware of `AttentionSums`."""

    def __init__(self, block: AttentionSums) -> None:
        self._block = block
        super().__init__(
            {
                "i0": In(block.weights.signature),
                "i1": In(block.values.signature),
                "o0": Out(block.output.signature),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        block, values = self._block, self._block.values
        m.submodules.sums = sums = FoldSums(
            values.lanes, block.product, block.accumulator, block.delay, values.fold_beats
        )
        m.d.comb += [
            self.i0.ready.eq(self.i1.valid & sums.ready),
            self.i1.ready.eq(self.i0.valid & sums.ready),
            sums.accept.eq(self.i0.valid & self.i1.valid & sums.ready),
            sums.last.eq(self.i1.payload.last),
        ]
        given: Any = self.i0.payload
        if isinstance(block.weights, WindowStream):
            given = given.data
        weights = self._numbers(m, given, block.weights, "weight")
        for lane, value in enumerate(self._numbers(m, self.i1.payload.data, values, "value")):
            product = Signal(
                element_shape(IntType.holding(block.product)),
                name=f"product{lane}",
                reset_less=True,
            )
            m.d.sync += product.eq(weights[lane % len(weights)] * value)
            m.d.comb += sums.terms[lane].eq(product)
        wiring.connect(m, sums.o, wiring.flipped(self.o0))
        return m

    def _numbers(
        self, m: Module, word: Any, stream: TensorStream | WindowStream, name: str
    ) -> list[Any]:
        """The elements of a beat, from registers."""
        bits = stream.element.bits
        late = Value.cast(delayed(m, word, 1, name))
        lanes = [late.word_select(lane, bits) for lane in range(stream.lanes)]
        return [lane.as_signed() if stream.element.signed else lane for lane in lanes]
