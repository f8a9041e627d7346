"""The channelwise unit: one product a lane and beat, for what treats channels one by one."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

import numpy as np
from amaranth.hdl import Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.block import Block
from qcompile.hw.channel_weights import ChannelWeights, TapWeights, axis_type
from qcompile.hw.delay import delayed
from qcompile.hw.dots import as_weight, dot_range
from qcompile.hw.fold_sums import FoldSums
from qcompile.hw.products import MULTIPLIER_18, TERNARY_RANGE, MultiplierSize
from qcompile.hw.streams import TensorStream, WindowStream, element_shape, pack_lanes
from qcompile.hw.weight_rom import WeightRom
from qcompile.types import TERNARY, Array, IntType, Range

TABLE_WORDS = 1024
"""Weights of taps become one table of at most so many words; more are formed from two factors."""

__all__ = ["ChannelWeights", "Channelwise", "TapWeights"]


class _Source(enum.Enum):
    """Where the weight of a beat comes from."""

    ONES = "ones"
    TABLE = "table"
    FACTORS = "factors"


@dataclass(frozen=True, eq=False)
class Channelwise(Block):
    """Depthwise convolution, average pool, linear resize, affine: a weighted sum for each channel.

    Beat f of the window's fold is one tap of the channels f * lanes .. f * lanes + lanes - 1 (the
    window has one word a tap and all words of a pixel as folds). The sum over the taps leaves as
    one beat. Weights that are all 1 and ternary ones need no multiplier.

    Throughput: one beat of the window a cycle, whatever the number of taps.

    Attributes:
        window: what arrives.
        height: output rows.
        width: output columns.
        weights: by channel, or by position.
        accumulator: type that holds every sum (proven: sums never wrap).
        size: the multiplier of the family.
    """

    window: WindowStream
    height: int
    width: int
    weights: ChannelWeights | TapWeights
    accumulator: IntType
    size: MultiplierSize = MULTIPLIER_18

    def __post_init__(self) -> None:
        window, weights = self.window, self.weights
        if (len(window.row_phases), len(window.column_phases)) != (self.height, self.width):
            raise ValueError(f"the window does not have {self.height} x {self.width} pixels")
        rows, columns = self.phases
        if weights.shape != (rows * columns, window.fold_beats):
            raise ValueError(
                f"weights of {weights.shape[0]} phases and {weights.shape[1]} taps do not fit a "
                f"window of {rows * columns} and {window.fold_beats}"
            )
        if isinstance(weights, TapWeights):
            if (len(weights.rows), len(weights.columns)) != (rows, columns):
                raise ValueError(f"the window has {rows} x {columns} phases")
        elif weights.codes.shape[1] != self.channels:
            raise ValueError(
                f"weights of {weights.codes.shape[1]} channels do not fit {self.channels}"
            )

    @property
    def phases(self) -> tuple[int, int]:
        """Row and column phases."""
        return max(self.window.row_phases) + 1, max(self.window.column_phases) + 1

    @property
    def channels(self) -> int:
        return self.window.folds * self.window.lanes

    @property
    def inputs(self) -> tuple[WindowStream]:
        return (self.window,)

    @property
    def outputs(self) -> tuple[TensorStream]:
        lanes = self.window.lanes
        return (TensorStream(self.height, self.width, self.channels, self.accumulator, lanes),)

    def compute(self, *frames: Array) -> tuple[Array, ...]:
        window = self.window
        x = frames[0].reshape(window.pixels, window.folds, window.fold_beats, window.lanes)
        phase = np.add.outer(
            np.array(window.row_phases) * self.phases[1], np.array(window.column_phases)
        ).reshape(-1)
        table = self.weights.table
        if table.shape[1] == 1:
            weights = table[:, :, :, None]
        else:
            split = (-1, window.folds, window.lanes, window.fold_beats)
            weights = table.reshape(split).transpose(0, 1, 3, 2)
        return ((x * weights[phase]).sum(axis=2).reshape(-1, window.lanes),)

    @property
    def cycles(self) -> int:
        return self.window.beats

    @property
    def latency(self) -> int:
        return FoldSums.latency_behind(self.delay)

    @property
    def ram_bits(self) -> int:
        window = self.window
        bits = FoldSums.ram_bits(window.lanes, self.accumulator, self.delay, window.fold_beats)
        weights, source = self.weights, self.source
        if source is _Source.TABLE:
            bits += WeightRom.ram_bits(1, self.word_bits, self._table_words)
        elif source is _Source.FACTORS:
            assert isinstance(weights, TapWeights)
            for axis in (weights.rows, weights.columns):
                width = axis_type(axis).bits
                bits += WeightRom.ram_bits(1, width, len(axis) * len(axis[0]))
        return bits

    @property
    def multipliers(self) -> int:
        if self.source is _Source.ONES or self.by_selection:
            return 0
        count = self.window.lanes * self.size.tiles(self.window.element, self.weight)
        if self.source is _Source.FACTORS:
            assert isinstance(self.weights, TapWeights)
            rows, columns = (axis_type(a) for a in (self.weights.rows, self.weights.columns))
            count += self.size.tiles(rows, columns)
        return count

    @property
    def source(self) -> _Source:
        if self.weights.range == Range(1, 1):
            return _Source.ONES
        if isinstance(self.weights, TapWeights) and self._table_words > TABLE_WORDS:
            return _Source.FACTORS
        return _Source.TABLE

    @property
    def by_selection(self) -> bool:
        """Whether weights select 0, a or -a instead of multiplying."""
        return TERNARY_RANGE.contains(self.weights.range)

    @property
    def weight(self) -> IntType:
        """Type of one weight in the hardware."""
        if self.by_selection:
            return TERNARY
        if isinstance(self.weights, ChannelWeights):
            return self.weights.element
        return IntType.holding(self.weights.range)

    @property
    def word_bits(self) -> int:
        """Bits of a word of the table: weights of all lanes, or one for all."""
        return self.weight.bits * (self.window.lanes if self._by_channel else 1)

    @property
    def _by_channel(self) -> bool:
        return isinstance(self.weights, ChannelWeights)

    @property
    def _table_words(self) -> int:
        phases, taps = self.weights.shape
        return phases * taps * (self.window.folds if self._by_channel else 1)

    @property
    def weight_delay(self) -> int:
        """Cycles from accepting a beat to its weight."""
        rows, columns = self.phases
        if self.source is _Source.ONES:
            return 0
        if self.source is _Source.TABLE:
            return WeightRom.rom_delay(self._table_words, rows * columns)
        assert isinstance(self.weights, TapWeights)
        return 1 + max(
            WeightRom.rom_delay(len(axis) * len(axis[0]), len(axis))
            for axis in (self.weights.rows, self.weights.columns)
        )

    @property
    def delay(self) -> int:
        """Cycles from accepting a beat to its products."""
        return self.weight_delay + 1

    @property
    def product(self) -> Range:
        """Range of one product."""
        return dot_range(self.weights.range, self.window.element, 1)

    def table_words(self) -> list[int]:
        """Contents of the table, in the order of the beats, phase by phase."""
        codes = self.weights.table
        if self._by_channel:
            split = (-1, self.window.folds, self.window.lanes, self.window.fold_beats)
            codes = codes.reshape(split).transpose(0, 1, 3, 2).reshape(-1, self.window.lanes)
        return pack_lanes(codes.reshape(self._table_words, -1), self.weight.bits)

    def create(self) -> wiring.Component:
        return ChannelwiseUnit(self)


class ChannelwiseUnit(wiring.Component):
    """Hardware of `Channelwise`. Ports: `i0` the window, `o0` the sums."""

    def __init__(self, block: Channelwise) -> None:
        self._block = block
        super().__init__({"i0": In(block.window.signature), "o0": Out(block.outputs[0].signature)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        block, window = self._block, self._block.window
        sums = FoldSums(
            window.lanes, block.product, block.accumulator, block.delay, window.fold_beats
        )
        m.submodules.sums = sums
        beat = self.i0.payload
        accept = Signal()
        m.d.comb += [
            accept.eq(self.i0.valid & sums.ready),
            self.i0.ready.eq(sums.ready),
            sums.accept.eq(accept),
            sums.last.eq(beat.last),
        ]
        data = delayed(m, beat.data, block.weight_delay, "data")
        weights = self._weights(m, accept)
        bits = window.element.bits
        shape = element_shape(IntType.holding(block.product))
        for lane in range(window.lanes):
            value = Value.cast(data).word_select(lane, bits)
            value = value.as_signed() if window.element.signed else value
            product = Signal(shape, name=f"product{lane}", reset_less=True)
            m.d.sync += product.eq(self._product(value, weights[lane]))
            m.d.comb += sums.terms[lane].eq(product)
        wiring.connect(m, sums.o, wiring.flipped(self.o0))
        return m

    def _product(self, value: Any, weight: Any) -> Any:
        if weight is None:
            return value
        if self._block.by_selection:
            return Mux(weight[0], Mux(weight[1], -value, value), 0)
        return value * weight

    def _weights(self, m: Module, accept: Signal) -> list[Any]:
        """The weight of each lane, `weight_delay` cycles behind the beat; None is 1."""
        block, lanes = self._block, self._block.window.lanes
        kind = block.weight
        if block.source is _Source.ONES:
            return [None] * lanes
        if block.source is _Source.FACTORS:
            return [self._factors(m, accept)] * lanes
        rom = WeightRom([block.table_words()], block.word_bits, *block.phases)
        m.submodules.rom = rom
        beat = self.i0.payload
        m.d.comb += [
            rom.accept.eq(accept),
            rom.row_phase.eq(beat.row_phase),
            rom.column_phase.eq(beat.column_phase),
        ]
        word = rom.words[0]
        if isinstance(block.weights, TapWeights):
            return [as_weight(word, kind)] * lanes
        return [as_weight(word.word_select(lane, kind.bits), kind) for lane in range(lanes)]

    def _factors(self, m: Module, accept: Signal) -> Any:
        """Product of a row and a column factor: column taps run fastest."""
        block, beat = self._block, self.i0.payload
        assert isinstance(block.weights, TapWeights)
        taps = len(block.weights.columns[0])
        column = Signal(range(taps))
        row_ends = Signal()
        m.d.comb += row_ends.eq(accept & (column == taps - 1))
        with m.If(accept):
            m.d.sync += column.eq(Mux(column == taps - 1, 0, column + 1))
        found = []
        for name, axis, step, phase in (
            ("rows", block.weights.rows, row_ends, beat.row_phase),
            ("columns", block.weights.columns, accept, beat.column_phase),
        ):
            kind = axis_type(axis)
            codes = np.array(axis, dtype=np.int64).reshape(-1, 1)
            rom = WeightRom([pack_lanes(codes, kind.bits)], kind.bits, 1, len(axis))
            m.submodules[f"{name}_rom"] = rom
            m.d.comb += [rom.accept.eq(step), rom.column_phase.eq(phase)]
            late = delayed(m, rom.words[0], block.weight_delay - 1 - rom.delay, f"{name}_factor")
            found.append(as_weight(late, kind))
        weight = Signal(element_shape(block.weight), name="weight", reset_less=True)
        m.d.sync += weight.eq(found[0] * found[1])
        return weight
