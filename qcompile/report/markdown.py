"""`report.md`: the same table as on the terminal, with all columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from qcompile.plan_file import option_text
from qcompile.report.attention import ATTENTION_HEAD, attention_rows, attention_text
from qcompile.report.columns import COLUMNS, safe_name
from qcompile.report.document import Report
from qcompile.report.energy import ENERGY_HEAD, energy_rows, energy_text, measured_lines
from qcompile.report.footprint import footprint_lines
from qcompile.report.hardware import (
    HARDWARE_HEAD,
    RESOURCES_HEAD,
    hardware_lines,
    hardware_rows,
    resource_rows,
)
from qcompile.report.pruned import DETAIL, pruning_lines
from qcompile.report.summary import (
    DICE_HEAD,
    calibration_text,
    dice_rows,
    dice_text,
    totals_lines,
    verification_text,
)
from qcompile.report.ternary import TERNARY_HEAD, ternary_lines, ternary_rows


def to_markdown(report: Report) -> str:
    """The text of `report.md`."""
    parts = [
        f"# {markdown_cell(safe_name(report.model))}",
        f"SHA-256 `{report.sha256}`, compiled by qcompile {report.version}. "
        f"{_sentence(calibration_text(report))} {_sentence(verification_text(report))}",
    ]
    parts += [f"**Warning:** {markdown_cell(warning)}." for warning in report.warnings]
    rows = dice_rows(report)
    if rows:
        parts.append("## Dice")
        parts.append(markdown_table(DICE_HEAD, rows))
        parts.append(
            f"{_sentence(dice_text(report))} Pooled: the pixels of all images together. "
            "Background is not judged."
        )
    parts.append("## Totals")
    parts.append(markdown_table(("what", "how much"), totals_lines(report.totals)))
    if report.footprint is not None:
        parts.append("## Microcontroller")
        parts.append(markdown_table(("what", "how much"), footprint_lines(report.footprint)))
    pruned = pruning_lines(report)
    if pruned:
        parts.append("## Pruning")
        parts.append(markdown_table(("what", "how much"), pruned))
    if report.ternary is not None:
        parts.append("## Ternary layers")
        parts.append(markdown_table(("what", "how much"), ternary_lines(report.ternary)))
        rows_of_layers = ternary_rows(report.ternary)
        parts.append(
            markdown_table(TERNARY_HEAD, ((safe_name(row[0]), *row[1:]) for row in rows_of_layers))
        )
        parts.append(
            "Inputs: ternary is -1, 0, 1; k/4 are quarters, as an average of 2 x 2 leaves them. "
            "Zero inputs: on the calibration inputs."
        )
    if report.energy is not None:
        parts.append("## Energy")
        parts.append(markdown_table(ENERGY_HEAD, energy_rows(report.energy)))
        parts.append(markdown_cell(_sentence(energy_text(report.energy))))
        parts.append(
            markdown_table(("what", "how much"), measured_lines(report.energy, report.hardware))
        )
    if report.attention is not None:
        target = str(report.options.get("target"))
        parts.append("## Attention maps")
        parts.append(_sentence(attention_text(report.attention, report.verified, target)))
        rows_of_maps = attention_rows(report.attention)
        parts.append(
            markdown_table(ATTENTION_HEAD, ((safe_name(row[0]), *row[1:]) for row in rows_of_maps))
        )
    parts.append("## Layers")
    parts.append(
        markdown_table(
            ("Layer", *(column.title for column in COLUMNS)),
            (
                (safe_name(row.name), *(column.text(row) for column in COLUMNS))
                for row in report.layers
            ),
        )
    )
    parts.append(
        "W/A/acc: bits of weights, output and accumulator. Bytes: constants at their nominal "
        "width; Const: all constants of the layer as emitted. Sat: share of codes at the end of "
        "the range. SQNR in dB and cosine against the float network. Max LSB: largest error in "
        "steps of the output."
    )
    if report.hardware is not None:
        parts.append("## Hardware")
        parts.append(markdown_table(("what", "how much"), hardware_lines(report.hardware)))
        if report.hardware.resources:
            parts.append(markdown_table(RESOURCES_HEAD, resource_rows(report.hardware.resources)))
        parts.append(
            markdown_table(
                HARDWARE_HEAD,
                ((safe_name(row[0]), *row[1:]) for row in hardware_rows(report.hardware)),
            )
        )
    parts.append("## Options")
    parts.append(
        markdown_table(
            ("option", "value"),
            ((key, option_text(value)) for key, value in report.options.items()),
        )
    )
    details = [(key, str(value)) for key, value in report.details.items() if key != DETAIL]
    if details:
        parts.append("## Details")
        parts.append(markdown_table(("what", "value"), details))
    return "\n\n".join(parts) + "\n"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain texts."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(markdown_cell(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def markdown_cell(text: str) -> str:
    """Text that cannot leave its cell nor become markup."""
    for char in "\\`*_<>|[]":
        text = text.replace(char, f"\\{char}")
    return text
