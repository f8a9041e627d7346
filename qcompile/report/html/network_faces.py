"""What a node of the network's picture says: its sign, its colours, its texts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qcompile.report.columns import shape_text
from qcompile.report.document import Report
from qcompile.report.html.names import plain
from qcompile.report.html.scales import (
    SQNR_SWATCHES,
    UNKNOWN,
    Swatch,
    bits_swatch,
    decibel_text,
    share_text,
    sqnr_swatch,
)
from qcompile.report.layers import LayerRow

MODES = (
    ("sqnr", "Error (SQNR, dB)"),
    ("wbits", "Bits of weights"),
    ("abits", "Bits of output"),
    ("fewer", "Sensitivity"),
)
"""Questions that colours answer, the first at once; the last only after a search."""

BARS = ("Conv", "ConvTranspose", "MatMul")
"""Operators drawn as bars."""
_GLYPHS: Mapping[str, tuple[str, str]] = {
    "Add": ("+", "sum"),
    "Mul": ("×", "product"),
    "Div": ("÷", "quotient"),
    "Affine": ("a", "scale and shift"),
    "Concat": ("C", "concatenation"),
    "MaxPool": ("↓", "pooling"),
    "MaxPoolIndex": ("i", "place of the maximum"),
    "MaxUnpool": ("↑", "resize"),
    "AveragePool": ("↓", "pooling"),
    "ReduceMean": ("m", "mean"),
    "NearestResize": ("↑", "resize"),
    "LinearResize": ("↑", "resize"),
    "DepthToSpace": ("↑", "resize"),
    "Rescale": ("s", "change of scale"),
    "GroupNorm": ("n", "norm"),
    "LocalAttention2d": ("@", "attention"),
    "Softmax": ("p", "softmax"),
    "ArgMax": ("k", "class map"),
    "Threshold": ("k", "class map"),
    "Quantize": ("q", "quantise"),
    "Dequantize": ("r", "to real numbers"),
}
_FUNCTION = ("f", "function of one tensor")
_MOVES = ("Pad", "Slice", "Transpose", "Reshape")
_MOVE = ("·", "other movement")


NOT_FREE = dataclasses.replace(UNKNOWN, label="width not free")


@dataclass(frozen=True, slots=True)
class Face:
    """How a node looks under one question."""

    swatch: Swatch
    text: str


def kernel_text(row: LayerRow) -> str:
    """'3×3'; '↑2×2' of a transposed convolution."""
    if row.operator not in BARS:
        return ""
    text = "×".join(map(str, row.kernel)) or "dense"
    return f"↑{text}" if row.operator == "ConvTranspose" else text


def glyph(operator: str) -> tuple[str, str]:
    """The sign on a disc and its meaning."""
    return _GLYPHS.get(operator) or (_MOVE if operator in _MOVES else _FUNCTION)


def faces(value: str, row: LayerRow | None, report: Report) -> dict[str, Face]:
    """The looks of a layer (of an input where `row` is None), by question."""
    if row is None:
        element = next((port.element for port in report.inputs if port.name == value), "")
        bits = 8 if element == "uint8" else 32
        bar = Face(UNKNOWN, "")
        found = {"sqnr": bar, "wbits": bar, "abits": Face(bits_swatch(bits), _bits(bits))}
    else:
        found = {
            "sqnr": _decibels(None if row.fidelity is None else row.fidelity.sqnr_db),
            "wbits": Face(bits_swatch(row.weight_bits), _bits(row.weight_bits)),
            "abits": Face(bits_swatch(row.activation_bits), _bits(row.activation_bits)),
        }
    if report.width_reasons:
        found["fewer"] = _decibels(
            _sensitivity(value if row is None else row.name, report), NOT_FREE
        )
    return found


def _decibels(value: float | None, missing: Swatch = UNKNOWN) -> Face:
    if value is None:
        return Face(missing, "")
    return Face(sqnr_swatch(value), f"{decibel_text(value)} dB")


def _sensitivity(name: str, report: Report) -> float | None:
    """How far noise would stay below the signal if the most sensitive tensor of an operator had
    fewer bits, in dB; None where its widths were not free."""
    noise = [
        why.error if why.narrower is None else why.narrower
        for why in report.width_reasons
        if why.name == name
    ]
    return -10 * math.log10(max(noise)) if noise and max(noise) > 0 else None


def _bits(bits: int | None) -> str:
    if bits is None:
        return ""
    return "float" if bits == 32 else f"{bits} bit"


def title(value: str, row: LayerRow | None, short: Mapping[str, str], report: Report) -> str:
    """The tooltip of a layer, or of the input of that name."""
    if row is None:
        shape = next(port.shape for port in report.inputs if port.name == value)
        return f"{plain(value)}\ninput of the network, {shape_text(shape)}"
    lines = [plain(row.name), f"{row.operator} {kernel_text(row)}".strip()]
    sources = ", ".join(short.get(value, plain(value)) for value in row.reads)
    lines.append(f"reads {sources}; gives {shape_text(row.output)}")
    if row.weight_bits is not None:
        lines.append(f"weights: {_bits(row.weight_bits)}, {row.weight_format}")
    lines.append(f"output: {_bits(row.activation_bits)}, {row.activation_format}")
    if row.fidelity is not None and row.fidelity.sqnr_db is not None:
        lines.append(f"SQNR {decibel_text(row.fidelity.sqnr_db)} dB")
    if row.fidelity is not None and row.fidelity.saturated is not None:
        lines.append(f"at the end of the range: {share_text(row.fidelity.saturated)}")
    return "\n".join(lines)


def modes(report: Report) -> tuple[tuple[str, str], ...]:
    """Those of `MODES` that this report answers."""
    return MODES if report.width_reasons else MODES[:-1]


def legends(layers: Sequence[LayerRow]) -> dict[str, tuple[Swatch, ...]]:
    """Question -> the swatches that occur."""

    def widths(bits: Sequence[int | None]) -> tuple[Swatch, ...]:
        known = sorted({item for item in bits if item is not None})
        missing: tuple[Swatch, ...] = (bits_swatch(None),) if None in bits else ()
        return (*(bits_swatch(item) for item in known), *missing)

    unmeasured = any(row.fidelity is None or row.fidelity.sqnr_db is None for row in layers)
    return {
        "sqnr": (*SQNR_SWATCHES, UNKNOWN) if unmeasured else SQNR_SWATCHES,
        "wbits": widths([row.weight_bits for row in layers]),
        "abits": widths([row.activation_bits for row in layers]),
        "fewer": (*SQNR_SWATCHES, NOT_FREE),
    }
