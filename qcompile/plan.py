"""The quantization plan: for each operator, the format of its weights and of its output."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from qcompile.errors import UsageError
from qcompile.fixed_point import QFormat, is_q_format, parse_q_format
from qcompile.types import TERNARY, Codebook, CodebookKind, IntType, Range


class Quantizer(enum.Enum):
    """The named formats of `--quantizer` (docs/formats.md)."""

    SCALED = "scaled"
    FIXED = "fixed"
    TERNARY = "ternary"
    TWN = "twn"
    BINARY = "binary"
    POW2 = "pow2"
    DOREFA = "dorefa"
    FXP_PAPER = "fxp-paper"
    FXP_EM = "fxp-em"

    @property
    def is_published_fixed_point(self) -> bool:
        """One of the two variants of the fixed-point U-Net, bit for bit."""
        return self in (Quantizer.FXP_PAPER, Quantizer.FXP_EM)

    @property
    def is_verbatim(self) -> bool:
        """The published rule works on the weights as trained: norms stay out of them, and they are
        not rescaled; first and last layers are as wide as `--first-last-bits` says, always."""
        own = (Quantizer.DOREFA, Quantizer.TWN, Quantizer.POW2)
        return self in own or self.is_published_fixed_point

    @property
    def of_activations(self) -> Quantizer:
        """The quantizer of activations where a network's weights have this one."""
        own = (Quantizer.FIXED, Quantizer.DOREFA, Quantizer.FXP_PAPER, Quantizer.FXP_EM)
        return self if self in own else Quantizer.SCALED


SIGNS_ONLY = (Quantizer.TERNARY, Quantizer.TWN, Quantizer.BINARY)
"""Quantizers whose width is their name."""

INTEGER_WIDTHS = (2, 3, 4, 5, 6, 7, 8, 16)
TENSOR_WIDTHS = tuple(range(2, 17))
"""Of activations that are no published format."""
FLOAT_WIDTH = 32


@dataclass(frozen=True, slots=True)
class Format:
    """A width and a quantizer: what `--wbits`, `--abits` and `--quantizer` say of one tensor.

    `bits` is 2..8 or 16; 2 for ternary; 1 for binary; 32 leaves the tensor float. A fixed-point
    format given by name has `q`, and `bits` that hold its signed codes.
    """

    bits: int
    quantizer: Quantizer
    q: QFormat | None = None

    @property
    def is_float(self) -> bool:
        return self.bits == FLOAT_WIDTH

    @property
    def power_of_two_scale(self) -> bool:
        return self.quantizer is Quantizer.FIXED or self.quantizer.is_published_fixed_point

    @property
    def width_name(self) -> str:
        """The form that `--wbits` takes."""
        if self.q is not None:
            return str(self.q)
        if self.quantizer is Quantizer.TWN:
            return Quantizer.TERNARY.value
        if self.quantizer in SIGNS_ONLY:
            return str(self.quantizer.value)
        return str(self.bits)

    @property
    def given_scale(self) -> float | None:
        """The scale of activations in this format, where the format itself says it."""
        if self.quantizer is Quantizer.FXP_EM and self.q is not None:
            return 2.0**-self.q.em_fraction
        if self.q is not None:
            return self.q.step
        return 1 / (2**self.bits - 1) if self.quantizer is Quantizer.DOREFA else None

    def element(self, signed: bool) -> IntType:
        """The codes of an activation in this format (ternary and binary are always signed,
        DoReFa's never)."""
        if self.quantizer in SIGNS_ONLY:
            return TERNARY
        if self.quantizer is Quantizer.DOREFA:
            return IntType(self.bits, signed=False)
        if self.q is None:
            return IntType(self.bits, signed=signed)
        if self.quantizer is Quantizer.FIXED:
            return IntType(self.q.digits + (1 if signed else 0), signed)
        return magnitude_type(self.largest, signed)

    @property
    def largest(self) -> int:
        """The largest magnitude of an activation in a published fixed-point format."""
        assert self.q is not None
        paper = self.quantizer is Quantizer.FXP_PAPER
        return self.q.paper_largest if paper else self.q.em_levels()[-1]

    def codebook(self, element: IntType) -> Codebook:
        """What an activation of this format and element may take."""
        if self.quantizer is Quantizer.BINARY:
            return Codebook(CodebookKind.BINARY, 2)
        if self.quantizer in SIGNS_ONLY:
            return Codebook(CodebookKind.TERNARY, 3)
        if self.q is not None and self.quantizer.is_published_fixed_point:
            paper = self.quantizer is Quantizer.FXP_PAPER
            above = self.q.paper_largest if paper else len(self.q.em_levels())
            kind = CodebookKind.FXP_PAPER if paper else CodebookKind.FXP_EM
            levels = 1 + above * (2 if element.signed else 1)
            return Codebook(kind, levels, f"{self.quantizer.value} {self.q}")
        name = f"dorefa {self.bits} bit" if self.quantizer is Quantizer.DOREFA else ""
        return Codebook(CodebookKind.UNIFORM, element.high - element.low + 1, name)


