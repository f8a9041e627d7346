"""The types of values: which integers may occur, and what they mean as real numbers."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """A closed interval of exact Python integers, with interval arithmetic."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"empty range {self.low}..{self.high}")

    def __add__(self, other: Range) -> Range:
        return Range(self.low + other.low, self.high + other.high)

    def __mul__(self, other: Range) -> Range:
        products = (
            self.low * other.low,
            self.low * other.high,
            self.high * other.low,
            self.high * other.high,
        )
        return Range(min(products), max(products))

    def scaled(self, factor: int) -> Range:
        return self * Range(factor, factor)

    def union(self, other: Range) -> Range:
        return Range(min(self.low, other.low), max(self.high, other.high))

    def contains(self, other: Range) -> bool:
        return self.low <= other.low and other.high <= self.high

    @property
    def magnitude(self) -> int:
        """Largest absolute value."""
        return max(abs(self.low), abs(self.high))


@dataclass(frozen=True, slots=True)
class IntType:
    """A set of integers: `bits` wide, two's complement if `signed`, without the lowest code if
    `narrow` (symmetric). Ternary is `IntType(2, narrow=True)`."""

    bits: int
    signed: bool = True
    narrow: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 64:
            raise ValueError(f"integer types have 1 to 64 bits, not {self.bits}")
        if self.narrow and not self.signed:
            raise ValueError("only signed types can be narrow")

    @property
    def low(self) -> int:
        if not self.signed:
            return 0
        return -(1 << (self.bits - 1)) + (1 if self.narrow else 0)

    @property
    def high(self) -> int:
        return (1 << (self.bits - (1 if self.signed else 0))) - 1

    @property
    def range(self) -> Range:
        return Range(self.low, self.high)

    @property
    def storage(self) -> np.dtype[Any]:
        """The smallest numpy (and C) integer type that holds every element."""
        for bits in (8, 16, 32, 64):
            if self.bits <= bits:
                return np.dtype(f"{'int' if self.signed else 'uint'}{bits}")
        raise AssertionError(self.bits)

    @staticmethod
    def holding(values: Range) -> IntType:
        """The smallest type that holds a range; unsigned if nothing is negative."""
        if values.low >= 0:
            return IntType(max(1, values.high.bit_length()), signed=False)
        return IntType(1 + max((-values.low - 1).bit_length(), values.high.bit_length()))

    def __str__(self) -> str:
        return f"{'i' if self.signed else 'u'}{self.bits}{'n' if self.narrow else ''}"


@dataclass(frozen=True, slots=True)
class FloatType:
    """An IEEE 754 binary type; `bits` is 32 in every graph we emit."""

    bits: int = 32

    @property
    def storage(self) -> np.dtype[Any]:
        return np.dtype(f"float{self.bits}")

    def __str__(self) -> str:
        return f"f{self.bits}"


FLOAT32 = FloatType(32)
UINT8 = IntType(8, signed=False)
TERNARY = IntType(2, narrow=True)
MASK = IntType(1, signed=False)
Element = IntType | FloatType


class CodebookKind(enum.Enum):
    """Which family of values may occur; a bit count alone is not a format."""

    FLOAT = "float"
    UNIFORM = "uniform"
    TERNARY = "ternary"
    BINARY = "binary"
    POW2 = "pow2"
    DOREFA = "dorefa"
    FXP_PAPER = "fxp-paper"
    FXP_EM = "fxp-em"


INDEXED = (
    CodebookKind.BINARY,
    CodebookKind.POW2,
    CodebookKind.DOREFA,
    CodebookKind.FXP_EM,
)
"""Kinds whose levels lie far apart: weights are stored as indices into a table of levels."""


@dataclass(frozen=True, slots=True)
class Codebook:
    """A codebook kind and its true number of levels (0 for floats).

    `name` is what the literature calls it, with its width ("fxp-paper Q0.4"), where the kind alone
    does not say. `exact` weights lay on this grid already: their codes were read, not rounded.
    """

    kind: CodebookKind
    levels: int
    name: str = ""
    exact: bool = False

    def storage_bits(self, element: IntType) -> int:
        """Bits that one stored weight takes."""
        if self.kind in INDEXED:
            return max(1, (self.levels - 1).bit_length())
        return element.bits


class Rounding(enum.Enum):
    """How a model that was quantised elsewhere brings real numbers to codes (names of QONNX)."""

    HALF_EVEN = "ROUND"
    HALF_UP = "HALF_UP"
    HALF_DOWN = "HALF_DOWN"
    UP = "UP"
    DOWN = "DOWN"
    CEIL = "CEIL"
    FLOOR = "FLOOR"


