"""The protocol of every accelerator block."""

from __future__ import annotations

import abc

from amaranth.lib import wiring

from qcompile.hw.streams import Stream
from qcompile.types import Array


class Block(abc.ABC):
    """The parameters of one block: what it computes in software, and the hardware that does so.

    Subclasses are frozen dataclasses. Construction checks the parameters (ValueError); it is cheap,
    so that the compiler can compare many foldings. A block handles frame after frame; all state
    that a frame leaves behind is back at its start when the last beat of the frame has left, and
    after reset.
    """

    @property
    @abc.abstractmethod
    def inputs(self) -> tuple[Stream, ...]:
        """What arrives at each input port, in order."""

    @property
    @abc.abstractmethod
    def outputs(self) -> tuple[Stream, ...]:
        """What leaves at each output port, in order."""

    @abc.abstractmethod
    def compute(self, *frames: Array) -> tuple[Array, ...]:
        """One frame in software: int64 [beats, lanes] of each input to those of each output."""

    @abc.abstractmethod
    def create(self) -> wiring.Component:
        """The hardware. Ports: `i0`, `i1`, ... and `o0`, `o1`, ..., streams of `inputs` and
        `outputs`; all in clock domain `sync`. `valid` never depends combinationally on the `ready`
        of its own stream, and `ready` of an input never on that input's `valid`."""

    @property
    @abc.abstractmethod
    def cycles(self) -> int:
        """Clock cycles from frame to frame when neither neighbour ever waits."""

    @property
    @abc.abstractmethod
    def latency(self) -> int:
        """Clock cycles from accepting the beat that completes what an output beat needs to
        offering that output beat, when the block is idle and the output is ready."""

    @property
    def ram_bits(self) -> int:
        """Bits of all memories: exactly sum(width * depth) over the elaborated design."""
        return 0

    @property
    def multipliers(self) -> int:
        """Hardware multipliers (18 x 18, or the family's) that the products are meant for."""
        return 0
