"""Learning curves as a picture: one SVG without scripts or fonts of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from qcompile.report.html.scales import Axis, linear_axis, number

WIDTH, HEIGHT = 760, 520
LEFT, RIGHT = 70, 740
BANDS = ((40, 220), (290, 470))
"""Top and base of the two diagrams."""
INK, PALE, LOSS, DICE = "#15191d", "#d5dae0", "#d95f0e", "#225ea8"


@dataclass(frozen=True, slots=True)
class Epoch:
    """What is known after an epoch; 0 is before the training.

    Attributes:
        epoch: its number.
        loss: mean over its batches; None for epoch 0.
        dice: of the compiled network on the validation images; None if it was not measured.
        frozen: the share of the weights that is frozen after it; None without portions.
    """

    epoch: int
    loss: float | None
    dice: float | None
    frozen: float | None = None


def curves_svg(epochs: Sequence[Epoch], dice_float: float | None, best: int) -> str:
    """Loss above, Dice below, with the float network's Dice and the epoch that is kept; lines where
    more weights were frozen."""
    losses = [(item.epoch, item.loss) for item in epochs if item.loss is not None]
    dices = [(item.epoch, item.dice) for item in epochs if item.dice is not None]
    last = max([1, *(item.epoch for item in epochs)])
    body: list[str] = []
    diagrams = (
        ("loss of the training", LOSS, losses, None),
        ("Dice of the compiled network, validation", DICE, dices, dice_float),
    )
    for (top, base), (title, colour, points, level) in zip(BANDS, diagrams, strict=True):
        body.append(_text(LEFT, top - 12, title))
        if not points:
            body.append(_text(LEFT + 10, top + 20, "nothing was measured"))
            continue
        axis = linear_axis([value for _, value in points] + ([] if level is None else [level]))
        body += _frame(axis, top, base, last)
        body += _portions(epochs, top, base, last)
        body += _curve(points, axis, top, base, last, colour, best)
        if level is not None:
            y = _y(axis, level, top, base)
            body.append(_line(LEFT, y, RIGHT, y, INK, "2 4"))
            body.append(_text(RIGHT, y - 4, f"float network {level:.4f}", "end"))
    body.append(_text((LEFT + RIGHT) / 2, BANDS[1][1] + 40, "epoch", "middle"))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">\n'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>\n'
        + "\n".join(body)
        + "\n</svg>\n"
    )


def _frame(axis: Axis, top: float, base: float, last: int) -> Iterator[str]:
    for tick in axis.ticks:
        y = _y(axis, tick, top, base)
        yield _line(LEFT, y, RIGHT, y, PALE)
        yield _text(LEFT - 8, y + 4, number(tick), "end")
    step = max(1, -(-last // 10))
    for epoch in range(0, last + 1, step):
        yield _text(_x(epoch, last), base + 18, str(epoch), "middle")


def _portions(epochs: Sequence[Epoch], top: float, base: float, last: int) -> Iterator[str]:
    """A line with the share of frozen weights between the epochs where it changes."""
    for before, after in itertools.pairwise(epochs):
        if after.frozen is not None and after.frozen != before.frozen:
            x = _x(before.epoch, last)
            yield _line(x, top, x, base, INK, "1 3")
            yield _text(x + 3, base - 4, f"{100 * after.frozen:g} %")


def _curve(
    points: Sequence[tuple[int, float]],
    axis: Axis,
    top: float,
    base: float,
    last: int,
    colour: str,
    best: int,
) -> Iterator[str]:
    places = [(_x(epoch, last), _y(axis, value, top, base)) for epoch, value in points]
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    yield f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for (epoch, value), (x, y) in zip(points, places, strict=True):
        title = f"<title>epoch {epoch}: {value:.4f}</title>"
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}">{title}</circle>'
        if epoch == best:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="8" fill="none" stroke="{INK}"/>'


def _x(epoch: int, last: int) -> float:
    return LEFT + (RIGHT - LEFT) * epoch / last


def _y(axis: Axis, value: float, top: float, base: float) -> float:
    return base - (base - top) * axis.place(value)


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, dashes: str = "") -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{dashed}/>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{INK}">{text}</text>'
