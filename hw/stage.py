"""One operator of the integer graph as hardware: a chain of blocks under one folding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from qcompile.graph import Op
from qcompile.hw.block import Block
from qcompile.hw.streams import Stream, TensorStream
from qcompile.types import Array


@dataclass(frozen=True, slots=True)
class Fold:
    """Parallelism of one operator: `pe` outputs at a time, each of `simd` products a cycle.

    Operators that treat channels one by one have pe = 1 and `simd` channels a cycle.
    """

    pe: int
    simd: int


@dataclass(frozen=True)
class Stage:
    """The blocks of one operator: feeders of each input, then a chain that takes them all.

    The first block of the chain takes the inputs, unless `entries` says that one joins later.

    Attributes:
        op: the operator; its output value is what the last block emits.
        values: computed inputs, in the order of the ports of the blocks that take them.
        blocks: the chain.
        fold: the parallelism it was built with.
        feeders: for each input the blocks it passes first (broadcasting); empty if none does.
        demand: for each input, int64 [output pixels]: how many pixels of the input must have
            arrived before (the last beat of) an output pixel can leave.
        entries: for each input which block of the chain takes it, behind what comes from the block
            before; empty if the first one takes all.
        attention: which block of the chain emits the weights of an attention, if one does.
    """

    op: Op
    values: tuple[str, ...]
    blocks: tuple[Block, ...]
    fold: Fold
    demand: tuple[Array, ...]
    feeders: tuple[tuple[Block, ...], ...] = ()
    entries: tuple[int, ...] = ()
    attention: int | None = None

    def entry(self, port: int) -> int:
        """Which block of the chain takes an input."""
        return self.entries[port] if self.entries else 0

    def entering(self, block: int) -> tuple[int, ...]:
        """The inputs that a block of the chain takes."""
        return tuple(port for port in range(len(self.values)) if self.entry(port) == block)

    @property
    def all_blocks(self) -> tuple[Block, ...]:
        return (*(block for chain in self.feeders for block in chain), *self.blocks)

    @property
    def inputs(self) -> tuple[TensorStream, ...]:
        """What arrives for each of `values`."""
        result: dict[int, Stream] = {}
        for index, block in enumerate(self.blocks):
            carried = 1 if index else 0
            result.update(zip(self.entering(index), block.inputs[carried:], strict=True))
        for port, chain in enumerate(self.feeders):
            if chain:
                result[port] = chain[0].inputs[0]
        ordered = (result[port] for port in range(len(self.values)))
        return tuple(s for s in ordered if isinstance(s, TensorStream))

    @property
    def output(self) -> TensorStream:
        stream = self.blocks[-1].outputs[0]
        assert isinstance(stream, TensorStream)
        return stream

    @property
    def cycles(self) -> int:
        """Clock cycles of a frame when nothing else limits: those of the slowest block."""
        return max(block.cycles for block in self.all_blocks)

    @property
    def latency(self) -> int:
        """Clock cycles from the last beat needed to the output beat."""
        return sum(block.latency for block in self.blocks)

    @property
    def ram_bits(self) -> int:
        return sum(block.ram_bits for block in self.all_blocks)

    @property
    def multipliers(self) -> int:
        return sum(block.multipliers for block in self.all_blocks)

    def compute(self, *tensors: Array) -> Array:
        """The operator in software, through the blocks: [1, C, H, W] in, [1, C, H, W] out."""
        pairs = zip(self.inputs, tensors, strict=True)
        frames: tuple[Array, ...] = tuple(stream.to_beats(tensor) for stream, tensor in pairs)
        for port, chain in enumerate(self.feeders):
            for block in chain:
                (fed,) = block.compute(frames[port])
                frames = (*frames[:port], fed, *frames[port + 1 :])
        carried: tuple[Array, ...] = ()
        for index, block in enumerate(self.blocks):
            entering = (frames[port] for port in self.entering(index))
            carried = block.compute(*carried, *entering)
        return self.output.from_beats(carried[0])


def raster_demand(rows_needed: Array, columns_needed: Array, width: int) -> Array:
    """`Stage.demand` of an operator that gathers along both axes.

    Args:
        rows_needed: [H_out] highest input row each output row reads, -1 for none.
        columns_needed: [W_out] highest input column each output column reads, -1 for none.
        width: input columns.
    """
    rows = np.asarray(rows_needed, dtype=np.int64)[:, None]
    columns = np.asarray(columns_needed, dtype=np.int64)[None, :]
    needed = np.where((rows < 0) | (columns < 0), 0, rows * width + columns + 1)
    return np.maximum.accumulate(needed.reshape(-1))


@dataclass(frozen=True)
class Flow:
    """All stages of a network, in topological order, before FIFOs are sized.

    Attributes:
        inputs: value name -> what arrives from outside.
        stages: each writes the value `stage.op.output` and reads `stage.values`.
        outputs: the values that leave.
    """

    inputs: Mapping[str, TensorStream]
    stages: tuple[Stage, ...]
    outputs: tuple[str, ...]

    def readers(self, value: str) -> tuple[tuple[Stage, int], ...]:
        """The stages that read a value, with the input port they read it at."""
        return tuple(
            (stage, port)
            for stage in self.stages
            for port, name in enumerate(stage.values)
            if name == value
        )
