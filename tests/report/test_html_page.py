"""The page as text: escaped, self-contained, and with sections for what there is."""

from __future__ import annotations

import dataclasses
import re
from html.parser import HTMLParser

import pytest

from qcompile.data_options import EmptyDice
from qcompile.evaluate import Evaluation
from qcompile.report.html.dice import dice_picture
from qcompile.report.html.page import subtitle, tiles, to_html
from qcompile.report.metrics import ClassScore, Overlap, scores_from
from tests.report.made import EVIL, evaluation, layer, report

VOID = {"meta", "input", "img", "br", "link"}


class Page(HTMLParser):
    """Collects elements and texts, and checks that tags close."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def of(self, name: str) -> list[str]:
        """All values of an attribute."""
        return [value for _, found in self.elements if (value := found.get(name)) is not None]


@pytest.fixture(scope="module")
def evil() -> Page:
    return Page(to_html(report(EVIL)))


def test_names_from_the_model_stay_text(evil: Page) -> None:
    tags = {tag for tag, _ in evil.elements}
    assert not tags & {"script", "img", "iframe", "object", "embed", "base", "form"}
    assert not [name for _, found in evil.elements for name in found if name.startswith("on")]
    # In the heading, warnings, tooltips, tables, histograms, hardware and the trade-off.
    assert sum(EVIL in text for text in evil.texts) >= 10


def test_nothing_is_fetched_and_no_script_runs(evil: Page) -> None:
    addresses = evil.of("src") + evil.of("href") + evil.of("xlink:href")
    assert addresses
    assert all(item.startswith(("#", "data:image/png;base64,")) for item in addresses)
    policy = [found.get("content") for tag, found in evil.elements if tag == "meta"]
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'" in policy
    style = re.search("<style>(.*?)</style>", to_html(report()), re.DOTALL)
    assert style is not None
    assert "url(" not in style[1]
    assert "@import" not in style[1]


def test_addresses_within_the_page_exist() -> None:
    page = Page(to_html(report()))
    ids = page.of("id")
    assert len(ids) == len(set(ids))
    targets = [item[1:] for item in page.of("href") if item.startswith("#")]
    targets += page.of("for")
    targets += [
        text[5:-1] for name in ("marker-end", "fill") for text in page.of(name) if "url(#" in text
    ]
    assert targets
    assert set(targets) <= set(ids)


def test_sections_are_there_for_what_there_is() -> None:
    everything = Page(to_html(report()))
    sections = [str(found["id"]) for tag, found in everything.elements if tag == "section"]
    assert sections == [
        "dice", "examples", "network", "layers", "trade-off", "hardware", "histograms", "facts",
    ]  # fmt: skip
    little = Page(to_html(report(full=False)))
    sections = [str(found["id"]) for tag, found in little.elements if tag == "section"]
    assert sections == ["network", "layers", "facts"]
    assert "not measured" in little.texts
    assert any("not verified" in text for text in little.texts)


def test_equal_reports_give_equal_pages() -> None:
    assert to_html(report()) == to_html(report())


def test_the_top_says_dice_and_size() -> None:
    found = {tile.caption: tile for tile in tiles(report())}
    assert found["Dice, quantised"].value == "0.8485"
    assert found["Dice, float"].value == "0.9524"
    assert found["Dice, quantised"].note == "−10.39 points against float"
    assert found["Dice, quantised"].tone == "loss"
    assert found["Weights"].value == "1.15 kB"
    assert found["Weights"].note == "8.0 times smaller than float"
    assert found["Frames per second"].value == "2,000"
    assert found["Frames per second"].note == "at 100 MHz on ecp5-25k"
    mixed = dataclasses.replace(
        report(), layers=tuple(layer(str(n), "Conv", (1, 1, 4, 4), (), bits=n) for n in range(2, 7))
    )
    assert subtitle(mixed).startswith("Weights of 2 to 6 bits, activations of 6 bits")
    assert subtitle(report()) == (
        "Weights of 4 and 8 bits, activations of 6 bits, as an FPGA accelerator"
    )


def test_pruning_is_told_where_there_was_some() -> None:
    summary = {"filters_total": (80, 60), "parameters": (1000, 600), "flops": (5000, 2500)}
    pruned = dataclasses.replace(
        report(full=False), options={"prune": 0.25}, details={"pruning": summary}
    )
    texts = Page(to_html(pruned)).texts
    assert "20 of 80 (ratio 0.25)" in texts
    assert "1,000 before, 600 after (-40.0%)" in texts
    assert "Pruning" not in Page(to_html(report())).texts


def test_the_table_of_classes() -> None:
    picture = dice_picture(report())
    assert picture is not None
    first, second, mean = picture.rows[:3]
    assert (first.label, first.shape, first.before, first.after) == (
        "class 1", "circle", "0.9524", "0.8485",
    )  # fmt: skip
    assert first.change == "−0.1039"
    assert first.lost
    assert second.shape != first.shape
    assert second.colour != first.colour
    assert mean.label == "mean"
    assert len(picture.dots) == 6
    losses = [bar.is_loss for bar in picture.changes.bars]
    assert losses == [True, False, False]
    small = dataclasses.replace(
        report(), evaluation=dataclasses.replace(evaluation(), quantized_scores=almost())
    )
    again = dice_picture(small)
    assert again is not None
    assert not any(row.lost for row in again.rows)


def test_images_that_do_not_count_have_no_mark() -> None:
    counts = [(Overlap(3, 8, 4),), (Overlap(0, 2, 0),), (Overlap(4, 8, 4),)]
    scores = scores_from(counts, (1,), empty=EmptyDice.SKIP)
    picture = dice_picture(dataclasses.replace(report(), evaluation=Evaluation(scores, scores)))
    assert picture is not None
    assert len(picture.dots) == len(picture.changes.bars) == 2


def almost() -> tuple[ClassScore, ...]:
    """The scores of the float network, a pixel of a thousand worse."""
    return tuple(
        dataclasses.replace(
            score,
            images=tuple(
                Overlap(1000 * i.common - 1, 1000 * i.total, i.wanted) for i in score.images
            ),
        )
        for score in evaluation().float_scores
    )
