"""Integer tensors as dense words: C arrays now, memory images of hardware later.

Codes follow each other without gaps, least significant bit first: code i of width b occupies bits
i * b .. i * b + b - 1 of the byte stream. Three kinds of code exist: two's complement, base-3
digits (five ternary weights in a byte, 1.6 bits each), and indices into a table of the values that
occur (`pow2` and other weights whose values are sparse).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np

from qcompile.types import INDEXED, Array, CodebookKind, TensorType

TRITS_PER_BYTE = 5


class Packing(enum.Enum):
    """How the codes of one tensor become bytes."""

    BITS = "bits"
    BASE3 = "base3"
    TABLE = "table"


class TernaryPacking(enum.Enum):
    """Ternary weights: 2 bits each (quick to unpack), or five in a byte (smallest)."""

    TWO_BITS = "2bit"
    FIVE_PER_BYTE = "base3"


@dataclass(frozen=True)
class Packed:
    """A packed tensor. `table` maps an index to its value for `Packing.TABLE`, else it is empty."""

    packing: Packing
    bits: int
    count: int
    data: bytes
    table: tuple[int, ...] = ()


def pack_bits(codes: Array, bits: int) -> bytes:
    """Dense words of `bits`-wide codes, least significant bit first.

    Args:
        codes: integers of any shape, taken in row-major order; negative ones in two's complement.
        bits: width of one code, 1 to 32.

    Raises:
        ValueError: a code does not fit.
    """
    flat = np.asarray(codes).reshape(-1).astype(np.int64)
    low, high = -(1 << (bits - 1)), (1 << bits) - 1
    if flat.size and (flat.min() < low or flat.max() > high):
        raise ValueError(f"codes {flat.min()}..{flat.max()} do not fit in {bits} bits")
    planes = (flat[:, None] >> np.arange(bits)) & 1
    return np.packbits(planes.astype(np.uint8).reshape(-1), bitorder="little").tobytes()


def unpack_bits(data: bytes, bits: int, count: int, signed: bool) -> Array:
    """The first `count` codes of `pack_bits`, as int64 `[count]`."""
    stream = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[: count * bits]
    values = (stream.reshape(count, bits).astype(np.int64) << np.arange(bits)).sum(axis=1)
    if signed:
        sign = np.int64(1) << (bits - 1)
        values = (values ^ sign) - sign
    return np.asarray(values)


def pack_base3(codes: Array) -> bytes:
    """Five ternary codes in a byte: sum of (code + 1) * 3**position."""
    flat = np.asarray(codes).reshape(-1).astype(np.int64)
    if flat.size and (flat.min() < -1 or flat.max() > 1):
        raise ValueError(f"codes {flat.min()}..{flat.max()} are not ternary")
    digits = np.ones(-(-flat.size // TRITS_PER_BYTE) * TRITS_PER_BYTE, np.int64)
    digits[: flat.size] = flat + 1
    return bytes(
        (digits.reshape(-1, TRITS_PER_BYTE) * 3 ** np.arange(TRITS_PER_BYTE)).sum(axis=1).tolist()
    )


def unpack_base3(data: bytes, count: int) -> Array:
    """The first `count` codes of `pack_base3`, as int64 `[count]`."""
    words = np.frombuffer(data, np.uint8).astype(np.int64)
    digits = words[:, None] // 3 ** np.arange(TRITS_PER_BYTE) % 3 - 1
    return np.asarray(digits.reshape(-1)[:count])


def pack_weights(codes: Array, kind: TensorType, ternary: TernaryPacking) -> Packed:
    """The smallest of our packings for constant integers of type `kind`.

    Args:
        codes: the integers in the order the kernel reads them (any shape).
        kind: their type; its codebook decides the packing.
        ternary: how ternary codes are stored.
    """
    bits = kind.integer.bits
    codebook = kind.codebook.kind if kind.codebook is not None else CodebookKind.UNIFORM
    if codebook is CodebookKind.TERNARY:
        if ternary is TernaryPacking.FIVE_PER_BYTE:
            return Packed(Packing.BASE3, 2, codes.size, pack_base3(codes))
        return Packed(Packing.BITS, 2, codes.size, pack_bits(codes, 2))
    if codebook in INDEXED and codes.size:
        values, indices = np.unique(codes, return_inverse=True)
        width = max(1, (len(values) - 1).bit_length())
        if width < bits:
            table = tuple(int(value) for value in values)
            data = pack_bits(indices.reshape(-1), width)
            return Packed(Packing.TABLE, width, codes.size, data, table)
    if not kind.integer.signed:
        bits += 1 if codes.size and int(codes.max()) >> (bits - 1) else 0
    return Packed(Packing.BITS, bits, codes.size, pack_bits(codes, bits))


def unpack_weights(packed: Packed) -> Array:
    """The integers of `pack_weights`, as int64 `[count]`."""
    if packed.packing is Packing.BASE3:
        return unpack_base3(packed.data, packed.count)
    if packed.packing is Packing.TABLE:
        indices = unpack_bits(packed.data, packed.bits, packed.count, signed=False)
        return np.asarray(packed.table, dtype=np.int64)[indices]
    return unpack_bits(packed.data, packed.bits, packed.count, signed=True)
