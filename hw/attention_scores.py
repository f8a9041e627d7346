"""Scores of attention over windows: queries times keys with embeddings of their positions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from amaranth.hdl import Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.adder_tree import AdderTree
from qcompile.hw.block import Block
from qcompile.hw.delay import delayed
from qcompile.hw.fold_sums import FoldSums
from qcompile.hw.products import MULTIPLIER_18, MultiplierSize
from qcompile.hw.streams import TensorStream, WindowStream, element_shape, pack_lanes
from qcompile.hw.weight_rom import WeightRom
from qcompile.types import Array, IntType, Range


@dataclass(frozen=True, eq=False)
class AttentionScores(Block):
    """score = sum of q * (k * 2**key_bits + r) over the beats of a fold of the queries.

    Both windows send beat for beat what meets: the keys word after word of each position, the
    queries the same words again for every position. The scores of a pixel leave position after
    position, one head, or `lanes` heads, after the other.

    Throughput: one beat a cycle. Ports: `i0` queries, `i1` keys, `o0`.

    Attributes:
        queries: a fold is one score.
        keys: as many beats.
        height: output rows.
        width: output columns.
        embeddings: r, int64 [beats of a pixel, lanes].
        key_bits: of the fraction of a key.
        accumulator: type of the scores; holds every one that occurs.
        separate: whether each lane is a head of its own. Otherwise a beat is part of one score.
        size: the multiplier of the family.
    """

    queries: WindowStream
    keys: WindowStream
    height: int
    width: int
    embeddings: Array
    key_bits: int
    accumulator: IntType
    separate: bool = False
    size: MultiplierSize = MULTIPLIER_18

    def __post_init__(self) -> None:
        queries, keys = self.queries, self.keys
        if (queries.pixels, queries.pixel_beats, queries.lanes) != (
            keys.pixels,
            keys.pixel_beats,
            keys.lanes,
        ):
            raise ValueError("queries and keys differ in their beats")
        if queries.pixels != self.height * self.width:
            raise ValueError(f"{queries.pixels} windows do not make {self.height} x {self.width}")
        if self.embeddings.shape != (queries.pixel_beats, queries.lanes):
            raise ValueError(
                f"embeddings of shape {list(self.embeddings.shape)} for {queries.pixel_beats} "
                f"beats of {queries.lanes} lanes"
            )
        if self.separate and queries.fold_beats > 1:
            raise ValueError("heads of one lane have one channel")

    @property
    def inputs(self) -> tuple[WindowStream, WindowStream]:
        return self.queries, self.keys

    @property
    def output(self) -> TensorStream:
        lanes = self.queries.lanes if self.separate else 1
        channels = self.queries.folds * lanes
        return TensorStream(self.height, self.width, channels, self.accumulator, lanes)

    @property
    def outputs(self) -> tuple[TensorStream]:
        return (self.output,)

    def compute(self, *frames: Array) -> tuple[Array, ...]:
        queries, keys = frames
        shape = (self.queries.pixels, self.queries.pixel_beats, self.queries.lanes)
        products = ((keys << self.key_bits).reshape(shape) + self.embeddings).astype(np.int64)
        products *= queries.reshape(shape)
        folds = products.reshape(-1, self.queries.fold_beats, self.queries.lanes)
        return (folds.sum(axis=1 if self.separate else (1, 2)).reshape(-1, self.output.lanes),)

    def create(self) -> wiring.Component:
        return AttentionScoresUnit(self)

    @property
    def embedding(self) -> IntType:
        return IntType.holding(Range(int(self.embeddings.min()), int(self.embeddings.max())))

    @property
    def is_embedded(self) -> bool:
        return bool(self.embeddings.any())

    @property
    def key(self) -> Range:
        """Of keys with their embeddings."""
        plain = self.keys.element.range.scaled(1 << self.key_bits)
        return plain + self.embedding.range if self.is_embedded else plain

    @property
    def product(self) -> Range:
        return (self.queries.element.range * self.key).union(Range(0, 0))

    @property
    def term(self) -> Range:
        """Of what one beat adds to a score."""
        return self.product if self.separate else self.product.scaled(self.queries.lanes)

    @property
    def key_delay(self) -> int:
        """Cycles from accepting a beat to its keys."""
        return 1 + (WeightRom.rom_delay(len(self.embeddings), 1) if self.is_embedded else 0)

    @property
    def delay(self) -> int:
        """Cycles from accepting a beat to what it adds."""
        levels = 0 if self.separate else (self.queries.lanes - 1).bit_length()
        return self.key_delay + 1 + levels

    @property
    def cycles(self) -> int:
        return self.queries.beats

    @property
    def latency(self) -> int:
        return FoldSums.latency_behind(self.delay)

    @property
    def ram_bits(self) -> int:
        lanes, folds = self.output.lanes, self.queries.fold_beats
        bits = FoldSums.ram_bits(lanes, self.accumulator, self.delay, folds)
        if self.is_embedded:
            width = self.queries.lanes * self.embedding.bits
            bits += WeightRom.ram_bits(1, width, len(self.embeddings))
        return bits

    @property
    def multipliers(self) -> int:
        key = IntType.holding(self.key)
        return self.queries.lanes * self.size.tiles(self.queries.element, key)


class AttentionScoresUnit(wiring.Component):
    """Hardware of `AttentionScores`."""

    def __init__(self, block: AttentionScores) -> None:
        self._block = block
        super().__init__(
            {
                "i0": In(block.queries.signature),
                "i1": In(block.keys.signature),
                "o0": Out(block.output.signature),
            }
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        block = self._block
        lanes = block.queries.lanes
        m.submodules.sums = sums = FoldSums(
            block.output.lanes,
            block.term,
            block.accumulator,
            block.delay,
            block.queries.fold_beats,
        )
        accept = Signal()
        m.d.comb += [
            accept.eq(self.i0.valid & self.i1.valid & sums.ready),
            self.i0.ready.eq(self.i1.valid & sums.ready),
            self.i1.ready.eq(self.i0.valid & sums.ready),
            sums.accept.eq(accept),
            sums.last.eq(self.i0.payload.last),
        ]
        queries = delayed(m, self.i0.payload.data, block.key_delay, "queries")
        products = [
            self._register(m, key * _lane(queries, lane, block.queries.element), f"product{lane}")
            for lane, key in enumerate(self._keys(m, accept))
        ]
        if block.separate:
            m.d.comb += [sums.terms[lane].eq(product) for lane, product in enumerate(products)]
        else:
            m.submodules.tree = tree = AdderTree([block.product] * lanes)
            m.d.comb += [port.eq(term) for port, term in zip(tree.inputs, products, strict=True)]
            m.d.comb += sums.terms[0].eq(tree.o)
        wiring.connect(m, sums.o, wiring.flipped(self.o0))
        return m

    def _register(self, m: Module, value: Any, name: str) -> Signal:
        register = Signal(
            element_shape(IntType.holding(self._block.product)), name=name, reset_less=True
        )
        m.d.sync += register.eq(value)
        return register

    def _keys(self, m: Module, accept: Signal) -> list[Any]:
        """The keys of a beat, with their embeddings, `key_delay` cycles behind it."""
        block = self._block
        element, embedding = block.keys.element, block.embedding
        plain = delayed(m, self.i1.payload.data, block.key_delay - 1, "keys")
        word: Any = None
        if block.is_embedded:
            bits = embedding.bits
            words = pack_lanes(block.embeddings, bits)
            m.submodules.embeddings = rom = WeightRom([words], bits * block.keys.lanes, 1, 1)
            m.d.comb += rom.accept.eq(accept)
            word = rom.words[0]
        found = []
        for lane in range(block.keys.lanes):
            value = _lane(plain, lane, element) << block.key_bits
            if word is not None:
                value = value + _lane(word, lane, embedding)
            key = Signal(
                element_shape(IntType.holding(block.key)), name=f"key{lane}", reset_less=True
            )
            m.d.sync += key.eq(value)
            found.append(key)
        return found


def _lane(word: Any, lane: int, element: IntType) -> Any:
    """One of the numbers of a word."""
    value = Value.cast(word).word_select(lane, element.bits)
    return value.as_signed() if element.signed else value
