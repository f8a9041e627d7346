"""The columns of the layer table, shared by the terminal and `report.md`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from qcompile.report.layers import LayerRow
from qcompile.types import Shape

NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        title: its head.
        text: what it shows of a row.
        from_width: the narrowest terminal that shows it.
        numeric: set flush right.
    """

    title: str
    text: Callable[[LayerRow], str]
    from_width: int = 0
    numeric: bool = True


def shape_text(shape: Shape) -> str:
    """'16x256x256': without the batch."""
    return "x".join(map(str, shape[1:])) or "1"


def count_text(value: int | None) -> str:
    """'812', '12.3k', '3.01G': at most five characters."""
    if value is None:
        return NOTHING
    if value < 10_000:
        return str(value)
    number = float(value)
    for suffix in ("k", "M", "G", "T"):
        number /= 1000
        if number < 999.5:
            return f"{number:.3g}{suffix}"
    return f"{number:.3g}T"


def number_text(value: float | None, digits: int) -> str:
    """A number with so many digits after the point."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def percent_text(value: float | None) -> str:
    """A share in per cent, without the sign."""
    return NOTHING if value is None else f"{100 * value:.2f}"


def bits_text(row: LayerRow) -> str:
    """'4/6/18': weights, output, accumulator."""
    return "/".join(
        NOTHING if bits is None else str(bits)
        for bits in (row.weight_bits, row.activation_bits, row.accumulator_bits)
    )


def levels_text(row: LayerRow) -> str:
    """'33/127': how many values weights and output can take."""
    counts = (row.weight_levels, row.activation_levels)
    return "/".join(NOTHING if count is None else str(count) for count in counts)


def safe_name(name: str, width: int = 60) -> str:
    """A node name for people: no control characters, the end kept where it is too long."""
    plain = "".join(char if char.isprintable() and char.isascii() else "?" for char in name)
    return plain if len(plain) <= width else ".." + plain[-(width - 2) :]


COLUMNS: tuple[Column, ...] = (
    Column("Operator", lambda row: row.operator, numeric=False),
    Column("Inputs", lambda row: ", ".join(map(shape_text, row.inputs)) or NOTHING, 190, False),
    Column("Output", lambda row: shape_text(row.output), numeric=False),
    Column("W/A/acc", bits_text),
    Column("Levels W/A", levels_text, 170),
    Column("Weights", lambda row: row.weight_format or NOTHING, 150, False),
    Column("Format", lambda row: row.activation_format, 110, False),
    Column("Params", lambda row: count_text(row.parameters)),
    Column("MACs", lambda row: count_text(row.macs)),
    Column("Bytes", lambda row: count_text(row.weight_bytes)),
    Column("Const", lambda row: count_text(row.const_bytes), 150),
    Column(
        "Sat %", lambda row: percent_text(row.fidelity.saturated if row.fidelity else None), 100
    ),
    Column("SQNR", lambda row: number_text(row.fidelity.sqnr_db if row.fidelity else None, 1)),
    Column(
        "Cosine", lambda row: number_text(row.fidelity.cosine if row.fidelity else None, 4), 130
    ),
    Column(
        "Max LSB", lambda row: number_text(row.fidelity.max_error if row.fidelity else None, 1), 130
    ),
)
"""Bytes: constants at their nominal width. Const: all constants of the layer as emitted.
SQNR in dB. Max LSB: the largest error in steps of the output."""
