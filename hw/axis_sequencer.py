"""Steps through a fixed cyclic sequence of words, the next of which is always at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from amaranth.hdl import Module, Signal, signed, unsigned
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

STATES = 24  # sequences that need no more are logic, the others a memory
PERIOD = 8  # longest pattern that is looked for


@dataclass(frozen=True, slots=True)
class Segment:
    """`words` repeated `repeats` times."""

    words: tuple[int, ...]
    repeats: int


def segments(words: Sequence[int]) -> tuple[Segment, ...]:
    """A sequence as repeated patterns, those that cover most first come first served."""
    result = []
    position = 0
    while position < len(words):
        best = Segment((words[position],), 1)
        for period in range(1, PERIOD + 1):
            pattern = tuple(words[position : position + period])
            repeats = 1
            while (
                tuple(words[position + repeats * period : position + (repeats + 1) * period])
                == pattern
            ):
                repeats += 1
            saved = (repeats - 1) * period
            if saved > (best.repeats - 1) * len(best.words):
                best = Segment(pattern, repeats)
        result.append(best)
        position += len(best.words) * best.repeats
    return tuple(result)


class AxisSequencer(wiring.Component):
    """Offers `words` one by one, again and again.

    Sequences made of few repeated patterns, such as those of a convolution, are a small state
    machine with a repeat counter; the others are read from a memory, two words ahead.

    Ports:
        advance: go on to the next word (only while `ready`).
        current: the word, from a register.
        next: the word after it; for registers that follow `current` by another rule.
        ready: low for one cycle after reset when the sequence comes from a memory.
    """

    def __init__(self, words: Sequence[int], width: int) -> None:
        self._words = tuple(words)
        self._width = width
        self._segments = segments(self._words)
        super().__init__(
            {
                "advance": In(1),
                "current": Out(unsigned(width), init=self._words[0]),
                "next": Out(unsigned(width)),
                "ready": Out(1),
            }
        )

    @staticmethod
    def ram_bits(words: Sequence[int], width: int) -> int:
        """Memory bits that the sequence takes."""
        return len(words) * width if _states(segments(words)) > STATES else 0

    def elaborate(self, platform: object) -> Module:
        m = Module()
        with m.If(self.advance):
            m.d.sync += self.current.eq(self.next)
        if _states(self._segments) > STATES:
            self._memory(m)
        else:
            self._machine(m)
        return m

    def _memory(self, m: Module) -> None:
        depth = len(self._words)
        m.submodules.memory = memory = Memory(
            shape=unsigned(self._width), depth=depth, init=self._words
        )
        read = memory.read_port()
        address = Signal(range(depth), init=1 % depth)
        primed = Signal()
        m.d.sync += primed.eq(1)
        m.d.comb += [
            self.ready.eq(primed),
            read.addr.eq(address),
            read.en.eq(self.advance | ~primed),
            self.next.eq(read.data),
        ]
        with m.If(read.en):
            m.d.sync += address.eq(address + 1)
            with m.If(address == depth - 1):
                m.d.sync += address.eq(0)

    def _machine(self, m: Module) -> None:
        m.d.comb += self.ready.eq(1)
        words = [word for segment in self._segments for word in segment.words]
        # Where each segment ends, where it starts, and how many further rounds it takes.
        starts: dict[int, int] = {}
        rounds: dict[int, int] = {}
        end = -1
        for segment in self._segments:
            starts[end + len(segment.words)] = end + 1
            end += len(segment.words)
            rounds[end] = segment.repeats - 1
        ends = list(starts)
        following = {e: ends[(n + 1) % len(ends)] for n, e in enumerate(ends)}
        # The state of the next word: `left` further rounds, less one, so that its sign tells.
        state, left = 0, rounds[ends[0]] - 1
        if state in starts:
            state, left = _after(state, left, starts, rounds, following, len(words))
        else:
            state += 1
        ahead = Signal(range(len(words)), init=state)
        rounds_left = Signal(signed(1 + max(rounds.values()).bit_length()), init=left)
        with m.Switch(ahead):
            for index, word in enumerate(words):
                with m.Case(index) if index < len(words) - 1 else m.Default():
                    m.d.comb += self.next.eq(word)
        with m.If(self.advance), m.Switch(ahead):
            for index in range(len(words)):
                with m.Case(index) if index < len(words) - 1 else m.Default():
                    if index not in starts:
                        m.d.sync += ahead.eq(index + 1)
                        continue
                    with m.If(rounds_left[-1]):
                        m.d.sync += [
                            ahead.eq((index + 1) % len(words)),
                            rounds_left.eq(rounds[following[index]] - 1),
                        ]
                    with m.Else():
                        m.d.sync += [ahead.eq(starts[index]), rounds_left.eq(rounds_left - 1)]


def _states(found: Sequence[Segment]) -> int:
    return sum(len(segment.words) for segment in found)


def _after(
    state: int,
    left: int,
    starts: dict[int, int],
    rounds: dict[int, int],
    following: dict[int, int],
    states: int,
) -> tuple[int, int]:
    """State and counter after the last state of a segment."""
    if left < 0:
        return (state + 1) % states, rounds[following[state]] - 1
    return starts[state], left - 1
