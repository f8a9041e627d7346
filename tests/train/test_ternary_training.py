"""A ternary network from training to integers: what was trained is what is compiled."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from qcompile.errors import UsageError
from qcompile.graph import Stage
from qcompile.options import CompileOptions, Target
from qcompile.pipeline import compile_model
from qcompile.sim.executor import Executor
from qcompile.train.augment import IGNORED, Augment
from qcompile.train.float_network import export_onnx, mean_dice
from qcompile.train.losses import Loss
from qcompile.train.options import TrainOptions
from qcompile.train.samples import Samples
from qcompile.train.ternary_layers import Continuation, Ternariser, TernaryTanh, deployed
from qcompile.train.ternary_training import TernarySchedule, train_unet
from qcompile.train.ternary_unet import TernaryUNet, UNetShape
from tests.train.toy import SIZE, discs

PLAIN = Augment(frozenset({"flips"}))


def options(epochs: int, resume: bool = False, seed: int = 0) -> TrainOptions:
    return TrainOptions(epochs, 4, 0.01, augment=PLAIN, device="cpu", resume=resume, seed=seed)


def trained(folder: Path, epochs: int, is_ternary: bool = True) -> tuple[TernaryUNet, Samples]:
    samples = Samples.from_arrays(*discs(32, 1))
    network = TernaryUNet(UNetShape(base=6, depth=1), Continuation() if is_ternary else None)
    schedule = TernarySchedule.over(epochs)
    folder.mkdir(exist_ok=True)
    train_unet(network, samples, options(epochs), schedule, folder / "checkpoint.pt")
    return network, samples


def test_it_learns_and_ends_hard(tmp_path: Path) -> None:
    network, _ = trained(tmp_path, 12)
    unseen = Samples.from_arrays(*discs(16, 2))
    assert network.continuation is not None
    assert network.continuation.is_hard
    assert mean_dice(network, unseen) > 0.7
    assert mean_dice(deployed(network), unseen) == mean_dice(network, unseen)
    other, _ = trained(tmp_path / "float", 12, is_ternary=False)
    assert mean_dice(other, unseen) > 0.7


def test_an_interrupted_run_goes_on(tmp_path: Path) -> None:
    """The network is that of a run without interruption; other settings are refused."""
    samples = Samples.from_arrays(*discs(8, 1))
    schedule = TernarySchedule.over(4)
    shape = UNetShape(base=2, depth=1)

    class Interrupted(Exception):
        pass

    def stop(epoch: int, loss: float) -> None:
        if epoch == 2:
            raise Interrupted

    networks = [TernaryUNet(shape, Continuation()) for _ in range(2)]
    whole, half = tmp_path / "whole.pt", tmp_path / "half.pt"
    epochs = train_unet(networks[0], samples, options(4), schedule, whole)
    with pytest.raises(Interrupted):
        train_unet(networks[1], samples, options(4), schedule, half, progress=stop)
    again = TernaryUNet(shape, Continuation(), seed=5)
    assert train_unet(again, samples, options(4, True), schedule, half) == epochs
    wanted = networks[0].state_dict()
    for name, value in again.state_dict().items():
        assert torch.equal(value, wanted[name]), name
    assert again.continuation == networks[0].continuation == Continuation(2.0, True)
    with pytest.raises(UsageError, match=r"the checkpoint in .* was made with"):
        train_unet(TernaryUNet(shape), samples, options(4, True), schedule, half)


def test_a_teacher_is_followed(tmp_path: Path) -> None:
    """Labels alone say nothing here: what is learned are the teacher's classes."""
    teacher, _ = trained(tmp_path, 12, is_ternary=False)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    ignored = Samples.from_arrays(discs(32, 1)[0], np.full((32, SIZE, SIZE), IGNORED))
    network = TernaryUNet(UNetShape(base=6, depth=1), Continuation())
    choice = dataclasses.replace(options(12), loss=Loss(distillation=4.0))
    schedule, checkpoint = TernarySchedule.over(12), tmp_path / "taught.pt"
    train_unet(network, ignored, choice, schedule, checkpoint, teacher=teacher)
    assert mean_dice(network, Samples.from_arrays(*discs(16, 2))) > 0.7
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_bfloat16(tmp_path: Path) -> None:
    """Parameters stay float32, and the loss falls."""
    samples = Samples.from_arrays(*discs(16, 1))
    network = TernaryUNet(UNetShape(base=4, depth=1), Continuation())
    schedule = TernarySchedule.over(6)
    epochs = train_unet(
        network, samples, options(6), schedule, tmp_path / "checkpoint.pt", bfloat16=True
    )
    assert {value.dtype for value in network.parameters()} == {torch.float32}
    losses = [item.loss for item in epochs]
    assert losses[0] is not None
    assert losses[-1] is not None
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("seed", range(2))
def test_compiled_integers_are_the_trained_ones(tmp_path: Path, seed: int) -> None:
    """Every ternary activation, in every element; also from a model whose activations are soft."""
    torch.manual_seed(seed)
    network = TernaryUNet(UNetShape(base=5, depth=2), Continuation(8.0, is_hard=True), seed=seed)
    images, _ = discs(4, seed)
    pixels = torch.from_numpy(images[:, None]).to(torch.float64) / 255
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.weight.copy_(torch.randn(layer.num_features))
                layer.bias.copy_(torch.randn(layer.num_features) / 4)
                layer.weight[0] = 0  # a channel that is constant
        for _ in range(20):
            network(pixels.float())
    plain = deployed(network)
    codes: dict[str, torch.Tensor] = {}
    for name, layer in plain.named_modules():
        if isinstance(layer, Ternariser):
            layer.register_forward_hook(
                lambda _, inputs, output, name=name: codes.update({name: output.detach()})
            )
    models = [export_onnx(plain, (1, 1, SIZE, SIZE))]
    plain.double()(pixels)
    assert network.continuation is not None
    network.continuation.is_hard = False
    soft = deployed(network)
    assert any(isinstance(layer, TernaryTanh) for layer in soft.modules())
    models.append(export_onnx(soft, (1, 1, SIZE, SIZE)))
    choice = CompileOptions(target=Target.SIM)
    for content in models:
        path = tmp_path / "net.onnx"
        path.write_bytes(content)
        graph = compile_model(path, choice).integer_graph
        assert graph.stage is Stage.INTEGER
        # The exporter names values after modules: /down.0/down.0.2/Mul_output_0.
        ternary = {
            value.split("/")[2]: value for value in graph.activations() if value.count("/") == 3
        }
        assert set(codes) <= set(ternary)
        executor = Executor(graph)
        for index, image in enumerate(images):
            found = executor.run({graph.inputs[0]: image[None, None]}, tuple(ternary.values()))
            for name, wanted in codes.items():
                np.testing.assert_array_equal(
                    found[ternary[name]][0], wanted[index].numpy(), f"{name}, image {index}"
                )
