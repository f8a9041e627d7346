"""What a search tried, as Markdown for people and JSON for programs."""

from __future__ import annotations

import json

from qcompile.report.markdown import markdown_cell, markdown_table
from qcompile.report.trade_off import TradeOffPoint
from qcompile.search.found import Found, Tried
from qcompile.search.metrics import METRICS
from qcompile.search.reasons import fits, reasons, summary

PLOT_FILE = "trade_off.svg"


def by_cost(found: Found) -> list[Tried]:
    """All plans, the cheapest first; those the target refused last."""
    return sorted(
        found.tried,
        key=lambda item: (
            bool(item.result.refused),
            found.leading.of(item.result) or 0.0,
            item.candidate.label,
        ),
    )


def trade_off_points(found: Found) -> tuple[TradeOffPoint, ...]:
    """For the report: bytes against Dice; empty where there are no labels."""
    return tuple(
        TradeOffPoint(
            item.result.bytes, item.result.dice, item.candidate.label, item is found.chosen
        )
        for item in by_cost(found)
        if item.result.dice is not None and item.result.bytes > 0
    )


def to_markdown(found: Found) -> str:
    """`trade_off.md`: the summary, the plans, and the widths with their reasons."""
    shown = [m for m in METRICS if any(m.of(item.result) is not None for item in found.tried)]
    dice = found.judged_by_dice
    head = ["plan", *(metric.unit for metric in shown), "mean bits of weights", "SQNR, dB"]
    head += ["Dice", "difference"] if dice else []
    rows = []
    for item in by_cost(found):
        result = item.result
        row = [item.candidate.label]
        row += [_count(metric.of(result)) for metric in shown]
        row += [f"{result.mean_wbits:.2f}", _decimal(result.sqnr_db, 1)]
        row += [_decimal(result.dice, 4), _decimal(_negative(result.drop), 4)] if dice else []
        rows.append([*row, _note(found, item)])
    widths = [
        [why.name, why.part.value, str(why.bits), _share(why.error), _share(why.narrower)]
        for why in reasons(found)
    ]
    parts = [
        "# Trade-off",
        "\n".join(f"- {markdown_cell(line)}" for line in summary(found)),
        f"![trade-off]({PLOT_FILE})",
        markdown_table([*head, "verdict"], rows),
        "# Widths",
        _EXPLANATION,
        markdown_table(["operator", "tensor", "bits", "noise", "with fewer bits"], widths),
    ]
    return "\n\n".join(parts) + "\n"


_EXPLANATION = (
    "Noise is what rounding adds to the sums that read a tensor, relative to their variance (for\n"
    "weights: what error-compensated rounding cannot undo). Bits were given where the last column\n"
    "is large for what they cost. Operators that are not listed have a width that the search\n"
    "leaves alone: first and last layers, outputs, what only moves codes, and overrides."
)


def to_json(found: Found) -> str:
    """`trade_off.json`: everything measured, and the widths of every plan."""
    document = {
        "leading": found.leading.name,
        "budgets": dict(found.budgets),
        "max_dice_drop": found.max_drop,
        "plans": [
            {
                "label": item.candidate.label,
                "mixed": item.candidate.mixed,
                "chosen": item is found.chosen,
                "fits": fits(found, item),
                **item.result.to_json(),
                "widths": [
                    {"operator": name, "tensor": part.value, "bits": bits}
                    for (name, part), bits in item.candidate.widths.items()
                ],
            }
            for item in by_cost(found)
        ],
    }
    return json.dumps(document, indent=1) + "\n"


def _note(found: Found, item: Tried) -> str:
    if item is found.chosen:
        return "chosen"
    if item.result.refused:
        return item.result.refused
    return "" if fits(found, item) else "over"


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _decimal(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _negative(value: float | None) -> float | None:
    return None if value is None else -value + 0.0


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2g} %"
