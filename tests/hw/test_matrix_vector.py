from __future__ import annotations

import dataclasses
import random
from typing import Any

import numpy as np
import pytest
from amaranth.sim import Simulator

from qcompile.hw.matrix_vector import MatrixVector
from qcompile.hw.products import (
    MULTIPLIER_18,
    MultiplierSize,
    Products,
    choose_products,
    code_bits,
)
from qcompile.hw.streams import WindowStream
from qcompile.hw.weight_rom import LOGIC_WORDS, WeightRom
from qcompile.types import TERNARY, Array, IntType, Range
from tests.hw.drive import check_block, random_frame, simulate

U6 = IntType(6, signed=False)
I4 = IntType(4)
WITHOUT_MULTIPLIER = (Products.LOGIC, Products.TERNARY, Products.BINARY)


def unit(
    rng: np.random.Generator,
    products: Products,
    element: IntType = I4,
    activation: IntType = U6,
    *,
    pe: int = 2,
    simd: int = 2,
    groups: int = 1,
    folds: int = 1,
    fold_beats: int = 3,
    rows: tuple[int, ...] = (0, 0),
    columns: tuple[int, ...] = (0, 0, 0),
    weights: Array | None = None,
    size: MultiplierSize = MULTIPLIER_18,
) -> MatrixVector:
    phases = (max(rows) + 1) * (max(columns) + 1)
    shape = (phases, groups, folds, pe, fold_beats, simd)
    if weights is None:
        if products in WITHOUT_MULTIPLIER:
            weights = rng.choice([-1, 1] if products is Products.BINARY else [-1, 0, 1], shape)
        else:
            weights = rng.integers(element.low, element.high, shape, endpoint=True)
            weights[rng.random(shape) < 0.2] = element.low
    reach = weights.clip(min=0).sum((4, 5)).max(), weights.clip(max=0).sum((4, 5)).min()
    bounds = activation.range.union(Range(0, 0))
    accumulator = IntType.holding(
        bounds.scaled(int(reach[0])) + bounds.scaled(int(reach[1])) + Range(0, 0)
    )
    window = WindowStream(rows, columns, groups * folds, fold_beats, activation, simd)
    return MatrixVector(
        window,
        len(rows),
        len(columns),
        np.asarray(weights, dtype=np.int64),
        element,
        accumulator,
        products,
        size,
    )


def direct(block: MatrixVector, frame: Array) -> Array:
    """The definition, with Python integers."""
    window = block.window
    folds = window.folds
    weights = block.weights.reshape(-1, folds, block.pe, window.fold_beats, window.lanes).tolist()
    columns = max(window.column_phases) + 1
    beats = iter(frame.tolist())
    result = []
    for row in window.row_phases:
        for column in window.column_phases:
            for fold in range(folds):
                taken = [next(beats) for _ in range(window.fold_beats)]
                result.append(
                    [
                        sum(
                            w * a
                            for ws, data in zip(rows, taken, strict=True)
                            for w, a in zip(ws, data, strict=True)
                        )
                        for rows in weights[row * columns + column][fold]
                    ]
                )
    return np.array(result)


def check(block: MatrixVector, rng: np.random.Generator, **options: object) -> None:
    frame = random_frame(block.window, rng)
    np.testing.assert_array_equal(block.compute(frame)[0], direct(block, frame))
    check_block(block, rng, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(2 * len(Products)))
