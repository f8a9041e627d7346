"""What `qcompile suggest` writes."""

from __future__ import annotations

import base64
import csv
import io
import json
from dataclasses import dataclass

from qcompile import __version__
from qcompile.report.html.page import environment
from qcompile.suggest.disagreement import Opinion
from qcompile.suggest.pictures import HEAT, PANELS, classes_of, strip
from qcompile.suggest.run import Suggestion

COLUMNS = ("rank", "image", "index", "uncertainty", "gain", "cover")
TABLE_FILE, JSON_FILE, PAGE_FILE = "suggestions.csv", "suggestions.json", "suggestions.html"
DIGITS = 9


@dataclass(frozen=True, slots=True)
class Card:
    """One suggested image on the page."""

    rank: int
    image: str
    uncertainty: str
    gain: str
    foreground: str
    picture: str


def suggestion_files(found: Suggestion, opinions: list[Opinion]) -> dict[str, str | bytes]:
    """Relative path -> content of all files.

    Args:
        found: the choice.
        opinions: of the suggested images, in their order.
    """
    highest = max(float(item.deviation.max()) for item in opinions)
    shape = found.members[0].shape
    pictures = [
        strip(found.pool.image(item.index, shape, found.tiling), item, highest) for item in opinions
    ]
    files: dict[str, str | bytes] = {
        TABLE_FILE: table_text(found),
        JSON_FILE: json_text(found),
        PAGE_FILE: _page(found, opinions, pictures, highest),
    }
    for rank, (item, picture) in enumerate(zip(opinions, pictures, strict=True), start=1):
        if picture is not None:
            files[f"pictures/{rank:03d}-image-{item.index}.png"] = picture
    return files


def table_text(found: Suggestion) -> str:
    """The ranked list as CSV."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rows(found))
    return stream.getvalue()


def json_text(found: Suggestion) -> str:
    """The ranked list, how it came about, and the uncertainty of every image of the pool."""
    table = {
        "qcompile": __version__,
        "members": [
            {
                "model": item.name,
                "formats": item.formats,
                "features": item.features.value,
                "feature_channels": item.features.channels,
                "feature_stride": float(item.features.stride),
            }
            for item in found.members
        ],
        "suggested": _rows(found),
        "candidates": [found.pool.names[index] for index in found.candidates],
        "annotated": [found.pool.names[index] for index in found.annotated],
        "pool": [
            {"image": name, "index": index, "uncertainty": round(value, DIGITS)}
            for index, (name, value) in enumerate(
                zip(found.pool.names, found.uncertainty, strict=True)
            )
        ],
    }
    return json.dumps(table, indent=1) + "\n"


def _rows(found: Suggestion) -> list[dict[str, object]]:
    return [
        {
            "rank": rank,
            "image": found.pool.names[index],
            "index": index,
            "uncertainty": round(found.uncertainty[index], DIGITS),
            "gain": round(item.gain, DIGITS),
            "cover": round(item.cover, DIGITS),
        }
        for rank, (index, item) in enumerate(zip(found.images, found.chosen, strict=True), start=1)
    ]


def _page(
    found: Suggestion, opinions: list[Opinion], pictures: list[bytes | None], highest: float
) -> str:
    first = found.members[0]
    cards = [
        Card(
            rank,
            found.pool.names[item.index],
            f"{item.uncertainty:.4f}",
            f"{step.gain:.2f}",
            f"{(classes_of(item.mean) > 0).mean():.1%}",
            "" if picture is None else _address(picture),
        )
        for rank, (item, step, picture) in enumerate(
            zip(opinions, found.chosen, pictures, strict=True), start=1
        )
    ]
    return (
        environment()
        .get_template("suggestions.html.j2")
        .render(
            version=__version__,
            modes=(),
            cards=cards,
            panels=PANELS,
            heat=HEAT,
            highest=f"{highest:.2f}",
            members=[item.name for item in found.members],
            formats=", ".join(dict.fromkeys(item.formats for item in found.members)),
            features=first.features.value,
            channels=first.features.channels,
            pool=len(found.pool.names),
            annotated=len(found.annotated),
            candidates=len(found.candidates),
        )
    )


def _address(picture: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(picture).decode("ascii")
