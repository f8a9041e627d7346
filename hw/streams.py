"""What flows between blocks: one frame of a tensor as beats of a few channels each."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from amaranth.hdl import Shape, signed, unsigned
from amaranth.lib import data, stream

from qcompile.types import Array, IntType


def element_shape(element: IntType) -> Shape:
    """The Amaranth shape of one integer."""
    return signed(element.bits) if element.signed else unsigned(element.bits)


class Stream(abc.ABC):
    """A finite frame of `beats` beats, `lanes` elements each; frames follow without a mark."""

    lanes: int
    element: IntType

    @property
    @abc.abstractmethod
    def beats(self) -> int:
        """Beats of one frame."""

    @property
    @abc.abstractmethod
    def layout(self) -> data.Layout:
        """Layout of the payload of one beat."""

    @property
    def signature(self) -> stream.Signature:
        return stream.Signature(self.layout)

    @abc.abstractmethod
    def pack(self, frame: Array) -> list[int]:
        """Payload of every beat as an unsigned integer; `frame` is [beats, lanes]."""

    def unpack(self, payloads: Sequence[int]) -> Array:
        """Inverse of `pack`: int64 [len(payloads), lanes]. Lane 0 has the lowest bits."""
        bits = self.element.bits
        mask = (1 << bits) - 1
        result = np.empty((len(payloads), self.lanes), dtype=np.int64)
        for beat, payload in enumerate(payloads):
            for lane in range(self.lanes):
                result[beat, lane] = (payload >> (lane * bits)) & mask
        if self.element.signed:
            result -= (result >> (bits - 1)) << bits
        return result


def pack_lanes(frame: Array, bits: int) -> list[int]:
    """The lanes of each beat side by side, lane 0 lowest, in two's complement."""
    mask = (1 << bits) - 1
    return [
        sum((int(value) & mask) << (lane * bits) for lane, value in enumerate(beat))
        for beat in frame.tolist()
    ]


@dataclass(frozen=True, slots=True)
class TensorStream(Stream):
    """A tensor [1, C, H, W] in raster order, channels innermost, `lanes` channels a beat.

    Beat (y * W + x) * (C / lanes) + g holds channels g * lanes .. (g + 1) * lanes - 1 of pixel
    (y, x), channel g * lanes in the lowest bits.
    """

    height: int
    width: int
    channels: int
    element: IntType
    lanes: int = 1

    def __post_init__(self) -> None:
        if self.lanes < 1 or self.channels % self.lanes:
            raise ValueError(f"{self.lanes} lanes do not divide {self.channels} channels")

    @property
    def pixels(self) -> int:
        return self.height * self.width

    @property
    def groups(self) -> int:
        """Beats of one pixel."""
        return self.channels // self.lanes

    @property
    def beats(self) -> int:
        return self.pixels * self.groups

    @property
    def beat_bits(self) -> int:
        return self.lanes * self.element.bits

    @property
    def layout(self) -> data.ArrayLayout:
        return data.ArrayLayout(element_shape(self.element), self.lanes)

    def pack(self, frame: Array) -> list[int]:
        return pack_lanes(frame, self.element.bits)

    def to_beats(self, tensor: Array) -> Array:
        """[1, C, H, W] (or [1, C] where H = W = 1) -> int64 [beats, lanes]."""
        maps = tensor.reshape(self.channels, self.height * self.width)
        return np.ascontiguousarray(maps.T).reshape(self.beats, self.lanes).astype(np.int64)

    def from_beats(self, frame: Array) -> Array:
        """[beats, lanes] -> [1, C, H, W] in the storage type of the element."""
        maps = frame.reshape(self.pixels, self.channels).T
        tensor = maps.reshape(1, self.channels, self.height, self.width)
        return np.ascontiguousarray(tensor).astype(self.element.storage)


@dataclass(frozen=True, slots=True)
class WindowStream(Stream):
    """What a sliding window emits: for each output pixel, all folds of its taps.

    `fold_beats` beats make a fold (one sum), `folds` folds a pixel. `last` marks the last beat of a
    fold. `row_phase` and `column_phase` say which set of weights the pixel takes; they are those of
    the pixel, as given by `row_phases` [height] and `column_phases` [width].
    """

    row_phases: tuple[int, ...]
    column_phases: tuple[int, ...]
    folds: int
    fold_beats: int
    element: IntType
    lanes: int = 1

    @property
    def pixels(self) -> int:
        return len(self.row_phases) * len(self.column_phases)

    @property
    def pixel_beats(self) -> int:
        return self.folds * self.fold_beats

    @property
    def beats(self) -> int:
        return self.pixels * self.pixel_beats

    @property
    def layout(self) -> data.StructLayout:
        return data.StructLayout(
            {
                "data": data.ArrayLayout(element_shape(self.element), self.lanes),
                "last": 1,
                "row_phase": unsigned(max(self.row_phases).bit_length()),
                "column_phase": unsigned(max(self.column_phases).bit_length()),
            }
        )

    def pack(self, frame: Array) -> list[int]:
        data_bits = self.lanes * self.element.bits
        row_bits = max(self.row_phases).bit_length()
        payloads = pack_lanes(frame, self.element.bits)
        for beat in range(len(payloads)):
            pixel, rest = divmod(beat % self.beats, self.pixel_beats)
            row, column = divmod(pixel, len(self.column_phases))
            last = int(rest % self.fold_beats == self.fold_beats - 1)
            flags = last | self.row_phases[row] << 1
            flags |= self.column_phases[column] << (1 + row_bits)
            payloads[beat] |= flags << data_bits
        return payloads
