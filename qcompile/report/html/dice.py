"""Dice of every image before and after: a dot an image, on the diagonal where nothing changed."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.report.columns import NOTHING
from qcompile.report.document import Report
from qcompile.report.examples import per_image
from qcompile.report.html.overlays import class_colour
from qcompile.report.html.scales import NOTABLE, Axis, linear_axis, minus, number
from qcompile.report.metrics import ClassScore
from qcompile.report.summary import dice_rows, dice_text

SIDE = 300
"""Of the square in which the dots lie."""
LEFT, BOTTOM, TOP, RIGHT = 46, 40, 10, 14
CHANGES = 130
"""Height of the bars of changes."""
SHAPES = ("circle", "square", "triangle")
"""Marks of classes: not told apart by colour alone."""


@dataclass(frozen=True, slots=True)
class Dot:
    """One class of one image, in pixels of the picture."""

    x: float
    y: float
    shape: str
    colour: str
    title: str


@dataclass(frozen=True, slots=True)
class Tick:
    """A grid line of the square, at `x` from the left and, on the other axis, `y` from the top."""

    x: float
    y: float
    label: str


@dataclass(frozen=True, slots=True)
class ClassRow:
    """A line of the table of classes."""

    label: str
    shape: str
    colour: str
    before: str
    after: str
    change: str
    lost: bool
    pooled: str


@dataclass(frozen=True, slots=True)
class ChangeBar:
    """One image; `x` and `width` are shares of the width."""

    x: str
    width: str
    y: float
    height: float
    is_loss: bool
    title: str


@dataclass(frozen=True, slots=True)
class Changes:
    """How Dice changed, image by image, from the largest loss to the largest gain."""

    height: int
    ticks: tuple[Tick, ...]
    bars: tuple[ChangeBar, ...]


@dataclass(frozen=True)
class DicePicture:
    """The scatter plot and the table beside it; `summary` says what the means are of."""

    width: int
    height: int
    side: int
    left: int
    top: int
    ticks: tuple[Tick, ...]
    dots: tuple[Dot, ...]
    rows: tuple[ClassRow, ...]
    summary: str
    changes: Changes


def dice_picture(report: Report) -> DicePicture | None:
    """None without evaluation."""
    evaluation = report.evaluation
    if evaluation is None:
        return None
    pairs = list(zip(evaluation.float_scores, evaluation.quantized_scores, strict=True))
    values = [
        value
        for before, after in pairs
        for value in (*before.per_image, *after.per_image)
        if not math.isnan(value)
    ]
    axis = linear_axis(values)
    axis = Axis(max(0.0, axis.low), min(1.0, axis.high), axis.ticks)
    marks = {
        f"class {before.label}": (SHAPES[place % len(SHAPES)], class_colour(before.label))
        for place, (before, _) in enumerate(pairs)
    }
    ticks = tuple(
        Tick(
            round(LEFT + SIDE * axis.place(tick), 1),
            round(TOP + SIDE * (1 - axis.place(tick)), 1),
            number(tick),
        )
        for tick in axis.ticks
        if axis.low <= tick <= axis.high
    )
    return DicePicture(
        LEFT + SIDE + RIGHT,
        TOP + SIDE + BOTTOM,
        SIDE,
        LEFT,
        TOP,
        ticks,
        tuple(
            dot
            for (before, after), (shape, colour) in zip(pairs, marks.values(), strict=True)
            for dot in _dots(before, after, axis, shape, colour)
        ),
        tuple(_row(cells, *marks.get(cells[0], ("", ""))) for cells in dice_rows(report)),
        dice_text(report),
        _changes(pairs),
    )


def _dots(
    before: ClassScore, after: ClassScore, axis: Axis, shape: str, colour: str
) -> Iterator[Dot]:
    """Of one class; images that do not count for it have none."""
    for index, (x, y) in enumerate(zip(before.per_image, after.per_image, strict=True)):
        if math.isnan(x) or math.isnan(y):
            continue
        yield Dot(
            round(LEFT + SIDE * axis.place(x), 1),
            round(TOP + SIDE * (1 - axis.place(y)), 1),
            shape,
            colour,
            f"image {index}, class {before.label}\nfloat {x:.4f}, quantised {y:.4f} "
            f"({minus(f'{y - x:+.4f}')})",
        )


def _row(cells: tuple[str, ...], shape: str, colour: str) -> ClassRow:
    title, before, after, change, pooled_before, pooled_after = cells
    difference = 0.0 if change == NOTHING else float(change)
    # Of all measures only distances are better when they are smaller.
    lost = difference > 0 if title.endswith("Hausdorff") else difference < -NOTABLE
    pooled = "" if pooled_before == NOTHING else f"{pooled_before} → {pooled_after}"
    return ClassRow(title, shape, colour, before, after, minus(change), lost, pooled)


def _changes(pairs: Sequence[tuple[ClassScore, ClassScore]]) -> Changes:
    before = per_image([item for item, _ in pairs])
    after = per_image([item for _, item in pairs])
    points = 100 * (after - before)
    judged = np.flatnonzero(~np.isnan(points))
    axis = linear_axis([float(points[index]) for index in judged], ticks=4, zero=True)

    def y(value: float) -> float:
        return round(4 + CHANGES * (1 - axis.place(value)), 1)

    count = len(judged)
    bars = []
    for rank, index in enumerate(judged[np.argsort(points[judged], kind="stable")]):
        change = float(points[index])
        top, bottom = y(max(change, 0.0)), y(min(change, 0.0))
        width = min(70 / count, 6.0)
        bars.append(
            ChangeBar(
                f"{100 * (rank + 0.5) / count - width / 2:.2f}%",
                f"{width:.2f}%",
                top,
                round(bottom - top, 1),
                change < 0,
                f"image {index}: Dice {before[index]:.4f} → {after[index]:.4f} "
                f"({minus(f'{change:+.2f}')} points)",
            )
        )
    ticks = tuple(Tick(0.0, y(tick), number(tick)) for tick in axis.ticks)
    return Changes(CHANGES + 10, ticks, tuple(bars))
