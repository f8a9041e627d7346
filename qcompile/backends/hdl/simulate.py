"""Simulates hardware: frames in, frames, taps, cycles and FIFO levels out."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from amaranth.lib import wiring

from qcompile.backends.hdl.cxxrtl import CxxSimulator, find_compiler
from qcompile.backends.hdl.python_sim import PythonSimulator
from qcompile.backends.hdl.stimulus import (
    Beats,
    Recording,
    Stalls,
    Stimulus,
    from_words,
    to_words,
    word_count,
)
from qcompile.hw.accelerator import Accelerator, fifos
from qcompile.hw.block import Block
from qcompile.hw.design import Design
from qcompile.hw.fifo import Fifo
from qcompile.hw.streams import Stream
from qcompile.types import Array

LOGGER = logging.getLogger(__name__)
NO_STALLS = Stalls()


@dataclass(frozen=True, slots=True)
class Deadlock:
    """Nothing moves any more although beats are missing.

    Attributes:
        cycle: in which the last beat moved.
        full: FIFOs that are full, by node name.
        waiting: how far each port has come.
    """

    cycle: int
    full: tuple[str, ...]
    waiting: str

    def __str__(self) -> str:
        full = ", ".join(self.full) if self.full else "none"
        return f"nothing moves after cycle {self.cycle}: {self.waiting}; full FIFOs: {full}"


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """What the hardware did with some frames.

    Attributes:
        outputs: for each output port int64 [frames, beats, lanes]; after a deadlock, zero where
            nothing came.
        taps: the same for each tap.
        payloads: for each output port the raw words, uint32 [frames * beats, words of a beat].
        frame_cycles: cycles between the ends of consecutive frames.
        latency: cycles from the first beat that was taken to the first that was offered.
        cycles: cycles from the start to the last beat.
        fifo_high_water: the most beats that each FIFO held, by node name.
        deadlock: None if all beats came.
        faults: breaches of the stream protocol, beats too many included.
    """

    outputs: tuple[Array, ...]
    taps: tuple[Array, ...]
    payloads: tuple[Array, ...]
    frame_cycles: tuple[int, ...]
    latency: int
    cycles: int
    fifo_high_water: dict[str, int]
    deadlock: Deadlock | None
    faults: tuple[str, ...]


class Simulation:
    """A component that can be simulated any number of times, each time from power-up.

    With a C++ compiler the component becomes a library (CXXRTL), which is built once and kept in
    the user's cache folder; without one, or with `compiled` False, Amaranth's simulator runs it,
    about a thousand times slower.
    """

    def __init__(
        self,
        component: wiring.Component,
        inputs: Sequence[Stream],
        outputs: Sequence[Stream],
        taps: Sequence[Stream] = (),
        fifo_depths: dict[str, int] | None = None,
        *,
        patience: int = 100_000,
        compiled: bool = True,
    ) -> None:
        """Builds the simulation.

        Args:
            component: has ports `i{k}`, `o{k}`, and perhaps taps and levels as `Accelerator` has.
            inputs, outputs, taps: what flows through them.
            fifo_depths: name and depth of each FIFO with a level port.
            patience: cycles without a beat anywhere that count as a deadlock.
            compiled: whether to use a C++ compiler if there is one.

        Raises:
            ToolError: the compiler, or Yosys, failed.
        """
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.taps = tuple(taps)
        self.fifo_depths = dict(fifo_depths or {})
        self.patience = patience
        compiler = find_compiler() if compiled else None
        if compiled and compiler is None:
            LOGGER.warning(
                "no C++ compiler was found: the hardware is simulated in Python, which is slow; "
                "install g++, or set CXX"
            )
        self.compiled = compiler is not None
        self._engine = CxxSimulator(component, compiler) if compiler else PythonSimulator(component)
        ports = self._engine.ports
        for streams, widths in (
            (self.inputs, ports.inputs),
            (self.outputs, ports.outputs),
            (self.taps, ports.taps),
        ):
            expected = tuple(stream.layout.size for stream in streams)
            if widths != expected:
                raise ValueError(f"ports of {widths} bits do not fit streams of {expected} bits")
        if ports.levels != len(self.fifo_depths):
            raise ValueError(f"{ports.levels} levels for {len(self.fifo_depths)} FIFOs")

    @classmethod
    def of_block(cls, block: Block, *, compiled: bool = True) -> Simulation:
        """Simulates one block."""
        patience = 2 * block.cycles + 4 * block.latency + 1000
        return cls(
            block.create(), block.inputs, block.outputs, patience=patience, compiled=compiled
        )

    @classmethod
    def of_design(cls, design: Design, *, debug: bool = True, compiled: bool = True) -> Simulation:
        """Simulates a whole accelerator; with `debug` it has taps (those of `design.taps`)."""
        component = Accelerator(design, debug=debug)
        depths = {n.name: n.block.depth for n in fifos(design) if isinstance(n.block, Fifo)}
        slowest = max((node.block.cycles for node in design.nodes), default=0)
        latency = sum(node.block.latency for node in design.nodes)
        return cls(
            component,
            tuple(design.inputs.values()),
            tuple(design.outputs.values()),
            [design.streams[channel] for channel in design.taps.values()] if debug else (),
            depths if debug else {},
            patience=2 * slowest + 4 * latency + 1000,
            compiled=compiled,
        )

    def run(
        self,
        frames: Sequence[Sequence[Array]],
        stalls: Stalls = NO_STALLS,
        reset_at: int | None = None,
    ) -> SimulationResult:
        """Sends frames back to back.

        Args:
            frames: [frame][input] of int64 [beats, lanes].
            stalls: how willing the neighbours are.
            reset_at: cycle of a reset, after which all frames are sent again and only then count.
        """
        sent = []
        for port, stream in enumerate(self.inputs):
            beats = np.concatenate([frame[port] for frame in frames])
            if beats.shape != (len(frames) * stream.beats, stream.lanes):
                raise ValueError(f"i{port}: {beats.shape} is not {len(frames)} frames of {stream}")
            sent.append(Beats(np.ascontiguousarray(to_words(stream, beats)), stream.beats))
        rarely = min(stalls.valid, stalls.ready)
        if not 0 < rarely <= 1:
            raise ValueError(f"chances of {stalls}: above 0, at most 1")
        stimulus = Stimulus(
            tuple(sent),
            tuple(_room(stream, len(frames)) for stream in self.outputs),
            tuple(_room(stream, len(frames)) for stream in self.taps),
            len(frames),
            stalls,
            int(self.patience + 100 / rarely),
            reset_at,
        )
        return self._result(stimulus, self._engine.run(stimulus))

    def _result(self, stimulus: Stimulus, found: Recording) -> SimulationResult:
        def tensors(streams: Sequence[Stream], group: Sequence[Beats]) -> tuple[Array, ...]:
            return tuple(
                from_words(stream, beats.words).reshape(stimulus.frames, stream.beats, stream.lanes)
                for stream, beats in zip(streams, group, strict=True)
            )

        faults = [f"o{k} changed or withdrew a beat before it was taken" for k in found.unstable]
        for letter, counts, group in (
            ("o", found.received, stimulus.outputs),
            ("t", found.tapped, stimulus.taps),
        ):
            for k, (count, beats) in enumerate(zip(counts, group, strict=True)):
                if count > len(beats.words):
                    faults.append(f"{letter}{k} sent {count} beats instead of {len(beats.words)}")
        ends = found.frame_ends
        return SimulationResult(
            outputs=tensors(self.outputs, stimulus.outputs),
            taps=tensors(self.taps, stimulus.taps),
            payloads=tuple(beats.words for beats in stimulus.outputs),
            frame_cycles=tuple(b - a for a, b in itertools.pairwise(ends)),
            latency=found.first_output - found.first_input,
            cycles=found.cycles,
            fifo_high_water=dict(zip(self.fifo_depths, found.high_water, strict=True)),
            deadlock=self._deadlock(stimulus, found) if found.deadlock else None,
            faults=tuple(faults),
        )

    def _deadlock(self, stimulus: Stimulus, found: Recording) -> Deadlock:
        levels = zip(self.fifo_depths.items(), found.levels, strict=True)
        full = tuple(f"{name} ({depth} beats)" for (name, depth), level in levels if level >= depth)
        ports = (
            *(("i", k, found.sent[k], b) for k, b in enumerate(stimulus.inputs)),
            *(("o", k, found.received[k], b) for k, b in enumerate(stimulus.outputs)),
        )
        waiting = ", ".join(
            f"{letter}{k} at beat {n} of {len(b.words)}" for letter, k, n, b in ports
        )
        return Deadlock(found.cycles, full, waiting)


def _room(stream: Stream, frames: int) -> Beats:
    words = np.zeros((frames * stream.beats, word_count(stream.layout.size)), dtype=np.uint32)
    return Beats(words, stream.beats)
