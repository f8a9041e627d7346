"""Images with the masks of the labels and of both networks over them, as PNG data addresses.

An image is embedded once and used by all of its panels; the masks are palette images that are
transparent where there is nothing.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from qcompile.report.document import Report
from qcompile.report.examples import Example
from qcompile.report.html.scales import minus, share_text
from qcompile.types import Array

CLASS_COLOURS = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#0072b2")
"""Of classes 1, 2, ... (Okabe and Ito's colours for colour-blind readers)."""
LOST, ADDED, OTHER = "#ffd400", "#ff2d95", "#00e5ff"
"""Only in the float mask; only in the quantised one; in both, but of different classes."""
FILL_ALPHA, EDGE_ALPHA, CHANGE_ALPHA, AGREED_ALPHA = 90, 255, 255, 90
LARGEST = 512
"""Pixels of a side; larger images are shown at a fraction."""


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture of a row.

    Attributes:
        caption: what it is.
        note: its Dice, or how many pixels differ.
        mask: data address of the overlay, empty for none.
        dimmed: the image is drawn weakly below it.
    """

    caption: str
    note: str
    mask: str = ""
    dimmed: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """One image with its panels."""

    key: str
    heading: str
    detail: str
    width: int
    height: int
    image: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Key:
    """An entry of the legend."""

    colour: str
    label: str


@dataclass(frozen=True)
class Overlays:
    """All images that are shown, and the legend."""

    cases: tuple[Case, ...]
    classes: tuple[Key, ...]
    changes: tuple[Key, ...]


def overlays(report: Report) -> Overlays | None:
    """The overlays of a report; None where nothing was evaluated or nothing can be shown."""
    evaluation = report.evaluation
    if evaluation is None or not evaluation.examples:
        return None
    labels = [item.label for item in evaluation.float_scores]
    changes = [Key(LOST, "only the float mask"), Key(ADDED, "only the quantised mask")]
    if len(labels) > 1:
        changes.append(Key(OTHER, "another class"))
    return Overlays(
        tuple(_case(example, number) for number, example in enumerate(evaluation.examples)),
        tuple(Key(class_colour(label), f"class {label}") for label in labels),
        tuple(changes),
    )


def class_colour(label: int) -> str:
    """The colour of a class, from 1; they repeat after six."""
    return CLASS_COLOURS[(label - 1) % len(CLASS_COLOURS)]


def _case(example: Example, number: int) -> Case:
    step = -(-max(example.label.shape) // LARGEST)
    image, label, real, found = (
        item[::step, ::step]
        for item in (example.image, example.label, example.float_map, example.quantized_map)
    )
    change = example.dice_quantized - example.dice_float
    differing = int(np.count_nonzero(example.float_map != example.quantized_map))
    height, width = label.shape
    return Case(
        f"case-{number}",
        f"Image {example.index}: {example.why}",
        f"Dice {example.dice_float:.3f} → {example.dice_quantized:.3f} ({minus(f'{change:+.3f}')})",
        width,
        height,
        png_address(Image.fromarray(image)),
        (
            Panel("Image", f"{example.label.shape[1]} × {example.label.shape[0]} pixels"),
            Panel("Truth", "", mask_address(label)),
            Panel("Float", f"Dice {example.dice_float:.3f}", mask_address(real)),
            Panel("Quantised", f"Dice {example.dice_quantized:.3f}", mask_address(found)),
            Panel(
                "Difference",
                f"{differing:,} pixels, {share_text(differing / example.label.size)}",
                difference_address(real, found),
                True,
            ),
        ),
    )


def mask_address(classes: Array) -> str:
    """Class indices [H, W] as a data address: filled lightly, with a solid edge."""
    shown = np.where(classes > 0, (classes - 1) % len(CLASS_COLOURS) + 1, 0)
    edge = _edges(classes) & (classes > 0)
    count = len(CLASS_COLOURS)
    return palette_address(
        np.where(edge, shown + count, shown),
        [*CLASS_COLOURS, *CLASS_COLOURS],
        [FILL_ALPHA] * count + [EDGE_ALPHA] * count,
    )


def difference_address(real: Array, found: Array) -> str:
    """What changed between two masks [H, W], as a data address; agreement is faintly white."""
    places = np.zeros(real.shape, np.int64)
    places[(real == found) & (real > 0)] = 1
    places[(real > 0) & (found == 0)] = 2
    places[(real == 0) & (found > 0)] = 3
    places[(real > 0) & (found > 0) & (real != found)] = 4
    return palette_address(
        places, ["#ffffff", LOST, ADDED, OTHER], [AGREED_ALPHA, *[CHANGE_ALPHA] * 3]
    )


def _edges(classes: Array) -> Array:
    """Pixels with a neighbour of another class."""
    edge = np.zeros(classes.shape, bool)
    below = classes[1:] != classes[:-1]
    beside = classes[:, 1:] != classes[:, :-1]
    edge[1:] |= below
    edge[:-1] |= below
    edge[:, 1:] |= beside
    edge[:, :-1] |= beside
    return edge


def palette_address(places: Array, colours: Sequence[str], alphas: Sequence[int]) -> str:
    """Index 0 is transparent, index i has the i-th colour."""
    image = Image.fromarray(places.astype(np.uint8), mode="P")
    channels = [0, 0, 0]
    for colour in colours:
        channels += [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
    image.putpalette(channels)
    return png_address(image, bytes([0, *alphas]))


def png_address(image: Image.Image, alphas: bytes | None = None) -> str:
    """An image as `data:image/png;base64,...`; `alphas` are those of its palette."""
    buffer = io.BytesIO()
    if alphas is None:
        image.save(buffer, "PNG")
    else:
        image.save(buffer, "PNG", optimize=True, transparency=alphas)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
