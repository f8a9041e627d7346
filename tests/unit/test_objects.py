"""Object metrics against hand-made cases and against the definitions, computed the slow way."""

from __future__ import annotations

import builtins
import itertools
import math
from typing import Any

import numpy as np
import pytest

from qcompile.data_options import EmptyDice
from qcompile.errors import ToolError
from qcompile.report.objects import (
    ObjectScore,
    counts_of_class,
    label_objects,
    load_ndimage,
    object_counts,
)
from qcompile.types import Array

ONE = EmptyDice.ONE


def squares(*corners: tuple[int, int, int]) -> Array:
    """Objects 1, 2, ... of [row, column, side] on 24x24 pixels."""
    image = np.zeros((24, 24), np.int64)
    for number, (row, column, side) in enumerate(corners, 1):
        image[row : row + side, column : column + side] = number
    return image


def test_the_same_objects() -> None:
    image = squares((1, 1, 5), (10, 10, 8))
    counts = object_counts(image, image * 3)
    assert (counts.right, counts.found, counts.wanted) == (2, 2, 2)
    assert (counts.f1(ONE), counts.dice(ONE), counts.hausdorff(ONE)) == (1, 1, 0)


def test_half_of_an_object_is_not_enough() -> None:
    wanted = np.zeros((8, 8), int)
    wanted[2:6, 2:6] = 1
    half, more = np.zeros_like(wanted), np.zeros_like(wanted)
    half[2:6, 2:4] = 1
    more[2:6, 2:5] = 1
    assert object_counts(half, wanted).f1(ONE) == 0
    assert object_counts(more, wanted).f1(ONE) == 1
    assert object_counts(more, wanted).dice(ONE) == pytest.approx(2 * 12 / 28)
    assert object_counts(more, wanted).hausdorff(ONE) == 1


def test_merged_objects_cost() -> None:
    merged = np.zeros((10, 20), int)
    merged[2:8, 2:18] = 1
    apart = merged.copy()
    apart[:, 9:11] = 0
    apart[:, 11:] *= 2
    counts = object_counts(merged, apart)
    assert (counts.right, counts.found, counts.wanted) == (1, 1, 2)
    assert counts.f1(ONE) == pytest.approx(2 / 3)
    assert counts.dice(ONE) == pytest.approx(2 * 42 / (96 + 42))


def slow(found: Array, wanted: Array) -> tuple[float, float]:
    """Object Dice and Hausdorff distance, straight from the definitions."""

    def hausdorff(a: Array, b: Array) -> float:
        one, two = np.argwhere(a), np.argwhere(b)
        apart = np.sqrt(((one[:, None] - two[None]) ** 2).sum(-1))
        return float(max(apart.min(0).max(), apart.min(1).max()))

    def half(ours: Array, theirs: Array) -> tuple[float, float]:
        dice = distance = 0.0
        for number in np.unique(ours[ours > 0]):
            mine = ours == number
            overlapped = theirs[mine & (theirs > 0)]
            weight = mine.sum() / (ours > 0).sum()
            if overlapped.size:
                partner = theirs == np.bincount(overlapped).argmax()
                dice += weight * 2 * (mine & partner).sum() / (mine.sum() + partner.sum())
                distance += weight * hausdorff(mine, partner)
            else:
                others = np.unique(theirs[theirs > 0])
                distance += weight * min(hausdorff(mine, theirs == other) for other in others)
        return dice, distance

    (first, far), (second, away) = half(found, wanted), half(wanted, found)
    return (first + second) / 2, (far + away) / 2


@pytest.mark.parametrize("seed", range(12))
def test_against_the_definitions(seed: int) -> None:
    generator = np.random.default_rng(seed)
    images = []
    for _ in range(2):
        noise = generator.random((20, 26))
        images.append(label_objects(noise > generator.uniform(0.6, 0.9)))
    dice, distance = slow(images[0], images[1])
    counts = object_counts(images[0], images[1])
    assert counts.dice(ONE) == pytest.approx(dice)
    assert counts.hausdorff(ONE) == pytest.approx(distance)


def test_corners_connect() -> None:
    assert label_objects(np.eye(4, dtype=bool)).max() == 1


def test_nothing_on_one_side_or_on_both() -> None:
    empty, some = np.zeros((24, 24), int), squares((2, 2, 4))
    diagonal = math.hypot(23, 23)
    for counts in (object_counts(empty, some), object_counts(some, empty)):
        assert (counts.f1(ONE), counts.dice(ONE)) == (0, 0)
        assert counts.hausdorff(ONE) == pytest.approx(diagonal)
    none = object_counts(empty, empty)
    assert (none.f1(ONE), none.dice(ONE), none.hausdorff(ONE)) == (1, 1, 0)
    assert (none.f1(EmptyDice.ZERO), none.dice(EmptyDice.ZERO)) == (0, 0)
    assert none.hausdorff(EmptyDice.ZERO) == pytest.approx(diagonal)
    assert math.isnan(object_counts(some, empty).f1(EmptyDice.SKIP))


def test_means_and_pooled() -> None:
    image = squares((1, 1, 4), (8, 8, 4), (16, 16, 4))
    score = ObjectScore(
        1, (object_counts(image, image), object_counts(squares((1, 1, 4)), squares((10, 1, 4))))
    )
    assert score.mean_f1 == 0.5
    assert score.pooled_f1 == pytest.approx(2 * 3 / 8)
    assert score.mean_dice == 0.5
    assert score.pooled_dice == pytest.approx(3 / 4)
    assert score.mean_hausdorff == 4.5
    assert score.pooled_hausdorff == pytest.approx(9 / 4)


def test_instances_that_touch_are_told_apart() -> None:
    label = np.ones((6, 12), np.uint8)
    numbers = np.where(np.arange(12) < 6, 4, 9) * np.ones((6, 1), int)
    assert counts_of_class(label, label, 1).wanted == 1
    assert counts_of_class(label, label, 1, numbers).wanted == 2


def test_many_specks_take_no_long_time() -> None:
    dots = np.zeros((300, 300), bool)
    for row, column in itertools.product(range(0, 300, 10), range(0, 300, 10)):
        dots[row, column] = True
    counts = object_counts(label_objects(dots), label_objects(np.roll(dots, 4, axis=1)))
    assert counts.found == 900
    assert counts.hausdorff(ONE) == pytest.approx(4)


def test_scipy_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name == "scipy":
            raise ImportError(name)
        return found(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ToolError, match=r"needs scipy; pip install 'qcompile\[medical\]'"):
        load_ndimage()
