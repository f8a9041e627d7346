from dataclasses import replace

import numpy as np
import pytest

from qcompile.hw.concat import Concat
from qcompile.hw.streams import TensorStream
from qcompile.types import IntType
from tests.hw.drive import check_block, random_frame, simulate


@pytest.mark.parametrize(
    ("channels", "lanes"),
    [((2, 3), 1), ((4, 4), 4), ((2, 6, 4), 2), ((6,), 3), ((1, 1, 1, 5), 1), ((8, 4), 4)],
)
def test_channels_of_each_pixel_follow_one_another(channels: tuple[int, ...], lanes: int) -> None:
    rng = np.random.default_rng(sum(channels))
    elements = [IntType(4, signed=False), IntType(3), IntType(5, narrow=True), IntType(1)]
    sources = tuple(
        TensorStream(2, 3, count, element, lanes)
        for count, element in zip(channels, elements, strict=False)
    )
    block = Concat(sources, IntType(6))
    frames = [random_frame(source, rng) for source in sources]
    tensors = [s.from_beats(frame) for s, frame in zip(sources, frames, strict=True)]
    (output,) = block.outputs
    expected = output.to_beats(np.concatenate(tensors, axis=1))
    np.testing.assert_array_equal(block.compute(*frames)[0], expected)
    check_block(block, rng, cycles_tolerance=0)


def test_inputs_stall_on_their_own() -> None:
    rng = np.random.default_rng(3)
    stream = TensorStream(3, 3, 4, IntType(4), 2)
    block = Concat((stream, replace(stream, channels=2), stream), IntType(4))
    frames = [random_frame(source, rng) for source in block.sources]
    for valid in ((1.0, 0.2, 0.6), (0.2, 1.0, 1.0), (0.5, 0.5, 0.1)):
        result = simulate(block, *frames, valid=valid, ready=0.7, seed=9)
        np.testing.assert_array_equal(result.outputs[0][0], block.compute(*frames)[0])


def test_latency() -> None:
    stream = TensorStream(2, 2, 2, IntType(4))
    block = Concat((stream, stream), IntType(5))
    frames = [random_frame(source, np.random.default_rng(0)) for source in block.sources]
    result = simulate(block, *frames)
    assert result.offered[0][0] - result.accepted[0][0] == block.latency


def test_what_cannot_be_joined() -> None:
    stream = TensorStream(2, 2, 4, IntType(4), 2)
    for other in (replace(stream, width=3), replace(stream, lanes=4)):
        with pytest.raises(ValueError, match=r"sizes|lanes"):
            Concat((stream, other), IntType(4))
    with pytest.raises(ValueError, match="does not hold"):
        Concat((stream, replace(stream, element=IntType(4, signed=False))), IntType(4))
    with pytest.raises(ValueError, match="nothing"):
        Concat((), IntType(4))
