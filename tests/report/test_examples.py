"""Which images are shown, and what lies over them."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from qcompile.report.examples import Example, choose_examples
from qcompile.report.html.overlays import difference_address, mask_address, overlays
from qcompile.report.metrics import ClassScore, overlaps, scores_from
from qcompile.types import Array
from tests.report.made import report


def scores(maps: Sequence[Array], labels: Sequence[Array]) -> tuple[ClassScore, ...]:
    return scores_from(
        [overlaps(found, label, (1,)) for found, label in zip(maps, labels, strict=True)], (1,)
    )


def chosen(
    images: Sequence[Array],
    labels: Sequence[Array],
    before: Sequence[Array],
    after: Sequence[Array],
) -> tuple[Example, ...]:
    return choose_examples(
        images, labels, before, after, scores(before, labels), scores(after, labels)
    )


def square(size: int) -> Array:
    mask = np.zeros((8, 8), np.int64)
    mask[:size, :size] = 1
    return mask


def test_the_worst_the_median_and_the_best_are_shown() -> None:
    truth = [square(6)] * 5
    images = [np.full((1, 8, 8), 10 * index, np.uint8) for index in range(5)]
    before = [square(size) for size in (5, 5, 5, 5, 5)]
    after = [square(size) for size in (6, 4, 5, 2, 5)]
    found = chosen(images, truth, before, after)
    assert [(item.index, item.why) for item in found] == [
        (3, "largest loss"),
        (2, "median change"),
        (0, "largest gain"),
    ]
    assert found[0].image[0, 0] == 30
    assert found[0].dice_quantized < found[0].dice_float


def test_where_everything_lost_the_best_is_the_smallest_loss() -> None:
    truth = [square(6)] * 2
    images = [np.zeros((8, 8, 3), np.uint8)] * 2
    found = chosen(images, truth, [square(6)] * 2, [square(4), square(5)])
    assert [item.why for item in found] == ["largest loss", "smallest loss"]
    assert found[0].image.shape == (8, 8, 3)


def test_of_a_volume_the_slice_that_differs_most_is_shown() -> None:
    volume = np.arange(3 * 8 * 8, dtype=np.float32).reshape(1, 3, 8, 8)
    truth = np.stack([square(4)] * 3)
    after = truth.copy()
    after[2] = square(2)
    (found,) = chosen([volume], [truth], [truth], [after])
    np.testing.assert_array_equal(found.quantized_map, square(2))
    assert found.image.shape == (8, 8)
    assert (found.image.min(), found.image.max()) == (0, 255)


def test_signals_have_no_pictures() -> None:
    label = np.array([0, 1, 1])
    assert chosen([np.zeros((1, 3), np.uint8)], [label], [label], [label]) == ()


def decoded(address: str) -> Array:
    """RGBA of a data address."""
    kind, _, text = address.partition(",")
    assert kind == "data:image/png;base64"
    image = Image.open(io.BytesIO(base64.b64decode(text, validate=True)))
    return np.asarray(image.convert("RGBA"))


def test_masks_are_transparent_outside_and_solid_at_their_edge() -> None:
    pixels = decoded(mask_address(square(4)))
    assert pixels.shape == (8, 8, 4)
    assert (pixels[5:, :, 3] == 0).all()
    assert tuple(pixels[1, 1, :3]) == (0x56, 0xB4, 0xE9)
    assert 0 < pixels[1, 1, 3] < 255
    assert pixels[3, 1, 3] == 255


def test_classes_have_different_colours() -> None:
    both = np.where(np.arange(8)[:, None] < 4, 1, 2) * np.ones((1, 8), np.int64)
    pixels = decoded(mask_address(both))
    assert tuple(pixels[0, 0, :3]) != tuple(pixels[7, 0, :3])


def test_differences_are_told_apart() -> None:
    real = np.array([[0, 1, 1, 0, 1]])
    found = np.array([[0, 1, 0, 1, 2]])
    pixels = decoded(difference_address(real, found))[0]
    assert pixels[0, 3] == 0
    assert 0 < pixels[1, 3] < 255
    assert (pixels[2:, 3] == 255).all()
    assert len({tuple(pixel) for pixel in pixels[1:]}) == 4


def test_an_image_is_embedded_once_and_large_ones_are_thinned() -> None:
    made = report()
    shown = overlays(made)
    assert shown is not None
    case = shown.cases[0]
    assert [panel.caption for panel in case.panels] == [
        "Image", "Truth", "Float", "Quantised", "Difference",
    ]  # fmt: skip
    assert case.heading == "Image 0: largest loss"
    assert case.detail == "Dice 1.000 → 0.545 (−0.455)"
    assert case.panels[4].note == "160 pixels, 21 %"
    assert (case.width, case.height) == (32, 24)
    assert made.evaluation is not None
    example = made.evaluation.examples[0]
    big = Example(
        0, "median change", np.zeros((1200, 900), np.uint8), *[np.zeros((1200, 900), np.int64)] * 3,
        dice_float=1.0, dice_quantized=1.0,
    )  # fmt: skip
    object.__setattr__(made.evaluation, "examples", (example, big))
    thinned = overlays(made)
    assert thinned is not None
    assert (thinned.cases[1].width, thinned.cases[1].height) == (300, 400)
    assert decoded(thinned.cases[1].image).shape == (400, 300, 4)


def test_without_evaluation_there_are_none() -> None:
    assert overlays(report(full=False)) is None