def test_random_units(seed: int) -> None:
    rng = np.random.default_rng(seed)
    products = list(Products)[seed % len(Products)]
    element = IntType(int(rng.integers(2, 9)))
    activation = IntType(int(rng.integers(1, 9)), signed=bool(rng.integers(2)))
    if products is Products.PACKED:
        element, activation = IntType(int(rng.integers(2, 5))), IntType(5, bool(rng.integers(2)))
    if products in WITHOUT_MULTIPLIER:
        element = TERNARY
    if products in WITHOUT_MULTIPLIER[1:]:
        activation = TERNARY if rng.random() < 0.7 else IntType(1, signed=False)
    block = unit(
        rng,
        products,
        element,
        activation,
        pe=int(rng.integers(1, 5)),
        simd=int(rng.integers(1, 7)),
        groups=int(rng.integers(1, 3)),
        folds=int(rng.integers(1, 3)),
        fold_beats=int(rng.integers(1, 6)),
        rows=((0, 0), (0, 1), (0,))[int(rng.integers(3))],
        columns=((0, 0, 0), (0, 1, 2, 1), (0, 1))[int(rng.integers(3))],
    )
    check(block, rng)


@pytest.mark.parametrize("products", list(Products))
@pytest.mark.parametrize("fold_beats", [1, 2])
def test_full_rate_at_any_fold(products: Products, fold_beats: int) -> None:
    rng = np.random.default_rng(3)
    activation = TERNARY if products in (Products.TERNARY, Products.BINARY) else IntType(4)
    element = TERNARY if products in WITHOUT_MULTIPLIER else I4
    block = unit(
        rng, products, element, activation, simd=3, fold_beats=fold_beats, columns=(0,) * 30
    )
    frame = random_frame(block.window, rng)
    result = simulate(block, frame, frames=2)
    accepted = result.accepted[0]
    assert accepted == list(range(accepted[0], accepted[0] + 2 * block.cycles))
    assert result.offered[0][0] - accepted[fold_beats - 1] == block.latency
    assert result.frame_cycles == (block.cycles,)


@pytest.mark.parametrize("depth", [LOGIC_WORDS, LOGIC_WORDS + 1])
@pytest.mark.parametrize("phases", [1, 2])
def test_roms_small_and_large(depth: int, phases: int) -> None:
    rng = np.random.default_rng(depth + phases)
    rows = tuple(range(phases))
    fold_beats = -(-depth // phases)
    block = unit(rng, Products.MULTIPLIER, fold_beats=fold_beats, rows=rows, columns=(0, 0))
    assert WeightRom.ram_bits(2, 8, phases * fold_beats) == (
        0 if phases * fold_beats <= LOGIC_WORDS else 2 * 8 * phases * fold_beats
    )
    check(block, rng, stalls=((0.6, 0.6),))


@pytest.mark.parametrize(
    ("element", "activation"),
    [
        (IntType(2), IntType(16, signed=False)),
        (IntType(8), IntType(16)),
        (IntType(16), IntType(16, signed=False)),
        (IntType(16), IntType(16)),
        (IntType(4, signed=False), IntType(6)),
        (IntType(5, narrow=True), IntType(6, signed=False)),
    ],
)
@pytest.mark.parametrize("products", [Products.MULTIPLIER, Products.DIGITS])
def test_widths_with_extreme_values(
    products: Products, element: IntType, activation: IntType
) -> None:
    rng = np.random.default_rng(element.bits)
    for low in (True, False):
        weights = np.full((1, 1, 2, 2, 2, 3), element.low if low else element.high)
        block = unit(
            rng,
            products,
            element,
            activation,
            simd=3,
            folds=2,
            fold_beats=2,
            weights=weights,
        )
        window = block.window
        ends = [np.full((window.beats, 3), end) for end in (activation.low, activation.high)]
        check(block, rng, inputs=[[end] for end in ends], stalls=(), reset=False)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [(2, 2), (3, 3), (4, 2)])
