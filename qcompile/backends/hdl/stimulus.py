"""What a simulation sends and records, whichever simulator runs it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from amaranth.hdl import Value
from amaranth.lib import wiring

from qcompile.hw.streams import Stream, TensorStream
from qcompile.types import Array

WORD_BITS = 32


@dataclass(frozen=True, slots=True)
class Ports:
    """Payload bits of the ports `i{k}`, `o{k}` and `t{k}` of a component, and the
    number of ports `f{k}_level`."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    taps: tuple[int, ...]
    levels: int

    @classmethod
    def of(cls, component: wiring.Component) -> Ports:
        """The ports that a component has."""

        def numbered(pattern: str) -> list[str]:
            names = map(pattern.format, itertools.count())
            return list(itertools.takewhile(component.signature.members.__contains__, names))

        def bits(port: Any) -> int:
            return len(Value.cast(port))

        return cls(
            tuple(bits(getattr(component, name).payload) for name in numbered("i{}")),
            tuple(bits(getattr(component, name).payload) for name in numbered("o{}")),
            tuple(bits(getattr(component, name)) for name in numbered("t{}_payload")),
            len(numbered("f{}_level")),
        )


@dataclass(frozen=True, slots=True)
class Stalls:
    """How often the neighbours of the design are willing.

    Attributes:
        valid: chance in each cycle that an input offers its next beat.
        ready: chance in each cycle that an output takes a beat.
        seed: of the random decisions.
    """

    valid: float = 1.0
    ready: float = 1.0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Beats:
    """The beats of one port as words of 32 bits.

    Attributes:
        words: uint32 [beats, words of a beat], lowest word first; room for what is recorded.
        frame: beats of one frame.
    """

    words: Array
    frame: int


@dataclass(frozen=True, slots=True)
class Stimulus:
    """One simulation: all beats of all frames, and how long to wait.

    Attributes:
        inputs: what is sent.
        outputs, taps: how much is expected: their words are overwritten.
        frames: number of frames.
        patience: cycles without a beat anywhere that count as a deadlock.
        reset_at: cycle of a reset, after which everything is sent again; None for no reset.
    """

    inputs: tuple[Beats, ...]
    outputs: tuple[Beats, ...]
    taps: tuple[Beats, ...]
    frames: int
    stalls: Stalls
    patience: int
    reset_at: int | None = None


DRAIN_CYCLES = 200
"""A simulation goes on for so long after the last beat, to see whether more come."""


@dataclass(slots=True)
class Recording:
    """What happened; the beats are in the stimulus's words.

    Attributes:
        sent, received, tapped: beats that each input, output and tap transferred. More than
            expected means that the design sent too many.
        levels: beats in each FIFO at the end; `high_water`: their largest number.
        frame_ends: cycle in which the last beat of each complete frame left.
        cycles: cycles until the last beat.
        first_input, first_output: cycle in which the first beat was taken, and one was offered.
        deadlock: nothing moved any more.
        unstable: outputs that changed or withdrew a beat before it was taken.
    """

    sent: list[int]
    received: list[int]
    tapped: list[int]
    levels: list[int]
    high_water: list[int]
    frame_ends: list[int] = field(default_factory=list)
    cycles: int = 0
    first_input: int = 0
    first_output: int = 0
    deadlock: bool = False
    unstable: tuple[int, ...] = ()


def word_count(bits: int) -> int:
    """Words of 32 bits that hold one beat."""
    return -(-bits // WORD_BITS)


def to_words(stream: Stream, frame: Array) -> Array:
    """[beats, lanes] -> uint32 [beats, words], the payload of each beat, lowest word first."""
    bits = stream.element.bits
    if not isinstance(stream, TensorStream):
        return _words_of_payloads(stream.pack(frame), word_count(stream.layout.size))
    size = 8 * np.dtype(stream.element.storage).itemsize
    raw = np.ascontiguousarray(frame, dtype=f"<i{size // 8}").view(np.uint8)
    raw = raw.reshape(len(frame), stream.lanes, size // 8)
    lanes = np.unpackbits(raw, axis=2, bitorder="little")[:, :, :bits]
    beats = np.zeros((len(frame), word_count(stream.lanes * bits) * WORD_BITS), dtype=np.uint8)
    beats[:, : stream.lanes * bits] = lanes.reshape(len(frame), -1)
    return np.packbits(beats, axis=1, bitorder="little").view("<u4")


def from_words(stream: Stream, words: Array) -> Array:
    """uint32 [beats, words] -> int64 [beats, lanes]."""
    bits = stream.element.bits
    raw = np.ascontiguousarray(words, dtype="<u4").view(np.uint8)
    used = stream.lanes * bits
    lanes = np.unpackbits(raw, axis=1, bitorder="little", count=used)
    # numpy pads each element to whole bytes: 1, 2, 4 or 8 of them make an integer.
    size = next(size for size in (1, 2, 4, 8) if 8 * size >= bits)
    elements = np.zeros((len(words), stream.lanes, 8 * size), dtype=np.uint8)
    elements[:, :, :bits] = lanes.reshape(len(words), stream.lanes, bits)
    packed = np.packbits(elements, axis=2, bitorder="little").view(f"<u{size}")
    values = packed.reshape(len(words), stream.lanes).astype(np.int64)
    if stream.element.signed:
        values -= (values >> (bits - 1)) << bits
    return values


def _words_of_payloads(payloads: Sequence[int], words: int) -> Array:
    data = b"".join(payload.to_bytes(4 * words, "little") for payload in payloads)
    return np.frombuffer(data, dtype="<u4").reshape(len(payloads), words)


def payloads_of_words(words: Array) -> list[int]:
    """Payload of each beat as an integer."""
    return [int.from_bytes(beat.astype("<u4").tobytes(), "little") for beat in words]
