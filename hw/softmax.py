"""Softmax of small sets: largest element, exponentials by table, exact rounded quotients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from qcompile.hw.adder_tree import AdderTree
from qcompile.hw.beat_counter import BeatCounter
from qcompile.hw.block import Block
from qcompile.hw.delay import delayed
from qcompile.hw.divider import Divider
from qcompile.hw.output_queue import OutputQueue
from qcompile.hw.parameter_rom import ParameterRom
from qcompile.hw.pointwise import Term, later, signed_digits, signed_sum, sum_stages
from qcompile.hw.streams import TensorStream, element_shape
from qcompile.types import Array, IntType, Range

LOGIC_WORDS = 64
"""Up to this many exponentials are logic."""


@dataclass(frozen=True)
class Softmax(Block):
    """y = floor((e * levels + floor(E / 2)) / E), with e = powers[min((max - x + half) >> shift,
    last)], half = 2**shift / 2, and max and E (the sum of e) over each set.

    A set is `set_beats` beats that follow each other: all of their elements, or those of each lane
    if the lanes are `separate`. It passes three times: elements wait in a queue until the largest
    one is known, exponentials in another one until their sum is, and then they are divided.
    The next sets pass the first parts meanwhile.

    Throughput: one beat in `interval` cycles. Latency: of the first beat of a set, from the last
    one that arrives.  Ports: `i0`, `o0`.

    Attributes:
        input: elements.
        set_beats: beats of a set; sets do not cross pixels.
        powers: the exponentials; the first one is positive.
        levels: what the outputs of a set add up to, each rounded.
        element: of the output; holds 0..levels.
        shift: of differences.
        separate: whether each lane has sets of its own.
        interval: cycles from beat to beat that suffice: dividers become smaller.
    """

    input: TensorStream
    set_beats: int
    powers: tuple[int, ...]
    levels: int
    element: IntType
    shift: int = 0
    separate: bool = False
    interval: int = 1

    def __post_init__(self) -> None:
        if self.set_beats < 1 or self.input.groups % self.set_beats:
            raise ValueError(
                f"{self.input.groups} beats of a pixel are no sets of {self.set_beats} beats"
            )
        if not self.powers or self.powers[0] < 1 or min(self.powers) < 0:
            raise ValueError("exponentials are not negative, and the first one is positive")
        if self.levels < 1 or not self.element.range.contains(Range(0, self.levels)):
            raise ValueError(f"{self.element} does not hold 0..{self.levels}")
        if self.interval < 1 or self.shift < 0:
            raise ValueError("the interval is positive, the shift not negative")

    @property
    def inputs(self) -> tuple[TensorStream]:
        return (self.input,)

    @property
    def output(self) -> TensorStream:
        shape = self.input
        return TensorStream(shape.height, shape.width, shape.channels, self.element, shape.lanes)

    @property
    def outputs(self) -> tuple[TensorStream]:
        return (self.output,)

    def compute(self, *frames: Array) -> tuple[Array, ...]:
        (frame,) = frames
        sets = frame.reshape(-1, self.set_beats, self.input.lanes)
        axes = 1 if self.separate else (1, 2)
        index = sets.max(axis=axes, keepdims=True) - sets
        index = (index + (1 << self.shift >> 1)) >> self.shift
        powers = np.asarray(self.powers, np.int64)[np.minimum(index, len(self.powers) - 1)]
        total = powers.sum(axis=axes, keepdims=True)
        return (((powers * self.levels + total // 2) // total).reshape(frame.shape),)

    def create(self) -> wiring.Component:
        return SoftmaxUnit(self)

    @property
    def levels_of_lanes(self) -> int:
        """Levels of the trees over the lanes of a set."""
        return 0 if self.separate else (self.input.lanes - 1).bit_length()

    @property
    def difference(self) -> Range:
        """Of the largest element and any other one."""
        bounds = self.input.element.range
        return Range(0, bounds.high - bounds.low)

    @property
    def power(self) -> Range:
        return Range(0, max(self.powers))

    @property
    def total(self) -> IntType:
        """Type of the sum of a set."""
        members = self.set_beats * (1 if self.separate else self.input.lanes)
        return IntType.holding(self.power.scaled(members))

    @property
    def columns(self) -> dict[str, tuple[int, ...]]:
        """The table of each lane."""
        return {"power": self.powers}

    @property
    def largest_delay(self) -> int:
        """Cycles from taking the last beat of a set to offering its largest element."""
        return self.levels_of_lanes + 3

    @property
    def power_delay(self) -> int:
        """Cycles from taking an element out of the first queue to its exponential."""
        return 2 + (2 if ParameterRom.ram_bits(self.columns, LOGIC_WORDS) else 1)

    @property
    def sum_delay(self) -> int:
        """Cycles from the last exponential of a set to offering their sum."""
        return self.levels_of_lanes + 2

    @property
    def quotient_delay(self) -> int:
        """Cycles from taking an exponential out of the second queue to its quotient."""
        digits = [negative for _, negative in signed_digits(self.levels)]
        rounding = 1 + sum_stages([*digits, False])
        return rounding + Divider.latency_of(self.levels.bit_length(), self.interval)

    @property
    def queue_depths(self) -> tuple[int, int, int]:
        """Places for elements, exponentials and results: a set, and what arrives until its first
        place is free."""
        return (
            self.set_beats + self.largest_delay,
            self.set_beats + self.power_delay + self.sum_delay,
            -(-(self.quotient_delay + 2) // self.interval),
        )

    @property
    def set_depths(self) -> tuple[int, int]:
        """Places for largest elements and sums: for all sets of which a beat is in the queue."""
        first, second, _ = self.queue_depths
        return first // self.set_beats + 1, second // self.set_beats + 1

    @property
    def cycles(self) -> int:
        return self.input.beats * self.interval

    @property
    def latency(self) -> int:
        known = self.largest_delay + self.set_beats - 1 + self.power_delay + self.sum_delay
        return known + self.quotient_delay + 1

    @property
    def ram_bits(self) -> int:
        lanes = self.input.lanes
        sets = lanes if self.separate else 1
        first, second, third = self.queue_depths
        largest, sums = self.set_depths
        power = IntType.holding(self.power).bits
        return (
            OutputQueue.ram_bits(self.input.beat_bits, first)
            + OutputQueue.ram_bits(lanes * power, second)
            + OutputQueue.ram_bits(self.output.beat_bits, third)
            + largest * sets * self.input.element.bits
            + sums * sets * self.total.bits
            + lanes * ParameterRom.ram_bits(self.columns, LOGIC_WORDS)
        )


class SoftmaxUnit(wiring.Component):
    """Hardware of `Softmax`: three parts, a queue between each two."""

    def __init__(self, block: Softmax) -> None:
        self._block = block
        super().__init__({"i0": In(block.input.signature), "o0": Out(block.output.signature)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        block = self._block
        lanes = block.input.lanes
        first, second, third = block.queue_depths
        power = data.ArrayLayout(element_shape(IntType.holding(block.power)), lanes)
        m.submodules.elements = elements = OutputQueue(block.input.layout, first)
        m.submodules.powers = powers = OutputQueue(power, second)
        m.submodules.results = results = OutputQueue(block.output.layout, third)
        wiring.connect(m, results.o, wiring.flipped(self.o0))

        # First part: the largest element.
        taken = Signal()
        m.d.comb += [
            self.i0.ready.eq(elements.available),
            taken.eq(self.i0.valid & elements.available),
            elements.reserve.eq(taken),
            elements.push.eq(taken),
            elements.item.eq(self.i0.payload),
        ]
        largest = self._largest(m, taken)

        # Second part: exponentials and their sum.
        go = Signal()
        m.submodules.power_beat = beat = BeatCounter(block.set_beats)
        m.d.comb += [
            go.eq(elements.o.valid & largest.r_rdy & powers.available),
            elements.o.ready.eq(go),
            powers.reserve.eq(go),
            beat.step.eq(go),
            largest.r_en.eq(go & beat.last),
        ]
        found = self._powers(m, elements.o.payload, largest.r_data)
        done = delayed(m, go, block.power_delay, "power_done", reset=True)
        ends = delayed(m, go & beat.last, block.power_delay, "power_last", reset=True)
        m.d.comb += powers.push.eq(done)
        m.d.comb += [powers.item[lane].eq(value) for lane, value in enumerate(found)]
        sums = self._sums(m, found, done, ends)

        # Third part: quotients.
        divide = Signal()
        m.submodules.quotient_beat = place = BeatCounter(block.set_beats)
        free: Any = 1
        if block.interval > 1:
            waiting = Signal(block.interval - 1)
            m.d.sync += waiting.eq(Cat(divide, waiting))
            free = ~waiting.any()
        m.d.comb += [
            divide.eq(powers.o.valid & sums.r_rdy & results.available & free),
            powers.o.ready.eq(divide),
            results.reserve.eq(divide),
            place.step.eq(divide),
            sums.r_en.eq(divide & place.last),
            results.push.eq(delayed(m, divide, block.quotient_delay, "divided", reset=True)),
        ]
        totals = self._by_lane(sums.r_data, block.total.bits)
        for lane in range(lanes):
            quotient = self._quotient(m, lane, divide, powers.o.payload[lane], totals[lane])
            m.d.comb += results.item[lane].eq(quotient)
        return m

    def _by_lane(self, word: Value, bits: int) -> list[Value]:
        """What each lane has of a word with one item for each set."""
        separate = self._block.separate
        return [word.word_select(lane * separate, bits) for lane in range(self._block.input.lanes)]

    def _sets(self, values: Sequence[Any]) -> list[list[Any]]:
        """The lanes of each set that a beat has a part of."""
        return [[value] for value in values] if self._block.separate else [list(values)]

    def _largest(self, m: Module, taken: Signal) -> SyncFIFO:
        """The largest elements of the sets, one word a set."""
        block = self._block
        shape = element_shape(block.input.element)
        m.submodules.beat = beat = BeatCounter(block.set_beats)
        m.d.comb += beat.step.eq(taken)
        stages = 1 + block.levels_of_lanes
        first = delayed(m, beat.first, stages, "first")
        arrived = delayed(m, taken, stages, "arrived", reset=True)
        complete = delayed(m, taken & beat.last, stages + 1, "complete", reset=True)
        lanes = [later(m, item, 1, f"item{k}") for k, item in enumerate(self.i0.payload)]
        found = []
        for index, members in enumerate(self._sets(lanes)):
            level = 0
            while len(members) > 1:
                level += 1
                pairs = [members[k : k + 2] for k in range(0, len(members), 2)]
                members = []
                for k, pair in enumerate(pairs):
                    larger = Signal(shape, name=f"larger{level}_{k}", reset_less=True)
                    m.d.sync += larger.eq(Mux(pair[0] > pair[-1], pair[0], pair[-1]))
                    members.append(larger)
            (member,) = members
            so_far = Signal(shape, name=f"largest{index}", reset_less=True)
            with m.If(arrived & (first | (member > so_far))):
                m.d.sync += so_far.eq(member)
            found.append(so_far)
        return self._store(m, "largest", complete, Cat(*found), block.set_depths[0])

    def _store(self, m: Module, name: str, push: Value, word: Value, depth: int) -> SyncFIFO:
        """Keeps one word for each set; there is always room."""
        fifo = SyncFIFO(width=len(word), depth=depth)
        m.submodules[f"{name}_of_sets"] = fifo
        m.d.comb += [fifo.w_en.eq(push), fifo.w_data.eq(word)]
        return fifo

    def _powers(self, m: Module, items: data.View, largest: Value) -> list[Value]:
        """The exponentials of a beat, `power_delay` cycles later."""
        block = self._block
        bits = block.input.element.bits
        last = len(block.powers) - 1
        found = []
        for lane, limit in enumerate(self._by_lane(largest, bits)):
            top = limit.as_signed() if block.input.element.signed else limit
            difference = Signal(
                range(block.difference.high + 1), name=f"difference{lane}", reset_less=True
            )
            m.d.sync += difference.eq(top - items[lane])
            index = (difference + (1 << block.shift >> 1)) >> block.shift
            entry = Signal(range(last + 1), name=f"entry{lane}", reset_less=True)
            reach = (block.difference.high + (1 << block.shift >> 1)) >> block.shift
            m.d.sync += entry.eq(Mux(index > last, last, index) if reach > last else index)
            rom = ParameterRom(block.columns, LOGIC_WORDS)
            m.submodules[f"table{lane}"] = rom
            m.d.comb += rom.word.eq(entry)
            found.append(rom.power if last else rom.value("power"))
        return found

    def _sums(self, m: Module, powers: list[Value], arrived: Value, ends: Value) -> SyncFIFO:
        """The sums of the sets, one word a set."""
        block = self._block
        found = []
        first = Signal(init=1)
        with m.If(arrived):
            m.d.sync += first.eq(ends)
        first = delayed(m, first, block.levels_of_lanes, "sum_first")
        arrived = delayed(m, arrived, block.levels_of_lanes, "sum_arrived", reset=True)
        complete = delayed(m, ends, block.levels_of_lanes + 1, "sum_complete", reset=True)
        for index, members in enumerate(self._sets(powers)):
            m.submodules[f"tree{index}"] = tree = AdderTree([block.power] * len(members))
            m.d.comb += [port.eq(term) for port, term in zip(tree.inputs, members, strict=True)]
            total = Signal(block.total.bits, name=f"total{index}", reset_less=True)
            with m.If(arrived):
                m.d.sync += total.eq(Mux(first, 0, total) + tree.o)
            found.append(total)
        return self._store(m, "sums", complete, Cat(*found), block.set_depths[1])

    def _quotient(self, m: Module, lane: int, start: Value, power: Any, total: Value) -> Value:
        """The rounded quotient, `quotient_delay` cycles later."""
        block = self._block
        bits = block.levels.bit_length()
        power = later(m, power, 1, f"power{lane}")
        total = later(m, total, 1, f"sum{lane}")
        terms: list[Term] = [(power, *digit) for digit in signed_digits(block.levels)]
        terms.append((total >> 1, 0, False))
        width = bits + block.total.bits
        numerator = signed_sum(m, terms, width, f"numerator{lane}")
        stages = sum_stages([negative for _, _, negative in terms])
        divider = Divider(bits, block.total.bits, block.interval)
        m.submodules[f"divider{lane}"] = divider
        m.d.comb += [
            divider.start.eq(delayed(m, start, 1 + stages, f"start{lane}", reset=True)),
            divider.numerator.eq(numerator[:width]),
            divider.denominator.eq(later(m, total, stages, f"denominator{lane}")),
        ]
        return divider.quotient
