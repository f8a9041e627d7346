"""Dice against bytes."""

from __future__ import annotations

from qcompile.report.html.trade_off import SPACING_X, SPACING_Y, reason_rows, trade_off_picture
from qcompile.report.trade_off import TradeOffPoint, front
from tests.report.made import POINTS, report


def test_the_front_has_what_nothing_beats() -> None:
    assert [point.label for point in front(POINTS)] == [
        "ternary/4",
        "mixed, 2.5 bits",
        "4/6",
        "8/8",
    ]
    worse = TradeOffPoint(10, 0.5, "same size, worse")
    better = TradeOffPoint(10, 0.6, "same size")
    assert front([worse, better]) == (better,)


def test_the_picture() -> None:
    picture = trade_off_picture(POINTS, 0.85)
    assert picture is not None
    assert len(picture.points) == len(POINTS)
    assert len(picture.segments) == 3
    chosen = [point for point in picture.points if point.chosen]
    assert [point.label for point in chosen] == ["4/6"]
    assert picture.points[-1].chosen  # on top of the others
    assert "40.0 kB, Dice 0.8400" in chosen[0].title
    assert picture.reference is not None
    assert picture.reference < min(point.y for point in picture.points)
    xs = [float(point.x[:-1]) for point in sorted(picture.points, key=lambda item: item.title)]
    assert all(0 <= x <= 100 for x in xs)
    labelled = [point for point in picture.points if point.label]
    for place, one in enumerate(labelled):
        for other in labelled[place + 1 :]:
            apart = abs(float(one.x[:-1]) - float(other.x[:-1])) / 100
            assert apart > SPACING_X or abs(one.y - other.y) > SPACING_Y


def test_networks_of_one_size_and_one_dice_still_have_axes() -> None:
    points = [TradeOffPoint(5000, 0.8, "a"), TradeOffPoint(5000, 0.8, "b")]
    picture = trade_off_picture(points, None)
    assert picture is not None
    assert picture.reference is None
    assert len(picture.x_ticks) >= 2
    assert len(picture.y_ticks) >= 2


def test_reasons_say_what_fewer_bits_would_cost() -> None:
    rows = reason_rows(report())
    assert [(row.name, row.tensor, row.bits, row.error, row.narrower) for row in rows] == [
        ("mid", "weights", "4", "0.12 %", "0.51 %"),
        ("mid", "output", "6", "0.01 %", "2 %"),
        ("up", "weights", "2", "30 %", ""),
    ]


def test_one_point_is_no_trade_off() -> None:
    assert trade_off_picture(POINTS[:1], 0.9) is None
