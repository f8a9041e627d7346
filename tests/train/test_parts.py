"""Losses, augmentation, pieces of images, learning rate, pictures: by formulas written anew."""

from __future__ import annotations

import math
import xml.etree.ElementTree as Xml

import numpy as np
import pytest
import torch

from qcompile.boundary import InputKind, InputSpec
from qcompile.data.evaluation import EvaluationData
from qcompile.train.augment import EXPOSURE, IGNORED, Augment, parse_augment
from qcompile.train.curves import Epoch, curves_svg
from qcompile.train.loop import LOWEST_RATE, rate_at
from qcompile.train.losses import Loss, dice_loss, divergence, edges
from qcompile.train.options import class_weights
from qcompile.train.samples import Samples

NONE = Augment(frozenset())


def test_dice_loss() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (2, 3, 4, 5))
    labels = rng.integers(-1, 3, (2, 4, 5))
    share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    dices = []
    for index in (1, 2):
        found = share[:, index] * (labels >= 0)
        wanted = labels == index
        total = found.sum() + wanted.sum()
        dices.append((2 * (found * wanted).sum() + 1) / (total + 1))
    marks = torch.from_numpy(labels)
    value = dice_loss(torch.from_numpy(logits), marks, marks != IGNORED)
    assert float(value) == pytest.approx(1 - sum(dices) / 2, rel=1e-12)


