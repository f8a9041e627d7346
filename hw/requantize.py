"""The epilogue of exact sums: multiply and shift, or thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from amaranth.hdl import Cat, Module, Signal
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from qcompile import numerics
from qcompile.hw import thresholds
from qcompile.hw.beat_counter import BeatCounter
from qcompile.hw.block import Block
from qcompile.hw.multiply_shift import MultiplyShift
from qcompile.hw.output_queue import OutputQueue
from qcompile.hw.parameter_rom import ParameterRom
from qcompile.hw.requantize_plan import Plan, plan
from qcompile.hw.streams import TensorStream, element_shape
from qcompile.hw.thresholds import CountThresholds
from qcompile.types import Array, IntType


@dataclass(frozen=True)
class Requantize(Block):
    """Codes of the sums of `input`, `lanes` a cycle.

    The sums of a beat arrive in parallel and leave one group of `lanes` after the other, so that
    `lanes` copies of the arithmetic suffice. Sums must lie in the range that the epilogue was made
    for, where its clamp of the sum changes nothing: the hardware leaves that clamp out.

    Throughput: one output beat a cycle. Latency: the parallel-to-serial register, the stages of
    `MultiplyShift` or `CountThresholds`, the queue, and the beats of the same input beat that leave
    before the last.

    Attributes:
        input: the sums; `input.lanes` is a multiple of `lanes`.
        epilogue: its vectors have one entry or one per channel.
        element: of the codes.
        lanes: of the output.
    """

    input: TensorStream
    epilogue: numerics.Epilogue
    element: IntType
    lanes: int = 1

    def __post_init__(self) -> None:
        if self.lanes < 1 or self.input.lanes % self.lanes:
            raise ValueError(f"{self.lanes} lanes do not divide {self.input.lanes} sums")
        if not self.element.range.contains(self.epilogue.output_range()):
            raise ValueError(f"{self.element} does not hold {self.epilogue.output_range()}")
        if isinstance(self.epilogue, numerics.Thresholds):
            self._columns()
        else:
            _ = self._plan

    @property
    def inputs(self) -> tuple[TensorStream]:
        return (self.input,)

    @property
    def output(self) -> TensorStream:
        shape = self.input
        return TensorStream(shape.height, shape.width, shape.channels, self.element, self.lanes)

    @property
    def outputs(self) -> tuple[TensorStream]:
        return (self.output,)

    @property
    def fold(self) -> int:
        """Output beats, and cycles, of one input beat."""
        return self.input.lanes // self.lanes

    @property
    def stages(self) -> int:
        """Registers between the parallel-to-serial register and the queue."""
        if isinstance(self.epilogue, numerics.Requantize):
            return MultiplyShift.stages(self._plan, self.lanes)
        shape = self.input
        return thresholds.stages(self.epilogue, shape.element, shape.channels, self.lanes)

    @property
    def queue_depth(self) -> int:
        """Places for all beats on their way, so that none waits for a place."""
        return self.stages + 2

    @property
    def cycles(self) -> int:
        return self.output.beats

    @property
    def latency(self) -> int:
        return self.stages + 2 + self.fold - 1

    @property
    def ram_bits(self) -> int:
        rom = ParameterRom.ram_bits(self._columns())
        return rom + OutputQueue.ram_bits(self.output.beat_bits, self.queue_depth)

    @property
    def multipliers(self) -> int:
        """Of 18 x 18 bits, signed; see `Plan.multipliers`."""
        if isinstance(self.epilogue, numerics.Thresholds):
            return 0
        return self._plan.multipliers * self.lanes

    @property
    def _plan(self) -> Plan:
        assert isinstance(self.epilogue, numerics.Requantize)
        return plan(self.epilogue, self.input.element, self.input.channels)

    def _columns(self) -> dict[str, tuple[int, ...]]:
        if isinstance(self.epilogue, numerics.Requantize):
            return self._plan.columns(self.lanes)
        shape = self.input
        return thresholds.columns(self.epilogue, shape.element, shape.channels, self.lanes)

    def compute(self, *frames: Array) -> tuple[Array, ...]:
        (frame,) = frames
        sums = frame.reshape(-1, self.input.channels).astype(np.int64)
        epilogue = self.epilogue
        if isinstance(epilogue, numerics.Thresholds):
            codes = numerics.threshold(
                sums,
                [np.asarray(limits) for limits in epilogue.thresholds],
                epilogue.low,
                epilogue.step,
                np.where,
            )
            codes = np.broadcast_to(codes, sums.shape)
        else:
            # Any Python integer may be a parameter, so no dtype limits the comparison.
            sums = np.minimum(np.maximum(sums, epilogue.acc_low), epilogue.acc_high)
            multiplier, bias = np.asarray(epilogue.multipliers), np.asarray(epilogue.biases)
            if epilogue.negative is not None:
                below = sums < np.asarray(epilogue.negative.pivots)
                multiplier = np.where(below, epilogue.negative.multipliers, multiplier)
                bias = np.where(below, epilogue.negative.biases, bias)
            codes = numerics.requantize(
                sums,
                multiplier,
                bias,
                np.asarray(epilogue.shifts),
                np.asarray(epilogue.lows),
                np.asarray(epilogue.highs),
                np.where,
            )
        return (codes.reshape(self.output.beats, self.lanes).astype(np.int64),)

    def create(self) -> wiring.Component:
        return RequantizeUnit(self)


class RequantizeUnit(wiring.Component):
    """Hardware of `Requantize`."""

    def __init__(self, block: Requantize) -> None:
        self._block = block
        super().__init__({"i0": In(block.input.signature), "o0": Out(block.output.signature)})

    def elaborate(self, platform: object) -> Module:
        m = Module()
        block = self._block
        m.submodules.serial = serial = Serializer(block.input, block.lanes)
        m.submodules.arithmetic = arithmetic = self._arithmetic()
        m.submodules.queue = queue = OutputQueue(block.output.layout, block.queue_depth)
        arrived = Signal(block.stages)
        m.d.sync += arrived.eq(Cat(serial.valid, arrived))
        wiring.connect(m, wiring.flipped(self.i0), serial.i)
        wiring.connect(m, queue.o, wiring.flipped(self.o0))
        m.d.comb += [
            serial.go.eq(queue.available),
            queue.reserve.eq(serial.valid),
            arithmetic.sums.eq(serial.sums),
            arithmetic.word.eq(serial.word),
            queue.push.eq(arrived[-1]),
            queue.item.eq(arithmetic.codes),
        ]
        return m

    def _arithmetic(self) -> MultiplyShift | CountThresholds:
        block = self._block
        element, lanes = block.input.element, block.lanes
        if isinstance(block.epilogue, numerics.Thresholds):
            channels = block.input.channels
            return CountThresholds(block.epilogue, element, block.element, channels, lanes)
        return MultiplyShift(block._plan, element, block.element, lanes)


class Serializer(wiring.Component):
    """Turns the parallel sums of a beat into groups of `lanes`, and counts the channels.

    Ports:
        i: the sums. The next beat is taken while the last group of the one before leaves.
        go: the groups may move on; from a register.
        valid: a group leaves in this cycle (only while `go`).
        sums, word: the group, and which of its pixel it is.

    Latency: one cycle.
    """

    def __init__(self, input: TensorStream, lanes: int) -> None:
        self._input = input
        self._lanes = lanes
        self._words = input.channels // lanes
        super().__init__(
            {
                "i": In(stream.Signature(input.layout)),
                "go": In(1),
                "valid": Out(1),
                "sums": Out(data.ArrayLayout(element_shape(input.element), lanes)),
                "word": Out(range(self._words)),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        fold = self._input.lanes // self._lanes
        m.submodules.part = part = BeatCounter(fold)
        m.submodules.group = group = BeatCounter(self._words)
        beat = Signal(self._input.beat_bits, reset_less=True)
        busy = Signal()
        m.d.comb += [
            self.valid.eq(busy & self.go),
            self.sums.eq(beat[: len(beat) // fold]),
            self.word.eq(group.value),
            part.step.eq(self.valid),
            group.step.eq(self.valid),
            self.i.ready.eq(~busy | (part.last & self.go)),
        ]
        with m.If(self.valid):
            m.d.sync += busy.eq(~part.last)
            if fold > 1:
                m.d.sync += beat.eq(beat >> (len(beat) // fold))
        with m.If(self.i.ready):
            m.d.sync += [beat.eq(self.i.payload), busy.eq(self.i.valid)]
        return m
