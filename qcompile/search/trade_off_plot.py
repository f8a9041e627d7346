"""The trade-off as a picture: one SVG without scripts or fonts of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from qcompile.report.html.names import plain
from qcompile.report.html.scales import Axis, amount_text, linear_axis, log_axis, number
from qcompile.search.found import Found, Tried
from qcompile.search.reasons import fits

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BASE = 70, 740, 40, 360
MIXED, UNIFORM, CHOSEN, INK, PALE = "#225ea8", "#d95f0e", "#15191d", "#15191d", "#d5dae0"
LABEL_SIZE = (86, 14)
"""Room that a label takes, in pixels; where it would cover something it is left out. All points
have tooltips."""


def trade_off_svg(found: Found) -> str:
    """Cost to the right, logarithmic; worth upwards: Dice, or the SQNR of the last layer.

    Mixed plans are discs, uniform ones squares, hollow where they do not keep the budgets.
    """
    points = [item for item in found.tried if _at(found, item) is not None]
    body = list(_drawing(found, points)) if points else [_text(LEFT, TOP, "nothing was measured")]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _at(found: Found, item: Tried) -> tuple[float, float] | None:
    """Cost and worth; None where one of them is missing."""
    cost = found.leading.of(item.result)
    worth = item.result.dice if found.judged_by_dice else item.result.sqnr_db
    if item.result.refused or not cost or worth is None:
        return None
    return cost, worth


def _drawing(found: Found, points: Sequence[Tried]) -> Iterator[str]:
    places = [place for item in points if (place := _at(found, item)) is not None]
    reference = points[0].result.dice_float if found.judged_by_dice else None
    budget = found.budgets.get(found.leading.name)
    x_axis = log_axis([cost for cost, _ in places] + ([budget] if budget else []))
    y_axis = linear_axis([worth for _, worth in places] + ([reference] if reference else []))
    yield from _grid(x_axis, y_axis)
    worth = "Dice" if found.judged_by_dice else "SQNR of the last layer, dB"
    yield _text(LEFT, 20, worth)
    yield _text((LEFT + RIGHT) / 2, BASE + 44, found.leading.unit, "middle")
    if reference is not None:
        y = _y(y_axis, reference)
        yield _line(LEFT, y, RIGHT, y, INK, "2 4")
        yield _text(LEFT + 4, y - 4, f"float network {reference:.4f}")
    if budget is not None:
        x = _x(x_axis, budget)
        yield _line(x, TOP, x, BASE, INK, "6 4")
        yield _text(x - 4, TOP + 10, "budget", "end")
    spots = [(_x(x_axis, cost), _y(y_axis, height)) for cost, height in places]
    labelled: list[tuple[float, float]] = []
    order = sorted(points, key=lambda item: (item is not found.chosen, not fits(found, item)))
    for item in order:
        place = _at(found, item)
        assert place is not None
        x, y = _x(x_axis, place[0]), _y(y_axis, place[1])
        yield _mark(found, item, x, y)
        left = x > RIGHT - LABEL_SIZE[0]
        if item is found.chosen or _is_free(x, y, left, spots, labelled):
            labelled.append((x - LABEL_SIZE[0] if left else x, y))
            anchor, shift = ("end", -12) if left else ("start", 12)
            yield _text(x + shift, y + 4, item.candidate.label, anchor, item is found.chosen)
    yield from _legend()


def _is_free(
    x: float,
    y: float,
    left: bool,
    spots: Sequence[tuple[float, float]],
    labelled: Sequence[tuple[float, float]],
) -> bool:
    """Whether a label beside the point (x, y) covers no point and no label."""
    wide, high = LABEL_SIZE
    start = x - wide if left else x
    covered = (start < u < start + wide and abs(y - v) < high for u, v in spots if u != x)
    touching = (abs(start - u) < wide and abs(y - v) < high for u, v in labelled)
    return not any(covered) and not any(touching)


def _grid(x_axis: Axis, y_axis: Axis) -> Iterator[str]:
    for tick in x_axis.ticks:
        x = _x(x_axis, tick)
        yield _line(x, TOP, x, BASE, PALE)
        yield _text(x, BASE + 18, _short(tick), "middle")
    for tick in y_axis.ticks:
        y = _y(y_axis, tick)
        yield _line(LEFT, y, RIGHT, y, PALE)
        yield _text(LEFT - 8, y + 4, number(tick), "end")


def _short(tick: float) -> str:
    amount, _, unit = amount_text(tick).partition(" ")
    return f"{float(amount):g} {unit}".rstrip()


def _legend() -> Iterator[str]:
    x = RIGHT - 330
    yield f'<circle cx="{x}" cy="16" r="5" fill="{MIXED}"/>'
    yield _text(x + 10, 20, "mixed widths")
    yield f'<rect x="{x + 105}" y="11" width="10" height="10" fill="{UNIFORM}"/>'
    yield _text(x + 120, 20, "uniform")
    yield f'<circle cx="{x + 190}" cy="16" r="5" fill="none" stroke="{INK}"/>'
    yield _text(x + 200, 20, "hollow: over budget")


def _mark(found: Found, item: Tried, x: float, y: float) -> str:
    colour = MIXED if item.candidate.mixed else UNIFORM
    fill = colour if fits(found, item) else "#ffffff"
    place = _at(found, item)
    assert place is not None
    title = escape(f"{plain(item.candidate.label)}: {place[0]:,.0f}, {place[1]:.4f}")
    style = f'fill="{fill}" stroke="{colour}" stroke-width="2"'
    shape = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" {style}>'
        if item.candidate.mixed
        else f'<rect x="{x - 5:.1f}" y="{y - 5:.1f}" width="10" height="10" {style}>'
    )
    closing = "</circle>" if item.candidate.mixed else "</rect>"
    ring = ""
    if item is found.chosen:
        ring = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="10" fill="none" stroke="{CHOSEN}"/>'
    return f"{ring}{shape}<title>{title}</title>{closing}"


def _x(axis: Axis, value: float) -> float:
    return LEFT + (RIGHT - LEFT) * axis.place(value)


def _y(axis: Axis, value: float) -> float:
    return BASE - (BASE - TOP) * axis.place(value)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, dashes: str = "") -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{dashed}/>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start", bold: bool = False) -> str:
    weight = ' font-weight="bold"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{INK}"{weight}>'
        f"{escape(plain(text))}</text>"
    )
