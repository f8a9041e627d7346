"""The matrix-vector unit: PE sums of SIMD products a cycle, over the folds of a window."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from amaranth.hdl import Cat, Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.block import Block
from qcompile.hw.delay import delayed
from qcompile.hw.dots import Dots, dot_range
from qcompile.hw.fold_sums import FoldSums
from qcompile.hw.logic_dots import LogicDots
from qcompile.hw.multiplier_dots import MultiplierDots
from qcompile.hw.packed_dots import PackedDots
from qcompile.hw.products import (
    MULTIPLIER_18,
    TERNARY_RANGE,
    MultiplierSize,
    Products,
    code_bits,
    encode,
    pack,
)
from qcompile.hw.streams import TensorStream, WindowStream, pack_lanes
from qcompile.hw.ternary_dots import TernaryDots
from qcompile.hw.weight_rom import WeightRom
from qcompile.types import TERNARY, Array, IntType, Range

EXACT_DOUBLE = 1 << 53
WIDEST_CODE = 16

TEAM_MULTIPLIERS = 4
TEAM_LOGIC_ROWS = 16
"""An activation feeds so many multipliers, or rows without multipliers, before a register."""


@dataclass(frozen=True, eq=False)
class MatrixVector(Block):
    """Convolution, transposed convolution or matrix product of a window with constant weights.

    For each output pixel and each fold f of the window, PE sums over the fold's beats of
    weight * activation leave as one beat: channels f * PE .. f * PE + PE - 1 of the pixel. The
    weights are those of phase row_phase * (column phases) + column_phase.

    Multipliers stand far apart in a device, so that an activation cannot reach many of them in one
    cycle: rows are split into teams, each of which works one cycle behind the previous one.

    Throughput: one beat of the window a cycle, whatever the number of beats in a fold.

    Attributes:
        window: what arrives; `lanes` is SIMD.
        height: output rows.
        width: output columns.
        weights: int64 [phases, groups, folds, PE, fold_beats, SIMD].
        element: type of the weights, at most 16 bits.
        accumulator: type that holds every sum (proven: sums never wrap).
        products: how products are formed.
        size: the multiplier of the family.
    """

    window: WindowStream
    height: int
    width: int
    weights: Array
    element: IntType
    accumulator: IntType
    products: Products
    size: MultiplierSize = MULTIPLIER_18

    def __post_init__(self) -> None:
        window, element = self.window, self.element
        if (len(window.row_phases), len(window.column_phases)) != (self.height, self.width):
            raise ValueError(f"the window does not have {self.height} x {self.width} pixels")
        shape = self.weights.shape
        phases = self.phases[0] * self.phases[1]
        expected = (phases, window.folds, window.fold_beats, window.lanes)
        if len(shape) != 6 or (shape[0], shape[1] * shape[2], *shape[4:]) != expected:
            raise ValueError(
                f"weights {list(shape)} do not have the window's (phases, folds, beats, lanes) "
                f"{list(expected)}"
            )
        if max(element.bits, window.element.bits) > WIDEST_CODE:
            raise ValueError(f"codes have more than {WIDEST_CODE} bits")
        codes = Range(int(self.weights.min()), int(self.weights.max()))
        if not element.range.contains(codes):
            raise ValueError(f"weights {codes.low}..{codes.high} are not all {element}")
        without = (Products.LOGIC, Products.TERNARY, Products.BINARY)
        if self.products in without and not TERNARY_RANGE.contains(codes):
            raise ValueError(f"{self.products} needs ternary weights")
        if self.products in without[1:] and not TERNARY_RANGE.contains(window.element.range):
            raise ValueError(f"{self.products} needs ternary activations, not {window.element}")
        if self.products is Products.BINARY and not (self.weights != 0).all():
            raise ValueError("binary weights are -1 or 1, not 0")
        if self.products is Products.PACKED and self._packing_fails():
            raise ValueError(f"two products {element} x {window.element} need too many bits")

    def _packing_fails(self) -> bool:
        return pack(self.element, self.window.element, self.window.lanes, self.size) is None

    @property
    def phases(self) -> tuple[int, int]:
        """Row and column phases."""
        return max(self.window.row_phases) + 1, max(self.window.column_phases) + 1

    @property
    def term(self) -> Range:
        """Range of what one beat adds to a sum."""
        ternary = self.products in (Products.LOGIC, Products.TERNARY, Products.BINARY)
        weights = TERNARY if ternary else self.element
        return dot_range(weights.range, self.window.element, self.window.lanes)

    @property
    def pe(self) -> int:
        """Sums formed at a time."""
        return int(self.weights.shape[3])

    @property
    def inputs(self) -> tuple[WindowStream]:
        return (self.window,)

    @property
    def outputs(self) -> tuple[TensorStream]:
        channels = self.window.folds * self.pe
        return (TensorStream(self.height, self.width, channels, self.accumulator, self.pe),)

    def compute(self, *frames: Array) -> tuple[Array, ...]:
        window = self.window
        beats = window.fold_beats * window.lanes
        x = frames[0].reshape(window.pixels, window.folds, beats).transpose(1, 0, 2)
        phases = self.weights.shape[0]
        matrix = self.weights.reshape(phases, window.folds, self.pe, beats).transpose(0, 1, 3, 2)
        reach = beats * self.element.range.magnitude * window.element.range.magnitude
        number = np.float64 if reach < EXACT_DOUBLE else np.int64
        phase = np.add.outer(
            np.array(window.row_phases) * self.phases[1], np.array(window.column_phases)
        ).reshape(-1)
        result = np.empty((window.pixels, window.folds, self.pe), dtype=np.int64)
        for index in range(phases):
            pixels = phase == index
            sums = x[:, pixels].astype(number) @ matrix[index].astype(number)
            result[pixels] = sums.transpose(1, 0, 2)
        return (result.reshape(-1, self.pe),)

    @property
    def cycles(self) -> int:
        return self.window.beats

    @property
    def latency(self) -> int:
        return FoldSums.latency_behind(self.delay)

    @property
    def ram_bits(self) -> int:
        weights = WeightRom.ram_bits(self.pe, self.word_bits, self._rom_depth)
        return weights + FoldSums.ram_bits(
            self.pe, self.accumulator, self.delay, self.window.fold_beats
        )

    @property
    def multipliers(self) -> int:
        if self.products is Products.MULTIPLIER:
            tiles = self.size.tiles(self.element, self.window.element)
            return self.pe * self.window.lanes * tiles
        if self.products is Products.PACKED:
            return -(-self.pe // 2) * self.window.lanes
        return 0

    @property
    def word_bits(self) -> int:
        return self.window.lanes * code_bits(self.products, self.element)

    @property
    def _rom_depth(self) -> int:
        return int(self.weights.shape[0]) * self.window.pixel_beats

    @property
    def delay(self) -> int:
        """Cycles from accepting a beat to its dot products."""
        lanes, activation = self.window.lanes, self.window.element
        rom = WeightRom.rom_delay(self._rom_depth, int(self.weights.shape[0]))
        rom += len(self.teams) - 1
        if self.products is Products.MULTIPLIER:
            return rom + MultiplierDots.delay_of(lanes)
        if self.products is Products.PACKED:
            return rom + PackedDots.delay_of(lanes, self.element, activation, self.size)
        if self.products in (Products.LOGIC, Products.DIGITS):
            return rom + LogicDots.delay_of(lanes, self._digits)
        return rom + TernaryDots.delay_of(lanes)

    @property
    def _digits(self) -> IntType | None:
        """Weights of `LogicDots`, None for ternary ones."""
        return self.element if self.products is Products.DIGITS else None

    @property
    def teams(self) -> list[range]:
        """The rows of each team."""
        size = TEAM_LOGIC_ROWS
        if self.products is Products.MULTIPLIER:
            size = TEAM_MULTIPLIERS
        elif self.products is Products.PACKED:
            size = 2 * TEAM_MULTIPLIERS
        starts = range(0, self.pe, size)
        return [range(start, min(start + size, self.pe)) for start in starts]

    def create_dots(self, rows: int) -> Dots:
        """The unit that forms the sums of one beat for so many rows."""
        lanes, activation = self.window.lanes, self.window.element
        if self.products is Products.MULTIPLIER:
            return MultiplierDots(rows, lanes, self.element, activation)
        if self.products is Products.PACKED:
            return PackedDots(rows, lanes, self.element, activation, self.size)
        if self.products in (Products.LOGIC, Products.DIGITS):
            return LogicDots(rows, lanes, self._digits, activation)
        return TernaryDots(rows, lanes, activation, self.products is Products.BINARY)

    def rom_rows(self) -> list[list[int]]:
        """Contents of the ROM of each row: words in the order of the beats, phase by phase."""
        rows = []
        for pe in range(self.pe):
            lower = pe % 2 == 0 and pe < self.pe - 1
            codes = self.weights[:, :, :, pe].reshape(-1, self.window.lanes)
            encoded = encode(self.products, self.element, codes, lower)
            rows.append(pack_lanes(encoded, code_bits(self.products, self.element)))
        return rows

    def create(self) -> wiring.Component:
        return MatrixVectorUnit(self)


class MatrixVectorUnit(wiring.Component):
    """Hardware of `MatrixVector`. Ports: `i0` the window, `o0` the sums."""

    def __init__(self, block: MatrixVector) -> None:
        self._block = block
        super().__init__({"i0": In(block.window.signature), "o0": Out(block.outputs[0].signature)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        block, teams = self._block, self._block.teams
        beat = self.i0.payload
        accept = Signal()
        m.submodules.sums = sums = FoldSums(
            block.pe, block.term, block.accumulator, block.delay, block.window.fold_beats
        )
        m.d.comb += [
            accept.eq(self.i0.valid & sums.ready),
            self.i0.ready.eq(sums.ready),
            sums.accept.eq(accept),
            sums.last.eq(beat.last),
        ]
        rom_rows = block.rom_rows()
        step: Any = Cat(accept, beat.row_phase, beat.column_phase)
        data: Any = None
        for index, team in enumerate(teams):
            rom = WeightRom([rom_rows[row] for row in team], block.word_bits, *block.phases)
            dots = block.create_dots(len(team))
            m.submodules[f"rom{index}"], m.submodules[f"dots{index}"] = rom, dots
            if index == 0:
                data = delayed(m, beat.data, rom.delay, "data")
            else:
                step = delayed(m, step, 1, f"step{index}", reset=True)
                data = delayed(m, data, 1, f"data_team{index}")
            m.d.comb += [
                Cat(rom.accept, rom.row_phase, rom.column_phase).eq(step),
                dots.data.eq(data),
                dots.words.eq(rom.words),
            ]
            late = delayed(m, dots.sums, len(teams) - 1 - index, f"sums{index}")
            width = len(Value.cast(sums.terms[0]))
            for place, row in enumerate(team):
                term = Value.cast(late).word_select(place, width)
                m.d.comb += Value.cast(sums.terms[row]).eq(term)
        wiring.connect(m, sums.o, wiring.flipped(self.o0))
        return m
