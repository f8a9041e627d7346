"""What pruning did, as lines of text."""

from __future__ import annotations

from collections.abc import Sequence

from qcompile.report.document import Report

DETAIL = "pruning"
"""Its key in the details of a report."""


def pruning_lines(report: Report) -> list[tuple[str, str]]:
    """(what, how much), with what a search for a ratio tried; empty where nothing was pruned."""
    summary = report.details.get(DETAIL)
    if summary is None:
        return []
    filters = summary["filters_total"]
    ratio = report.options.get("prune", 0)
    lines = [
        ("filters removed", f"{filters[0] - filters[1]:,} of {filters[0]:,} (ratio {ratio:g})"),
        ("parameters", _change(summary["parameters"])),
        ("FLOPs", _change(summary["flops"])),
    ]
    for item in summary.get("trials", ()):
        verdict = "holds" if item["holds"] else "too much"
        measured = f"Dice {item['dice']:.4f}, drop {item['drop']:+.4f}"
        lines.append((f"tried {item['ratio']:g}", f"{item['network']}: {measured}, {verdict}"))
    return lines


def _change(pair: Sequence[int]) -> str:
    share = f" ({pair[1] / pair[0] - 1:+.1%})" if pair[0] else ""
    return f"{pair[0]:,} before, {pair[1]:,} after{share}"
