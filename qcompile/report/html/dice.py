"""Dice of every image before and after: a dot an image, on the diagonal where nothing changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.report.document import Report
from qcompile.report.html.overlays import class_colour
from qcompile.report.html.scales import Axis, linear_axis, minus, number
from qcompile.report.metrics import ClassScore

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
    """The scatter plot and the table beside it; `rows` has the mean last if there are classes."""

    width: int
    height: int
    side: int
    left: int
    top: int
    ticks: tuple[Tick, ...]
    dots: tuple[Dot, ...]
    rows: tuple[ClassRow, ...]
    images: int
    changes: Changes


def dice_picture(report: Report) -> DicePicture | None:
    """None without evaluation."""
    evaluation = report.evaluation
    if evaluation is None:
        return None
    pairs = list(zip(evaluation.float_scores, evaluation.quantized_scores, strict=True))
    values = [value for before, after in pairs for value in (*before.per_image, *after.per_image)]
    axis = linear_axis(values)
    axis = Axis(max(0.0, axis.low), min(1.0, axis.high), axis.ticks)
    dots = []
    rows = []
    for place, (before, after) in enumerate(pairs):
        colour, shape = class_colour(before.label), SHAPES[place % len(SHAPES)]
        for index, (x, y) in enumerate(zip(before.per_image, after.per_image, strict=True)):
            change = minus(f"{y - x:+.4f}")
            dots.append(
                Dot(
                    round(LEFT + SIDE * axis.place(x), 1),
                    round(TOP + SIDE * (1 - axis.place(y)), 1),
                    shape,
                    colour,
                    f"image {index}, class {before.label}\nfloat {x:.4f}, quantised {y:.4f} "
                    f"({change})",
                )
            )
        rows.append(
            _row(
                f"class {before.label}",
                before.mean,
                after.mean,
                shape,
                colour,
                f"{before.pooled:.4f} → {after.pooled:.4f}",
            )
        )
    if len(pairs) > 1:
        rows.append(_row("mean", evaluation.dice_float, evaluation.dice_quantized))
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
        tuple(dots),
        tuple(rows),
        evaluation.images,
        _changes(pairs),
    )


def _changes(pairs: Sequence[tuple[ClassScore, ClassScore]]) -> Changes:
    before = np.mean([item.per_image for item, _ in pairs], axis=0)
    after = np.mean([item.per_image for _, item in pairs], axis=0)
    points = 100 * (after - before)
    axis = linear_axis([float(value) for value in points], ticks=4, zero=True)

    def y(value: float) -> float:
        return round(4 + CHANGES * (1 - axis.place(value)), 1)

    count = len(points)
    bars = []
    for rank, index in enumerate(np.argsort(points, kind="stable")):
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


def _row(
    label: str,
    before: float,
    after: float,
    shape: str = "",
    colour: str = "",
    pooled: str = "",
) -> ClassRow:
    change = after - before
    return ClassRow(
        label,
        shape,
        colour,
        f"{before:.4f}",
        f"{after:.4f}",
        minus(f"{change:+.4f}"),
        change < -0.00005,
        pooled,
    )
