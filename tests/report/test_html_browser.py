"""The page in a headless browser: it fits phones and desks, fetches nothing, and its pictures show.

Needs Chromium (`apt-get install chromium`, or `playwright install chromium`).
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from qcompile import CompileOptions, compile_model
from qcompile.report.html.page import to_html
from tests.report.made import EVIL, report

api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

PHONE, TABLET, DESK = 360, 768, 1280
BROWSERS = ("chromium", "chromium-browser", "google-chrome")

OVERLAPPING_TEXTS = """() => {
  const found = [];
  for (const svg of document.querySelectorAll('svg')) {
    const texts = [...svg.querySelectorAll('text')]
      .filter(text => text.textContent.trim() && text.checkVisibility())
      .map(text => [text.textContent, text.getBoundingClientRect()]);
    for (let i = 0; i < texts.length; i++)
      for (let j = i + 1; j < texts.length; j++) {
        const a = texts[i][1], b = texts[j][1];
        const width = Math.min(a.right, b.right) - Math.max(a.left, b.left);
        const height = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
        if (width > 1.5 && height > 3) found.push([texts[i][0], texts[j][0]]);
      }
  }
  return found;
}"""
CUT_TEXTS = """() => [...document.querySelectorAll('svg text')]
  .filter(text => text.textContent.trim() && text.checkVisibility() && !text.closest('.scroll'))
  .filter(text => {
    const box = text.getBoundingClientRect(), page = document.documentElement.clientWidth;
    return box.left < 0 || box.right > page;
  }).map(text => text.textContent)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with api.sync_playwright() as playwright:
        path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
        if path is None and not Path(playwright.chromium.executable_path).exists():
            pytest.skip("no Chromium found: apt-get install chromium")
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


class Shown:
    """A page in the browser, with what it asked for and complained about."""

    def __init__(self, browser: Any, path: Path, width: int, scheme: str = "light") -> None:
        self.page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        self.page.goto(path.as_uri())

    def picture(self, selector: str | None = None) -> np.ndarray[Any, Any]:
        """A screenshot, RGB."""
        if selector is None:
            data = self.page.screenshot(full_page=True)
        else:
            data = self.page.locator(selector).screenshot()
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("html") / "report.html"
    path.write_text(to_html(report()), encoding="utf-8")
    return path


@pytest.mark.parametrize("width", [PHONE, TABLET, DESK])
def test_it_fits_and_no_text_lies_on_another(browser: Any, made: Path, width: int) -> None:
    shown = Shown(browser, made, width)
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
    assert shown.page.evaluate(OVERLAPPING_TEXTS) == []
    assert shown.page.evaluate(CUT_TEXTS) == []
    assert shown.complaints == []
    asked = [url for url in shown.requests if not url.startswith("data:")]
    assert asked == [made.as_uri()]


def test_the_check_for_overlaps_finds_some(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(
        '<svg width="90" height="30"><text y="20">one</text><text y="20">two</text></svg>'
    )
    assert Shown(browser, path, PHONE).page.evaluate(OVERLAPPING_TEXTS) == [["one", "two"]]


def test_names_from_the_model_run_no_script(browser: Any, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(to_html(report(EVIL)), encoding="utf-8")
    shown = Shown(browser, path, DESK)
    assert shown.complaints == []
    assert not [url for url in shown.requests if "x.test" in url]
    assert shown.page.title().startswith(f"unet{EVIL}")


def test_buttons_change_the_colours(browser: Any, made: Path) -> None:
    shown = Shown(browser, made, DESK)
    shape = shown.page.locator("#network .shape").nth(1)
    fill = "element => getComputedStyle(element).fill"
    assert shape.evaluate(fill) == "rgb(145, 191, 219)"
    assert shown.page.locator("#network .inside:visible").nth(0).text_content() == "31.2 dB"
    shown.page.get_by_text("Bits of weights", exact=True).click()
    assert shape.evaluate(fill) == "rgb(37, 52, 148)"
    assert shown.page.locator("#network .inside:visible").nth(0).text_content() == "8 bit"
    assert shown.page.locator(".legend:visible", has_text="no weights").count() == 1


def test_a_layer_leads_to_its_histograms(browser: Any, made: Path) -> None:
    shown = Shown(browser, made, DESK)
    shown.page.locator("#network a").nth(3).click()
    assert shown.page.evaluate("location.hash") == "#layer-2"
    assert shown.page.locator("#layer-2").is_visible()


def test_light_and_dark(browser: Any, made: Path) -> None:
    light = Shown(browser, made, DESK).picture()
    dark = Shown(browser, made, DESK, "dark").picture()
    assert light[:20].mean() > 200
    assert dark[:20].mean() < 60
    assert len(np.unique(dark[::9, ::9].reshape(-1, 3), axis=0)) > 100


def test_masks_are_drawn_over_the_image(browser: Any, made: Path) -> None:
    shown = Shown(browser, made, DESK)
    panels = [
        shown.picture(f".case:nth-of-type(2) figure:nth-child({place}) svg") for place in (1, 2, 5)
    ]
    # Panels may differ by a pixel in width.
    image, truth, difference = (panel[:160, :220].astype(int) for panel in panels)
    assert np.abs(image - truth).max() > 60
    yellow = (difference[..., 0] > 240) & (difference[..., 1] > 190) & (difference[..., 2] < 60)
    assert yellow.any()


def test_a_compilation_writes_it(browser: Any, tmp_path: Path) -> None:
    example = Path(__file__).resolve().parents[2] / "examples" / "brain"
    slices = str(example / "slices.npz")
    options = CompileOptions(
        target="sim", wbits="4", abits="6", calib=slices, calib_images=4, data=slices, workers=1
    )
    result = compile_model(example / "brain_unet.onnx", options)
    text = result.files()["report.html"]
    assert isinstance(text, str)
    assert text == to_html(result.report)
    assert str(example) not in text
    path = tmp_path / "report.html"
    path.write_text(text, encoding="utf-8")
    for width in (PHONE, DESK):
        shown = Shown(browser, path, width)
        assert shown.complaints == []
        assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
        assert shown.page.evaluate(OVERLAPPING_TEXTS) == []
        assert shown.page.evaluate(CUT_TEXTS) == []
        ids = shown.page.eval_on_selector_all("section", "found => found.map(item => item.id)")
        assert ids == ["dice", "examples", "network", "layers", "energy", "histograms", "facts"]
        assert shown.page.locator("#examples figure").count() == 15
