"""An image, the mean prediction and the uncertainty side by side, as one PNG."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from qcompile.boundary import channel_axis
from qcompile.report.examples import as_pixels
from qcompile.report.html.overlays import CLASS_COLOURS
from qcompile.suggest.disagreement import Opinion
from qcompile.types import Array

LARGEST = 384
"""Pixels of a side of one panel; larger images are shown at a fraction."""
GAP = 6
FILL = 0.35
"""Share of a class's colour inside of its area; at the edge it is 1."""
HEAT = ("#000004", "#420a68", "#932667", "#dd513a", "#fca50a", "#fcffa4")
"""From certain to uncertain (matplotlib's inferno, which rises in brightness)."""
PANELS = ("image", "mean prediction", "uncertainty")


def strip(image: Array, opinion: Opinion, highest: float) -> bytes | None:
    """The three panels as a PNG; None for signals of one axis.

    Of volumes the slice is shown that is most uncertain.

    Args:
        image: raw, [C, *spatial] or [*spatial, C].
        opinion: what the ensemble says of it.
        highest: deviation that gets the last colour.
    """
    if opinion.deviation.ndim < 2:
        return None
    picture = np.moveaxis(image, channel_axis((1, *image.shape)) - 1, -1)
    mean, deviation = opinion.mean, opinion.deviation
    while deviation.ndim > 2:
        at = int(deviation.sum(axis=tuple(range(1, deviation.ndim))).argmax())
        picture, mean, deviation = picture[at], mean[:, at], deviation[at]
    step = -(-max(deviation.shape) // LARGEST)
    shown = as_pixels(picture)[::step, ::step]
    if shown.ndim == 2:
        shown = np.repeat(shown[..., None], 3, axis=2)
    panels = [
        shown,
        _with_classes(shown, classes_of(mean)[::step, ::step]),
        _heat(deviation[::step, ::step], highest),
    ]
    gap = np.full((shown.shape[0], GAP, 3), 255, np.uint8)
    buffer = io.BytesIO()
    joined = [panels[0], *(part for panel in panels[1:] for part in (gap, panel))]
    Image.fromarray(np.concatenate(joined, axis=1)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def classes_of(mean: Array) -> Array:
    """Class indices from mean probabilities [classes told apart, *spatial]: of one, whether it is
    more likely than not."""
    if len(mean) == 1:
        return np.asarray(mean[0] > 0.5, dtype=np.int64)
    return np.asarray(mean.argmax(axis=0))


def _with_classes(shown: Array, classes: Array) -> Array:
    result = shown.astype(np.float64)
    inside = np.zeros(classes.shape, bool)
    inside[1:-1, 1:-1] = (
        (classes[1:-1, 1:-1] == classes[:-2, 1:-1])
        & (classes[1:-1, 1:-1] == classes[2:, 1:-1])
        & (classes[1:-1, 1:-1] == classes[1:-1, :-2])
        & (classes[1:-1, 1:-1] == classes[1:-1, 2:])
    )
    for label in np.unique(classes[classes > 0]):
        colour = np.array(_rgb(CLASS_COLOURS[(int(label) - 1) % len(CLASS_COLOURS)]))
        share = np.where(inside, FILL, 1.0)[..., None]
        mixed = result * (1 - share) + colour * share
        result = np.where((classes == label)[..., None], mixed, result)
    return np.asarray(np.rint(result).astype(np.uint8))


def _heat(values: Array, highest: float) -> Array:
    places = np.linspace(0, max(highest, 1e-12), len(HEAT))
    stops = np.array([_rgb(colour) for colour in HEAT], dtype=np.float64)
    planes = [np.interp(values, places, stops[:, channel]) for channel in range(3)]
    return np.asarray(np.rint(np.stack(planes, axis=-1)).astype(np.uint8))


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
