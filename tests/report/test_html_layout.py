"""Places of layers: levels by resolution, columns by depth, arcs for skips."""

from __future__ import annotations

import pytest

from qcompile.report.html.layout import Arc, Cell, Item, lay_out
from qcompile.report.html.network import network_picture
from qcompile.types import Shape
from tests.report.made import report


def item(value: str, reads: str, *shape: int) -> Item:
    return Item(value, tuple(reads.split()), (1, *shape))


UNET = (
    item("x", "", 1, 64, 64),
    item("a", "x", 8, 64, 64),
    item("pool", "a", 8, 32, 32),
    item("b", "pool", 16, 32, 32),
    item("up", "b", 8, 64, 64),
    item("join", "a up", 16, 64, 64),
    item("head", "join", 2, 64, 64),
)


def test_a_u() -> None:
    layout = lay_out(UNET)
    assert layout.cells == {
        "x": Cell(0, 0, 0),
        "a": Cell(0, 1, 0),
        "pool": Cell(1, 1, 0),
        "b": Cell(1, 2, 0),
        "up": Cell(0, 3, 0),
        "join": Cell(0, 4, 0),
        "head": Cell(0, 5, 0),
    }
    assert layout.arcs == (Arc("a", "join", 0),)
    assert ("a", "join") not in layout.lines
    assert len(layout.lines) == 6
    assert layout.sizes == ("64 × 64", "32 × 32")
    assert layout.lanes == (1, 0)


def test_a_shortcut_with_a_layer_stands_below_the_main_path() -> None:
    layout = lay_out(
        (
            item("x", "", 4, 16, 16),
            item("c1", "x", 8, 8, 8),
            item("short", "x", 8, 8, 8),
            item("c2", "c1", 8, 8, 8),
            item("sum", "c2 short", 8, 8, 8),
        )
    )
    assert layout.cells["c1"] == Cell(1, 0, 0)
    assert layout.cells["short"] == Cell(1, 0, 1)
    assert layout.rows == (1, 2)
    assert layout.arcs == ()


def test_arcs_that_overlap_have_lanes_of_their_own() -> None:
    layout = lay_out(
        (
            item("x", "", 4, 8, 8),
            item("a", "x", 4, 8, 8),
            item("b", "a", 4, 8, 8),
            item("c", "b a", 4, 8, 8),
            item("d", "c x", 4, 8, 8),
        )
    )
    assert {(arc.start, arc.end): arc.lane for arc in layout.arcs} == {("a", "c"): 0, ("x", "d"): 1}


@pytest.mark.parametrize(
    ("shapes", "levels"),
    [
        # Convolutions without padding trim pixels; cropped maps meet again on their level.
        ([(1, 572, 572), (64, 570, 570), (64, 568, 568), (64, 284, 284)], [0, 0, 0, 1]),
        # A gate: the mean over the map, then back.
        ([(8, 64, 64), (8, 1, 1), (2, 1, 1)], [0, 1, 1]),
        # One and three spatial axes.
        ([(8, 64), (8, 32), (8, 16)], [0, 1, 2]),
        ([(8, 8, 8, 8), (8, 4, 4, 4)], [0, 1]),
        # None at all.
        ([(8,), (4,)], [0, 0]),
    ],
)
def test_levels(shapes: list[Shape], levels: list[int]) -> None:
    items = [
        item(str(place), str(place - 1) if place else "", *shape)
        for place, shape in enumerate(shapes)
    ]
    layout = lay_out(items)
    assert [layout.cells[str(place)].level for place in range(len(shapes))] == levels


def test_no_two_nodes_of_the_picture_touch() -> None:
    picture = network_picture(report())
    for place, one in enumerate(picture.nodes):
        assert one.right <= picture.width
        assert one.bottom <= picture.height
        for other in picture.nodes[place + 1 :]:
            apart_x = one.right <= other.x or other.right <= one.x
            assert apart_x or one.bottom <= other.y or other.bottom <= one.y


def test_colours_say_error_and_widths() -> None:
    picture = network_picture(report())
    first = picture.nodes[1]
    assert first.faces["sqnr"].text == "31.2 dB"
    assert first.faces["sqnr"].swatch.label == "30 to 40"
    assert first.faces["wbits"].text == "8 bit"
    assert first.faces["abits"].text == "6 bit"
    worst = picture.nodes[4]
    assert worst.faces["sqnr"].swatch.label == "under 10"
    assert worst.below == "↑3×3"
    assert [swatch.label for swatch in picture.legends["wbits"]] == [
        "4 bits", "8 bits", "no weights",
    ]  # fmt: skip
    assert picture.nodes[3].faces["fewer"].text == "17.0 dB"
    assert picture.nodes[4].faces["fewer"].swatch.label == "under 10"
    assert picture.nodes[1].faces["fewer"].swatch.label == "width not free"
    assert "fewer" not in network_picture(report(full=False)).nodes[1].faces
    assert [edge.is_skip for edge in picture.edges].count(True) == 1
    assert picture.glyphs == (("↓", "pooling"), ("C", "concatenation"))