def test_cross_entropy_with_weights_and_boundary() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(0, 2, (1, 2, 5, 6))
    labels = np.zeros((1, 5, 6), np.int64)
    labels[0, 1:3, 2:5] = 1
    labels[0, 4, 5] = IGNORED
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    numerator = denominator = 0.0
    for row in range(5):
        for column in range(6):
            label = labels[0, row, column]
            if label == IGNORED:
                continue
            around = labels[0, max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
            weight = (0.5, 2.5)[label] * (4 if (around != label).any() else 1)
            numerator -= weight * logs[0, label, row, column]
            denominator += weight
    loss = Loss((0.5, 2.5), dice=0, boundary=3)
    value = loss(torch.from_numpy(logits), torch.from_numpy(labels))
    assert float(value) == pytest.approx(numerator / denominator, rel=1e-12)


def test_one_logit_is_two_classes() -> None:
    logits = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    labels = torch.randint(0, 2, (2, 4, 4))
    both = torch.cat([torch.zeros_like(logits), logits], dim=1)
    assert torch.equal(Loss()(logits, labels), Loss()(both, labels))


def test_divergence() -> None:
    logits = torch.randn(1, 3, 4, 4, dtype=torch.float64)
    assert float(divergence(logits, logits)) == pytest.approx(0, abs=1e-15)
    assert float(divergence(logits, logits.flip(1))) > 0.01


def test_edges() -> None:
    labels = torch.zeros(1, 4, 6, dtype=torch.int64)
    labels[:, :, 3:] = 1
    expected = torch.zeros(1, 4, 6, dtype=torch.bool)
    expected[:, :, 2:4] = True
    assert torch.equal(edges(labels), expected)


@pytest.mark.parametrize(
    ("text", "weights"),
    [("", None), ("0.5,2", (0.5, 2.0)), ("balanced", (math.sqrt(4 / 3), 2.0))],
)
def test_class_weights(text: str, weights: tuple[float, ...] | None) -> None:
    found = class_weights(text, [300, 100])
    if weights is None or found is None:
        assert found is weights
    else:
        assert found[1] / found[0] == pytest.approx(weights[1] / weights[0])


def squares(count: int, size: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    labels = torch.zeros(count, size, size, dtype=torch.int64)
    labels[:, 3:7, 2:9] = 1
    return labels[:, None].float() * 200, labels


@pytest.mark.parametrize(
    "kinds", [("flips",), ("rotations",), ("shifts",), ("rotations", "shifts")]
)
def test_labels_move_with_images(kinds: tuple[str, ...]) -> None:
    images, labels = squares(64)
    generator = torch.Generator().manual_seed(3)
    moved, marks = Augment(frozenset(kinds))({"x": images}, labels, generator, True)
    assert not torch.equal(marks, labels)
    counted = marks != IGNORED
    agree = (moved["x"][:, 0] > 100) == (marks == 1)
    assert float(agree[counted].float().mean()) > 0.97
    assert int(counted.sum()) > 0.7 * counted.numel()


def test_exposure_is_one_factor_for_an_image() -> None:
    images = {"x": torch.arange(1.0, 65.0).reshape(4, 1, 4, 4)}
    labels = torch.zeros(4, 4, 4, dtype=torch.int64)
    augment = parse_augment("exposure")
    found, same = augment(images, labels, torch.Generator().manual_seed(3), False)
    factors = (found["x"] / images["x"]).reshape(4, -1)
    assert torch.equal(same, labels)
    assert bool((factors.max(1).values - factors.min(1).values < 1e-5).all())
    assert bool(((factors >= 0.5) & (factors <= 2)).all())
    assert len(factors[:, 0].round(decimals=3).unique()) == 4
    limited, _ = augment({"x": images["x"] * 4}, labels, torch.Generator().manual_seed(3), True)
    assert float(limited["x"].max()) <= 255
    assert EXPOSURE not in parse_augment("all").kinds


def test_augmentation_repeats_and_none_changes_nothing() -> None:
    images, labels = squares(4)
    first, second = (
        Augment()({"x": images}, labels, torch.Generator().manual_seed(7), True) for _ in range(2)
    )
    assert torch.equal(first[0]["x"], second[0]["x"])
    assert torch.equal(first[1], second[1])
    same, marks = NONE({"x": images}, labels, torch.Generator(), True)
    assert torch.equal(same["x"], images)
    assert torch.equal(marks, labels)


def test_brightness_stays_within_pixels() -> None:
    images, labels = squares(32)
    bright, marks = Augment(frozenset({"brightness"}))(
        {"x": images}, labels, torch.Generator().manual_seed(1), True
    )
    assert torch.equal(marks, labels)
    assert bright["x"].min() >= 0
    assert bright["x"].max() <= 255
    assert not torch.equal(bright["x"], images)


def test_pieces() -> None:
    """Large images are cut at random, once for every tile; pixels become the network's numbers."""
    rng = np.random.default_rng(1)
    raw = rng.integers(0, 256, (2, 1, 16, 24)).astype(np.uint8)
    masks = (raw[:, 0] > 128).astype(np.uint8)
    data = EvaluationData([{"x": image} for image in raw], list(masks))
    spec = InputSpec(InputKind.UINT8, (1 / 255,), (0.5,), (0.25,))
    samples = Samples.of(data, {"x": (1, 1, 8, 8)}, {"x": spec}, lambda mask: mask)
    assert samples.pieces == (6, 6)
    assert samples.steps(5) == 3
    generator = torch.Generator().manual_seed(2)
    batches = list(samples.batches(5, NONE, generator))
    assert [len(batch.labels) for batch in batches] == [5, 5, 2]
    for batch in batches:
        pixels = torch.round((batch.inputs["x"] * 0.25 + 0.5) * 255)
        assert torch.equal((pixels[:, 0] > 128).long(), batch.labels)
    assert samples.class_counts(2) == [int((masks == 0).sum()), int(masks.sum())]


def test_learning_rate() -> None:
    rates = [rate_at(step, 10, 5) for step in range(50)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9]
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert LOWEST_RATE < rates[-1] < 2 * LOWEST_RATE


def test_curves() -> None:
    epochs = [Epoch(0, None, 0.5), Epoch(1, 0.9, None), Epoch(2, 0.4, 0.7)]
    text = curves_svg(epochs, 0.75, 2)
    Xml.fromstring(text)
    assert "epoch 2: 0.7000" in text
    assert "float network 0.7500" in text
    Xml.fromstring(curves_svg([Epoch(0, None, None)], None, 0))
