"""Ternary weights and activations in training, against the published formulas written anew."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from qcompile.errors import UsageError
from qcompile.train.ternary_layers import (
    BetaSchedule,
    ByteConv2d,
    Continuation,
    Ternariser,
    TernaryConv2d,
    TernaryTanh,
    deployed,
)
from qcompile.train.ternary_training import TernarySchedule
from qcompile.train.ternary_unet import TernaryUNet, UNetShape

POINTS = torch.linspace(-2, 2, 401, dtype=torch.float64)


def published(x: torch.Tensor, beta: float) -> torch.Tensor:
    return (torch.tanh(2 * beta * (x - 0.5)) + torch.tanh(2 * beta * (x + 0.5))) / 2


@pytest.mark.parametrize(("beta", "quarter", "three"), [(3.0, 0.047, 0.953), (8.0, 0.0003, 0.9997)])
def test_tanh_has_two_steps(beta: float, quarter: float, three: float) -> None:
    activation = TernaryTanh(Continuation(beta))
    found = activation(POINTS)
    torch.testing.assert_close(found, published(POINTS, beta), rtol=0, atol=1e-12)
    values = activation(torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    np.testing.assert_allclose(values, [quarter, 0.5, three], atol=6e-4)


def test_the_limit_is_strict() -> None:
    limits = torch.tensor([-0.6, -0.5, -0.0, 0.5, np.nextafter(0.5, 1), 3], dtype=torch.float64)
    wanted = [-1, 0, 0, 0, 1, 1]
    for module in (TernaryTanh(Continuation(3, is_hard=True)), Ternariser()):
        assert module(limits).tolist() == wanted


def test_hard_activations_have_the_gradient_of_the_tanh() -> None:
    hard, soft = (POINTS.clone().requires_grad_() for _ in range(2))
    (found,) = torch.autograd.grad(TernaryTanh(Continuation(3, is_hard=True))(hard).sum(), hard)
    (wanted,) = torch.autograd.grad(published(soft, 3).sum(), soft)
    torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-12)


def test_schedule() -> None:
    schedule = BetaSchedule(epochs=40)
    found = [schedule.at(epoch) for epoch in range(1, 41)]
    np.testing.assert_allclose(found, np.linspace(3, 8, 40))
    assert schedule.at(41) == 8
    assert BetaSchedule(2, 5, epochs=1).at(1) == 2
    with pytest.raises(UsageError, match="two positive numbers that rise"):
        BetaSchedule(8, 3)
    with pytest.raises(UsageError, match="needs 2 or more"):
        TernarySchedule.over(1)
    with pytest.raises(UsageError, match="a share between 0 and 1"):
        TernarySchedule.over(4, hard_share=1)
    run = TernarySchedule.over(9, (2, 5), hard_share=0.7, hard_gradient=1.5)
    assert run == TernarySchedule(BetaSchedule(2, 5, 2), 1.5)
    assert TernarySchedule.over(2).soft.epochs == 1


def test_one_place_hardens_a_whole_network() -> None:
    """The published script wrote one attribute and read another; here every activation follows."""
    continuation = Continuation()
    network = TernaryUNet(UNetShape(base=2, depth=1), continuation)
    seen: dict[str, list[torch.Tensor]] = {}
    for name, module in network.named_modules():
        if isinstance(module, TernaryTanh):
            module.register_forward_hook(
                lambda _, inputs, output, name=name: seen.update({name: [*inputs, output]})
            )
    schedule = TernarySchedule(BetaSchedule(3, 8, 3), hard_gradient=2)
    for epoch, (beta, is_hard) in enumerate(
        [(3.0, False), (5.5, False), (8.0, False), (2.0, True)], start=1
    ):
        schedule.apply(continuation, epoch)
        assert (continuation.beta, continuation.is_hard) == (beta, is_hard)
        seen.clear()
        network(torch.rand(2, 1, 4, 4))
        assert len(seen) == 5
        for inputs, output in seen.values():
            if is_hard:
                assert set(output.flatten().tolist()) <= {-1, 0, 1}
            else:
                torch.testing.assert_close(output, published(inputs, beta), rtol=0, atol=1e-5)


def test_ternary_weights() -> None:
    torch.manual_seed(0)
    layer = TernaryConv2d(3, 5, 3, bias=False)
    with torch.no_grad():
        layer.weight[1] = 0
        layer.weight[2] = 0.25  # all beyond 0.7 times their mean
    found = layer.on_grid().detach().numpy()
    for row, wanted in zip(found, layer.weight.detach().numpy(), strict=True):
        limit = 0.7 * np.abs(wanted).mean()
        kept = np.abs(wanted) > limit
        alpha = np.abs(wanted[kept]).mean() if kept.any() else 0
        np.testing.assert_allclose(row, alpha * np.sign(wanted) * kept, rtol=1e-6)
        assert len(set(np.abs(row[kept]))) <= 1
    assert not found[1].any()
    images = torch.rand(2, 3, 6, 6)
    grid = layer.on_grid().detach().requires_grad_()
    wanted_output = torch.nn.functional.conv2d(images, grid)
    output = layer(images)
    assert torch.equal(output, wanted_output)
    (gradient,) = torch.autograd.grad(output.square().sum(), layer.weight)
    (wanted_gradient,) = torch.autograd.grad(wanted_output.square().sum(), grid)
    assert torch.equal(gradient, wanted_gradient)


def test_byte_weights() -> None:
    torch.manual_seed(1)
    layer = ByteConv2d(2, 4, 3)
    with torch.no_grad():
        layer.weight[3] = 0
    rows = layer.weight.detach().flatten(1).numpy()
    scales = np.abs(rows).max(axis=1, keepdims=True) / np.float32(127)
    scales[3] = 1
    wanted = np.floor(rows / scales + np.float32(0.5)) * scales
    found = layer.on_grid().detach().flatten(1).numpy()
    np.testing.assert_array_equal(found, wanted)
    layer(torch.rand(1, 2, 5, 5)).sum().backward()
    assert layer.weight.grad is not None
    assert bool((layer.weight.grad != 0).all())


@pytest.mark.parametrize("is_hard", [False, True])
def test_deployed_networks_are_ordinary_layers(is_hard: bool) -> None:
    torch.manual_seed(2)
    network = TernaryUNet(UNetShape(2, 3, base=4, depth=2), Continuation(4, is_hard), seed=3)
    network(torch.rand(4, 2, 8, 8))  # running statistics
    network.eval()
    plain = deployed(network)
    ours = (TernaryConv2d, ByteConv2d)
    assert not any(isinstance(layer, ours) for layer in plain.modules())
    assert any(isinstance(layer, Ternariser) for layer in plain.modules()) == is_hard
    assert any(isinstance(layer, ours) for layer in network.modules()), "the original is left alone"
    images = torch.rand(2, 2, 8, 8)
    assert torch.equal(plain(images), network(images))
    inner = [layer for layer in plain.modules() if isinstance(layer, torch.nn.Conv2d)][1:-1]
    for layer in inner:
        for row in layer.weight.detach().flatten(1):
            assert len(row.unique()) <= 3
