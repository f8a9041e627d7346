"""Simulates with Amaranth's own simulator: slow, but needs no compiler."""

from __future__ import annotations

import random
from typing import Any

from amaranth.hdl import Module, ResetInserter, Signal, Value
from amaranth.lib import wiring
from amaranth.sim import Simulator

from qcompile.backends.hdl.stimulus import (
    DRAIN_CYCLES,
    Beats,
    Ports,
    Recording,
    Stimulus,
    payloads_of_words,
)


class PythonSimulator:
    """One component, elaborated anew for each run."""

    def __init__(self, component: wiring.Component) -> None:
        self.ports = Ports.of(component)
        self._component = component

    def run(self, stimulus: Stimulus) -> Recording:
        """Simulates from power-up; overwrites the words of outputs and taps."""
        bench = _Bench(self._component, self.ports, stimulus)
        m = Module()
        # A component without registers has no clock: the counter gives it one.
        tick = Signal()
        m.d.sync += tick.eq(~tick)
        m.submodules.dut = ResetInserter(bench.reset)(self._component)
        simulator = Simulator(m)
        simulator.add_clock(1e-6)
        simulator.add_testbench(bench.run)
        simulator.run()
        return bench.recording


class _Bench:
    """The neighbours of the design, all ports in one process, and the recording."""

    def __init__(self, component: Any, ports: Ports, stimulus: Stimulus) -> None:
        self.reset = Signal()
        self.stimulus = stimulus
        self.recording = Recording(
            [0] * len(ports.inputs),
            [0] * len(ports.outputs),
            [0] * len(ports.taps),
            [0] * ports.levels,
            [0] * ports.levels,
        )
        self.inputs = [getattr(component, f"i{k}") for k in range(len(ports.inputs))]
        self.outputs = [getattr(component, f"o{k}") for k in range(len(ports.outputs))]
        self.payloads = [payloads_of_words(beats.words) for beats in stimulus.inputs]
        self.watched: list[Any] = [port.ready for port in self.inputs]
        for port in self.outputs:
            self.watched += [port.valid, Value.cast(port.payload)]
        for k in range(len(ports.taps)):
            self.watched += [getattr(component, f"t{k}_{part}") for part in ("fire", "payload")]
        self.watched += [getattr(component, f"f{k}_level") for k in range(ports.levels)]
        self._restart()

    def _restart(self) -> None:
        found = self.recording
        for counts in (found.sent, found.received, found.tapped, found.high_water):
            counts[:] = [0] * len(counts)
        found.frame_ends.clear()
        found.first_input = found.first_output = -1
        self.valid = [False] * len(self.inputs)
        self.waiting: list[int | None] = [None] * len(self.outputs)
        self.left = DRAIN_CYCLES
        self.quiet = 0
        self.finished = False

    async def run(self, ctx: Any) -> None:
        """Clock cycle after clock cycle until all beats have left or nothing moves any more."""
        rng = random.Random(self.stimulus.stalls.seed)
        cycle = -1
        while True:
            cycle += 1
            reset = cycle == self.stimulus.reset_at
            ctx.set(self.reset, reset)
            self._drive(ctx, rng)
            _, _, *values = await ctx.tick().sample(*self.watched)
            if reset:
                self._restart()
                continue
            moved = self._sample(iter(values), cycle)
            if moved:
                self.recording.cycles = cycle + 1
                self.finished = self.finished or self._complete()
            self.quiet = 0 if moved else self.quiet + 1
            if self.finished:
                if self.left == 0:
                    return
                self.left -= 1
            elif self.quiet > self.stimulus.patience:
                self.recording.deadlock = True
                return

    def _drive(self, ctx: Any, rng: random.Random) -> None:
        stalls = self.stimulus.stalls
        for k, port in enumerate(self.inputs):
            if self.valid[k]:
                continue
            done = self.recording.sent[k]
            self.valid[k] = done < len(self.payloads[k]) and rng.random() < stalls.valid
            data = Value.cast(port.payload)
            ctx.set(port.valid, self.valid[k])
            ctx.set(data, self.payloads[k][done] if self.valid[k] else rng.getrandbits(len(data)))
        self.ready = [rng.random() < stalls.ready for _ in self.outputs]
        for port, ready in zip(self.outputs, self.ready, strict=True):
            ctx.set(port.ready, ready)

    def _sample(self, values: Any, cycle: int) -> bool:
        """What was transferred in this cycle; `values` are those of `watched`."""
        found, stimulus = self.recording, self.stimulus
        moved = False
        for k in range(len(self.inputs)):
            if next(values) and self.valid[k]:
                if found.first_input < 0:
                    found.first_input = cycle
                found.sent[k] += 1
                self.valid[k] = False
                moved = True
        for k in range(len(self.outputs)):
            valid, payload = next(values), next(values)
            if self.waiting[k] not in (None, payload if valid else None):
                found.unstable = tuple({*found.unstable, k})
            if valid and found.first_output < 0:
                found.first_output = cycle
            self.waiting[k] = payload if valid and not self.ready[k] else None
            if valid and self.ready[k]:
                _record(stimulus.outputs[k], found.received, k, payload)
                moved = True
        for k in range(len(found.tapped)):
            fire, payload = next(values), next(values)
            if fire:
                _record(stimulus.taps[k], found.tapped, k, payload)
                moved = True
        for k in range(len(found.levels)):
            found.levels[k] = next(values)
            found.high_water[k] = max(found.high_water[k], found.levels[k])
        whole = min((c // b.frame for c, b in zip(found.received, stimulus.outputs, strict=True)))
        while len(found.frame_ends) < min(whole, stimulus.frames):
            found.frame_ends.append(cycle)
        return moved

    def _complete(self) -> bool:
        found, stimulus = self.recording, self.stimulus
        return all(
            count >= len(beats.words)
            for counts, group in (
                (found.sent, stimulus.inputs),
                (found.received, stimulus.outputs),
                (found.tapped, stimulus.taps),
            )
            for count, beats in zip(counts, group, strict=True)
        )


def _record(beats: Beats, counts: list[int], k: int, payload: int) -> None:
    if counts[k] < len(beats.words):
        for word in range(beats.words.shape[1]):
            beats.words[counts[k], word] = payload >> (32 * word) & 0xFFFFFFFF
    counts[k] += 1
