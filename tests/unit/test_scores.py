"""Dice and IoU over images, cases and all pixels, and what empty masks count."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from qcompile.boundary import InputKind, InputSpec
from qcompile.data import EvaluationData
from qcompile.data.tiling import Tiling
from qcompile.data_options import DiceOver, EmptyDice, MaskValues
from qcompile.errors import DataError
from qcompile.evaluate import Evaluation, Judging, evaluate
from qcompile.graph import Graph, Stage
from qcompile.report.document import _dice
from qcompile.report.metrics import ClassScore, Overlap, mean_dice, overlap, scores_from
from qcompile.types import Array, TensorType

SPECS = {"x": InputSpec(InputKind.FLOAT32)}


def rows(*counts: int) -> list[Array]:
    """Masks of ten pixels, the first `count` of them 1."""
    return [(np.arange(10) < count).astype(np.uint8)[None] for count in counts]


def score(found: list[Array], wanted: list[Array], **options: object) -> ClassScore:
    counts = [[overlap(a, b, 1)] for a, b in zip(found, wanted, strict=True)]
    return scores_from(counts, [1], **options)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("empty", "dice", "mean"),
    [
        (EmptyDice.ONE, (1.0, 0.0, 0.8), 0.6),
        (EmptyDice.ZERO, (0.0, 0.0, 0.8), 0.8 / 3),
        (EmptyDice.SKIP, (math.nan, math.nan, 0.8), 0.8),
    ],
)
def test_empty_masks(empty: EmptyDice, dice: tuple[float, ...], mean: float) -> None:
    result = score(rows(0, 4, 4), rows(0, 0, 6), empty=empty)
    assert result.per_image == pytest.approx(dice, nan_ok=True)
    assert result.mean == pytest.approx(mean)
    assert result.pooled == pytest.approx(2 * 4 / 14)


def test_nothing_that_counts_is_no_number() -> None:
    result = score(rows(0, 3), rows(0, 0), empty=EmptyDice.SKIP)
    assert math.isnan(result.mean)
    assert math.isnan(result.pooled)
    other = score(rows(5), rows(5))
    assert mean_dice([result, other]) == 1.0


def test_cases_pool_their_slices() -> None:
    result = score(rows(2, 4, 5, 0), rows(2, 8, 5, 0), cases=(0, 1, 0, 1))
    assert result.per_case == pytest.approx((1.0, 8 / 12))
    assert result.case_mean == pytest.approx(10 / 12)
    assert result.mean == pytest.approx((1 + 8 / 12 + 1 + 1) / 4)
    assert result.pooled == pytest.approx(2 * 11 / 26)
    assert result.over(DiceOver.CASE) == result.case_mean
    assert result.over(DiceOver.POOLED) == result.pooled
    assert score(rows(2), rows(4)).per_case == pytest.approx((2 / 3,))


def test_intersection_over_union() -> None:
    result = score(rows(2, 4), rows(4, 4), cases=(0, 0))
    assert result.iou_mean == pytest.approx((0.5 + 1) / 2)
    assert result.iou_pooled == result.iou_case_mean == pytest.approx(6 / 8)
    assert Overlap(0, 0, 0).iou() == 1
    assert Overlap(0, 0, 0).iou(EmptyDice.ZERO) == 0


def identity() -> Graph:
    return Graph("g", Stage.FLOAT, ("x",), ("x",), (), {"x": TensorType((1, 1, 4, 4))}, {})


def data(
    *labels: Array, cases: tuple[str, ...] = (), tiling: Tiling | None = None
) -> EvaluationData:
    images = tuple({"x": np.where(label > 0, 1, -1).astype(np.float32)[None]} for label in labels)
    return EvaluationData(images, labels, cases, tiling=tiling or Tiling())


def test_halos_and_cases_through_both_networks() -> None:
    one, two = np.zeros((7, 9), np.uint8), np.zeros((5, 4), np.uint8)
    one[1:4, 2:8] = 1
    given = data(one, two, one, cases=("b", "a", "b"), tiling=Tiling((1, 1), (2, 2)))
    judging = Judging(over=DiceOver.CASE, objects=True)
    found = evaluate(identity(), identity(), given, SPECS, judging)
    assert (found.dice_float, found.dice_quantized) == (1, 1)
    assert found.case_names == ("b", "a")
    assert found.float_scores[0].cases == (0, 1, 0)
    assert found.quantized_objects[0].pooled_f1 == 1
    assert found.quantized_objects[0].images[0].wanted == 1
    document = _dice(found)
    assert document["cases"] == ["b", "a"]
    assert (document["over"], document["empty"]) == ("case", "one")
    assert document["tiles"] == {"halo": [1, 1], "stride": [2, 2], "exact": False}
    assert document["classes"][0]["float"]["per_case"] == [1.0, 1.0]
    assert document["objects"][0]["float"]["pooled"] == {"f1": 1.0, "dice": 1.0, "hausdorff": 0.0}
    json.dumps(document, allow_nan=False)


def test_skipped_images_are_null_in_the_report() -> None:
    label = np.zeros((4, 4), np.uint8)
    some = label.copy()
    some[1] = 1
    found = evaluate(
        identity(), identity(), data(label, some), SPECS, Judging(empty=EmptyDice.SKIP)
    )
    assert _dice(found)["classes"][0]["quantized"]["per_image"] == [None, 1.0]
    assert [example.index for example in found.examples] == [1]
    with pytest.raises(DataError, match="--empty-dice skip: no mask has a class"):
        evaluate(identity(), identity(), data(label), SPECS, Judging(empty=EmptyDice.SKIP))


def test_numbers_of_objects_in_masks() -> None:
    label = np.zeros((4, 4), np.uint8)
    label[0], label[1], label[3] = 7, 9, 7
    judging = Judging(objects=True, mask_values=MaskValues.INSTANCES)
    (counts,) = (
        evaluate(identity(), identity(), data(label), SPECS, judging).float_objects[0].images
    )
    assert (counts.found, counts.wanted) == (2, 2)


def test_the_float_half_of_an_earlier_evaluation_is_taken_over() -> None:
    label = np.zeros((4, 4), np.uint8)
    label[1] = 1
    steps: list[tuple[int, int]] = []
    known = evaluate(identity(), identity(), data(label), SPECS)
    again: Evaluation = evaluate(
        identity(),
        identity(),
        data(label),
        SPECS,
        known=known,
        progress=lambda *at: steps.append(at),
    )
    assert again == known
    assert steps == [(1, 1)]
    assert again.examples == ()


def test_images_are_read_one_after_the_other() -> None:
    from qcompile.data.item import Lazy

    label = np.zeros((4, 4), np.uint8)
    label[1] = 1
    alive: list[int] = []

    class Counted(dict[str, Array]):
        def __init__(self) -> None:
            super().__init__({"x": np.ones((1, 4, 4), np.float32)})
            alive.append(1)

        def __del__(self) -> None:
            alive.pop()

    most = []

    def image(at: int) -> Counted:
        most.append(len(alive))
        return Counted()

    many = EvaluationData(Lazy(40, image), Lazy(40, lambda at: label), is_float=True)
    evaluate(identity(), identity(), many, SPECS, workers=1)
    assert len(most) > 80
    assert max(most) <= 4
