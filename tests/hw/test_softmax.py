"""The softmax block against its integer definition."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from qcompile.hw.softmax import Softmax
from qcompile.hw.streams import TensorStream
from qcompile.types import IntType
from tests.hw.drive import check_block, random_frame, simulate


def exponentials(step: float, count: int) -> tuple[int, ...]:
    return tuple(math.floor(2**15 * math.exp(-i * step) + 0.5) for i in range(count))


def block(lanes: int, groups: int, **changes: object) -> Softmax:
    """Sets of all elements of a pixel, to 8 bits, unless `changes` says otherwise."""
    stream = TensorStream(1, 3, lanes * groups, IntType(6), lanes)
    plain = Softmax(stream, groups, exponentials(0.3, 20), 255, IntType(8, False))
    return replace(plain, **changes)  # type: ignore[arg-type]


WEIGHTS = {"levels": 1 << 14, "element": IntType(15, False)}
BLOCKS = {
    "one element": block(1, 1),
    "one beat": block(4, 1),
    "one lane": block(1, 5),
    "three lanes": block(3, 2, levels=15, element=IntType(4, False)),
    "lanes apart": block(2, 6, set_beats=3, separate=True, shift=2, **WEIGHTS),
    "shared divider": block(1, 6, set_beats=3, interval=4, shift=3, **WEIGHTS),
    "one divider stage": block(1, 3, interval=17, shift=1, **WEIGHTS),
    "table in memory": block(2, 2, powers=exponentials(0.05, 100)),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_random_elements(name: str) -> None:
    """Every beat, the cycles to the cycle, and the bits of the memories."""
    rng = np.random.default_rng(len(name))
    resets = name in ("one lane", "lanes apart")
    check_block(BLOCKS[name], rng, stalls=((0.4, 0.6),), cycles_tolerance=0, reset=resets)


@pytest.mark.parametrize("name", BLOCKS)
def test_the_latency_is_exact(name: str) -> None:
    unit = BLOCKS[name]
    frame = random_frame(unit.input, np.random.default_rng(3))
    found = simulate(unit, frame)
    assert found.offered[0][0] - found.accepted[0][unit.set_beats - 1] == unit.latency


def test_compute_by_hand() -> None:
    """Two classes: 1 and e**-1 of their sum."""
    unit = Softmax(TensorStream(1, 1, 2, IntType(4)), 2, (1000, 368), 100, IntType(7, False))
    assert unit.compute(np.array([[3], [2]]))[0].tolist() == [[73], [27]]
    # Larger differences stand for the last entry.
    assert unit.compute(np.array([[-8], [7]]))[0].tolist() == [[27], [73]]


def test_differences_are_rounded_to_entries() -> None:
    unit = replace(block(1, 4), shift=2, powers=(8, 4, 2, 0), levels=80, element=IntType(7, False))
    # Differences 0, 1, 2, 13: entries 0, 0, 1 and the last one.
    assert unit.compute(np.array([[9], [8], [7], [-4]] * 4))[0][:4, 0].tolist() == [32, 32, 16, 0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"set_beats": 3}, "4 beats of a pixel are no sets of 3 beats"),
        ({"element": IntType(7, False)}, "does not hold 0..255"),
        ({"powers": (0, 1)}, "the first one is positive"),
        ({"interval": 0}, "interval is positive"),
    ],
)
def test_wrong_parameters(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        block(1, 4, **changes)
