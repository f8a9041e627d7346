"""The matrix-vector unit: PE sums of SIMD products a cycle, over the folds of a window."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.block import Block
from qcompile.hw.delay import delayed
from qcompile.hw.dots import Dots
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
from qcompile.types import Array, IntType, Range

EXACT_DOUBLE = 1 << 53
WIDEST_CODE = 16


@dataclass(frozen=True, eq=False)
class MatrixVector(Block):
    """Convolution, transposed convolution or matrix product of a window with constant weights.

    For each output pixel and each fold f of the window, PE sums over the fold's beats of
    weight * activation leave as one beat: channels f * PE .. f * PE + PE - 1 of the pixel. The
    weights are those of phase row_phase * (column phases) + column_phase.

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
        phases = (max(window.row_phases) + 1) * (max(window.column_phases) + 1)
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
        columns = max(window.column_phases) + 1
        phase = np.add.outer(
            np.array(window.row_phases) * columns, np.array(window.column_phases)
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
        return FoldSums.latency_behind(self._delay)

    @property
    def ram_bits(self) -> int:
        weights = WeightRom.ram_bits(self.pe, self._word_bits, self._rom_depth)
        return weights + FoldSums.ram_bits(
            self.pe, self.accumulator, self._delay, self.window.fold_beats
        )

    @property
    def multipliers(self) -> int:
        if self.products is Products.MULTIPLIER:
            return self.pe * self.window.lanes
        if self.products is Products.PACKED:
            return -(-self.pe // 2) * self.window.lanes
        return 0

    @property
    def _word_bits(self) -> int:
        return self.window.lanes * code_bits(self.products, self.element)

    @property
    def _rom_depth(self) -> int:
        return int(self.weights.shape[0]) * self.window.pixel_beats

    @property
    def _delay(self) -> int:
        """Cycles from accepting a beat to its dot products."""
        lanes, activation = self.window.lanes, self.window.element
        rom = WeightRom.rom_delay(self._rom_depth, int(self.weights.shape[0]))
        if self.products is Products.MULTIPLIER:
            return rom + MultiplierDots.delay_of(lanes)
        if self.products is Products.PACKED:
            return rom + PackedDots.delay_of(lanes, self.element, activation, self.size)
        if self.products is Products.LOGIC:
            return rom + LogicDots.delay_of(lanes)
        return rom + TernaryDots.delay_of(lanes)

    def create_dots(self) -> Dots:
        """The unit that forms the sums of one beat."""
        lanes, activation = self.window.lanes, self.window.element
        if self.products is Products.MULTIPLIER:
            return MultiplierDots(self.pe, lanes, self.element, activation)
        if self.products is Products.PACKED:
            return PackedDots(self.pe, lanes, self.element, activation, self.size)
        if self.products is Products.LOGIC:
            return LogicDots(self.pe, lanes, activation)
        return TernaryDots(self.pe, lanes, activation, self.products is Products.BINARY)

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
        block, window = self._block, self._block.window
        rom = WeightRom(
            block.rom_rows(),
            window.lanes * code_bits(block.products, block.element),
            max(window.row_phases) + 1,
            max(window.column_phases) + 1,
        )
        dots = block.create_dots()
        sums = FoldSums(
            block.pe, dots.term, block.accumulator, rom.delay + dots.delay, window.fold_beats
        )
        m.submodules.rom, m.submodules.dots, m.submodules.sums = rom, dots, sums
        beat = self.i0.payload
        accept = self.i0.valid & sums.ready
        m.d.comb += [
            self.i0.ready.eq(sums.ready),
            rom.accept.eq(accept),
            rom.row_phase.eq(beat.row_phase),
            rom.column_phase.eq(beat.column_phase),
            dots.data.eq(delayed(m, beat.data, rom.delay, "data")),
            dots.words.eq(rom.words),
            sums.accept.eq(accept),
            sums.last.eq(beat.last),
            sums.terms.eq(dots.sums),
        ]
        wiring.connect(m, sums.o, wiring.flipped(self.o0))
        return m
