"""What random networks found, as the smallest networks that show it."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from qcompile.backends.c.verify import FLOAT_LIMIT, relative_difference
from qcompile.boundary import InputKind, InputSpec
from qcompile.errors import GraphError
from qcompile.feeds import float_feed, integer_feed
from qcompile.ops import BatchMatMul
from qcompile.options import CompileOptions, Effort, InputChoice, LayerOverride, OutputKind, Target
from qcompile.pipeline import compile_model
from qcompile.result import CompileResult
from qcompile.sim.executor import Executor
from qcompile.types import Array
from tests.importer.models import build

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
PIXELS = CompileOptions(input_kind=InputChoice.UINT8)
FLOATS = CompileOptions(input_kind=InputChoice.FLOAT32)


def compiled(
    folder: Path,
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Array],
    options: CompileOptions,
    shape: Sequence[int] = (1, 2, 6, 6),
) -> CompileResult:
    """The network compiled with calibration on random data of its input kind, and verified."""
    path = folder / "network.onnx"
    onnx.save(build(nodes, {"x": shape}, constants=constants), str(path))
    rng = np.random.default_rng(0)
    if options.input_kind is InputChoice.UINT8:
        data = rng.integers(0, 256, (3, *shape[1:])).astype(np.uint8)
    else:
        data = rng.standard_normal((3, *shape[1:])).astype(np.float32)
    calib = folder / "calib.npy"
    np.save(calib, data)
    return compile_model(path, dataclasses.replace(options, calib=str(calib), verify=True))


def largest_error(result: CompileResult, folder: Path) -> float:
    """Of the output y on the calibration data, relative to its largest magnitude."""
    options = result.options
    spec = InputSpec(
        InputKind(options.input_kind.value),
        options.input_scale,
        options.input_mean,
        options.input_std,
    )
    worst = largest = 0.0
    for image in np.load(folder / "calib.npy"):
        feed = {"x": image[None]}
        expected = Executor(result.float_graph).run(float_feed(feed, {"x": spec}))["y"]
        graph = result.integer_graph
        actual = Executor(graph).run(integer_feed(feed, graph, {"x": spec}))["y"]
        worst = max(worst, float(np.abs(actual - expected).max()))
        largest = max(largest, float(np.abs(expected).max()))
    return worst / largest


def normal(*shape: int, seed: int = 1) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@needs_gcc
def test_normalised_pixels_enter_a_float_island(tmp_path: Path) -> None:
    options = dataclasses.replace(PIXELS, abits="32", input_mean=(0.45,), input_std=(0.2,))
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    result = compiled(tmp_path, [node], {"w": normal(3, 2, 1, 1)}, options)
    assert largest_error(result, tmp_path) < 0.02


@needs_gcc
def test_grouped_transposed_convolution_in_an_island(tmp_path: Path) -> None:
    """Its weight scales lie along groups and axis 1 together."""
    options = dataclasses.replace(FLOATS, wbits="8", abits="32")
    node = helper.make_node("ConvTranspose", ["x", "w"], ["y"], group=2, strides=[2, 2])
    result = compiled(tmp_path, [node], {"w": normal(4, 3, 2, 2)}, options, (1, 4, 3, 3))
    assert largest_error(result, tmp_path) < 0.02


@needs_gcc
def test_shifts_as_wide_as_the_product(tmp_path: Path) -> None:
    """A filter that hardly counts: its multiplier is 1, its shift 32 and its product narrow."""
    weights = normal(2, 2, 1, 1)
    weights[0] *= 100
    weights[1] = np.asarray([1.2e-5, -1e-5], np.float32)[:, None, None]
    options = dataclasses.replace(
        FLOATS, quantizer="fixed", wbits="4", abits="4", effort=Effort.NEAREST
    )
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["v"]),
        helper.make_node("Conv", ["v", "u"], ["y"]),
    ]
    bias = np.asarray([0, -15], np.float32)
    constants = {"w": weights, "b": bias, "u": normal(2, 2, 1, 1, seed=3)}
    result = compiled(tmp_path, nodes, constants, options)
    epilogue = result.integer_graph.ops[1].epilogue  # type: ignore[attr-defined]
    assert max(epilogue.shifts) >= 32


@needs_gcc
def test_plain_pixels_have_no_more_than_8_bits(tmp_path: Path) -> None:
    """With 16 the table behind them would only see every 16th pixel value."""
    options = dataclasses.replace(PIXELS, wbits="16", abits="16")
    result = compiled(tmp_path, [helper.make_node("Tanh", ["x"], ["y"])], {}, options)
    assert largest_error(result, tmp_path) < 1e-3


def test_a_table_behind_a_join_of_signs(tmp_path: Path) -> None:
    """u16 and i16 codes make i17 ones, all of which the narrowing in front of a table must hold."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["v"]),
        helper.make_node("Concat", ["x", "v"], ["j"], axis=1),
        helper.make_node("Sigmoid", ["j"], ["y"]),
    ]
    options = dataclasses.replace(PIXELS, wbits="16", abits="16", target=Target.SIM)
    result = compiled(tmp_path, nodes, {"w": 0.2 * normal(2, 2, 1, 1)}, options)
    assert largest_error(result, tmp_path) < 1e-3


