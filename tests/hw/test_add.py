import itertools
from dataclasses import replace

import numpy as np
import pytest

from qcompile.hw.add import Add
from qcompile.hw.streams import TensorStream
from qcompile.types import IntType, Range
from tests.hw.drive import check_block, random_frame, simulate

SIGNED = TensorStream(2, 3, 6, IntType(5), 3)
UNSIGNED = replace(SIGNED, element=IntType(4, signed=False))
TALL = TensorStream(1, 2, 70, IntType(4), 2)


def adder(a: object, b: object, weights: tuple[int, int]) -> Add:
    """With the smallest accumulator."""
    bounds = Range(0, 0)
    for operand, weight in zip((a, b), weights, strict=True):
        if isinstance(operand, TensorStream):
            values = operand.element.range
        else:
            assert isinstance(operand, tuple)
            values = Range(min(operand), max(operand))
        bounds = bounds + values.scaled(weight)
    bounds = bounds.union(Range(0, 0))
    return Add(a, b, weights, IntType.holding(bounds))  # type: ignore[arg-type]


WEIGHTS = [
    (1, 1),
    (1, -1),
    (-1, -1),
    (-4, 3),
    (0, 1),
    (0, 0),
    (85, -19),
    (0b1010101011, 7),
    (683, 0),
]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_two_tensors(weights: tuple[int, int]) -> None:
    block = adder(SIGNED, UNSIGNED, weights)
    check_block(block, np.random.default_rng(abs(sum(weights))), cycles_tolerance=0)


@pytest.mark.parametrize("weights", [(3, 1), (-5, -7), (1, 0), (0b1010101011, 1)])
@pytest.mark.parametrize("first", [False, True], ids=["right", "left"])
def test_constants(weights: tuple[int, int], first: bool) -> None:
    rng = np.random.default_rng(1)
    for stream, count in ((SIGNED, 1), (SIGNED, 6), (TALL, 70), (replace(SIGNED, lanes=6), 6)):
        values = tuple(rng.integers(-40, 40, count).tolist())
        operands = (values, stream) if first else (stream, values)
        block = adder(*operands, weights)
        assert block.multipliers == (stream.lanes if max(weights) > 99 and not first else 0)
        check_block(block, rng, stalls=((0.5, 0.5),), cycles_tolerance=0, reset=count > 1)


def test_software_is_the_weighted_sum() -> None:
    rng = np.random.default_rng(2)
    a, b = random_frame(SIGNED, rng), random_frame(UNSIGNED, rng)
    (found,) = adder(SIGNED, UNSIGNED, (3, -2)).compute(a, b)
    np.testing.assert_array_equal(found, 3 * a - 2 * b)
    constants = (1, -2, 3, -4, 5, -6)
    block = adder(SIGNED, constants, (2, 7))
    (found,) = block.compute(a)
    maps = block.outputs[0].from_beats(found)
    bias = 7 * np.array(constants)[None, :, None, None]
    np.testing.assert_array_equal(maps, 2 * SIGNED.from_beats(a).astype(int) + bias)


def test_random_parameters() -> None:
    rng = np.random.default_rng(3)
    for _ in range(6):
        lanes = int(rng.choice([1, 2, 4]))
        streams = [
            TensorStream(1, 3, 4, IntType(int(rng.integers(1, 9)), bool(rng.integers(2))), lanes)
            for _ in range(2)
        ]
        first, second = (int(w) for w in rng.integers(-300, 300, 2))
        block = adder(streams[0], streams[1], (first, second))
        check_block(block, rng, stalls=((0.6, 0.6),), cycles_tolerance=0)


def test_inputs_stall_on_their_own() -> None:
    rng = np.random.default_rng(4)
    block = adder(SIGNED, UNSIGNED, (5, 3))
    frames = [random_frame(stream, rng) for stream in block.streams]
    for valid in ((1.0, 0.2), (0.3, 1.0)):
        result = simulate(block, *frames, frames=2, valid=valid, ready=0.5, seed=2)
        for output in result.outputs[0]:
            np.testing.assert_array_equal(output, block.compute(*frames)[0])


def test_latency_is_exact() -> None:
    for a, b, weights in itertools.product((SIGNED, TALL), (None, 5), ((1, 1), (7, -1), (683, 1))):
        other = a if b is None else tuple(range(a.channels))
        block = adder(a, other, weights)
        frames = [random_frame(stream, np.random.default_rng(0)) for stream in block.streams]
        result = simulate(block, *frames)
        assert result.offered[0][0] - result.accepted[0][0] == block.latency


def test_operands_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="shape or lanes"):
        Add(SIGNED, replace(SIGNED, lanes=2), (1, 1), IntType(8))
    with pytest.raises(ValueError, match="both"):
        Add((1,), (2,), (1, 1), IntType(8))
    with pytest.raises(ValueError, match="4 constants for 6"):
        Add(SIGNED, (1, 2, 3, 4), (1, 1), IntType(8))
