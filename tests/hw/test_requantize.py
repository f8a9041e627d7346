"""The epilogue in hardware against the simulator's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from qcompile import numerics
from qcompile.hw.requantize import Requantize
from qcompile.hw.requantize_plan import Plan, plan
from qcompile.hw.streams import TensorStream
from qcompile.sim.epilogue import apply_epilogue
from qcompile.types import Array, IntType
from tests.hw.drive import check_block, random_frame, simulate


def _value(epilogue: numerics.Requantize, channel: int, acc: int) -> int:
    def at(values: Sequence[int]) -> int:
        return values[channel if len(values) > 1 else 0]

    multiplier, bias = at(epilogue.multipliers), at(epilogue.biases)
    negative = epilogue.negative
    if negative is not None and acc < at(negative.pivots):
        multiplier, bias = at(negative.multipliers), at(negative.biases)
    y = (acc * multiplier + bias) >> at(epilogue.shifts)
    return min(max(y, at(epilogue.lows)), at(epilogue.highs))


def _with_clamp(epilogue: numerics.Requantize, acc: IntType, channels: int) -> numerics.Requantize:
    """The tightest clamp of each channel's sum that changes nothing for sums of type `acc`."""
    lows, highs = [], []
    for channel in range(channels):
        values = [_value(epilogue, channel, a) for a in range(acc.low, acc.high + 1)]
        low = next((k for k, y in enumerate(values) if y != values[0]), len(values)) - 1
        high = next((k for k, y in enumerate(values[::-1]) if y != values[-1]), len(values)) - 1
        lows.append(acc.low + low)
        highs.append(max(acc.high - high, acc.low + low))
    return dataclasses.replace(epilogue, acc_low=tuple(lows), acc_high=tuple(highs))


