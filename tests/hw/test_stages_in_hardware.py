"""Every operator as elaborated hardware, from its input ports to its output port.

What a stage computes in software is compared with the simulator in `test_stages`; here the hardware
of the same stages, in Amaranth's simulator, is compared with what they compute.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pytest

from qcompile.backends.hdl.flow import StreamGraph
from qcompile.backends.hdl.table import PLANNERS
from qcompile.hw.stage import Stage
from tests.hw.chain import Chain
from tests.hw.drive import check_block, expected_payloads, memory_bits, random_frame, simulate
from tests.hw.test_stages import ACCEPTED, as_taps
from tests.op_cases import OpCase

LARGEST = 700
"""Cycles of a frame: Amaranth's simulator runs one or two thousand a second."""
EACH = 3
"""Cases of each operator in an ordinary run."""
TOLERANCE = 2
"""Cycles that a frame may take more or less than its stage says, in the steady state."""


def stage_of(case: OpCase, largest: int) -> Stage | None:
    """The operator of a case under a random folding that is fast enough to simulate."""
    streams = StreamGraph(case.graph)
    (op,) = streams.ops
    rng = np.random.default_rng(zlib.crc32(case.name.encode()))
    folds = list(streams.folds()[op.name])
    stages = [streams.stage(op, folds[index]) for index in rng.permutation(len(folds))]
    return next((stage for stage in stages if stage.cycles <= largest), None)


def selected() -> Iterator[OpCase]:
    """The first few cases of each operator that are small, of different kinds of rescaling."""
    counts: dict[type, int] = defaultdict(int)
    for case in sorted(ACCEPTED, key=lambda case: zlib.crc32(case.name.encode())):
        (op,) = StreamGraph(case.graph).ops
        if counts[type(op)] < EACH and stage_of(case, LARGEST) is not None:
            counts[type(op)] += 1
            yield case


SELECTED = tuple(selected())


def name(case: OpCase) -> str:
    return case.name


@pytest.mark.parametrize("case", SELECTED, ids=name)
def test_the_hardware_of_an_operator(case: OpCase) -> None:
    stage = stage_of(case, LARGEST)
    assert stage is not None
    chain = Chain(stage)
    rng = np.random.default_rng(len(case.name))
    taps = {**case.feeds, **as_taps(case)}
    streams = chain.design.inputs
    first = [stream.to_beats(taps[value]) for value, stream in streams.items()]
    # Three frames tell the steady state; the values of the case are among them.
    frames = [[random_frame(s, rng) for s in chain.inputs], first, first]
    (expected,) = expected_payloads(chain, frames)
    sent = [np.concatenate(port) for port in zip(*frames, strict=True)]
    limit = 2 * stage.cycles + 1000
    free = simulate(chain, *sent, limit=limit)
    assert free.payloads[0] == expected
    assert abs(free.frame_cycles[-1] - stage.cycles) <= TOLERANCE
    two = [beats[: 2 * len(beats) // 3] for beats in sent]
    stalled = simulate(chain, *two, valid=0.6, ready=0.6, seed=len(case.name), limit=limit)
    assert stalled.payloads[0] == expected[:2]
    assert memory_bits(chain.create()) == chain.ram_bits == stage.ram_bits


def test_every_operator_is_among_the_selected_ones() -> None:
    assert {type(op) for case in SELECTED for op in StreamGraph(case.graph).ops} == {*PLANNERS}


@pytest.mark.slow
@pytest.mark.parametrize("case", ACCEPTED, ids=name)
def test_the_hardware_of_every_case(case: OpCase) -> None:
    stage = stage_of(case, 100_000)
    assert stage is not None
    rng = np.random.default_rng(1 + len(case.name))
    check_block(Chain(stage), rng, cycles_tolerance=TOLERANCE)
