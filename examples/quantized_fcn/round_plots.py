"""Table and plot of the rounds: mean and spread over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from qcompile.report.html.scales import linear_axis, number

METRICS = (
    ("dice", "Dice", 4),
    ("f1", "F1 of objects", 4),
    ("object_dice", "object Dice", 4),
    ("object_hausdorff", "object Hausdorff, pixels", 2),
)
ORDER = ("random", "float", "quantised", "all")
NAMES = {
    "random": "drawn at random",
    "float": "suggested, float ensemble",
    "quantised": "suggested, 5-bit ensemble",
    "all": "all images",
}
COLOURS = {"random": "#59636e", "float": "#225ea8", "quantised": "#d95f0e", "all": "#15191d"}
WIDTH, HEIGHT = 400, 250
LEFT, RIGHT, TOP, BASE = 60, 385, 40, 205
INK, PALE = "#15191d", "#d5dae0"

Cell = dict[str, Any]


def cells(results: Sequence[Cell], metric: str) -> dict[tuple[int, str], list[float]]:
    """(share, way) -> the metric for each seed."""
    found: dict[tuple[int, str], list[float]] = {}
    for item in sorted(results, key=lambda it: (it["share"], ORDER.index(it["way"]), it["seed"])):
        found.setdefault((item["share"], item["way"]), []).append(item["scores"][metric])
    return found


def spread(values: Sequence[float], digits: int) -> str:
    """Mean and sample standard deviation."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {statistics.stdev(values):.{digits}f}"


def table_text(results: Sequence[Cell], codes: Sequence[Cell]) -> str:
    """Markdown: one row for each share and way.

    Args:
        results: of the float networks.
        codes: of the same networks with 5-bit weights; may be empty.
    """
    lines = []
    networks = (("float networks", results), ("the same with 5-bit powers of two", codes))
    for title, chosen in networks:
        if not chosen:
            continue
        head = ["labelled", "images", *(name for _, name, _ in METRICS)]
        lines += [f"{title}:", "", _row(head), _row(["---"] * len(head))]
        columns = [(cells(chosen, key), digits) for key, _, digits in METRICS]
        for share, way in columns[0][0]:
            numbers = [spread(values[share, way], digits) for values, digits in columns]
            lines.append(_row([f"{share} %", NAMES[way], *numbers]))
        lines.append("")
    return "\n".join(lines)


def _row(parts: Sequence[str]) -> str:
    return "| " + " | ".join(parts) + " |"


def rounds_svg(results: Sequence[Cell]) -> str:
    """The four metrics of the float networks over the share of labelled images; a dot a seed, lines
    through the means."""
    body: list[str] = []
    for place, (metric, title, _) in enumerate(METRICS):
        x, y = place % 2 * WIDTH, place // 2 * HEIGHT
        body.append(f'<g transform="translate({x} {y})">')
        body += _diagram(cells(results, metric), title)
        body.append("</g>")
    for place, way in enumerate(ORDER):
        x = 60 + 185 * place
        body.append(f'<circle cx="{x}" cy="{2 * HEIGHT + 8}" r="5" fill="{COLOURS[way]}"/>')
        body.append(_text(x + 10, 2 * HEIGHT + 12, NAMES[way]))
    size = f"{2 * WIDTH} {2 * HEIGHT + 24}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" font-family="sans-serif" '
        f'font-size="12">\n<rect width="100%" height="100%" fill="#ffffff"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _diagram(values: dict[tuple[int, str], list[float]], title: str) -> Iterator[str]:
    axis = linear_axis([value for items in values.values() for value in items])
    shares = sorted({share for share, _ in values})

    def x_of(share: float) -> float:
        return LEFT + 20 + (RIGHT - LEFT - 40) * share / max(shares)

    def y_of(value: float) -> float:
        return BASE - (BASE - TOP) * axis.place(value)

    yield _text(LEFT, TOP - 14, title)
    for tick in axis.ticks:
        y = y_of(tick)
        yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{RIGHT}" y2="{y:.1f}" stroke="{PALE}"/>'
        yield _text(LEFT - 6, y + 4, number(tick), "end")
    for share in shares:
        yield _text(x_of(share), BASE + 16, f"{share} %", "middle")
    for place, way in enumerate(ORDER):
        known = {share: items for (share, name), items in values.items() if name == way}
        means = {share: statistics.fmean(items) for share, items in known.items()}
        means |= {
            share: statistics.fmean(items)
            for (share, name), items in values.items()
            if name == "all" and way != "all"
        }
        shift = 5 * (place - 1) if way != "all" else 0
        points = " ".join(f"{x_of(s):.1f},{y_of(m):.1f}" for s, m in sorted(means.items()))
        yield f'<polyline points="{points}" fill="none" stroke="{COLOURS[way]}" stroke-width="2"/>'
        for share, items in known.items():
            for value in items:
                yield (
                    f'<circle cx="{x_of(share) + shift:.1f}" cy="{y_of(value):.1f}" r="3" '
                    f'fill="{COLOURS[way]}"><title>{NAMES[way]}, {share} %: {value:.4f}</title>'
                    f"</circle>"
                )


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{INK}">{text}</text>'