def test_packed_products_exhaustively(signed: bool, bits: tuple[int, int]) -> None:
    """All (w0, w1, a): the weights are the folds of a pixel, the activations pass by in turn."""
    element, activation = IntType(bits[0]), IntType(bits[1], signed)
    codes = np.arange(element.low, element.high + 1)
    pairs = np.stack(np.meshgrid(codes, codes), -1).reshape(-1, 2)
    weights = pairs.reshape(1, 1, len(pairs), 2, 1, 1)
    values = np.arange(activation.low, activation.high + 1)
    block = unit(
        np.random.default_rng(0),
        Products.PACKED,
        element,
        activation,
        simd=1,
        folds=len(pairs),
        fold_beats=1,
        rows=(0,),
        columns=(0,) * len(values),
        weights=weights,
    )
    frame = np.repeat(values, len(pairs))[:, None]
    expected = (values[:, None, None] * pairs).reshape(-1, 2)
    np.testing.assert_array_equal(simulate(block, frame).outputs[0][0], expected)
    for other in (Products.MULTIPLIER, Products.DIGITS):
        same = dataclasses.replace(block, products=other)
        np.testing.assert_array_equal(simulate(same, frame).outputs[0][0], expected)


@pytest.mark.parametrize("simd", [1, 2, 3, 5, 8])
@pytest.mark.parametrize(
    ("element", "activation"),
    [
        (I4, IntType(6)),
        (I4, U6),
        (IntType(2), IntType(8)),
        (IntType(5), IntType(6)),
        (IntType(3, narrow=True), IntType(4)),
        (IntType(3, signed=False), IntType(4)),
        (IntType(3, signed=False), IntType(4, signed=False)),
    ],
)
def test_packed_rows_at_their_extremes(simd: int, element: IntType, activation: IntType) -> None:
    """Every sign of both weights against every sign of the activations, odd rows included."""
    ends = np.array([element.low, element.high])
    pairs = np.stack(np.meshgrid(ends, ends, ends), -1).reshape(1, 1, 8, 3, 1, 1)
    weights = np.repeat(pairs, simd, axis=5)
    rng = np.random.default_rng(simd)
    block = unit(
        rng,
        Products.PACKED,
        element,
        activation,
        pe=3,
        simd=simd,
        folds=8,
        fold_beats=1,
        columns=(0, 0, 0, 0),
        weights=weights,
    )
    frame = random_frame(block.window, rng)
    frame[:8] = activation.low
    frame[8:16] = activation.high
    result = simulate(block, frame)
    np.testing.assert_array_equal(result.outputs[0][0], direct(block, frame))


@pytest.mark.parametrize(
    ("products", "pe"),
    [(Products.MULTIPLIER, 9), (Products.PACKED, 11), (Products.LOGIC, 17)],
)
def test_teams_of_rows(products: Products, pe: int) -> None:
    """Rows beyond the first team work behind it, at the same rate, phases included."""
    rng = np.random.default_rng(pe)
    element = TERNARY if products in WITHOUT_MULTIPLIER else I4
    block = unit(
        rng, products, element, IntType(3), pe=pe, simd=1, fold_beats=2, rows=(0, 1), folds=2
    )
    assert len(block.teams) > 1
    check(block, rng)


def test_multipliers() -> None:
    rng = np.random.default_rng(0)
    assert unit(rng, Products.MULTIPLIER, pe=5, simd=3).multipliers == 15
    assert unit(rng, Products.PACKED, pe=5, simd=3).multipliers == 9
    assert unit(rng, Products.LOGIC, TERNARY).multipliers == 0
    assert unit(rng, Products.DIGITS).multipliers == 0


def test_choice() -> None:
    signs = np.array([-1, 1])
    assert choose_products(I4, U6) is Products.PACKED
    assert choose_products(I4, IntType(6)) is Products.PACKED
    assert choose_products(IntType(8), IntType(8)) is Products.MULTIPLIER
    assert choose_products(I4, U6, size=MultiplierSize(13, 18)) is Products.MULTIPLIER
    assert choose_products(I4, U6, size=MultiplierSize(18, 6)) is Products.MULTIPLIER
    assert choose_products(I4, U6, size=None) is Products.DIGITS
    assert choose_products(TERNARY, U6, size=None) is Products.LOGIC
    assert choose_products(TERNARY, U6) is Products.LOGIC
    assert choose_products(I4, U6, signs) is Products.LOGIC
    assert choose_products(TERNARY, TERNARY) is Products.TERNARY
    assert choose_products(TERNARY, IntType(1, signed=False)) is Products.TERNARY
    assert choose_products(TERNARY, TERNARY, signs) is Products.BINARY
    assert choose_products(TERNARY, TERNARY, np.array([-1, 0])) is Products.TERNARY
    assert code_bits(Products.BINARY, TERNARY) == 1


