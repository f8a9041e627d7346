"""What the blocks share that combine two operands element by element."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import and_
from typing import Any

import numpy as np
from amaranth.hdl import Const, Module, Mux, Shape, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.block import Block
from qcompile.hw.delay import delayed
from qcompile.hw.output_queue import OutputQueue
from qcompile.hw.parameter_rom import ParameterRom
from qcompile.hw.streams import Stream, TensorStream
from qcompile.types import Array, IntType

Operand = TensorStream | tuple[int, ...]
"""A computed operand, or a constant: one value, or one for each channel."""

SHIFT_ADD_DIGITS = 4
"""A factor of up to this many signed binary digits is shifts and adders, not a multiplier."""

Term = tuple[Value, int, bool]
"""A value, shifted to the left, and whether it is subtracted."""


class Pointwise(Block):
    """Base of blocks that combine operands `a` and `b`, at least one of them computed.

    A pipeline that does not stop, of `stages` registers, fills an output queue.
    """

    a: Operand
    b: Operand
    accumulator: IntType

    def check(self) -> None:
        """Raises ValueError unless the operands fit each other."""
        streams = self.streams
        if not streams:
            raise ValueError("both operands are constant")
        if len({replace(stream, element=self.accumulator) for stream in streams}) > 1:
            raise ValueError("the operands differ in shape or lanes")
        channels = streams[0].channels
        for operand in (self.a, self.b):
            if isinstance(operand, tuple) and len(operand) not in (1, channels):
                raise ValueError(f"{len(operand)} constants for {channels} channels")

    @property
    def streams(self) -> tuple[TensorStream, ...]:
        """The computed operands."""
        return tuple(x for x in (self.a, self.b) if isinstance(x, TensorStream))

    @property
    def constants(self) -> tuple[int, ...]:
        """The constant operand, one value for each channel; empty if both are computed."""
        for operand in (self.a, self.b):
            if isinstance(operand, tuple):
                return operand * (self.streams[0].channels if len(operand) == 1 else 1)
        return ()

    @property
    def columns(self) -> dict[str, tuple[int, ...]]:
        """What the pipeline reads of the constant operand: for each lane a value per beat."""
        lanes = self.streams[0].lanes
        values = tuple(self.constant_factor * value for value in self.constants)
        return {f"lane{lane}": values[lane::lanes] for lane in range(lanes)} if values else {}

    @property
    def constant_factor(self) -> int:
        """What the constant operand is multiplied by before it becomes `columns`."""
        return 1

    @property
    def constants_at(self) -> int:
        """Stage at which the constants of a beat have been read; 0 if there are none."""
        if not self.columns:
            return 0
        return 2 if ParameterRom.ram_bits(self.columns) else 1

    def operands(self, frames: tuple[Array, ...]) -> tuple[Array, Array]:
        """Both operands as beats of one frame, int64 [beats, lanes]."""
        arrays = list(frames)
        stream = self.streams[0]
        constant = np.array(self.constants, dtype=np.int64)
        if len(constant):
            beats = np.tile(constant, stream.pixels).reshape(stream.beats, stream.lanes)
            arrays.insert(0 if isinstance(self.a, tuple) else 1, beats)
        return arrays[0].astype(np.int64), arrays[1].astype(np.int64)

    @property
    @abc.abstractmethod
    def stages(self) -> int:
        """Registers from the inputs to the output queue."""

    @property
    def inputs(self) -> tuple[Stream, ...]:
        return self.streams

    @property
    def outputs(self) -> tuple[TensorStream, ...]:
        return (replace(self.streams[0], element=self.accumulator),)

    @property
    def cycles(self) -> int:
        return self.streams[0].beats

    @property
    def latency(self) -> int:
        return self.stages + 1

    @property
    def queue_depth(self) -> int:
        """Places of the output queue: one for each cycle that a beat takes to give its back."""
        return self.stages + 2

    @property
    def ram_bits(self) -> int:
        rom = ParameterRom.ram_bits(self.columns) if self.columns else 0
        return rom + OutputQueue.ram_bits(self.outputs[0].beat_bits, self.queue_depth)


class PointwiseComponent(wiring.Component, abc.ABC):
    """Ports: `i0`, `i1` if both operands are computed, and `o0`."""

    def __init__(self, block: Pointwise) -> None:
        self.block = block
        ports = {f"i{k}": In(stream.signature) for k, stream in enumerate(block.streams)}
        super().__init__(ports | {"o0": Out(block.outputs[0].signature)})

    @abc.abstractmethod
    def results(self, m: Module, rom: ParameterRom | None) -> list[Value]:
        """The results of all lanes, `block.stages` cycles after the inputs `i0`, ..."""

    def elaborate(self, platform: object) -> Module:
        m = Module()
        block = self.block
        m.submodules.queue = queue = OutputQueue(block.outputs[0].layout, block.queue_depth)
        ports = [getattr(self, f"i{k}") for k in range(len(block.streams))]
        start = Signal()
        m.d.comb += start.eq(reduce(and_, (port.valid for port in ports), queue.available))
        for port in ports:
            others = (other.valid for other in ports if other is not port)
            m.d.comb += port.ready.eq(reduce(and_, others, queue.available))
        rom = None
        if block.columns:
            m.submodules.constants = rom = ParameterRom(block.columns)
            groups = block.streams[0].groups
            if groups > 1:
                word = Signal(range(groups))
                m.d.comb += rom.word.eq(word)
                with m.If(start):
                    m.d.sync += word.eq(Mux(word == groups - 1, 0, word + 1))
        results = self.results(m, rom)
        m.d.comb += [
            queue.reserve.eq(start),
            queue.push.eq(delayed(m, start, block.stages, "working", reset=True)),
            *(queue.item[lane].eq(result) for lane, result in enumerate(results)),
        ]
        wiring.connect(m, queue.o, wiring.flipped(self.o0))
        return m


def later(m: Module, value: Any, cycles: int, name: str) -> Value:
    """`value` as it was `cycles` clock cycles ago; a constant needs no registers."""
    item = Value.cast(value)
    return item if isinstance(item, Const) else Value.cast(delayed(m, item, cycles, name))


def signed_digits(factor: int) -> list[tuple[int, bool]]:
    """The non-adjacent form, the fewest signed binary digits: (exponent, whether negative)."""
    digits = []
    exponent = 0
    while factor:
        if factor & 1:
            digit = 2 - factor % 4
            digits.append((exponent, digit < 0))
            factor -= digit
        factor >>= 1
        exponent += 1
    return digits


def is_shift_add(factor: int) -> bool:
    """Whether a constant factor takes no multiplier."""
    return len(signed_digits(factor)) <= SHIFT_ADD_DIGITS


def sum_stages(negative: Sequence[bool]) -> int:
    """Clock cycles of `signed_sum` of terms of these signs."""
    return (len(negative) - 1).bit_length() + all(negative) if negative else 0


def signed_sum(m: Module, terms: Sequence[Term], bits: int, name: str) -> Value:
    """The sum of shifted terms modulo 2**bits: a tree with a register behind every adder."""
    level = [(value << shift, negative) for value, shift, negative in terms]
    depth = 0

    def register(value: Any, index: int) -> Value:
        shape = Shape.cast(value.shape())
        shape = Shape(min(shape.width, bits), shape.signed)
        result = Signal(shape, name=f"{name}_{depth}_{index}", reset_less=True)
        m.d.sync += result.eq(value)
        return result

    while len(level) > 1:
        depth += 1
        sums = []
        for index in range(0, len(level), 2):
            (value, negative), *rest = level[index : index + 2]
            for other, minus in rest:
                if negative == minus:
                    value = value + other
                else:
                    value = other - value if negative else value - other
                    negative = False
            sums.append((register(value, index // 2), negative))
        level = sums
    if not level:
        return Const(0)
    ((value, negative),) = level
    depth += 1
    return register(-value, 0) if negative else value
