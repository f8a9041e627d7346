"""Channels that fall exchange the signs of weights and gain, and compute what they did."""

from __future__ import annotations

import numpy as np
import pytest

from qcompile.graph import Graph
from qcompile.ops import Activation, FakeQuantize, SumOp
from qcompile.passes.absorb_quantizers import AbsorbQuantizers
from qcompile.passes.base import run_passes
from qcompile.passes.raise_channels import RaiseChannels
from tests.passes.nets import Net, run

GAINS = (2.0, -3.0, -0.5, 1.0)
NORM = Activation(gain=GAINS, shift=(0.5, 0.0, -1.0, 0.25))


def absorbed(net: Net, x: str, low: int = -1) -> Graph:
    y = net.add("q", FakeQuantize, x, scale=1.0, low=low, high=1)
    return run_passes(net.graph(y), (AbsorbQuantizers(),))


@pytest.mark.parametrize("kind", ["conv", "grouped", "up", "grouped up"])
def test_falling_channels(kind: str) -> None:
    net = Net(x=(1, 4, 5, 6))
    groups = 2 if kind.startswith("grouped") else 1
    layer = net.up if kind.endswith("up") else net.conv
    before = absorbed(net, layer("c", "x", 4, activation=NORM, groups=groups))
    after = RaiseChannels().run(before)
    (op,) = after.ops
    assert isinstance(op, SumOp)
    assert op.activation.gain == tuple(map(abs, GAINS))
    assert op.activation.shift == NORM.shift
    np.testing.assert_array_equal(run(after)["q"], run(before)["q"])
    weights = [graph.constants[graph.ops[0].inputs[1]] for graph in (before, after)]
    np.testing.assert_array_equal(np.abs(weights[0]), np.abs(weights[1]))


@pytest.mark.parametrize(
    ("activation", "low"),
    [
        (Activation(gain=tuple(map(abs, GAINS))), -1),
        (Activation(slope=(0.0,), gain=GAINS), -1),
        (NORM, -8),
    ],
)
def test_what_stays(activation: Activation, low: int) -> None:
    net = Net(x=(1, 4, 5, 6))
    before = absorbed(net, net.conv("c", "x", 4, activation=activation), low)
    assert RaiseChannels().run(before).ops == before.ops
