"""Attention maps over the image: for some layers, what a few of their heads or gates look at.

What is shown follows from the weights by a fixed rule, which docs/report.md states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from qcompile.report.attention import AttentionLayer, AttentionMaps, attention_text
from qcompile.report.html.names import plain
from qcompile.report.html.overlays import LARGEST, palette_address, png_address
from qcompile.report.html.scales import share_text
from qcompile.sim.places import Places
from qcompile.types import Array

MOST_LAYERS = 4
WEAK, STRONG = (255, 45, 149), (255, 225, 60)
STEPS = 32
LEAST_ALPHA, MOST_ALPHA = 50, 225
SAME_PLACE = 1e-4
"""Of the image: places that differ by less are one."""
AROUND = 4
"""Windows are shown with this many times their size of the image."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the image."""

    x: float
    y: float
    width: float
    height: float

    @property
    def text(self) -> str:
        """As `viewBox` wants it."""
        return f"{self.x:g} {self.y:g} {self.width:g} {self.height:g}"


@dataclass(frozen=True, slots=True)
class AttentionPanel:
    """One picture: a part of the image, weights over it, and a mark where the query is."""

    caption: str
    note: str
    view: Box
    overlay: str
    place: Box
    mark: Box | None = None


@dataclass(frozen=True, slots=True)
class AttentionRow:
    """One layer; without panels where its weights cannot be placed in the image."""

    name: str
    detail: str
    panels: tuple[AttentionPanel, ...]


@dataclass(frozen=True)
class AttentionPicture:
    """The section on attention; `image` is a data address, empty where the input is no image."""

    text: str
    image: str
    view: Box
    rows: tuple[AttentionRow, ...]
    left_out: int


