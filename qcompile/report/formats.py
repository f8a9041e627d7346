"""Formats of tensors as reports name them: what they are, their levels, and bits of a code."""

from __future__ import annotations

from qcompile.types import CodebookKind, IntType, Quantization, TensorType, q_format

FLOAT_BITS = 32


def element_bits(kind: TensorType) -> int:
    """Bits of an element: 1 for binary, 2 for ternary, 32 for floats."""
    if kind.is_float:
        return FLOAT_BITS
    if kind.codebook is not None and kind.codebook.kind is CodebookKind.BINARY:
        return 1
    return kind.integer.bits


def stored_bits(kind: TensorType) -> int:
    """Bits of a stored weight: what tells its levels apart. Never less, whatever a format calls
    itself: the 33 levels of `fxp-paper` Q0.4 take 6 bits."""
    if kind.is_float or kind.codebook is None:
        return element_bits(kind)
    return kind.codebook.storage_bits(kind.integer)


def level_count(kind: TensorType) -> int | None:
    """How many different values there can be; None for floats and for class maps."""
    if kind.is_float or kind.quantization is None:
        return None
    if kind.codebook is not None:
        return kind.codebook.levels
    return kind.integer.high - kind.integer.low + 1


def describe_format(kind: TensorType) -> str:
    """'Q3.4', 'scale 0.0123', 'ternary scale per channel', 'fxp-paper Q0.4', 'float32', or 'index'
    for a class map; ', exact' behind it where the weights lay on that grid already."""
    if kind.is_float:
        return "float32"
    if kind.quantization is None:
        return "index"
    book = kind.codebook
    if book is None:
        return _describe_scale(kind.integer, kind.quantization)
    text = book.name
    if not text:
        text = _describe_scale(kind.integer, kind.quantization)
        if book.kind is not CodebookKind.UNIFORM:
            text = f"{book.kind.value} {text}"
    return text + (", exact" if book.exact else "")


def _describe_scale(element: IntType, quantization: Quantization) -> str:
    if quantization.is_power_of_two:
        scales = (min(quantization.scale), max(quantization.scale))
        names = list(dict.fromkeys(q_format(element, scale) or "" for scale in scales))
        return names[0] if len(names) == 1 else f"{names[0]} to {names[1]} per channel"
    if quantization.is_per_tensor:
        return f"scale {quantization.scale[0]:.4g}"
    return "scale per channel"
