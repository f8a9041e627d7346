"""The queue behind pipelines that cannot stop: nothing lost, nothing invented, full speed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from amaranth.hdl import Module, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from qcompile.hw.block import Block
from qcompile.hw.output_queue import OutputQueue
from qcompile.hw.streams import TensorStream
from qcompile.types import Array, IntType
from tests.hw.drive import check_block, memory_bits, random_frame, simulate

ELEMENT = IntType(5, True)


@dataclass(frozen=True)
class Repeat(Block):
    """Each beat goes through a pipeline of `stages` registers and leaves `cost` times."""

    depth: int
    stages: int
    cost: int

    @property
    def inputs(self) -> tuple[TensorStream, ...]:
        return (TensorStream(3, 5, 4, ELEMENT, 2),)

    @property
    def outputs(self) -> tuple[TensorStream, ...]:
        return (TensorStream(3, 5 * self.cost, 4, ELEMENT, 2),)

    def compute(self, *frames: Array) -> tuple[Array, ...]:
        return (np.repeat(frames[0], self.cost, axis=0),)

    def create(self) -> RepeatComponent:
        return RepeatComponent(self)

    @property
    def cycles(self) -> int:
        return self.outputs[0].beats

    @property
    def latency(self) -> int:
        return self.stages + self.cost

    @property
    def ram_bits(self) -> int:
        return OutputQueue.ram_bits(10, self.depth)


class RepeatComponent(wiring.Component):
    def __init__(self, block: Repeat) -> None:
        self.block = block
        super().__init__(
            {"i0": In(block.inputs[0].signature), "o0": Out(block.outputs[0].signature)}
        )

    def elaborate(self, platform: object) -> Module:
        m = Module()
        block = self.block
        m.submodules.queue = queue = OutputQueue(
            block.outputs[0].layout, block.depth, cost=block.cost
        )
        begun = Signal()
        busy = Signal(range(block.cost + 1))
        m.d.comb += [
            self.i0.ready.eq(queue.available & (busy <= 1)),
            begun.eq(self.i0.valid & self.i0.ready),
            queue.reserve.eq(begun),
        ]
        kept = Signal(10, reset_less=True)
        with m.If(begun):
            m.d.sync += [busy.eq(block.cost), kept.eq(Value.cast(self.i0.payload))]
        with m.Elif(busy != 0):
            m.d.sync += busy.eq(busy - 1)
        valid, item = busy != 0, kept
        for stage in range(block.stages):
            next_valid = Signal(name=f"valid_{stage}")
            next_item = Signal(10, name=f"item_{stage}", reset_less=True)
            m.d.sync += [next_valid.eq(valid), next_item.eq(item)]
            valid, item = next_valid, next_item
        m.d.comb += [queue.push.eq(valid), Value.cast(queue.item).eq(item)]
        wiring.connect(m, wiring.flipped(self.o0), queue.o)
        return m


@pytest.mark.parametrize(
    ("depth", "stages", "cost"),
    [(1, 0, 1), (2, 3, 1), (7, 5, 1), (8, 1, 1), (3, 2, 3), (11, 4, 3), (4, 0, 4), (16, 6, 5)],
)
def test_every_result_leaves_once(depth: int, stages: int, cost: int) -> None:
    rng = np.random.default_rng(depth * 100 + stages * 10 + cost)
    # Shallow queues are slow, and right all the same.
    check_block(Repeat(depth, stages, cost), rng, cycles_tolerance=10_000)


@pytest.mark.parametrize(("stages", "cost"), [(0, 1), (3, 1), (5, 1), (2, 3)])
def test_a_queue_as_deep_as_the_pipeline_runs_at_full_speed(stages: int, cost: int) -> None:
    # One place for each cycle from the reservation to the cycle after the result is taken.
    block = Repeat(stages + 2 * cost + 1, stages, cost)
    frame = random_frame(block.inputs[0], np.random.default_rng(1))
    result = simulate(block, frame, frames=3)
    assert result.frame_cycles == (block.outputs[0].beats,) * 2


def test_a_result_is_offered_one_cycle_after_it_was_pushed() -> None:
    block = Repeat(8, 4, 1)
    frame = random_frame(block.inputs[0], np.random.default_rng(2))
    result = simulate(block, frame, valid=0.1)
    # One cycle into `kept`, four through the pipeline, one through the queue.
    waits = {out - into for into, out in zip(result.accepted[0], result.offered[0], strict=True)}
    assert waits == {6}


def test_a_waiting_consumer_stops_the_work_before_it_begins() -> None:
    block = Repeat(6, 3, 2)
    frame = random_frame(block.inputs[0], np.random.default_rng(3))
    with pytest.raises(AssertionError, match=r"i0 3/30 beats, NOT READY; o0 0/60 beats, valid"):
        simulate(block, frame, ready=0.0)


def test_memory_bits() -> None:
    layout = data.ArrayLayout(7, 3)
    for depth in (1, 2, 5, 16):
        assert memory_bits(OutputQueue(layout, depth)) == OutputQueue.ram_bits(21, depth)


def test_work_larger_than_the_queue_is_refused() -> None:
    with pytest.raises(ValueError, match="2 places are too few for work of 3 results"):
        OutputQueue(data.ArrayLayout(4, 1), 2, cost=3)
