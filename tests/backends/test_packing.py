"""Dense words: what is packed comes back, and takes as many bytes as it should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qcompile.packing import (
    Packing,
    TernaryPacking,
    pack_base3,
    pack_bits,
    pack_weights,
    unpack_base3,
    unpack_bits,
    unpack_weights,
)
from qcompile.types import Codebook, CodebookKind, IntType, TensorType


@given(st.data())
def test_bits_round_trip(data: st.DataObject) -> None:
    bits = data.draw(st.integers(1, 16))
    signed = data.draw(st.booleans()) and bits > 1
    element = IntType(bits, signed=signed)
    codes = data.draw(st.lists(st.integers(element.low, element.high), max_size=40))
    packed = pack_bits(np.asarray(codes, np.int64), bits)
    assert len(packed) == -(-len(codes) * bits // 8)
    assert unpack_bits(packed, bits, len(codes), signed).tolist() == codes


@given(st.lists(st.integers(-1, 1), max_size=40))
def test_base3_round_trip(codes: list[int]) -> None:
    packed = pack_base3(np.asarray(codes, np.int64))
    assert len(packed) == -(-len(codes) // 5)
    assert unpack_base3(packed, len(codes)).tolist() == codes


def test_least_significant_bit_first() -> None:
    assert pack_bits(np.array([1, -2, 3]), 3) == bytes([0b11_110_001, 0b0])


def test_codes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit in 3 bits"):
        pack_bits(np.array([8]), 3)
    with pytest.raises(ValueError, match="not ternary"):
        pack_base3(np.array([2]))


@pytest.mark.parametrize(
    ("kind", "bits", "values", "packing", "width"),
    [
        (CodebookKind.UNIFORM, 4, (-7, 0, 7), Packing.BITS, 4),
        (CodebookKind.TERNARY, 2, (-1, 0, 1), Packing.BITS, 2),
        (CodebookKind.BINARY, 2, (-1, 1), Packing.TABLE, 1),
        (CodebookKind.POW2, 16, (-4096, -1, 0, 2, 64, 8192), Packing.TABLE, 3),
    ],
)
def test_weights_by_codebook(
    kind: CodebookKind, bits: int, values: tuple[int, ...], packing: Packing, width: int
) -> None:
    codes = np.random.default_rng(0).choice(values, (3, 5, 7))
    tensor = TensorType(codes.shape, IntType(bits, narrow=True), None, Codebook(kind, len(values)))
    packed = pack_weights(codes, tensor, TernaryPacking.TWO_BITS)
    assert (packed.packing, packed.bits) == (packing, width)
    assert len(packed.data) == -(-codes.size * width // 8)
    np.testing.assert_array_equal(unpack_weights(packed), codes.reshape(-1))
