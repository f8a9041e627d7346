"""One line on the formats of each operator, for the written plan."""

from __future__ import annotations

from collections.abc import Sequence

from qcompile.report.layers import LayerRow


def format_notes(rows: Sequence[LayerRow]) -> dict[str, str]:
    """Operator name -> 'weights fxp-paper Q0.4 (33 levels, 6 bits), output Q6.0 (...)'."""
    tables = {row.reads[0]: row for row in rows if row.operator == "Lookup" and row.reads}
    notes = {}
    for row in rows:
        # Where a sum only counts levels, its output is what the table behind makes of them.
        shown = tables.get(row.value, row) if row.activation_levels is None else row
        parts = []
        if row.weight_format is not None and row.weight_bits is not None:
            parts.append(_part("weights", row.weight_format, row.weight_levels, row.weight_bits))
        levels = shown.activation_levels
        parts.append(_part("output", shown.activation_format, levels, shown.activation_bits))
        notes[row.name] = ", ".join(parts)
    return notes


def _part(what: str, name: str, levels: int | None, bits: int) -> str:
    return f"{what} {name}" if levels is None else f"{what} {name} ({levels} levels, {bits} bits)"
