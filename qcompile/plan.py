"""The quantization plan: for each operator, the format of its weights and of its output."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from qcompile.errors import UsageError
from qcompile.types import Codebook, CodebookKind, IntType


class Quantizer(enum.Enum):
    """The named formats of `--quantizer`."""

    SCALED = "scaled"
    FIXED = "fixed"
    TERNARY = "ternary"
    BINARY = "binary"
    POW2 = "pow2"


INTEGER_WIDTHS = (2, 3, 4, 5, 6, 7, 8, 16)
FLOAT_WIDTH = 32


@dataclass(frozen=True, slots=True)
class Format:
    """A width and a quantizer: what `--wbits`, `--abits` and `--quantizer` say of one tensor.

    `bits` is 2..8 or 16; 2 for ternary; 1 for binary; 32 leaves the tensor float.
    """

    bits: int
    quantizer: Quantizer

    @property
    def is_float(self) -> bool:
        return self.bits == FLOAT_WIDTH

    @property
    def power_of_two_scale(self) -> bool:
        return self.quantizer is Quantizer.FIXED

    @property
    def width_name(self) -> str:
        """The form that `--wbits` takes."""
        if self.quantizer in (Quantizer.TERNARY, Quantizer.BINARY):
            return str(self.quantizer.value)
        return str(self.bits)

    def element(self, signed: bool) -> IntType:
        """The codes of an activation in this format (ternary and binary are always signed)."""
        if self.quantizer in (Quantizer.TERNARY, Quantizer.BINARY):
            return IntType(2, narrow=True)
        return IntType(self.bits, signed=signed)

    def codebook(self, element: IntType) -> Codebook:
        kinds = {
            Quantizer.TERNARY: CodebookKind.TERNARY,
            Quantizer.BINARY: CodebookKind.BINARY,
            Quantizer.POW2: CodebookKind.POW2,
        }
        kind = kinds.get(self.quantizer, CodebookKind.UNIFORM)
        if kind is CodebookKind.BINARY:
            return Codebook(kind, 2)
        return Codebook(kind, element.high - element.low + 1)


def parse_format(width: str, quantizer: Quantizer, what: str) -> Format:
    """The `Format` of a width as written on the command line.

    Args:
        width: '2'..'8', '16', '32', 'ternary' or 'binary'.
        quantizer: the quantizer in force where the width does not name its own.
        what: the option or table entry, for the message.

    Raises:
        UsageError: the width is unknown or does not fit the quantizer.
    """
    text = str(width).strip().lower()
    if text == "ternary":
        return Format(2, Quantizer.TERNARY)
    if text == "binary":
        return Format(1, Quantizer.BINARY)
    if text == str(FLOAT_WIDTH):
        return Format(FLOAT_WIDTH, Quantizer.SCALED)
    if text not in {str(bits) for bits in INTEGER_WIDTHS}:
        raise UsageError(f"{what}: '{width}' is no width; use 2 to 8, 16, 32, ternary or binary")
    bits = int(text)
    if quantizer is Quantizer.TERNARY and bits == 2:
        return Format(2, Quantizer.TERNARY)
    if quantizer in (Quantizer.TERNARY, Quantizer.BINARY):
        raise UsageError(
            f"{what}: {bits} bits with --quantizer {quantizer.value} is contradictory; "
            f"say {quantizer.value} as the width, or choose another quantizer"
        )
    return Format(bits, quantizer)


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """One operator, or one graph input (which has no weights).

    A given `scale` (of the output, real units a code) needs no calibration.
    """

    output: Format
    weights: Format | None = None
    scale: float | None = None
    signed: bool | None = None


@dataclass(frozen=True)
class Plan:
    """What is planned for the graph inputs (by value name) and for every operator (by its name)."""

    inputs: Mapping[str, LayerPlan] = field(default_factory=dict)
    layers: Mapping[str, LayerPlan] = field(default_factory=dict)
