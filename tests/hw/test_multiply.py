from dataclasses import replace

import numpy as np
import pytest

from qcompile.hw.multiply import Multiply
from qcompile.hw.streams import TensorStream
from qcompile.types import IntType, Range
from tests.hw.drive import check_block, random_frame, simulate

SIGNED = TensorStream(2, 3, 6, IntType(5), 3)
UNSIGNED = replace(SIGNED, element=IntType(4, signed=False))
TALL = TensorStream(1, 2, 70, IntType(4), 2)


def scaler(stream: TensorStream, constants: tuple[int, ...], first: bool = False) -> Multiply:
    bounds = stream.element.range * Range(min(constants), max(constants))
    accumulator = IntType.holding(bounds.union(Range(0, 0)))
    if first:
        return Multiply(constants, stream, accumulator)
    return Multiply(stream, constants, accumulator)


@pytest.mark.parametrize("other", [SIGNED, UNSIGNED])
def test_two_tensors(other: TensorStream) -> None:
    bounds = UNSIGNED.element.range * other.element.range
    block = Multiply(UNSIGNED, other, IntType.holding(bounds))
    assert block.multipliers == 3
    check_block(block, np.random.default_rng(0), cycles_tolerance=0)


@pytest.mark.parametrize("first", [False, True], ids=["right", "left"])
@pytest.mark.parametrize(
    ("stream", "constants", "multipliers"),
    [
        (SIGNED, (7,), 0),
        (SIGNED, (-1,), 0),
        (SIGNED, (0,), 0),
        (UNSIGNED, (0b1010101011,), 3),
        (SIGNED, (3, 3, 3, 3, 3, 4), 3),
        (UNSIGNED, (3, -7, 9, 3, -7, 9), 0),
        (replace(SIGNED, lanes=6), (0, 1, -1, 5, -77, 12), 0),
        (TALL, tuple(range(-35, 35)), 2),
    ],
)
def test_constants(
    stream: TensorStream, constants: tuple[int, ...], multipliers: int, first: bool
) -> None:
    block = scaler(stream, constants, first)
    assert block.multipliers == multipliers
    check_block(block, np.random.default_rng(1), stalls=((0.5, 0.5),), cycles_tolerance=0)


def test_software_is_the_product() -> None:
    rng = np.random.default_rng(2)
    a = random_frame(SIGNED, rng)
    constants = (1, -2, 3, -4, 5, -6)
    block = scaler(SIGNED, constants)
    maps = block.outputs[0].from_beats(block.compute(a)[0])
    factors = np.array(constants)[None, :, None, None]
    np.testing.assert_array_equal(maps, SIGNED.from_beats(a).astype(int) * factors)


def test_wide_operands_take_several_multipliers() -> None:
    wide = replace(SIGNED, element=IntType(19))
    assert Multiply(wide, SIGNED, IntType(40)).multipliers == 6
    assert Multiply(wide, wide, IntType(40)).multipliers == 12


def test_latency_is_exact() -> None:
    rng = np.random.default_rng(0)
    blocks = [
        Multiply(SIGNED, SIGNED, IntType(10)),
        *(scaler(SIGNED, factor) for factor in ((1,), (11,), (1, 2, 3, 4, 5, 6))),
        scaler(TALL, tuple(range(70))),
    ]
    for block in blocks:
        frames = [random_frame(stream, rng) for stream in block.streams]
        result = simulate(block, *frames)
        assert result.offered[0][0] - result.accepted[0][0] == block.latency


def test_inputs_stall_on_their_own() -> None:
    rng = np.random.default_rng(4)
    block = Multiply(SIGNED, UNSIGNED, IntType(10))
    frames = [random_frame(stream, rng) for stream in block.streams]
    for valid in ((1.0, 0.2), (0.3, 1.0)):
        result = simulate(block, *frames, frames=2, valid=valid, ready=0.5, seed=2)
        for output in result.outputs[0]:
            np.testing.assert_array_equal(output, block.compute(*frames)[0])


def test_operands_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="shape or lanes"):
        Multiply(SIGNED, replace(SIGNED, height=1), IntType(8))
