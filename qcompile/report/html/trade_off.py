"""Dice against bytes for the networks that a search compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from qcompile.report.document import Report
from qcompile.report.html.names import plain, short_names
from qcompile.report.html.scales import (
    Axis,
    Swatch,
    bits_swatch,
    bytes_text,
    linear_axis,
    log_axis,
    number,
    tick_text,
)
from qcompile.report.trade_off import TradeOffPoint, front

HEIGHT, TOP, BASE = 340, 18, 296
"""Of the picture; the edges of its plot."""
SPACING_X, SPACING_Y = 0.2, 16
"""Labels closer than this share of the width and these pixels are left out."""


@dataclass(frozen=True, slots=True)
class Tick:
    """A grid line: `at` is a share of the width, or pixels from the top."""

    at: str
    label: str


@dataclass(frozen=True, slots=True)
class Point:
    """One network; `label` is empty where it would lie on another."""

    x: str
    y: float
    label: str
    anchor: str
    below: bool
    on_front: bool
    chosen: bool
    title: str


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the line through the best points."""

    x1: str
    y1: float
    x2: str
    y2: float


@dataclass(frozen=True)
class TradeOffPicture:
    """The plot. `reference`: height of the line at the float network's Dice."""

    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    points: tuple[Point, ...]
    segments: tuple[Segment, ...]
    reference: float | None
    reference_text: str
    count: int
    height: int = HEIGHT
    top: int = TOP
    base: int = BASE


def trade_off_picture(
    points: Sequence[TradeOffPoint], dice_float: float | None
) -> TradeOffPicture | None:
    """None for fewer than two points.

    Args:
        points: in any order; at least one byte each.
        dice_float: of the float network.
    """
    if len(points) < 2:
        return None
    x_axis = log_axis([point.bytes for point in points])
    reference = [] if dice_float is None else [dice_float]
    y_axis = linear_axis([point.dice for point in points] + reference)
    best = front(points)
    order = sorted(points, key=lambda point: (not point.chosen, point not in best, point.bytes))
    labelled: list[tuple[float, float]] = []
    drawn = []
    for point in order:
        x, y = x_axis.place(point.bytes), _y(y_axis, point.dice)
        free = all(abs(x - u) > SPACING_X or abs(y - v) > SPACING_Y for u, v in labelled)
        shown = free and (point.chosen or point in best)
        if shown:
            labelled.append((x, y))
        drawn.append(
            Point(
                x_axis.percent(point.bytes),
                y,
                plain(point.label) if shown else "",
                "middle" if point.chosen else "end" if x > 0.8 else "start",
                not point.chosen and y < BASE - 24,
                point in best,
                point.chosen,
                f"{plain(point.label)}\n{bytes_text(point.bytes)}, Dice {point.dice:.4f}",
            )
        )
    digits = _digits(y_axis)
    return TradeOffPicture(
        tuple(Tick(x_axis.percent(tick), tick_text(tick)) for tick in x_axis.ticks),
        tuple(Tick(str(_y(y_axis, tick)), f"{tick:.{digits}f}") for tick in y_axis.ticks),
        tuple(reversed(drawn)),
        tuple(
            Segment(
                x_axis.percent(one.bytes),
                _y(y_axis, one.dice),
                x_axis.percent(two.bytes),
                _y(y_axis, two.dice),
            )
            for one, two in pairwise(best)
        ),
        None if dice_float is None else _y(y_axis, dice_float),
        "" if dice_float is None else f"float network, {dice_float:.4f}",
        len(points),
    )


@dataclass(frozen=True, slots=True)
class ReasonRow:
    """Why a tensor has its width, as cells of a table."""

    name: str
    full_name: str
    tensor: str
    bits: str
    swatch: Swatch
    error: str
    narrower: str


def reason_rows(report: Report) -> tuple[ReasonRow, ...]:
    """One for each width that a search was free to choose."""
    rows = [row for row in report.layers if row.name]
    short = dict(
        zip(
            [row.name for row in rows],
            short_names([row.name for row in rows], [row.operator for row in rows]),
            strict=True,
        )
    )
    return tuple(
        ReasonRow(
            short.get(why.name, plain(why.name)),
            plain(why.name),
            why.tensor,
            str(why.bits),
            bits_swatch(why.bits),
            f"{number(100 * why.error)} %",
            "" if why.narrower is None else f"{number(100 * why.narrower)} %",
        )
        for why in report.width_reasons
    )


def _y(axis: Axis, value: float) -> float:
    return round(BASE - (BASE - TOP) * axis.place(value), 1)


def _digits(axis: Axis) -> int:
    step = axis.ticks[1] - axis.ticks[0]
    return next((digits for digits in range(1, 7) if round(step, digits) >= step * 0.999), 6)
