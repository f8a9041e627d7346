"""Runs one block in Amaranth's simulator under random stalls, and checks it against `compute`."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from amaranth.back import rtlil
from amaranth.hdl import ClockDomain, Module, ResetInserter, Signal, Value
from amaranth.lib import wiring
from amaranth.sim import Simulator

from qcompile.hw.block import Block
from qcompile.hw.streams import Stream, TensorStream
from qcompile.types import Array

PATIENCE = 400
"""Cycles without a beat anywhere, beyond latency, after which a simulation gives up."""
PROBED_CYCLES = 40
"""Cycles in which the combinational rules of the ports are tried as well: it takes time."""
STALLS = ((0.5, 0.5), (0.3, 0.7), (0.7, 0.3))
"""(valid, ready) of `check_block`'s random runs."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a block did.

    Attributes:
        payloads: raw payload of every beat, [output port][frame][beat].
        outputs: the elements of the same, [output port][frame] int64 [beats, lanes].
        accepted: cycle in which each beat was taken in, [input port][beat].
        sent: cycle in which each beat was handed over, [output port][beat].
        offered: cycle in which each beat was first offered, [output port][beat].
        frame_cycles: cycles between the ends of consecutive frames (slowest port), frames - 1.
        cycles: cycles from the first beat that was offered to the block to the last output beat.
    """

    payloads: tuple[list[list[int]], ...]
    outputs: tuple[list[Array], ...]
    accepted: tuple[list[int], ...]
    sent: tuple[list[int], ...]
    offered: tuple[list[int], ...]
    frame_cycles: tuple[int, ...]
    cycles: int


class _Source:
    """Feeds one input port: valid stays up, with its payload, until the beat is taken."""

    def __init__(self, port: Any, payloads: list[int], valid: float) -> None:
        self.port = port
        self.data = Value.cast(port.payload)
        self.payloads = payloads
        self.chance = valid
        self.restart()

    def restart(self) -> None:
        self.accepted: list[int] = []
        self.valid = False

    @property
    def done(self) -> bool:
        return len(self.accepted) == len(self.payloads)

    def drive(self, ctx: Any, rng: random.Random) -> None:
        if not self.valid:
            self.valid = not self.done and rng.random() < self.chance
            # Garbage while invalid: nobody may look at it.
            garbage = rng.getrandbits(max(1, len(self.data)))
            here = self.payloads[len(self.accepted)] if self.valid else garbage
            ctx.set(self.data, here)
            ctx.set(self.port.valid, self.valid)

    def sample(self, ready: int, cycle: int) -> bool:
        if not (self.valid and ready):
            return False
        self.accepted.append(cycle)
        self.valid = False
        return True


class _Sink:
    """Empties one output port, and watches that offered beats stay."""

    def __init__(self, name: str, port: Any, ready: float) -> None:
        self.name = name
        self.port = port
        self.data = Value.cast(port.payload)
        self.chance = ready
        self.restart()

    def restart(self) -> None:
        self.payloads: list[int] = []
        self.sent: list[int] = []
        self.offered: list[int] = []
        self.ready = False
        self.waiting: int | None = None

    def drive(self, ctx: Any, rng: random.Random) -> None:
        ready = rng.random() < self.chance
        ctx.set(self.port.ready, ready)
        self.ready = ready

    def sample(self, valid: int, payload: int, cycle: int) -> bool:
        if self.waiting is not None:
            beat = len(self.payloads)
            assert valid, f"{self.name} withdrew beat {beat} in cycle {cycle} before it was taken"
            assert payload == self.waiting, (
                f"{self.name} changed beat {beat} in cycle {cycle} while it waited: "
                f"{self.waiting:#x} became {payload:#x}"
            )
        elif valid:
            self.offered.append(cycle)
        self.waiting = payload if valid and not self.ready else None
        if not (valid and self.ready):
            return False
        self.payloads.append(payload)
        self.sent.append(cycle)
        return True


def simulate(
    block: Block,
    *frames_per_input: Array,
    seed: int = 0,
    valid: float | Sequence[float] = 1.0,
    ready: float | Sequence[float] = 1.0,
    frames: int = 1,
    reset_at: int | None = None,
    limit: int | None = None,
) -> Result:
    """Sends frames back to back through a block and collects what leaves.

    Args:
        frames_per_input: for each input port the beats of one or more frames, [n * beats, lanes].
        seed: of all random decisions.
        valid: chance, in each cycle, that an input offers its next beat; one, or one per port.
        ready: chance that an output takes a beat; one, or one per port.
        frames: how often the frames are sent.
        reset_at: cycle in which the block is reset; all frames are then sent again from the start,
            and only what leaves after the reset counts.
        limit: cycles without any beat after which the run fails.

    Raises:
        AssertionError: a beat changed or vanished before it was taken, too many beats came, a port
            breaks the combinational rules, or nothing moves any more.
    """
    component = block.create()
    ins, outs = block.inputs, block.outputs
    sources = []
    count = 0
    for index, (stream, beats) in enumerate(zip(ins, frames_per_input, strict=True)):
        array = np.asarray(beats).reshape(-1, stream.lanes)
        assert len(array) > 0, f"i{index}: no frames"
        assert len(array) % stream.beats == 0, f"i{index}: not whole frames"
        here = len(array) // stream.beats * frames
        assert count in (0, here), f"i{index} has {here} frames, i0 has {count}"
        count = here
        chance = valid if isinstance(valid, (int, float)) else valid[index]
        sources.append(
            _Source(getattr(component, f"i{index}"), stream.pack(array) * frames, chance)
        )
    sinks = []
    for index in range(len(outs)):
        chance = ready if isinstance(ready, (int, float)) else ready[index]
        sinks.append(_Sink(f"o{index}", getattr(component, f"o{index}"), chance))
    wanted = [stream.beats * count for stream in outs]
    patience = limit if limit is not None else PATIENCE + 4 * block.latency
    rng = random.Random(seed)
    reset = Signal()
    m = Module()
    m.domains.sync = ClockDomain()  # blocks of wires alone do not ask for one
    m.submodules.dut = ResetInserter(reset)(component)
    watched = [source.port.ready for source in sources]
    for sink in sinks:
        watched += [sink.port.valid, sink.data]
    finished = False

    async def bench(ctx: Any) -> None:
        nonlocal finished
        cycle = quiet = 0
        while True:
            resetting = cycle == reset_at
            if resetting:
                ctx.set(reset, 1)
            for source in sources:
                source.drive(ctx, rng)
            if cycle < PROBED_CYCLES:
                _probe(ctx, sources, sinks)
            for sink in sinks:
                sink.drive(ctx, rng)
            _, _, *values = await ctx.tick().sample(*watched)
            if resetting:
                ctx.set(reset, 0)
                for port in (*sources, *sinks):
                    port.restart()
                for source in sources:
                    ctx.set(source.port.valid, 0)
                cycle, quiet = cycle + 1, 0
                continue
            moved = False
            for index, source in enumerate(sources):
                moved |= source.sample(values[index], cycle)
            for index, sink in enumerate(sinks):
                at = len(sources) + 2 * index
                moved |= sink.sample(values[at], values[at + 1], cycle)
                assert len(sink.payloads) <= wanted[index], (
                    f"{sink.name} sent more than the {wanted[index]} beats of {count} frames, "
                    f"in cycle {cycle}"
                )
            cycle += 1
            quiet = 0 if moved else quiet + 1
            complete = all(len(s.payloads) == n for s, n in zip(sinks, wanted, strict=True))
            if complete and all(source.done for source in sources):
                if quiet > block.latency + 16:
                    finished = True
                    return
            elif quiet > patience:
                raise AssertionError(_stuck(sources, sinks, wanted, values, cycle))

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert finished
    payloads = tuple(
        [sink.payloads[n * stream.beats : (n + 1) * stream.beats] for n in range(count)]
        for sink, stream in zip(sinks, outs, strict=True)
    )
    ends = [
        max(sink.sent[(n + 1) * stream.beats - 1] for sink, stream in zip(sinks, outs, strict=True))
        for n in range(count)
    ]
    first = min(source.accepted[0] for source in sources)
    return Result(
        payloads=payloads,
        outputs=tuple(
            [stream.unpack(frame) for frame in port]
            for port, stream in zip(payloads, outs, strict=True)
        ),
        accepted=tuple(source.accepted for source in sources),
        sent=tuple(sink.sent for sink in sinks),
        offered=tuple(sink.offered for sink in sinks),
        frame_cycles=tuple(later - earlier for earlier, later in itertools.pairwise(ends)),
        cycles=ends[-1] - first + 1,
    )


def _probe(ctx: Any, sources: list[_Source], sinks: list[_Sink]) -> None:
    """o.valid must not follow o.ready, nor i.ready i.valid, within a cycle."""
    for index, sink in enumerate(sinks):
        seen = []
        for ready in (0, 1):
            ctx.set(sink.port.ready, ready)
            seen.append((ctx.get(sink.port.valid), ctx.get(sink.data)))
        assert seen[0] == seen[1], f"o{index} depends combinationally on its own ready"
    for index, source in enumerate(sources):
        ready_seen = []
        for offered in (not source.valid, source.valid):
            ctx.set(source.port.valid, offered)
            ready_seen.append(ctx.get(source.port.ready))
        assert ready_seen[0] == ready_seen[1], f"i{index}.ready depends on its own valid"


def _stuck(
    sources: list[_Source],
    sinks: list[_Sink],
    wanted: list[int],
    values: list[int],
    cycle: int,
) -> str:
    words = []
    for index, source in enumerate(sources):
        if source.done:
            state = "all sent"
        elif source.chance == 0:
            state = "never offers"
        else:
            state = "ready" if values[index] else "NOT READY"
        words.append(f"i{index} {len(source.accepted)}/{len(source.payloads)} beats, {state}")
    for index, sink in enumerate(sinks):
        state = "valid" if values[len(sources) + 2 * index] else "NOT VALID"
        words.append(f"{sink.name} {len(sink.payloads)}/{wanted[index]} beats, {state}")
    return f"nothing moves any more in cycle {cycle}: {'; '.join(words)}"


def random_frame(stream: Stream, rng: np.random.Generator) -> Array:
    """[beats, lanes] over the whole range of the element, its ends more often than others."""
    low, high = stream.element.low, stream.element.high
    shape = (stream.beats, stream.lanes)
    values = rng.integers(low, high, shape, dtype=np.int64, endpoint=True)
    extreme = rng.random(shape)
    values[extreme < 0.1] = low
    values[extreme > 0.9] = high
    return values


def expected_payloads(block: Block, frames: Sequence[Sequence[Array]]) -> list[list[list[int]]]:
    """[output port][frame][beat]: what `compute` says, packed; `frames` is [frame][input]."""
    expected: list[list[list[int]]] = [[] for _ in block.outputs]
    for inputs in frames:
        results = block.compute(*inputs)
        assert len(results) == len(block.outputs)
        for port, (stream, result) in enumerate(zip(block.outputs, results, strict=True)):
            shape = (stream.beats, stream.lanes)
            assert result.shape == shape, f"compute: o{port} is {result.shape}, not {shape}"
            expected[port].append(stream.pack(result))
    return expected


def check_block(
    block: Block,
    rng: np.random.Generator,
    *,
    inputs: Sequence[Sequence[Array]] | None = None,
    stalls: Sequence[tuple[float, float]] = STALLS,
    cycles_tolerance: int | None = None,
    reset: bool = True,
) -> None:
    """The usual battery: every beat of the hardware against `compute`.

    Always ready, then under random stalls on both ends, two or more frames in a row, then with a
    reset in mid-frame; the cycles of a frame within `cycles_tolerance` (default: the latency) of
    `cycles`; `ram_bits` against the elaborated memories.

    Args:
        inputs: frames to send, [frame][input] of int64 [beats, lanes]; three random ones if None.
        stalls: (valid, ready) chances of the random runs.
        reset: whether the run with a reset takes place.
    """
    if inputs is None:
        inputs = [[random_frame(stream, rng) for stream in block.inputs] for _ in range(3)]
    expected = expected_payloads(block, inputs)

    def run(frames: int, **options: Any) -> Result:
        sent = [np.concatenate([frame[i] for frame in inputs[:frames]]) for i in range(ports)]
        result = simulate(block, *sent, seed=int(rng.integers(1 << 30)), **options)
        for port, stream in enumerate(block.outputs):
            for number in range(frames):
                found = result.payloads[port][number]
                _compare(stream, expected[port][number], found, f"o{port}, frame {number}")
        return result

    ports = len(block.inputs)
    steady = run(len(inputs))
    tolerance = block.latency if cycles_tolerance is None else cycles_tolerance
    for measured in steady.frame_cycles[-1:]:
        assert abs(measured - block.cycles) <= tolerance, (
            f"a frame takes {measured} cycles, {block.cycles} were promised"
        )
    for valid, ready in stalls:
        run(min(2, len(inputs)), valid=valid, ready=ready)
    if reset:
        middle = max(1, int(steady.cycles / len(inputs) * rng.uniform(0.2, 0.9)))
        run(1, valid=0.8, ready=0.8, reset_at=middle)
        run(1, reset_at=max(1, middle // 2))
    found_bits = memory_bits(block.create())
    assert found_bits == block.ram_bits, (
        f"the memories have {found_bits} bits, ram_bits says {block.ram_bits}"
    )


def _compare(stream: Stream, expected: list[int], found: list[int], where: str) -> None:
    if expected == found:
        return
    wrong = [
        beat for beat, pair in enumerate(zip(expected, found, strict=True)) if len({*pair}) > 1
    ]
    beat = wrong[0]
    wanted, got = (stream.unpack([p[beat]])[0].tolist() for p in (expected, found))
    shift = stream.lanes * stream.element.bits
    flags = (
        ""
        if isinstance(stream, TensorStream)
        else (f" (flags {found[beat] >> shift:#b}, expected {expected[beat] >> shift:#b})")
    )
    raise AssertionError(
        f"{where}: beat {beat} of {len(expected)} is {got}, expected {wanted}{flags}; "
        f"{len(wrong)} beats differ"
    )


def memory_bits(component: wiring.Component) -> int:
    """sum(width * depth) of all memories of the elaborated design."""
    # Amaranth emits one RTLIL module for each instance, so nothing is counted short.
    memories = re.findall(r"^\s*memory width (\d+) size (\d+)", rtlil.convert(component), re.M)
    return sum(int(width) * int(depth) for width, depth in memories)
