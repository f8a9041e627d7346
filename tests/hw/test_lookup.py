"""Tables of codes."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.hw.lookup import Lookup
from qcompile.hw.streams import TensorStream
from qcompile.types import IntType
from tests.hw.drive import check_block, simulate


def _tables(
    rng: np.random.Generator, rows: int, source: IntType, element: IntType
) -> tuple[tuple[int, ...], ...]:
    shape = (rows, source.high - source.low + 1)
    values = rng.integers(element.low, element.high, shape, endpoint=True)
    return tuple(map(tuple, values.tolist()))


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_random_tables(seed: int, per_channel: bool) -> None:
    rng = np.random.default_rng(seed)
    signed = bool(rng.random() < 0.6)
    source = IntType(int(rng.integers(2, 8)), signed, narrow=signed and bool(rng.random() < 0.5))
    element = IntType(int(rng.integers(1, 9)), bool(rng.random() < 0.5))
    lanes, groups = int(rng.integers(1, 4)), int(rng.integers(1, 4))
    stream = TensorStream(2, int(rng.integers(1, 4)), lanes * groups, source, lanes)
    table = _tables(rng, stream.channels if per_channel else 1, source, element)
    check_block(Lookup(stream, table, source.low, element), rng)


@pytest.mark.parametrize("source", [IntType(5), IntType(5, narrow=True), IntType(5, False)])
def test_every_code(source: IntType) -> None:
    codes = np.arange(source.low, source.high + 1)
    stream = TensorStream(1, len(codes), 1, source)
    table = (tuple(3 * k for k in range(len(codes))),)
    block = Lookup(stream, table, source.low, IntType(7, False))
    found = simulate(block, codes[:, None]).outputs[0][0]
    assert found[:, 0].tolist() == list(table[0])


def test_only_some_codes_arrive() -> None:
    stream = TensorStream(1, 5, 1, IntType(8))
    block = Lookup(stream, ((1, 2, 3, 4, 5),), -2, IntType(4))
    assert block.code_bits == 3
    frame = np.arange(-2, 3)[:, None]
    assert simulate(block, frame).outputs[0][0][:, 0].tolist() == [1, 2, 3, 4, 5]
    with pytest.raises(IndexError, match="code -3 lies before"):
        block.compute(frame - 1)


def test_wide_tables_are_memories() -> None:
    rng = np.random.default_rng(0)
    source, element = IntType(8), IntType(6)
    stream = TensorStream(1, 4, 4, source, 2)
    shared = Lookup(stream, _tables(rng, 1, source, element), source.low, element)
    assert shared.rom_bits == 2 * 256 * 6
    check_block(shared, rng)
    # A lane whose tables are constant needs no memory, and keeps pace with the other.
    tables = list(_tables(rng, 4, source, element))
    tables[0] = tables[2] = (5,) * 256
    mixed = Lookup(stream, tuple(tables), source.low, element)
    assert mixed.rom_bits == 2 * 256 * 6
    check_block(mixed, rng)


def test_small_tables_are_logic() -> None:
    stream = TensorStream(1, 4, 4, IntType(6), 2)
    block = Lookup(stream, (tuple(range(64)),), -32, IntType(6, False))
    assert block.rom_bits == 0


def test_parameters_are_checked() -> None:
    stream = TensorStream(1, 4, 4, IntType(2), 2)
    with pytest.raises(ValueError, match="3 tables for 4 channels"):
        Lookup(stream, ((0,) * 4,) * 3, -2, IntType(4))
    with pytest.raises(ValueError, match="differ in length"):
        Lookup(stream, ((0,) * 4,) * 3 + ((0,) * 3,), -2, IntType(4))
    with pytest.raises(ValueError, match=r"i4 does not hold 0\.\.9"):
        Lookup(stream, ((0, 1, 2, 9),), -2, IntType(4))
