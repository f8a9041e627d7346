"""A few evaluated images with their masks, for the overlays of `report.html`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from qcompile.boundary import channel_axis
from qcompile.report.metrics import ClassScore
from qcompile.types import Array


@dataclass(frozen=True)
class Example:
    """One image. All arrays have the same height and width.

    Attributes:
        index: of the image in the evaluation data.
        why: it was chosen, such as 'largest loss' or 'median change'.
        image: uint8 [H, W] or [H, W, 3].
        label: class indices [H, W].
        float_map: what the float network says.
        quantized_map: what the compiled network says.
        dice_float: of this image, mean over classes.
        dice_quantized: likewise.
    """

    index: int
    why: str
    image: Array
    label: Array
    float_map: Array
    quantized_map: Array
    dice_float: float
    dice_quantized: float


def choose_examples(
    images: Sequence[Array],
    labels: Sequence[Array],
    float_maps: Sequence[Array],
    quantized_maps: Sequence[Array],
    float_scores: Sequence[ClassScore],
    quantized_scores: Sequence[ClassScore],
) -> tuple[Example, ...]:
    """The images whose Dice fell most, changed as that of most images did, and rose most.

    Of volumes the slice is shown in which both masks differ most. Signals of one axis give none.

    Args:
        images: raw, [C, *spatial] or [*spatial, C], uint8 or float.
        labels: class indices [*spatial], like both kinds of maps.
        float_maps: of the float network.
        quantized_maps: of the compiled one.
        float_scores: Dice of each class and image.
        quantized_scores: likewise.
    """
    before, after = per_image(float_scores), per_image(quantized_scores)
    judged = np.flatnonzero(~np.isnan(before))
    order = judged[np.argsort((after - before)[judged], kind="stable")]
    last = len(order) - 1
    found = []
    for rank in sorted({0, last // 2, last}):
        index = int(order[rank])
        why = _reason(rank, last, float(after[index] - before[index]))
        planes = _planes(images[index], labels[index], float_maps[index], quantized_maps[index])
        if planes is not None:
            found.append(Example(index, why, *planes, float(before[index]), float(after[index])))
    return tuple(found)


def per_image(scores: Sequence[ClassScore]) -> Array:
    """Mean over those classes that count in an image; NaN where none does."""
    values = np.array([item.per_image for item in scores])
    counted = ~np.isnan(values)
    sums = np.where(counted, values, 0).sum(axis=0)
    return np.asarray(np.where(counted.any(axis=0), sums, np.nan) / counted.sum(axis=0).clip(1))


def _reason(rank: int, last: int, change: float) -> str:
    """Why the image at `rank` of all, sorted from loss to gain, is shown."""
    if 0 < rank < last:
        return "median change"
    if change == 0:
        return "no change"
    if rank == 0:
        return "largest loss" if change < 0 else "smallest gain"
    return "largest gain" if change > 0 else "smallest loss"


def _planes(
    image: Array, label: Array, float_map: Array, quantized_map: Array
) -> tuple[Array, Array, Array, Array] | None:
    """Two-dimensional views of one image and its masks."""
    if label.ndim < 2:
        return None
    axis = channel_axis((1, *image.shape)) - 1
    picture = np.moveaxis(image, axis, -1)
    maps = [label, float_map, quantized_map]
    while maps[0].ndim > 2:
        other = tuple(range(1, maps[0].ndim))
        differing = (maps[1] != maps[2]).sum(axis=other)
        at = int(np.argmax(differing)) if differing.any() else int((label != 0).sum(other).argmax())
        label = label[at] if label.ndim > 2 else label
        maps = [item[at] for item in maps]
        picture = picture[at]
    return as_pixels(picture), maps[0], maps[1], maps[2]


def as_pixels(image: Array) -> Array:
    """uint8 [H, W] or [H, W, 3] from [H, W, C]; floats are stretched to their range."""
    shown = image if image.shape[-1] == 3 else image[..., 0]
    if shown.dtype == np.uint8:
        return np.ascontiguousarray(shown)
    low, high = float(shown.min()), float(shown.max())
    stretched = (shown.astype(np.float64) - low) * (255 / (high - low) if high > low else 0.0)
    return np.ascontiguousarray(np.rint(stretched).astype(np.uint8))