def _random_epilogue(
    rng: np.random.Generator,
    acc: IntType,
    element: IntType,
    channels: int,
    kind: str,
    shifts: tuple[int, int] = (6, 11),
) -> numerics.Requantize:
    def vector(low: int, high: int) -> tuple[int, ...]:
        count = channels if rng.random() < 0.7 else 1
        return tuple(int(v) for v in rng.integers(low, high, count, endpoint=True))

    def factors() -> tuple[int, ...]:
        if kind == "powers":
            return tuple(
                s << e if e else 0 for s, e in zip(vector(-1, 1), vector(0, 9), strict=False)
            )
        return vector(-1000, 1000)

    negative = None
    if rng.random() < 0.5:
        pivots = (0,) if rng.random() < 0.5 else vector(acc.low - 3, acc.high + 3)
        negative = numerics.NegativeBranch(pivots, factors(), vector(-9000, 9000))
    shift = (int(rng.integers(*shifts)),) if kind == "common" else vector(*shifts)
    return numerics.Requantize(
        factors(),
        vector(-9000, 9000),
        shift,
        vector(element.low, 0),
        vector(max(1, element.high // 2), element.high),
        (acc.low,),
        (acc.high,),
        negative,
    )


def _specification(block: Requantize, frame: Array) -> Array:
    """What the simulator computes: [beats, lanes]."""
    tensor = block.input.from_beats(frame).astype(np.int64)
    codes = apply_epilogue(block.epilogue, tensor, axis=1, dtype=block.element.storage)
    return block.output.to_beats(codes)


def _every_sum(acc: IntType, channels: int) -> Array:
    """Each channel meets every sum: [pixels, channels]."""
    return np.repeat(np.arange(acc.low, acc.high + 1)[:, None], channels, axis=1)


@pytest.mark.parametrize("kind", ["common", "separate", "powers"])
@pytest.mark.parametrize("seed", range(3))
def test_every_sum_of_narrow_accumulators(kind: str, seed: int) -> None:
    rng = np.random.default_rng([seed, ord(kind[0])])
    acc = IntType(int(rng.integers(9, 11)), bool(rng.random() < 0.8))
    element = IntType(int(rng.integers(2, 9)), bool(rng.random() < 0.5))
    channels = 12
    found = _with_clamp(_random_epilogue(rng, acc, element, channels, kind), acc, channels)
    count = acc.high - acc.low + 1
    block = Requantize(TensorStream(1, count, channels, acc, channels), found, element, channels)
    frame = _every_sum(acc, channels)
    wanted = _specification(block, frame)
    np.testing.assert_array_equal(block.compute(frame)[0], wanted)
    np.testing.assert_array_equal(simulate(block, frame).outputs[0][0], wanted)


@pytest.mark.parametrize("wrong", ["no half", "half twice", "shift + 1", "shift - 1", "ceiling"])
def test_wrong_rounding_shows(wrong: str) -> None:
    acc, shift = IntType(10), 8
    half = 1 << (shift - 1)
    right = numerics.Requantize((37,), (half,), (shift,), (0,), (63,), (acc.low,), (acc.high,))
    change = {
        "no half": {"biases": (0,)},
        "half twice": {"biases": (2 * half,)},
        "shift + 1": {"shifts": (shift + 1,)},
        "shift - 1": {"shifts": (shift - 1,)},
        "ceiling": {"biases": (2 * half - 1,)},
    }[wrong]
    frame = _every_sum(acc, 1)
    stream = TensorStream(1, len(frame), 1, acc)
    mutant = Requantize(stream, dataclasses.replace(right, **change), IntType(6, False))
    wanted = _specification(Requantize(stream, right, IntType(6, False)), frame)
    found = simulate(mutant, frame).outputs[0][0]
    assert (found != wanted).any()


def _wrong_shift(right: Plan) -> Plan:
    return dataclasses.replace(right, shift=right.shift + 1)


def _no_half(right: Plan) -> Plan:
    half = 1 << (right.shift - 1)
    branches = tuple(
        dataclasses.replace(b, biases=tuple(v - half for v in b.biases)) for b in right.branches
    )
    return dataclasses.replace(right, branches=branches)


def _wrong_pivot(right: Plan) -> Plan:
    return dataclasses.replace(right, pivots=tuple(pivot + 1 for pivot in right.pivots))


def _no_clamp(right: Plan) -> Plan:
    return dataclasses.replace(right, lows=tuple(low - 1 for low in right.lows))


def _wrong_low(right: Plan) -> Plan:
    return dataclasses.replace(right, lows=(right.lows[0], right.lows[1] - 1))


def _wrong_start(right: Plan) -> Plan:
    return dataclasses.replace(right, starts=(right.starts[0], right.starts[1] + 1))


@pytest.mark.parametrize(("mutate", "highs"), [(_wrong_low, (7, 6)), (_wrong_start, (7, 11))])
def test_a_wrong_limit_of_one_channel_shows(
    mutate: Callable[[Plan], Plan], highs: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    acc = IntType(10)
    epilogue = numerics.Requantize((37,), (128,), (8,), (-8, -4), highs, (acc.low,), (acc.high,))
    assert plan(epilogue, acc, 2).moves == (mutate is _wrong_start)
    frame = _every_sum(acc, 2)
    block = Requantize(TensorStream(1, len(frame), 2, acc, 2), epilogue, IntType(6), 1)
    frame = frame.reshape(block.input.beats, 2)
    check_block(block, np.random.default_rng(0), inputs=[[frame]], stalls=(), reset=False)
    monkeypatch.setattr("qcompile.hw.requantize.plan", lambda *args: mutate(plan(*args)))
    with pytest.raises(AssertionError, match=r"beat .* expected"):
        check_block(block, np.random.default_rng(0), inputs=[[frame]], stalls=(), reset=False)


@pytest.mark.parametrize("mutate", [_wrong_shift, _no_half, _wrong_pivot, _no_clamp])
def test_wrong_hardware_shows(
    mutate: Callable[[Plan], Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    acc = IntType(10)
    negative = numerics.NegativeBranch((-5,), (8,), (128,))
    epilogue = numerics.Requantize(
        (37,), (128,), (8,), (-8,), (7,), (acc.low,), (acc.high,), negative
    )
    frame = _every_sum(acc, 1)
    block = Requantize(TensorStream(1, len(frame), 1, acc), epilogue, IntType(6))
    check_block(block, np.random.default_rng(0), inputs=[[frame]], stalls=(), reset=False)
    monkeypatch.setattr("qcompile.hw.requantize.plan", lambda *args: mutate(plan(*args)))
    with pytest.raises(AssertionError, match=r"beat .* expected"):
        check_block(block, np.random.default_rng(0), inputs=[[frame]], stalls=(), reset=False)


@pytest.mark.parametrize("acc_bits", [3, 5, 6, 7, 9])
@pytest.mark.parametrize(("low", "high"), [(0, 31), (-32, 31), (0, 30), (-31, 31), (1, 6), (0, 0)])
def test_limits_of_whole_types_and_others(acc_bits: int, low: int, high: int) -> None:
    acc = IntType(acc_bits)
    epilogue = numerics.Requantize((3, -3), (32, 0), (6,), (low,), (high,), (acc.low,), (acc.high,))
    for factor in (1, 8, 40):
        scaled = dataclasses.replace(epilogue, multipliers=(3 * factor, -3 * factor))
        frame = _every_sum(acc, 2)
        block = Requantize(TensorStream(1, len(frame), 2, acc, 2), scaled, IntType(6), 2)
        wanted = _specification(block, frame)
        np.testing.assert_array_equal(simulate(block, frame).outputs[0][0], wanted)


@pytest.mark.parametrize("kind", ["common", "separate", "powers"])
@pytest.mark.parametrize("span", [0, 1, 20, 63])
@pytest.mark.parametrize("cut", [(-128, 127), (-40, 30), (-31, 64)])
def test_codes_that_begin_elsewhere_in_each_channel(
    kind: str, span: int, cut: tuple[int, int]
) -> None:
    """As many codes in all channels, unless they are cut: one clamp for all, and a start to add."""
    rng = np.random.default_rng([cut[1], span, ord(kind[0])])
    acc, channels = IntType(9), 6
    first, last = cut if cut[1] < 127 else (-128, 127 - span)
    starts = [first, *(int(low) for low in rng.integers(first, last, channels - 1, endpoint=True))]
    if cut[1] < 127:
        starts[1:3] = [first - span // 2, last - span // 2]
    found = dataclasses.replace(
        _random_epilogue(rng, acc, IntType(8), channels, kind),
        lows=tuple(max(start, cut[0]) for start in starts),
        highs=tuple(min(start + span, cut[1]) for start in starts),
    )
    found = _with_clamp(found, acc, channels)
    frame = _every_sum(acc, channels)
    block = Requantize(TensorStream(1, len(frame), channels, acc, channels), found, IntType(8), 6)
    built = plan(found, acc, channels)
    assert (set(built.lows), set(built.highs)) == ({0}, {span})
    assert built.moves
    wanted = _specification(block, frame)
    np.testing.assert_array_equal(block.compute(frame)[0], wanted)
    np.testing.assert_array_equal(simulate(block, frame).outputs[0][0], wanted)


def test_only_clamps_that_differ_are_parameters() -> None:
    acc = IntType(10)
    alike = numerics.Requantize((37,), (1, 2, 3), (8,), (-8,) * 3, (7,), (acc.low,), (acc.high,))
    apart = dataclasses.replace(alike, lows=(-8, -4, -6), highs=(7, 6, 5))
    stream = TensorStream(1, 3, 3, acc, 3)
    for epilogue, varying in ((alike, {"bias"}), (apart, {"bias", "low", "high"})):
        built = plan(epilogue, acc, 3)
        assert {name for name, v in built.parameters.items() if len(set(v)) > 1} == varying
        block = Requantize(stream, epilogue, IntType(6))
        assert block.stages == 4
    for lows, highs in (((-8, -4, -8), (7, 11, 7)), ((-8, -4, -8), (7, 7, 5))):
        moved = dataclasses.replace(alike, lows=lows, highs=highs)
        built = plan(moved, acc, 3)
        varying = {name for name, v in built.parameters.items() if len(set(v)) > 1}
        assert varying == {"bias", "start"}
        assert Requantize(stream, moved, IntType(6)).stages == 5


@pytest.mark.parametrize(("sums", "lanes"), [(1, 1), (4, 1), (4, 2), (4, 4)])
def test_never_waits_for_itself(sums: int, lanes: int) -> None:
    acc = IntType(10)
    epilogue = numerics.Requantize((37,), (128,), (8,), (-8,), (7,), (acc.low,), (acc.high,))
    block = Requantize(TensorStream(4, 5, 8, acc, sums), epilogue, IntType(4), lanes)
    result = simulate(block, random_frame(block.input, np.random.default_rng(0)))
    assert result.offered[0][block.fold - 1] - result.accepted[0][0] == block.latency
    assert result.cycles == block.cycles - block.fold + 1 + block.latency


def test_no_multiplier_at_all() -> None:
    acc = IntType(8)
    epilogue = numerics.Requantize((0,), (300, 900), (8,), (0,), (7,), (0,), (0,))
    block = Requantize(TensorStream(1, 4, 2, acc, 2), epilogue, IntType(3, False))
    frame = random_frame(block.input, np.random.default_rng(0))
    assert simulate(block, frame).outputs[0][0].tolist() == [[1], [3]] * 4


@pytest.mark.parametrize("seed", range(10))
def test_random_shapes_and_stalls(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lanes = int(rng.integers(1, 4))
    sums = lanes * int(rng.integers(1, 5))
    channels = sums * int(rng.integers(1, 4))
    acc = IntType(int(rng.integers(8, 12)), bool(rng.random() < 0.8))
    element = IntType(int(rng.integers(2, 9)), bool(rng.random() < 0.5))
    kind = ("common", "separate", "powers")[seed % 3]
    found = _with_clamp(_random_epilogue(rng, acc, element, channels, kind), acc, channels)
    stream = TensorStream(int(rng.integers(1, 4)), int(rng.integers(1, 5)), channels, acc, sums)
    block = Requantize(stream, found, element, lanes)
    frames = [[random_frame(stream, rng)] for _ in range(3)]
    for (frame,) in frames:
        np.testing.assert_array_equal(block.compute(frame)[0], _specification(block, frame))
    check_block(block, rng, inputs=frames)


def _wide(acc: IntType, factor_bits: int, shift: int) -> numerics.Requantize:
    limit = 1 << (factor_bits - 1)
    return numerics.Requantize(
        (limit - 1, -limit, limit // 3, 1),
        (1 << (shift - 1),),
        (shift,),
        (-128,),
        (127,),
        (acc.low,),
        (acc.high,),
    )


@pytest.mark.parametrize(
    ("acc_bits", "factor_bits", "multipliers"),
    [(18, 18, 1), (19, 18, 2), (24, 12, 2), (18, 19, 2), (26, 24, 4), (38, 20, 6)],
)
def test_wide_operands_take_several_multipliers(
    acc_bits: int, factor_bits: int, multipliers: int
) -> None:
    acc = IntType(acc_bits)
    rng = np.random.default_rng(acc_bits)
    stream = TensorStream(2, 4, 4, acc, 2)
    epilogue = _wide(acc, factor_bits, acc_bits + factor_bits - 9)
    block = Requantize(stream, epilogue, IntType(8), 2)
    assert block.multipliers == 2 * multipliers
    frame = random_frame(stream, rng)
    np.testing.assert_array_equal(block.compute(frame)[0], _specification(block, frame))
    check_block(block, rng, inputs=[[frame]] * 2)


@pytest.mark.parametrize("signed", [True, False])
def test_saturating_sums_need_one_multiplier(signed: bool) -> None:
    acc = IntType(20, signed)
    factors, biases = (700, -700, 800, 900), (1 << 13, 63 << 14, 1 << 13, -5000)
    wide = numerics.Requantize(factors, biases, (14,), (0,), (63,), (acc.low,), (acc.high,))
    narrow = dataclasses.replace(wide, acc_low=(-1000,), acc_high=(3000,))
    rng = np.random.default_rng(1)
    stream = TensorStream(2, 8, 4, acc, 4)
    for epilogue, multipliers in ((wide, 4), (narrow, 2)):
        block = Requantize(stream, epilogue, IntType(6, False), 2)
        assert block.multipliers == multipliers
        frame = random_frame(stream, rng)
        frame[::2] //= 200
        np.testing.assert_array_equal(block.compute(frame)[0], _specification(block, frame))
        check_block(block, rng, inputs=[[frame]] * 2)


def test_powers_of_two_need_no_multiplier() -> None:
    acc = IntType(12)
    epilogue = numerics.Requantize((4,), (8,), (4,), (-8,), (7,), (acc.low,), (acc.high,))
    block = Requantize(TensorStream(1, 9, 1, acc), epilogue, IntType(4))
    assert block.multipliers == 0
    check_block(block, np.random.default_rng(0))


def test_shifts_that_differ_much_are_selected() -> None:
    acc = IntType(12)
    epilogue = numerics.Requantize(
        (100, 101, -99),
        (32, 1 << 13, 1 << 29),
        (6, 14, 30),
        (-128,),
        (127,),
        (acc.low,),
        (acc.high,),
    )
    block = Requantize(TensorStream(1, 9, 3, acc, 3), epilogue, IntType(8))
    assert block.multipliers == 1
    check_block(block, np.random.default_rng(0))


@pytest.mark.parametrize("limits", [1, 2, 3, 15])
@pytest.mark.parametrize("shared", [True, False])
def test_thresholds(limits: int, shared: bool) -> None:
    rng = np.random.default_rng(limits)
    acc = IntType(10)
    rows = np.sort(rng.integers(-700, 700, (limits, 1 if shared else 6)), axis=0)
    step = 1 if limits == 3 else 2
    epilogue = numerics.Thresholds(
        tuple(tuple(row) for row in rows.tolist()), 0 if step == 1 else -1, step
    )
    element = IntType(8)
    stream = TensorStream(2, 3, 6, acc, 6)
    check_block(Requantize(stream, epilogue, element, 2), rng)
    frame = _every_sum(acc, 6)
    whole = Requantize(TensorStream(1, len(frame), 6, acc, 6), epilogue, element, 6)
    wanted = _specification(whole, frame)
    np.testing.assert_array_equal(whole.compute(frame)[0], wanted)
    np.testing.assert_array_equal(simulate(whole, frame).outputs[0][0], wanted)


def test_many_words_of_parameters_are_a_memory() -> None:
    rng = np.random.default_rng(5)
    acc, channels = IntType(9), 80
    epilogue = numerics.Requantize(
        tuple(int(v) for v in rng.integers(-128, 128, channels)),
        tuple(int(v) for v in rng.integers(0, 1 << 12, channels)),
        (8,),
        (-32,),
        (31,),
        (acc.low,),
        (acc.high,),
    )
    stream = TensorStream(1, 2, channels, acc, 4)
    block = Requantize(stream, epilogue, IntType(6), 2)
    assert block.ram_bits == 40 * 2 * (8 + 12) + 2 * 6 * block.queue_depth
    check_block(block, rng, stalls=((0.6, 0.6),))
    two = tuple(tuple(int(v) for v in rng.integers(-250, 250, channels)) for _ in range(2))
    ternary = numerics.Thresholds(tuple(map(tuple, np.sort(two, axis=0).tolist())), -1)
    check_block(Requantize(stream, ternary, IntType(2), 2), rng, stalls=((0.6, 0.6),))


def test_parameters_are_checked() -> None:
    acc = IntType(9)
    stream = TensorStream(1, 2, 4, acc, 4)
    epilogue = numerics.Requantize((3,), (4,), (6,), (0,), (63,), (acc.low,), (acc.high,))
    with pytest.raises(ValueError, match="3 lanes do not divide 4 sums"):
        Requantize(stream, epilogue, IntType(7), 3)
    with pytest.raises(ValueError, match="i6 does not hold"):
        Requantize(stream, epilogue, IntType(6))
    with pytest.raises(ValueError, match="2 parameters for 4 channels"):
        Requantize(stream, dataclasses.replace(epilogue, biases=(1, 2)), IntType(7))
    with pytest.raises(ValueError, match="2 thresholds for 4 channels"):
        Requantize(stream, numerics.Thresholds(((1, 2),), 0), IntType(7))
