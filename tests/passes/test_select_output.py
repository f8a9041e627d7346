from __future__ import annotations

import math

import numpy as np
import pytest

from qcompile.errors import UsageError
from qcompile.ops import ArgMax, HardSigmoid, Reshape, Sigmoid, Softmax, Threshold, Transpose
from qcompile.options import OutputKind
from qcompile.passes.select_output import SelectOutput
from qcompile.verifier import verify
from tests.passes.nets import Net, kinds, run

LOGITS = SelectOutput(OutputKind.LOGITS)
PROBABILITIES = SelectOutput(OutputKind.PROBABILITIES)
CLASSES = SelectOutput(OutputKind.CLASSES)


def net_of(channels: int) -> tuple[Net, str]:
    net = Net(x=(1, 2, 6, 6))
    return net, net.conv("logits", "x", channels)


def test_auto_changes_nothing() -> None:
    net, y = net_of(3)
    before = net.graph(y)
    assert SelectOutput().run(before) is before


@pytest.mark.parametrize("channels", [1, 3])
def test_logits_strip_the_end_and_keep_the_name(channels: int) -> None:
    net, y = net_of(channels)
    logits = net.graph(y)
    assert LOGITS.run(logits) is logits
    sigmoid = net.graph(net.add("s", Sigmoid, y))
    softmax = net.graph(net.add("m", Softmax, y, axis=1))
    classes = net.graph(net.add("c", ArgMax, net.add("m2", Softmax, y, axis=1), axis=1))
    for graph, name in ((sigmoid, "s"), (softmax, "m"), (classes, "c")):
        after = LOGITS.run(graph)
        verify(after)
        assert kinds(after) == ["Conv"]
        assert after.outputs == (name,)
        np.testing.assert_array_equal(run(after)[name], run(logits)[y])


def test_probabilities() -> None:
    net, y = net_of(1)
    expected = net.graph(net.add("s", Sigmoid, y))
    assert PROBABILITIES.run(expected) is expected
    after = PROBABILITIES.run(net.graph(y))
    verify(after)
    assert kinds(after) == ["Conv", "Sigmoid"]
    assert after.outputs == (y,)
    np.testing.assert_array_equal(run(after)[y], run(expected)["s"])
    net, y = net_of(3)
    expected = net.graph(net.add("m", Softmax, y, axis=1))
    after = PROBABILITIES.run(net.graph(y))
    np.testing.assert_array_equal(run(after)[y], run(expected)["m"])


def test_class_map_of_several_classes() -> None:
    net, y = net_of(3)
    expected = run(net.graph(y))[y].argmax(1, keepdims=True)
    for graph in (net.graph(y), net.graph(net.add("m", Softmax, y, axis=1))):
        after = CLASSES.run(graph)
        verify(after)
        assert kinds(after) == ["Conv", "ArgMax"]
        np.testing.assert_array_equal(run(after)[graph.outputs[0]], expected)
    graph = net.graph(net.add("c", ArgMax, y, axis=1))
    assert CLASSES.run(graph) is graph


@pytest.mark.parametrize("threshold", [0.5, 0.3, 0.9])
def test_class_map_of_one_class(threshold: float) -> None:
    net, y = net_of(1)
    logits = run(net.graph(y))[y]
    expected = logits > math.log(threshold / (1 - threshold))
    for graph in (net.graph(y), net.graph(net.add("s", Sigmoid, y))):
        after = SelectOutput(OutputKind.CLASSES, threshold).run(graph)
        verify(after)
        assert kinds(after) == ["Conv", "Threshold"]
        result = run(after)[graph.outputs[0]]
        assert result.dtype == np.uint8
        np.testing.assert_array_equal(result, expected)


def test_bounded_functions_are_compared_directly() -> None:
    net, y = net_of(1)
    graph = net.graph(net.add("h", HardSigmoid, y))
    assert LOGITS.run(graph) is graph
    assert PROBABILITIES.run(graph) is graph
    after = SelectOutput(OutputKind.CLASSES, 0.7).run(graph)
    assert kinds(after) == ["Conv", "HardSigmoid", "Threshold"]
    assert isinstance(after.ops[-1], Threshold)
    assert after.ops[-1].limit == 0.7


def test_movement_at_the_end_stays_there() -> None:
    net, y = net_of(3)
    transposed = net.add("t", Transpose, y, permutation=(0, 2, 3, 1))
    before = net.graph(net.add("m", Softmax, transposed, axis=3))
    logits = run(net.graph(transposed))["t"]
    np.testing.assert_array_equal(run(LOGITS.run(before))["m"], logits)
    after = CLASSES.run(before)
    assert kinds(after) == ["Conv", "Transpose", "ArgMax"]
    np.testing.assert_array_equal(run(after)["m"], logits.argmax(3, keepdims=True))
    net, y = net_of(1)
    flat = net.add("r", Reshape, net.add("s", Sigmoid, y), shape=(1, 6, 6, 1))
    after = CLASSES.run(net.graph(flat))
    assert kinds(after) == ["Conv", "Reshape", "Threshold"]
    assert run(after)["r"].shape == (1, 6, 6, 1)


def test_channels_hidden_by_a_reshape() -> None:
    net, y = net_of(3)
    graph = net.graph(net.add("r", Reshape, y, shape=(1, 108)))
    with pytest.raises(UsageError, match="mixes the channels"):
        CLASSES.run(graph)


def test_inner_readers_of_an_output() -> None:
    net, y = net_of(1)
    probability = net.add("s", Sigmoid, y)
    again = net.add("again", Reshape, net.add("s2", Sigmoid, probability), shape=(1, 36))
    before = net.graph(probability, again)
    after = CLASSES.run(before)
    verify(after)
    assert after.outputs == ("s", "again")
    assert kinds(after).count("Threshold") == 2


@pytest.mark.parametrize("threshold", [0.0, 1.0, -3.0, math.nan])
def test_threshold_is_a_probability(threshold: float) -> None:
    net, y = net_of(1)
    with pytest.raises(UsageError, match="no probability"):
        SelectOutput(OutputKind.CLASSES, threshold).run(net.graph(y))
