from __future__ import annotations

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.sim import Simulator

from qcompile.hw import axis_sequencer, line_buffer
from qcompile.hw.axis import AxisPattern, copying, sliding
from qcompile.hw.axis_sequencer import AxisSequencer, segments
from qcompile.hw.streams import TensorStream
from qcompile.hw.window import Window
from qcompile.types import IntType
from tests.hw.drive import check_block, memory_bits, random_frame, simulate

U3, S3 = IntType(3, False), IntType(3, True)


def conv(size: int, kernel: int, stride: int = 1, dilation: int = 1, pads=(0, 0)) -> AxisPattern:
    positions = (size + sum(pads) - dilation * (kernel - 1) - 1) // stride + 1
    return sliding(size, kernel, stride, dilation, pads[0], max(positions, 1))


def random_axis(rng: np.random.Generator, size: int) -> AxisPattern:
    kind = int(rng.integers(0, 8))
    if kind < 4:
        kernel = int(rng.integers(1, 6))
        pads = tuple(int(pad) for pad in rng.integers(0, kernel, 2))
        return conv(size, kernel, int(rng.integers(1, 4)), int(rng.integers(1, 3)), pads)
    positions = int(rng.integers(1, 9))
    if kind == 4:
        return copying(size, [p // 2 for p in range(2 * size)])
    if kind == 5:
        return copying(size, [p * size // positions for p in range(positions)])
    if kind == 6:
        begin = int(rng.integers(-3, size))
        return copying(size, range(begin, begin + positions))
    base = sorted(int(b) for b in rng.integers(-2, size + 1, positions))
    phase = tuple(int(p) for p in rng.integers(0, 3, positions))
    return AxisPattern(size, int(rng.integers(1, 4)), int(rng.integers(1, 3)), tuple(base), phase)


def random_window(rng: np.random.Generator) -> Window:
    while True:
        height, width = (int(size) for size in rng.integers(1, 7, 2))
        lanes, groups = (int(n) for n in rng.integers(1, 4, 2))
        words = int(rng.integers(1, 3))
        element = IntType(int(rng.integers(1, 5)), bool(rng.integers(0, 2)))
        window = Window(
            TensorStream(height, width, lanes * groups * words, element, lanes),
            random_axis(rng, height),
            random_axis(rng, width),
            groups=groups,
            folds=int(rng.integers(1, 4)),
            pad_value=int(rng.integers(element.low, element.high + 1)),
            extra=int(rng.integers(0, 2)) * width,
        )
        if window.output.beats <= 350:
            return window


@pytest.mark.parametrize("seed", range(10))
def test_random_windows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    check_block(random_window(rng), rng, stalls=((0.4, 0.6),), cycles_tolerance=2)


def tent(size: int) -> AxisPattern:
    """Linear interpolation to twice the size: two taps, two phases."""
    base = tuple((p - 1) // 2 for p in range(2 * size))
    return AxisPattern(size, 2, 1, base, (0, 1) * size)


WINDOWS = {
    "conv, same": Window(
        TensorStream(4, 6, 4, U3, 2), conv(4, 3, pads=(1, 1)), conv(6, 3, pads=(1, 1)), folds=2
    ),
    "conv, stride 2": Window(
        TensorStream(6, 7, 2, S3, 1), conv(6, 3, 2, pads=(1, 0)), conv(7, 3, 2, pads=(0, 1))
    ),
    "depthwise": Window(
        TensorStream(4, 4, 6, S3, 2), conv(4, 3, pads=(1, 1)), conv(4, 3, pads=(1, 1)), groups=3
    ),
    "dilated, kernel larger than the input": Window(
        TensorStream(3, 3, 1, U3), conv(3, 3, 1, 2, (2, 2)), conv(3, 5, pads=(3, 1))
    ),
    "stride larger than the kernel": Window(
        TensorStream(7, 7, 1, U3), conv(7, 1, 3), conv(7, 2, 3)
    ),
    "fully connected": Window(
        TensorStream(1, 1, 8, U3, 2), copying(1, [0]), copying(1, [0]), folds=3
    ),
    "broadcast": Window(TensorStream(1, 1, 2, U3, 1), copying(1, [0] * 4), copying(1, [0] * 5)),
    "nearest, twice": Window(
        TensorStream(3, 4, 2, S3, 1),
        copying(3, [0, 0, 1, 1, 2, 2]),
        copying(4, [p // 2 for p in range(8)]),
    ),
    "nearest, 7 to 5": Window(
        TensorStream(7, 7, 1, U3),
        copying(7, [p * 7 // 5 for p in range(5)]),
        copying(7, [p * 7 // 5 for p in range(5)]),
    ),
    "linear, twice": Window(TensorStream(4, 3, 2, U3, 1), tent(4), tent(3), groups=2),
    "crop": Window(
        TensorStream(7, 6, 1, U3), copying(7, [2, 3]), copying(6, [1, 2, 3]), pad_value=5
    ),
    "pad": Window(
        TensorStream(3, 3, 2, S3, 1),
        copying(3, range(-2, 4)),
        copying(3, range(-1, 6)),
        pad_value=-3,
    ),
    "nothing but padding": Window(
        TensorStream(2, 3, 1, S3), copying(2, [-1]), copying(3, [3, 4]), pad_value=2
    ),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_named_windows(name: str) -> None:
    rng = np.random.default_rng(len(name))
    check_block(WINDOWS[name], rng, stalls=((0.5, 0.5),), cycles_tolerance=2)


def test_irregular_axes_come_from_memories(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(axis_sequencer, "STATES", 3)
    rng = np.random.default_rng(1)
    columns = copying(9, sorted(rng.integers(0, 9, 12).tolist()))
    window = Window(TensorStream(4, 9, 2, U3, 2), conv(4, 2, pads=(1, 0)), columns)
    layout = window.tables.column_layout
    assert AxisSequencer.ram_bits(window.tables.column_words, layout.size) == 12 * layout.size
    check_block(window, rng, stalls=((0.4, 0.9), (0.9, 0.4)), cycles_tolerance=2)


@pytest.mark.parametrize("lanes", [1, 2])
def test_two_banks(lanes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_buffer, "BANKED", 4)
    rng = np.random.default_rng(2)
    stream = TensorStream(4, 6, 2, U3, lanes)
    window = Window(stream, conv(4, 3, pads=(1, 1)), conv(6, 3, pads=(1, 1)), pad_value=5)
    assert window.depth & (window.depth - 1)
    check_block(window, rng, stalls=((0.9, 0.5),), cycles_tolerance=2)


def test_compute_is_the_plain_sliding_window() -> None:
    stream = TensorStream(5, 6, 4, U3, 2)
    window = Window(
        stream, conv(5, 3, 2, pads=(1, 1)), conv(6, 2, pads=(0, 1)), folds=2, pad_value=7
    )
    tensor = np.random.default_rng(0).integers(0, 8, (1, 4, 5, 6))
    (found,) = window.compute(stream.to_beats(tensor))
    padded = np.pad(tensor[0], ((0, 0), (1, 1), (0, 1)), constant_values=7)
    views = np.lib.stride_tricks.sliding_window_view(padded, (3, 2), axis=(1, 2))[:, ::2]
    taps = views.transpose(1, 2, 3, 4, 0)  # [y, x, ky, kx, channel]
    expected = np.stack([taps, taps], axis=2).reshape(-1, 2)
    np.testing.assert_array_equal(found, expected)


class Tight(Window):
    """A window whose buffer has this many pixels more than the walk needs at once."""

    spare = 0

    @property
    def slack(self) -> int:
        return self.spare


class TooTight(Tight):
    spare = -1


@pytest.mark.parametrize(
    "window",
    [
        (TensorStream(5, 6, 2, U3, 1), conv(5, 3, pads=(1, 1)), conv(6, 3, pads=(1, 1))),
        (TensorStream(6, 6, 1, U3), conv(6, 2, 2), conv(6, 2, 2)),
        (TensorStream(4, 6, 1, U3), conv(4, 3, 1, 2, (2, 2)), conv(6, 2, 3)),
        (TensorStream(3, 4, 1, U3), copying(3, [0, 0, 1, 1]), tent(4)),
    ],
)
def test_the_buffer_has_the_slack_and_nothing_else_to_spare(window) -> None:
    rng = np.random.default_rng(0)
    tight, too_tight, real = Tight(*window), TooTight(*window), Window(*window)
    frames = np.concatenate([random_frame(real.stream, rng) for _ in range(2)])
    simulate(tight, frames, valid=0.7, ready=0.7)
    with pytest.raises(AssertionError, match="nothing moves"):
        simulate(too_tight, frames)
    assert real.depth == tight.depth + real.slack * real.stream.groups
    assert real.slack * real.stream.groups <= 2 * real.stream.groups + 2


def test_each_pixel_leaves_a_latency_after_the_last_one_it_needs() -> None:
    window = Window(TensorStream(5, 5, 2, U3, 1), conv(5, 3, pads=(1, 1)), conv(5, 3, pads=(1, 1)))
    frame = random_frame(window.stream, np.random.default_rng(0))
    result = simulate(window, frame, valid=0.02, limit=2000)
    last = window.demand * window.stream.groups - 1
    accepted = np.array(result.accepted[0])[last]
    offered = np.array(result.offered[0])[:: window.output.pixel_beats]
    assert (offered - accepted).min() == window.latency
    assert np.all(np.diff(window.demand) >= 0)
    # Those that need a new pixel have waited for it.
    waiting = np.diff(window.demand, prepend=0) > 0
    assert np.median((offered - accepted)[waiting]) == window.latency


def test_a_frame_is_written_while_the_last_rows_of_the_one_before_are_read() -> None:
    window = WINDOWS["conv, same"]
    rng = np.random.default_rng(0)
    frames = np.concatenate([random_frame(window.stream, rng) for _ in range(2)])
    result = simulate(window, frames)
    written_early = np.array(result.accepted[0]) < result.sent[0][window.output.beats - 1]
    assert written_early.sum() >= window.stream.beats + window.stream.width
    # From the first beat to the last, no cycle is lost.
    assert result.sent[0][-1] - result.sent[0][0] == 2 * window.output.beats - 1
    assert window.cycles == window.output.beats


def test_cycles_with_a_stride_in_the_rows() -> None:
    stream = TensorStream(32, 32, 2, U3, 1)
    pool = Window(stream, conv(32, 2, 2), conv(32, 2, 2))
    assert pool.output.beats == stream.beats
    assert pool.cycles > 1.4 * stream.beats
    roomy = Window(stream, conv(32, 2, 2), conv(32, 2, 2), extra=32)
    assert roomy.cycles <= 1.02 * stream.beats
    frames = np.zeros((3 * stream.beats, 1), dtype=np.int64)
    assert abs(simulate(pool, frames).frame_cycles[-1] - pool.cycles) <= 2


def test_regular_patterns_take_no_memory() -> None:
    window = Window(TensorStream(64, 256, 16, U3, 8), conv(64, 3, 2, pads=(1, 1)), tent(256))
    queue = 6 * window.output.layout.size
    assert window.ram_bits == window.depth * window.stream.beat_bits + queue
    assert window.ram_bits == memory_bits(window.create())


def test_segments_are_the_sequence() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        words = rng.integers(0, 3, int(rng.integers(1, 40))).tolist()
        found = [word for part in segments(words) for word in part.words * part.repeats]
        assert found == words
    assert len(segments([1, *[2, 3] * 100, 4])) == 3


@pytest.mark.parametrize("states", [0, 1000])
@pytest.mark.parametrize(
    "words", [[1], [2, 2], [0, 1, 1, 1, 2], [1, 2, 1, 2, 1, 2, 3], [3, 1, 4, 1, 5, 2, 6]]
)
def test_sequencer(words: list[int], states: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(axis_sequencer, "STATES", states)
    m = Module()
    m.submodules.dut = dut = AxisSequencer(words, 3)
    rng = np.random.default_rng(0)

    async def bench(ctx) -> None:
        await ctx.tick()
        for position in range(3 * len(words) + 2):
            for _ in range(int(rng.integers(0, 3))):
                await ctx.tick()
            assert ctx.get(dut.ready)
            assert ctx.get(dut.current) == words[position % len(words)]
            assert ctx.get(dut.next) == words[(position + 1) % len(words)]
            ctx.set(dut.advance, 1)
            await ctx.tick()
            ctx.set(dut.advance, 0)

    simulator = Simulator(m)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": copying(4, [0])}, "height"),
        ({"groups": 3}, "3 groups"),
        ({"folds": 0}, "0 folds"),
        ({"pad_value": 8}, "padding with 8"),
        ({"extra": -1}, "extra"),
    ],
)
def test_impossible_windows(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Window(
            **{"stream": TensorStream(3, 3, 4, U3, 2), "rows": conv(3, 1), "columns": conv(3, 1)}
            | options
        )