def magnitude_type(largest: int, signed: bool) -> IntType:
    """The smallest type of the codes -largest..largest, or 0..largest."""
    bits = largest.bit_length()
    return IntType(bits + 1, narrow=True) if signed else IntType.holding(Range(0, largest))


def parse_format(width: str, quantizer: Quantizer, what: str, weights: bool = False) -> Format:
    """The `Format` of a width as written on the command line.

    Args:
        width: '2'..'8', '16', '32', 'ternary', 'binary', or a fixed-point format such as 'Q0.4'.
        quantizer: the quantizer in force where the width does not name its own.
        what: the option or table entry, for the message.
        weights: the format is for weights; `fxp-paper` and `fxp-em` then make Q0.4 of 4 bits, else
            Q4.0 (and Q8.8 of 16 bits, as published).

    Raises:
        UsageError: the width is unknown or does not fit the quantizer.
    """
    text = str(width).strip().lower()
    if text == "ternary":
        return Format(2, Quantizer.TWN if quantizer is Quantizer.TWN else Quantizer.TERNARY)
    if text == "binary":
        return Format(1, Quantizer.BINARY)
    if text == str(FLOAT_WIDTH):
        return Format(FLOAT_WIDTH, Quantizer.SCALED)
    if is_q_format(text):
        return _q_format(text, quantizer, what, weights)
    narrow = weights or quantizer.is_published_fixed_point
    if text not in {str(bits) for bits in (INTEGER_WIDTHS if narrow else TENSOR_WIDTHS)}:
        raise UsageError(
            f"{what}: '{width}' is no width; use 2 to 8, 16, 32, ternary, binary or a fixed-point "
            f"format such as Q0.4"
        )
    bits = int(text)
    if quantizer in (Quantizer.TERNARY, Quantizer.TWN) and bits == 2:
        return Format(2, quantizer)
    if quantizer in SIGNS_ONLY:
        name = "ternary" if quantizer is Quantizer.TWN else quantizer.value
        raise UsageError(
            f"{what}: {bits} bits with --quantizer {quantizer.value} is contradictory; "
            f"say {name} as the width, or choose another quantizer"
        )
    if quantizer.is_published_fixed_point:
        half = bits // 2
        nominal = f"Q{half}.{half}" if bits == 16 else f"Q0.{bits}" if weights else f"Q{bits}.0"
        return _q_format(nominal, quantizer, what, weights)
    return Format(bits, quantizer)


def _q_format(text: str, quantizer: Quantizer, what: str, weights: bool) -> Format:
    q = parse_q_format(text, what)
    if quantizer in (Quantizer.FIXED, Quantizer.SCALED):
        return Format(q.digits + 1, Quantizer.FIXED, q)
    if not quantizer.is_published_fixed_point:
        raise UsageError(
            f"{what}: {q} with --quantizer {quantizer.value} is contradictory; use fixed, "
            f"fxp-paper or fxp-em, or give a width in bits"
        )
    if q.integer < 0 or q.fraction < 0:
        raise UsageError(
            f"{what}: {quantizer.value} has no {q}; use digits of 0 and more, or --quantizer fixed"
        )
    bare = Format(0, quantizer, q)
    return Format(bare.element(signed=True).bits, quantizer, q)


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """One operator, or one graph input (which has no weights).

    A given `scale` (of the output, real units a code) needs no calibration. Where a format says
    its own scale, that is the scale. `imported` says that the output's format came with the model:
    it is none of the user's business, and not written into plans.
    """

    output: Format
    weights: Format | None = None
    scale: float | None = None
    signed: bool | None = None
    imported: bool = False

    def __post_init__(self) -> None:
        if self.scale is None and self.output.given_scale is not None:
            object.__setattr__(self, "scale", self.output.given_scale)


@dataclass(frozen=True)
class Plan:
    """What is planned for the graph inputs (by value name) and for every operator (by its name)."""

    inputs: Mapping[str, LayerPlan] = field(default_factory=dict)
    layers: Mapping[str, LayerPlan] = field(default_factory=dict)
