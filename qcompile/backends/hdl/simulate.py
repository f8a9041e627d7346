"""Simulates hardware: frames in, frames, taps, cycles and FIFO levels out."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import overload

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


@dataclass(frozen=True, slots=True, eq=False)
class Frames(Sequence[Array]):
    """The frames that one port transferred, int64 [beats, lanes] each, unpacked when asked for.

    Attributes:
        stream: what flows there.
        words: the raw beats of all frames, uint32 [frames * beats, words of a beat]; zero where
            none came.
    """

    stream: Stream
    words: Array

    def __len__(self) -> int:
        return len(self.words) // self.stream.beats

    @overload
    def __getitem__(self, frame: int) -> Array: ...
    @overload
    def __getitem__(self, frame: slice) -> list[Array]: ...
    def __getitem__(self, frame: int | slice) -> Array | list[Array]:
        if isinstance(frame, slice):
            return [self[index] for index in range(len(self))[frame]]
        first = range(len(self))[frame] * self.stream.beats
        return from_words(self.stream, self.words[first : first + self.stream.beats])


@dataclass(frozen=True, slots=True)
class SimulationResult:
    """What the hardware did with some frames.

    Attributes:
        outputs: what each output port sent.
        taps: what was transferred at each tap, by name.
        frame_cycles: cycles between the ends of consecutive frames.
        latency: cycles from the first beat that was taken to the first that was offered.
        cycles: cycles from the start to the last beat.
        fifo_high_water: the most beats that each FIFO held, by node name.
        deadlock: None if all beats came.
        faults: breaches of the stream protocol, beats too many included.
    """

    outputs: tuple[Frames, ...]
    taps: Mapping[str, Frames]
    frame_cycles: tuple[int, ...]
    latency: int
    cycles: int
    fifo_high_water: Mapping[str, int]
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
        taps: Mapping[str, Stream] | None = None,
        fifo_depths: Mapping[str, int] | None = None,
        *,
        patience: int = 100_000,
        compiled: bool = True,
    ) -> None:
        """Builds the simulation.

        Args:
            component: has ports `i{k}`, `o{k}`, and perhaps taps and levels as `Accelerator` has.
            inputs, outputs: what flows through them.
            taps: name of each tap, and what flows there.
            fifo_depths: name and depth of each FIFO with a level port.
            patience: cycles without a beat anywhere that count as a deadlock.
            compiled: whether to use a C++ compiler if there is one.

        Raises:
            ToolError: the compiler, or Yosys, failed.
        """
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.taps = dict(taps or {})
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
            (tuple(self.taps.values()), ports.taps),
        ):
            expected = tuple(stream.layout.size for stream in streams)
            if widths != expected:
                raise ValueError(
                    f"ports with bits {widths} do not fit streams with bits {expected}"
                )
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
            {v: design.streams[c] for v, c in design.taps.items()} if debug else None,
            depths if debug else None,
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
            tuple(_room(stream, len(frames)) for stream in self.taps.values()),
            len(frames),
            stalls,
            int(self.patience + 100 / rarely),
            reset_at,
        )
        return self._result(stimulus, self._engine.run(stimulus))

    def _result(self, stimulus: Stimulus, found: Recording) -> SimulationResult:
        faults = [f"o{k} changed or withdrew a beat before it was taken" for k in found.unstable]
        names = [f"o{k}" for k in range(len(self.outputs))] + [f"'{name}'" for name in self.taps]
        counts = [*found.received, *found.tapped]
        expected = [len(beats.words) for beats in (*stimulus.outputs, *stimulus.taps)]
        for name, count, wanted in zip(names, counts, expected, strict=True):
            if count > wanted:
                faults.append(f"{name} has {count} beats instead of {wanted}")
        ends = found.frame_ends
        return SimulationResult(
            outputs=tuple(map(Frames, self.outputs, (beats.words for beats in stimulus.outputs))),
            taps={
                name: Frames(stream, beats.words)
                for (name, stream), beats in zip(self.taps.items(), stimulus.taps, strict=True)
            },
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