def test_binary_maps_may_be_padded() -> None:
    """Padding puts code 0 into a map of -1 and 1."""
    rng = np.random.default_rng(1)
    block = unit(rng, Products.BINARY, TERNARY, TERNARY, pe=2, simd=9)
    frame = np.zeros((block.window.beats, 9), dtype=np.int64)
    frame[::2] = rng.choice([-1, 1], frame[::2].shape)
    check(block, rng, inputs=[[frame], [frame[::-1]]], stalls=((0.5, 0.5),), reset=False)


def test_refusals() -> None:
    rng = np.random.default_rng(0)
    good = unit(rng, Products.MULTIPLIER)
    with pytest.raises(ValueError, match="phases, folds"):
        dataclasses.replace(good, weights=good.weights[:, :, :, :, :-1])
    with pytest.raises(ValueError, match="pixels"):
        dataclasses.replace(good, height=3)
    with pytest.raises(ValueError, match="not all i2"):
        dataclasses.replace(good, element=IntType(2))
    with pytest.raises(ValueError, match="ternary weights"):
        dataclasses.replace(good, products=Products.LOGIC)
    with pytest.raises(ValueError, match="ternary activations"):
        unit(rng, Products.TERNARY, TERNARY)
    zeros = np.zeros((1, 1, 1, 2, 3, 2), dtype=np.int64)
    with pytest.raises(ValueError, match="not 0"):
        unit(rng, Products.BINARY, TERNARY, TERNARY, weights=zeros)
    with pytest.raises(ValueError, match="too many bits"):
        unit(rng, Products.PACKED, IntType(8), IntType(8))


@pytest.mark.parametrize("fold_beats", [1, 2, 3, 5, 8, 9, 11])
def test_full_rate_after_the_queue_was_full(fold_beats: int) -> None:
    """A consumer that takes a result every fold_beats cycles never waits, after a long stall."""
    rng = np.random.default_rng(fold_beats)
    block = unit(rng, Products.MULTIPLIER, fold_beats=fold_beats, columns=(0,) * 60)
    component = block.create()
    wanted = 40
    taken: list[int] = []

    async def bench(ctx: Any) -> None:
        ctx.set(component.i0.valid, 1)
        beat = 0
        for cycle in range(100 + (wanted + 2) * fold_beats):
            last = int(beat % fold_beats == fold_beats - 1)
            ctx.set(component.i0.payload.last, last)
            due = cycle >= 100 and (cycle - 100) % fold_beats == 0
            ctx.set(component.o0.ready, due)
            _, _, accepted, offered = await ctx.tick().sample(
                component.i0.ready, component.o0.valid
            )
            beat += accepted
            if due and offered:
                taken.append(cycle)

    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert taken[:wanted] == list(range(100, 100 + wanted * fold_beats, fold_beats))


def test_stalls_do_not_change_results() -> None:
    rng = np.random.default_rng(5)
    block = unit(rng, Products.PACKED, fold_beats=1, folds=2, columns=(0,) * 8)
    frame = random_frame(block.window, rng)
    expected = direct(block, frame)
    chances = random.Random(1)
    for seed in range(4):
        valid, ready = chances.uniform(0.1, 1), chances.uniform(0.1, 1)
        result = simulate(block, frame, seed=seed, valid=valid, ready=ready, frames=2)
        np.testing.assert_array_equal(result.outputs[0][1], expected)
