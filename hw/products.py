"""The ways to form products of weights and activations, and which of them suits which codes."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from qcompile.types import Array, IntType, Range

TERNARY_RANGE = Range(-1, 1)


class Products(enum.Enum):
    """How a matrix-vector unit multiplies. All give the same integers.

    MULTIPLIER: one hardware multiplier for each product.
    PACKED: the weights of two neighbouring rows share one multiplier.
    LOGIC: ternary weights select 0, a, 2a; the sum of the activations is subtracted once.
    DIGITS: the same for each digit of two bits of any weights: no multiplier, many adders.
    TERNARY: ternary weights and activations: bit planes and population counts.
    BINARY: weights -1 and 1 only, ternary activations (padding is code 0): as TERNARY, with the
        count of the activations that are not 0 shared by all rows, and one bit a weight.
    """

    MULTIPLIER = "multiplier"
    PACKED = "packed"
    LOGIC = "logic"
    DIGITS = "digits"
    TERNARY = "ternary"
    BINARY = "binary"


@dataclass(frozen=True, slots=True)
class MultiplierSize:
    """Operand widths of a family's multiplier, both in two's complement."""

    wide: int
    narrow: int

    def tiles(self, first: IntType, second: IntType) -> int:
        """Multipliers that one product of the two types takes."""
        bits = sorted(kind.bits + (not kind.signed) for kind in (first, second))
        counts = [
            1 if width <= limit else -(-(width - 1) // (limit - 1))
            for width, limit in zip(bits, (self.narrow, self.wide), strict=True)
        ]
        return counts[0] * counts[1]


MULTIPLIER_18 = MultiplierSize(18, 18)


@dataclass(frozen=True, slots=True)
class Packing:
    """Two weights in one factor: w1 * 2**split + (w0 + offset), times a.

    The lower field is biased to be positive, so that the two weights need only be put side by side.
    The product of an activation without sign has the two products side by side again; of one with a
    sign, a negative lower product has borrowed one from the upper one. The split comes after
    `2**levels` products were added together, so that this is repaired once for all of them.

    Attributes:
        split: bits of the lower field.
        levels: levels of adders before the two fields are taken apart.
        borrow: whether the lower field can be negative.
        low: range of the lower product.
        high: range of the upper product.
    """

    split: int
    levels: int
    borrow: bool
    low: Range
    high: Range


def weight_offset(weights: IntType) -> int:
    """What makes all codes of the type positive when added: flips the sign bit."""
    return 1 << (weights.bits - 1) if weights.signed else 0


def pack(
    weights: IntType, activation: IntType, terms: int, size: MultiplierSize = MULTIPLIER_18
) -> Packing | None:
    """How two weights fit a multiplier, for sums of `terms` products; None if they do not."""
    if activation.bits + (not activation.signed) > size.narrow:
        return None
    offset = weight_offset(weights)
    biased = Range(weights.low + offset, weights.high + offset)
    low = (biased * activation.range).union(Range(0, 0))
    high = (weights.range * activation.range).union(Range(0, 0))
    borrow = low.low < 0
    depth = (terms - 1).bit_length() if borrow else 0
    for levels in reversed(range(depth + 1)):
        split = IntType.holding(low.scaled(min(terms, 1 << levels))).bits
        if split + weights.bits + (not weights.signed) <= size.wide:
            return Packing(split, levels, borrow, low, high)
    return None


def choose_products(
    weights: IntType,
    activation: IntType,
    codes: Array | None = None,
    size: MultiplierSize | None = MULTIPLIER_18,
) -> Products:
    """The strategy of the fewest multipliers and logic cells.

    Args:
        weights: type of the weights.
        activation: type of what they multiply.
        codes: the weights themselves; without them, only the type counts.
        size: the multiplier of the family; None where there is none (left).
    """
    bounds = weights.range
    if codes is not None and codes.size:
        bounds = Range(int(codes.min()), int(codes.max()))
    if TERNARY_RANGE.contains(bounds):
        if not TERNARY_RANGE.contains(activation.range):
            return Products.LOGIC
        if codes is not None and bool((codes != 0).all()):
            return Products.BINARY
        return Products.TERNARY
    if size is None:
        return Products.DIGITS
    if pack(weights, activation, 1, size) is not None:
        return Products.PACKED
    return Products.MULTIPLIER


def code_bits(products: Products, weights: IntType) -> int:
    """Bits of one weight in the ROM."""
    if products is Products.BINARY:
        return 1
    return 2 if products in (Products.TERNARY, Products.LOGIC) else weights.bits


def encode(products: Products, weights: IntType, codes: Array, lower: bool) -> Array:
    """Weights as the dot units of the strategy expect them, as unsigned integers.

    Args:
        codes: the weights.
        lower: whether the row is the lower one of a packed pair.
    """
    if products is Products.BINARY:
        return codes < 0
    if products is Products.LOGIC:
        return codes + 1
    if products is Products.DIGITS or (products is Products.PACKED and lower):
        return codes + weight_offset(weights)
    return codes & ((1 << code_bits(products, weights)) - 1)