@dataclass(frozen=True, slots=True)
class Quantization:
    """real = scale * integer. One scale, or one for each index of `axis`.

    Zero is code 0 inside the graph (contract, rule 1), so there is no zero point here; model
    boundaries carry theirs in the tables of their boundary operators.

    `imported` is the rounding of a grid that came with the model (docs/quantized-models.md): what
    is rounded to it keeps 24 bits of its factor. None for the grids we choose.
    """

    scale: tuple[float, ...]
    axis: int = 1
    imported: Rounding | None = None

    def __post_init__(self) -> None:
        if not self.scale or not all(math.isfinite(s) and s > 0 for s in self.scale):
            raise ValueError("scales must be finite and positive")

    @staticmethod
    def per_tensor(scale: float) -> Quantization:
        return Quantization((float(scale),))

    @property
    def is_per_tensor(self) -> bool:
        return len(self.scale) == 1

    @property
    def is_power_of_two(self) -> bool:
        return all(math.frexp(s)[0] == 0.5 for s in self.scale)

    def exact(self, index: int = 0) -> Fraction:
        """The scale of one channel as an exact rational."""
        return Fraction(self.scale[index if len(self.scale) > 1 else 0])

    def factors(self, shape: Shape) -> Array:
        """The scales as float32, shaped to multiply the codes of a tensor of this shape.

        More scales than `axis` is long are those of several groups, which lie one after another on
        axis 0 (ConvTranspose).
        """
        scales = np.asarray(self.scale, dtype=np.float32)
        if scales.size == 1:
            return scales.reshape((1,) * len(shape))
        groups = scales.size // shape[self.axis]
        broad = [1] * len(shape)
        broad[self.axis] = shape[self.axis]
        if groups == 1:
            return scales.reshape(broad)
        return scales.reshape(groups, *broad[1:]).repeat(shape[0] // groups, axis=0)


@dataclass(frozen=True, slots=True)
class CodeLimits:
    """Codes lie within low..high: one entry, or one for each index of axis 1.

    Tighter than the element: the 64 codes of a 6-bit norm after a ReLU start elsewhere in every
    channel, and an imported uint8 with zero point 37 has the codes -37..218 (contract, rule 1).
    """

    low: tuple[int, ...]
    high: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or not self.low:
            raise ValueError("limits need as many lower as upper ends, at least one")
        if any(low > high for low, high in zip(self.low, self.high, strict=True)):
            raise ValueError("limits must not be empty")

    @property
    def range(self) -> Range:
        """The codes of all channels."""
        return Range(min(self.low), max(self.high))

    @property
    def is_per_tensor(self) -> bool:
        return len(self.low) == 1

    def at(self, channel: int) -> Range:
        """The codes of one channel."""
        index = 0 if self.is_per_tensor else channel
        return Range(self.low[index], self.high[index])

    @staticmethod
    def of(channels: Sequence[Range]) -> CodeLimits:
        """The limits of these channels; one entry if they are all alike."""
        found = channels[:1] if len(set(channels)) == 1 else channels
        return CodeLimits(tuple(codes.low for codes in found), tuple(codes.high for codes in found))

    def whole(self) -> CodeLimits:
        """One entry that holds the codes of all channels."""
        return CodeLimits((min(self.low),), (max(self.high),))


@dataclass(frozen=True, slots=True)
class TensorType:
    """The type of a value: static shape (batch 1 first, the model's logical order), element type,
    and, for integers, how they map to real numbers."""

    shape: Shape
    element: Element = FLOAT32
    quantization: Quantization | None = None
    codebook: Codebook | None = None
    limits: CodeLimits | None = None

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def is_float(self) -> bool:
        return isinstance(self.element, FloatType)

    @property
    def integer(self) -> IntType:
        """The element type of a value known to be an integer."""
        if not isinstance(self.element, IntType):
            raise TypeError(f"{self} is not an integer tensor")
        return self.element

    @property
    def codes(self) -> Range:
        """The integers that occur in some channel: the limits, else what the element holds."""
        return self.integer.range if self.limits is None else self.limits.range

    def settled(self) -> TensorType:
        """Without where its grid came from: after lowering, epilogues say all about rounding."""
        if self.quantization is None or self.quantization.imported is None:
            return self
        return replace(self, quantization=replace(self.quantization, imported=None))

    @property
    def storage_bytes(self) -> int:
        """Bytes of the unpacked tensor in memory."""
        return self.size * self.element.storage.itemsize

    def __str__(self) -> str:
        return f"{self.element}[{','.join(map(str, self.shape))}]"


def q_format(element: IntType, scale: float) -> str | None:
    """'Q4.2' style name of a power-of-two format, None for other scales.

    The integer digits do not count the sign; `Q<i>.<f>` has i + f magnitude bits.
    """
    mantissa, exponent = math.frexp(scale)
    if mantissa != 0.5:
        return None
    fraction = 1 - exponent
    magnitude = element.bits - (1 if element.signed else 0)
    return f"{'' if element.signed else 'U'}Q{magnitude - fraction}.{fraction}"


def per_channel(values: Iterable[float] | Iterable[int], dtype: str, axis: int, rank: int) -> Array:
    """A vector of per-channel constants shaped to broadcast along `axis` of a `rank`-D tensor.

    A single value broadcasts everywhere.
    """
    vector = np.asarray(list(values), dtype=dtype)
    if vector.size == 1:
        return vector.reshape((1,) * rank)
    shape = [1] * rank
    shape[axis] = vector.size
    return vector.reshape(shape)
