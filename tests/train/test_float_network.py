"""The U-Net in plain torch: what it learns, that runs repeat, and what its ONNX model holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from qcompile.errors import DataError
from qcompile.importer import import_model
from qcompile.sim.executor import Executor
from qcompile.train.augment import Augment
from qcompile.train.float_network import UNet, export_onnx, mean_dice, train_float
from qcompile.train.options import TrainOptions
from qcompile.train.samples import Samples
from tests.train.toy import SIZE, discs

PLAIN = Augment(frozenset({"flips"}))


def trained(seed: int, patience: int = 0) -> tuple[UNet, list[float | None]]:
    samples, validation = (Samples.from_arrays(*discs(16, at)) for at in (1, 2))
    module = UNet(1, 2, base=4, depth=2, seed=seed)
    options = TrainOptions(8, 4, 0.01, patience=patience, augment=PLAIN, device="cpu", seed=seed)
    epochs = train_float(module, samples, validation, options)
    dices = [item.dice for item in epochs]
    assert mean_dice(module, validation, 5) == max(dice for dice in dices if dice is not None)
    return module, dices


def test_it_learns_and_repeats() -> None:
    module, dices = trained(1)
    last = dices[-1]
    assert len(dices) == 8
    assert last is not None
    assert last > 0.7
    again, same = trained(1)
    assert same == dices
    assert all(
        torch.equal(a, b) for a, b in zip(module.parameters(), again.parameters(), strict=True)
    )
    assert trained(2)[1] != dices


def test_export(tmp_path: Path) -> None:
    """Batch norms stay nodes; the compiler's float network computes what torch does."""
    module, _ = trained(3, patience=2)
    content = export_onnx(module, (1, 1, SIZE, SIZE))
    kinds = [node.op_type for node in onnx.load_from_string(content).graph.node]
    assert kinds.count("BatchNormalization") == 10
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    image = np.random.default_rng(0).uniform(0, 1, (1, 1, SIZE, SIZE)).astype(np.float32)
    found = Executor(import_model(path)).run({"image": image})["logits"]
    with torch.no_grad():
        wanted = module(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_arrays_that_do_not_match() -> None:
    images, labels = discs(3, 1)
    with pytest.raises(DataError, match="give uint8"):
        Samples.from_arrays(images, labels[:2])
    with pytest.raises(DataError, match="give uint8"):
        Samples.from_arrays(images / 255, labels)


def test_subset() -> None:
    samples = Samples.from_arrays(*discs(4, 1)).subset([3, 3, 0])
    (batch,) = samples.in_order(8)
    assert torch.equal(batch.inputs["image"][0], batch.inputs["image"][1])
    assert torch.equal(batch.labels[2], Samples.from_arrays(*discs(4, 1)).labels[0])