def attention_picture(
    maps: AttentionMaps | None, verified: bool | None, target: str
) -> AttentionPicture | None:
    """None without `--taps attention`."""
    if maps is None:
        return None
    count = len(maps.layers)
    chosen = sorted({round(i * (count - 1) / max(1, MOST_LAYERS - 1)) for i in range(MOST_LAYERS)})
    if count <= MOST_LAYERS:
        chosen = list(range(count))
    image, view = "", Box(0, 0, 1, 1)
    if maps.image is not None:
        height, width = maps.image.shape[:2]
        step = -(-max(height, width) // LARGEST)
        shown = maps.image[::step, ::step]
        image = png_address(Image.fromarray(shown))
        view = Box(0, 0, shown.shape[1], shown.shape[0])
    rows = [_row(maps.layers[index], view, bool(image)) for index in chosen]
    text = attention_text(maps, verified, target)
    return AttentionPicture(text, image, view, tuple(rows), count - len(chosen))


def _row(layer: AttentionLayer, view: Box, has_image: bool) -> AttentionRow:
    shape = " × ".join(map(str, layer.weights.shape[1:]))
    panels: tuple[AttentionPanel, ...] = ()
    if has_image and layer.kernel:
        panels = _window_panels(layer, view)
    elif has_image and layer.places is not None:
        panels_of = _gate_panels if layer.is_gate else _softmax_panels
        panels = panels_of(layer, layer.places, view)
    return AttentionRow(plain(layer.name), f"{layer.operator}, weights {shape}", panels)


def _window_panels(layer: AttentionLayer, view: Box) -> tuple[AttentionPanel, ...]:
    """How sharply each pixel looks, of the sharpest and the broadest head, and the sharpest
    window."""
    weights = layer.weights[0] / layer.levels
    _, positions, rows, columns = weights.shape
    spread = entropy(weights, axis=1)
    heads = spread.mean(axis=(1, 2))
    sharp, broad = int(heads.argmin()), int(heads.argmax())
    panels = []
    named = ((sharp, "Sharpest head"), (broad, "Broadest head"))
    for head, caption in named if sharp != broad else ((sharp, "Largest weights"),):
        largest = weights[head].max(axis=0)
        even = 1 / positions
        most = float(largest.max())
        note = f"head {head}: largest weight of each pixel, full colour {share_text(most)}"
        overlay = heat_address((largest - even) / max(most - even, 1e-9))
        panels.append(AttentionPanel(caption, note, view, overlay, view))
    at = int(spread[sharp].argmin())
    y, x = divmod(at, columns)
    top, left, bottom, right = layer.pads
    keys = rows - top - bottom + layer.kernel[0] - 1, columns - left - right + layer.kernel[1] - 1
    high, wide = view.height / keys[0], view.width / keys[1]
    place = Box((x - left) * wide, (y - top) * high, layer.kernel[1] * wide, layer.kernel[0] * high)
    window = weights[sharp, :, y, x].reshape(layer.kernel)
    side = AROUND * max(place.width, place.height)
    part = Box(
        place.x + place.width / 2 - side / 2, place.y + place.height / 2 - side / 2, side, side
    )
    note = f"weights[0, {sharp}, :, {y}, {x}], full colour {share_text(window.max())}"
    overlay = heat_address(window / max(window.max(), 1e-9))
    mark = Box(x * view.width / columns, y * view.height / rows, wide, high)
    panels.append(AttentionPanel("Sharpest window", note, part, overlay, place, mark))
    return tuple(panels)


def _gate_panels(layer: AttentionLayer, places: Places, view: Box) -> tuple[AttentionPanel, ...]:
    """The weights of all pixels; of several channels their mean, and the one whose weights vary
    most."""
    grid = _grid(places.queries)
    if grid is None or np.isnan(places.queries).any():
        return ()
    weights = layer.weights[0] / layer.levels
    channels = weights.shape[0]
    chosen = [("Gate", "weights[0, 0]", weights[0])]
    if channels > 1:
        varied = int(weights.std(axis=(1, 2)).argmax())
        chosen = [
            (
                "Mean of the channels",
                f"mean of weights[0] over {channels} channels",
                weights.mean(0),
            ),
            ("Most varied channel", f"weights[0, {varied}]", weights[varied]),
        ]
    rows, columns = (_nearest(axis, places.queries[..., i]) for i, axis in enumerate(grid))
    panels = []
    for caption, what, shares in chosen:
        picture = np.zeros([len(axis) for axis in grid])
        picture[rows, columns] = shares
        least, most = float(picture.min()), float(picture.max())
        note = f"{what}, transparent {share_text(least)}, full colour {share_text(most)}"
        overlay = heat_address((picture - least) / max(most - least, 1e-9))
        panels.append(AttentionPanel(caption, note, view, overlay, _place(grid, view)))
    return tuple(panels)


def _softmax_panels(layer: AttentionLayer, places: Places, view: Box) -> tuple[AttentionPanel, ...]:
    """The query at the centre of the image in its sharpest and its broadest head, and the sharpest
    query of all."""
    grid = _grid(places.keys)
    weights = layer.weights[0] / layer.levels
    queries = places.queries.reshape(-1, 2)
    known = ~np.isnan(queries).any(axis=1)
    if grid is None or not known.any():
        return ()
    flat = weights.reshape(-1, weights.shape[-1])
    spread = np.where(known, entropy(flat, axis=1), np.inf)
    distance = np.where(known, np.hypot(*(queries - 0.5).T), np.inf)
    central = np.flatnonzero(distance <= distance.min() + SAME_PLACE)
    # The first of the places that are equally near.
    here = np.abs(queries[central] - queries[central[0]]).max(axis=1) <= SAME_PLACE
    central = central[here]
    chosen = [(int(central[spread[central].argmin()]), "Centre, sharpest head")]
    chosen.append((int(central[spread[central].argmax()]), "Centre, broadest head"))
    if chosen[0][0] == chosen[1][0]:
        chosen = [(chosen[0][0], "Centre")]
    chosen.append((int(spread.argmin()), "Sharpest query"))
    keys = places.keys.reshape(-1, *places.keys.shape[-2:])
    return tuple(
        _query_panel(layer, at, caption, flat[at], keys, queries[at], grid, view)
        for at, caption in chosen
    )


def _query_panel(
    layer: AttentionLayer,
    at: int,
    caption: str,
    weights: Array,
    keys: Array,
    query: Array,
    grid: tuple[Array, Array],
    view: Box,
) -> AttentionPanel:
    index = np.unravel_index(at, layer.weights.shape[1:-1])
    places = keys[at // layer.weights.shape[-2]]
    placed = ~np.isnan(places).any(axis=1)
    picture = np.zeros([len(axis) for axis in grid])
    cells = [_nearest(axis, places[placed, i]) for i, axis in enumerate(grid)]
    np.add.at(picture, tuple(cells), weights[placed])
    high, wide = (_step(axis) for axis in grid)
    numbers = ", ".join(str(int(item)) for item in index)
    note = f"weights[0, {numbers}], full colour {share_text(float(picture.max()))}"
    elsewhere = float(weights[~placed].sum())
    if elsewhere > 0:
        note += f", {share_text(elsewhere)} on class tokens"
    mark = Box(
        (query[1] - wide / 2) * view.width,
        (query[0] - high / 2) * view.height,
        wide * view.width,
        high * view.height,
    )
    overlay = heat_address(picture / max(float(picture.max()), 1e-9))
    return AttentionPanel(caption, note, view, overlay, _place(grid, view), mark)


def _place(grid: tuple[Array, Array], view: Box) -> Box:
    """What the cells of a grid cover."""
    high, wide = (_step(axis) for axis in grid)
    return Box(
        (grid[1][0] - wide / 2) * view.width,
        (grid[0][0] - high / 2) * view.height,
        len(grid[1]) * wide * view.width,
        len(grid[0]) * high * view.height,
    )


def _grid(keys: Array) -> tuple[Array, Array] | None:
    """Rows and columns of the places of all keys; None where they form no grid."""
    places = keys.reshape(-1, 2)
    places = places[~np.isnan(places).any(axis=1)]
    if not len(places):
        return None
    axes = tuple(_apart(np.unique(places[:, i])) for i in range(2))
    for axis in axes:
        gaps = np.diff(axis)
        if len(gaps) and gaps.max() > 1.5 * gaps.min():
            return None
    return axes[0], axes[1]


def _apart(values: Array) -> Array:
    """Sorted numbers without those that follow another closely."""
    return np.asarray(values[np.concatenate([[True], np.diff(values) > SAME_PLACE])])


def _step(axis: Array) -> float:
    return float(axis[-1] - axis[0]) / (len(axis) - 1) if len(axis) > 1 else 1.0


def _nearest(axis: Array, values: Array) -> Array:
    """Index of the nearest number of a sorted axis, of the lower one of two equally near."""
    return np.asarray(np.searchsorted((axis[1:] + axis[:-1]) / 2, values))


def entropy(weights: Array, axis: int) -> Array:
    """Of distributions along `axis`, in nats: 0 where all weight is on one element."""
    total = weights.sum(axis=axis, keepdims=True)
    shares = weights / np.where(total > 0, total, 1)
    logs = np.log(np.where(shares > 0, shares, 1))
    return np.asarray(-(shares * logs).sum(axis=axis))


def heat_address(shares: Array) -> str:
    """Numbers [H, W] from 0 to 1 as a data address: transparent at 0, bright at 1."""
    levels = np.clip(np.rint(shares * STEPS), 0, STEPS).astype(np.int64)
    colours, alphas = [], []
    for level in range(1, STEPS + 1):
        share = (level - 1) / (STEPS - 1)
        rgb = (round(a + share * (b - a)) for a, b in zip(WEAK, STRONG, strict=True))
        colours.append("#" + "".join(f"{item:02x}" for item in rgb))
        alphas.append(round(LEAST_ALPHA + share * (MOST_ALPHA - LEAST_ALPHA)))
    return palette_address(levels, colours, alphas)


def heat_colours() -> Sequence[str]:
    """Of the weakest and the strongest weight, for the legend."""
    return tuple("#" + "".join(f"{item:02x}" for item in rgb) for rgb in (WEAK, STRONG))
