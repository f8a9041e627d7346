"""The removed network equals the masked network, borders included."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qcompile.graph import Graph
from qcompile.importer import import_model
from qcompile.ops import (
    RELU,
    Activation,
    Add,
    Affine,
    AveragePool,
    Concat,
    Conv,
    GroupNorm,
    MatMul,
    MaxPool,
    Mul,
    NearestResize,
    Pad,
    PadMode,
    ReduceMean,
    Rescale,
    Reshape,
    Sigmoid,
    Slice,
)
from qcompile.passes.base import run_passes
from qcompile.passes.channel_classes import Channel, channel_classes
from qcompile.passes.drop_no_ops import DropNoOps
from qcompile.passes.fold_affine import FoldAffine
from qcompile.passes.fuse_activations import FuseActivations
from qcompile.passes.masked_constants import masked_constants
from qcompile.passes.move_transposes import MoveTransposes
from qcompile.passes.recognise_group_norm import RecogniseGroupNorm
from qcompile.passes.recognise_silu import RecogniseSilu
from qcompile.passes.remove_channels import remove_channels
from qcompile.sim.executor import Executor
from qcompile.verifier import verify
from tests.passes.masked import Classes, close, masked, padded_with, silenced, some_classes
from tests.passes.nets import Net, run
from tests.passes.pruned_nets import attention_net, mobile_net, u_net, valid_net, window


def check(graph: Graph, classes: Classes) -> dict[Channel, float]:
    """Removes, compares with the masked network, and returns the constants."""
    constants = masked_constants(graph, classes)
    after = remove_channels(graph, frozenset().union(*classes), constants)
    verify(after)
    expected, actual = run(masked(graph, classes, constants)), run(after)
    for name in graph.outputs:
        assert after.types[name] == graph.types[name]
        close(actual[name], expected[name])
    return dict(constants)


@pytest.mark.parametrize("net", [u_net, mobile_net, valid_net, attention_net])
@pytest.mark.parametrize("seed", range(8))
def test_any_union_of_classes(net: object, seed: int) -> None:
    graph = net()  # type: ignore[operator]
    classes = some_classes(graph, 0.4, seed)
    assert classes
    constants = check(graph, classes)
    assert all(np.isfinite(value) for value in constants.values())


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0.05, 0.9), seed=st.integers(0, 2**16), which=st.sampled_from((0, 1, 2, 3)))
def test_any_share_of_any_network(share: float, seed: int, which: int) -> None:
    graph = (u_net, mobile_net, valid_net, attention_net)[which](seed % 7)
    classes = some_classes(graph, share, seed)
    if classes:
        check(graph, classes)


@pytest.mark.parametrize("seed", range(6))
def test_without_padding_only_the_weights_are_masked(seed: int) -> None:
    """Zero weights in the filters and nothing else: the plain network says what comes out."""
    graph = valid_net()
    classes = some_classes(graph, 0.5, seed)
    removed = frozenset().union(*classes)
    constants = masked_constants(graph, classes)
    assert constants
    actual = run(remove_channels(graph, removed, constants))
    for name, expected in run(silenced(graph, removed)).items():
        close(actual[name], expected)


def test_constants_are_what_the_silenced_network_computes() -> None:
    graph = u_net()
    for channels in channel_classes(graph).removable:
        constants = masked_constants(graph, [channels])
        quiet = silenced(graph, channels)
        rng = np.random.default_rng(5)
        feeds = {n: rng.normal(size=graph.types[n].shape).astype("float32") for n in graph.inputs}
        seen = Executor(quiet).run(feeds, taps={name for name, _ in constants})
        for (name, index), value in constants.items():
            # Away from borders: the network pads with zero, masked channels with their constant.
            inner = seen[name][:, index, 2:-2, 2:-2]
            np.testing.assert_allclose(inner, value, rtol=1e-4, atol=1e-5)


def test_a_bias_goes_through_relu_and_norm_into_the_next_bias() -> None:
    net = Net(x=(1, 2, 6, 6))
    norm = Activation(slope=(0.0,), gain=(2.0, 3.0, 4.0), shift=(0.5, 0.25, -1.0))
    a = net.conv("a", "x", 3, activation=norm)
    graph = net.graph(net.conv("y", a, 2))
    bias = graph.constants[graph.by_name["a"].inputs[2]]
    constants = check(graph, [frozenset({("a", 1)})])
    assert constants == {("a", 1): pytest.approx(3.0 * max(float(bias[1]), 0.0) + 0.25)}
    after = remove_channels(graph, frozenset({("a", 1)}), constants)
    weights = graph.constants[graph.by_name["y"].inputs[1]]
    before = graph.constants[graph.by_name["y"].inputs[2]]
    wanted = before + weights[:, 1].sum((1, 2)) * constants[("a", 1)]
    np.testing.assert_allclose(after.constants[after.by_name["y"].inputs[2]], wanted, rtol=1e-5)


def test_a_reader_without_bias_gets_one() -> None:
    net = Net(x=(1, 2, 6, 6))
    a = net.conv("a", "x", 3)
    weights = net.random(2, 3, 3, 3)
    none = {"strides": (1, 1), "dilations": (1, 1), "pads_begin": (1, 1), "pads_end": (1, 1)}
    graph = net.graph(net.add("y", Conv, a, weights, **none))
    check(graph, [frozenset({("a", 0)})])
    after = remove_channels(
        graph, frozenset({("a", 0)}), masked_constants(graph, [frozenset({("a", 0)})])
    )
    assert len(after.by_name["y"].inputs) == 3


def test_borders_are_the_point() -> None:
    """What zero padding makes of a constant differs from its constant at the border alone."""
    net = Net(x=(1, 2, 6, 6))
    graph = net.graph(net.conv("y", net.conv("a", "x", 3), 2))
    gone = frozenset({("a", 0)})
    constants = masked_constants(graph, [gone])
    zero_padded = run(silenced(graph, gone))["y"]
    held = run(padded_with(silenced(graph, gone), constants))["y"]
    np.testing.assert_allclose(held[..., 1:-1, 1:-1], zero_padded[..., 1:-1, 1:-1], atol=1e-4)
    assert np.abs(held - zero_padded).max() > 0.01


def test_patterns_and_maps_hold_no_constant() -> None:
    net = Net(x=(1, 3, 8, 8))
    a = net.conv("a", "x", 4)
    up = net.up("up", a, 4)
    b = net.conv("b", "x", 4)
    attention = net.add("attention", Sigmoid, net.conv("one", "x", 1))
    gated = net.add("gated", Mul, attention, b)
    graph = net.graph(net.conv("y", up, 2), net.conv("z", gated, 2))
    classes = [c for c in channel_classes(graph).removable if min(c)[0] in ("a", "b")]
    assert len(classes) == 8
    assert masked_constants(graph, classes) == {}
    check(graph, classes[:3] + classes[4:6])


def test_one_refusing_reader_makes_the_class_zero_for_all() -> None:
    net = Net(x=(1, 3, 8, 8))
    a = net.conv("a", "x", 4)
    graph = net.graph(net.conv("y", a, 2), net.up("z", a, 2))
    assert check(graph, [frozenset({("a", 0)})]) == {}


def test_through_pools_resizes_pads_sums_and_norms() -> None:
    net = Net(x=(1, 3, 8, 8))
    a = net.conv("a", "x", 6, activation=RELU)
    b = net.conv("b", "x", 6)
    y = net.add("difference", Add, a, b, weights=(1, -1))
    y = net.add("norm", GroupNorm, y, net.random(6), net.random(6), groups=3, epsilon=1e-3)
    y = net.add("affine", Affine, y, net.random(6), net.random(6), activation=RELU)
    y = net.add("pad", Pad, y, begins=(0, 0, 1, 0), ends=(0, 0, 1, 0), mode=PadMode.EDGE)
    y = net.add("max", MaxPool, y, **(window(2) | {"strides": (1, 1)}))
    y = net.add("mean", AveragePool, y, **(window(2) | {"strides": (1, 1)}))
    y = net.add("near", NearestResize, y, sources=((0, 0, 1, 1), (0, 1, 2, 3)))
    y = net.add("scaled", Mul, y, net.random(6, 1, 1))
    y = net.add("leaky", Rescale, y, activation=Activation(slope=(0.2,)))
    y = net.add("sigmoid", Sigmoid, y)
    joined = net.add("join", Concat, y, net.conv("c", y, 2, kernel=1, pad=0), axis=1)
    graph = net.graph(net.conv("y", joined, 3))
    removed = [c for c in channel_classes(graph).removable if ("a", 2) in c]
    assert ("a", 3) in removed[0]
    constants = check(graph, removed)
    assert {name for name, _ in constants} == {"sigmoid", "join"}


def test_halves_of_a_split_lose_channels() -> None:
    net = Net(x=(1, 3, 6, 6))
    a = net.conv("a", "x", 8, activation=RELU)
    half: dict[str, tuple[int, ...]] = {"sizes": (1, 4, 6, 6), "steps": (1, 1, 1, 1)}
    first = net.add("first", Slice, a, starts=(0, 0, 0, 0), **half)
    second = net.add("second", Slice, a, starts=(0, 4, 0, 0), **half)
    graph = net.graph(net.conv("y", first, 2), net.conv("z", second, 2))
    classes = [c for c in channel_classes(graph).removable if {("a", 1), ("a", 6)} & c]
    assert sorted(classes, key=min) == [
        {("a", 1), ("first", 1)},
        {("a", 6), ("second", 2)},
    ]
    check(graph, classes)
    after = remove_channels(graph, frozenset().union(*classes))
    cut = after.by_name["second"]
    assert isinstance(cut, Slice)
    assert (cut.starts[1], cut.sizes[1]) == (3, 3)


def test_a_gate_by_matrix_products() -> None:
    """Squeeze and excite: the mean of a masked channel enters the first product's bias."""
    net = Net(x=(1, 3, 6, 6))
    a = net.conv("a", "x", 4, activation=Activation(shift=(1.0,)))
    mean = net.add("mean", ReduceMean, a, axes=(2, 3), keepdims=False)
    squeeze = net.add("squeeze", MatMul, mean, net.random(4, 3), net.random(3), activation=RELU)
    excite = net.add("excite", MatMul, squeeze, net.random(3, 4), net.random(4))
    gate = net.add("gate", Reshape, net.add("s", Sigmoid, excite), shape=(1, 4, 1, 1))
    graph = net.graph(net.conv("y", net.add("gated", Mul, a, gate), 2))
    classes = [c for c in channel_classes(graph).removable if ("a", 2) in c]
    constants = check(graph, classes)
    assert {name for name, _ in constants} == {"mean", "gated"}


SIMPLIFY = (
    MoveTransposes(),
    RecogniseGroupNorm(),
    FoldAffine(),
    RecogniseSilu(),
    FuseActivations(),
    DropNoOps(),
)


@pytest.mark.parametrize(
    "name", ["gm_unet8", "em_unet16", "cvc_resunet", "smp_unet_r18_l17", "selfie_segmentation"]
)
def test_of_real_networks(shared_dir: Path, name: str) -> None:
    path = shared_dir / "models" / f"{name}.onnx"
    if not path.exists():
        pytest.skip(f"no {path.name} in the shared folder")
    graph = run_passes(import_model(path), SIMPLIFY)
    classes = some_classes(graph, 0.2, 3)
    constants = masked_constants(graph, classes)
    assert constants
    after = remove_channels(graph, frozenset().union(*classes), constants)
    rng = np.random.default_rng(3)
    feeds = {n: rng.random(graph.types[n].shape, np.float32) for n in graph.inputs}
    expected = Executor(masked(graph, classes, constants)).run(feeds)
    for value, data in Executor(after).run(feeds).items():
        limit = 5e-4 * float(np.abs(expected[value]).max())
        np.testing.assert_allclose(data, expected[value], rtol=0, atol=limit)