@needs_gcc
@pytest.mark.parametrize("bits", ["8", "16"])
@pytest.mark.parametrize("size", [0.01, 100.0])
def test_pixels_joined_with_much_smaller_features(tmp_path: Path, bits: str, size: float) -> None:
    """The shared scale must reach what is rescaled to it, and the wider format counts."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["v"]),
        helper.make_node("Concat", ["x", "v"], ["y"], axis=1),
    ]
    options = dataclasses.replace(PIXELS, wbits=bits, abits=bits)
    result = compiled(tmp_path, nodes, {"w": size * normal(2, 2, 1, 1)}, options)
    assert largest_error(result, tmp_path) < 0.02


@needs_gcc
def test_features_joined_with_an_island(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["v"], name="small"),
        helper.make_node("Conv", ["x", "u"], ["z"], name="large"),
        helper.make_node("Concat", ["v", "z"], ["j"], axis=1),
        helper.make_node("Conv", ["j", "t"], ["y"], name="last"),
    ]
    layers = (LayerOverride("large", abits="32"),)
    options = dataclasses.replace(FLOATS, layers=layers, target=Target.SIM)
    constants = {
        "w": 0.01 * normal(2, 2, 1, 1),
        "u": normal(2, 2, 1, 1, seed=4),
        "t": normal(2, 4, 1, 1, seed=5),
    }
    result = compiled(tmp_path, nodes, constants, options)
    assert largest_error(result, tmp_path) < 0.03


@needs_gcc
@pytest.mark.parametrize("kind", OutputKind)
def test_an_output_that_is_only_a_moved_input(tmp_path: Path, kind: OutputKind) -> None:
    options = dataclasses.replace(PIXELS, output_kind=kind)
    node = helper.make_node("Transpose", ["x"], ["y"], perm=[0, 1, 3, 2])
    compiled(tmp_path, [node], {}, options)


@needs_gcc
@pytest.mark.parametrize("bits", ["8", "32"])
def test_each_channel_has_its_own_mean_with_channels_last(tmp_path: Path, bits: str) -> None:
    options = dataclasses.replace(
        PIXELS, abits=bits, input_mean=(0.2, 0.4, 0.6), input_std=(0.3, 0.2, 0.1)
    )
    nodes = [
        helper.make_node("Transpose", ["x"], ["v"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["v", "w"], ["y"]),
    ]
    constants = {"w": normal(2, 3, 1, 1)}
    result = compiled(tmp_path, nodes, constants, options, (1, 5, 6, 3))
    assert largest_error(result, tmp_path) < 0.02


@needs_gcc
def test_a_relu_behind_a_norm_with_negative_gain(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("InstanceNormalization", ["x", "g", "b"], ["v"]),
        helper.make_node("Relu", ["v"], ["y"]),
    ]
    constants = {"g": np.asarray([-1.5, 0.5], np.float32), "b": np.zeros(2, np.float32)}
    result = compiled(tmp_path, nodes, constants, FLOATS)
    assert largest_error(result, tmp_path) < 0.03


@needs_gcc
def test_logits_of_an_input_are_no_cycle(tmp_path: Path) -> None:
    options = dataclasses.replace(PIXELS, output_kind=OutputKind.LOGITS)
    result = compiled(tmp_path, [helper.make_node("Softmax", ["x"], ["y"], axis=1)], {}, options)
    assert result.integer_graph.outputs == ("y",)
    assert largest_error(result, tmp_path) < 0.01


@needs_gcc
@pytest.mark.parametrize("bits", ["8", "32"])
def test_class_maps_may_be_moved(tmp_path: Path, bits: str) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["v"]),
        helper.make_node("ArgMax", ["v"], ["c"], axis=1),
        helper.make_node("Transpose", ["c"], ["y"], perm=[0, 2, 3, 1]),
    ]
    options = dataclasses.replace(PIXELS, abits=bits)
    result = compiled(tmp_path, nodes, {"w": normal(3, 2, 1, 1)}, options)
    assert result.integer_graph.types["y"].element.bits == 2


@needs_gcc
@pytest.mark.parametrize("abits", ["8", "32"])
def test_powers_of_two_of_seven_bits_reach_two_to_the_31(tmp_path: Path, abits: str) -> None:
    """32 exponents: the largest code does not fit int32, neither in sums nor in islands."""
    weights = normal(4, 2, 3, 3)
    weights[0, 0, 0, 0] = weights.max() * 2.0**-40
    # By name: the only layer is the first one, too.
    layers = (LayerOverride("conv", wbits="7", quantizer="pow2"),)
    options = dataclasses.replace(PIXELS, wbits="7", abits=abits, quantizer="pow2", layers=layers)
    result = compiled(
        tmp_path,
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv", pads=[1, 1, 1, 1])],
        {"w": weights},
        options,
    )
    codes = result.integer_graph.constants[result.integer_graph.by_name["conv"].inputs[1]]
    assert np.abs(codes).max() >= 1 << 31
    assert result.verified


def test_products_beyond_64_bits_are_refused_by_name(tmp_path: Path) -> None:
    # Sums of one sign reach all their range; nothing lies on the grid already.
    weights = np.abs(normal(64, 2, 3, 3)) + np.float32(0.5)
    weights[:, 0, 0, 0] = 2.0**-31
    layers = (LayerOverride("*", wbits="7", quantizer="pow2"),)
    options = dataclasses.replace(PIXELS, abits="16", quantizer="pow2", layers=layers)
    node = helper.make_node("Conv", ["x", "w"], ["h"], name="conv", pads=[1, 1, 1, 1])
    second = helper.make_node("Conv", ["h", "v"], ["y"], name="second", pads=[1, 1, 1, 1])
    constants = {"w": weights, "v": np.tile(weights[:, :1], (1, 64, 1, 1))}
    with pytest.raises(GraphError, match=r"second.*64 bits; use fewer --wbits"):
        compiled(tmp_path, [node, second], constants, options)


def test_a_mean_in_a_float_island_may_cancel() -> None:
    """The last bits of the terms are large against a mean of almost nothing."""
    expected = np.array([8.174351e-07], np.float32)
    actual = np.array([1.0899136e-06], np.float32)
    assert relative_difference(expected, actual) > FLOAT_LIMIT
    assert relative_difference(expected, actual, terms=2.5) < FLOAT_LIMIT
    assert relative_difference(expected, actual + np.float32(1e-3), terms=2.5) > FLOAT_LIMIT


def attention(mask: Array) -> tuple[list[onnx.NodeProto], dict[str, Array]]:
    """Every row of the image attends to the others of its channel."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], name="conv"),
        helper.make_node("Transpose", ["h"], ["t"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", ["h", "t"], ["s"], name="scores"),
        helper.make_node("Add", ["s", "mask"], ["m"], name="masked"),
        helper.make_node("Softmax", ["m"], ["a"], axis=-1, name="softmax"),
        helper.make_node("MatMul", ["a", "h"], ["y"], name="sums"),
    ]
    return nodes, {"w": normal(2, 2, 1, 1), "mask": mask}


def test_a_masked_softmax_of_wide_scores_keeps_its_mask(tmp_path: Path) -> None:
    mask = np.where(np.tril(np.ones((6, 6), bool)), 0, -1e4).astype(np.float32)
    options = dataclasses.replace(FLOATS, abits="16", target=Target.SIM)
    result = compiled(tmp_path, *attention(mask), options)
    softmax = result.integer_graph.by_name["softmax"]
    assert len(softmax.inputs) == 2
    narrow = result.integer_graph.producers[softmax.inputs[0]]
    assert narrow.kind == "Rescale"
    assert len(narrow.inputs) == 1
    assert largest_error(result, tmp_path) < 0.01


def test_a_softmax_of_float_scores_has_no_proven_mass(tmp_path: Path) -> None:
    options = dataclasses.replace(
        FLOATS, target=Target.SIM, layers=(LayerOverride("scores", abits="32"),)
    )
    nodes, constants = attention(np.zeros((6, 6), np.float32))
    del nodes[3]
    nodes[3].input[0] = "s"
    del constants["mask"]
    result = compiled(tmp_path, nodes, constants, options)
    sums = result.integer_graph.by_name["sums"]
    assert isinstance(sums, BatchMatMul)
    assert sums.epilogue is not None
    assert sums.mass is None
    assert largest_error(result, tmp_path) < 0.05
