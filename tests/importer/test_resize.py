"""Resize and Upsample against onnxruntime, and what they refuse."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from onnx import helper

from qcompile.errors import UnsupportedError
from qcompile.importer.operators.coordinates import exact_scale
from qcompile.ops import LinearResize
from tests.importer.models import assert_like_onnxruntime, build, imported, kinds

MODES = (
    "half_pixel",
    "pytorch_half_pixel",
    "align_corners",
    "asymmetric",
    "half_pixel_symmetric",
)
SHAPE = {"x": (1, 2, 5, 7)}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scales", [(2, 2), (1.5, 3), (0.5, 0.5), (2.3, 0.75)])
def test_linear_scales(mode: str, scales: tuple[float, float]) -> None:
    node = helper.make_node(
        "Resize", ["x", "", "s"], ["y"], mode="linear", coordinate_transformation_mode=mode
    )
    constants = {"s": np.array((1, 1, *scales), np.float32)}
    assert_like_onnxruntime(build([node], SHAPE, constants=constants, opset=19))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("nearest", ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
@pytest.mark.parametrize("sizes", [(10, 14), (7, 9), (5, 14)])
def test_nearest_sizes(mode: str, nearest: str, sizes: tuple[int, int]) -> None:
    node = helper.make_node(
        "Resize",
        ["x", "", "", "s"],
        ["y"],
        mode="nearest",
        coordinate_transformation_mode=mode,
        nearest_mode=nearest,
    )
    constants = {"s": np.array((1, 2, *sizes), np.int64)}
    assert_like_onnxruntime(build([node], SHAPE, constants=constants, opset=19))


def test_half_pixel_for_nearest() -> None:
    node = helper.make_node(
        "Resize",
        ["x", "", "s"],
        ["y"],
        coordinate_transformation_mode="tf_half_pixel_for_nn",
        nearest_mode="floor",
    )
    constants = {"s": np.array((1, 1, 2, 2), np.float32)}
    assert_like_onnxruntime(build([node], SHAPE, constants=constants, opset=13))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(("operator", "opset"), [("Upsample", 9), ("Resize", 10)])
def test_old_forms(mode: str, operator: str, opset: int) -> None:
    node = helper.make_node(operator, ["x", "s"], ["y"], mode=mode)
    constants = {"s": np.array((1, 1, 2, 1.5), np.float32)}
    assert_like_onnxruntime(build([node], SHAPE, constants=constants, opset=opset))


def test_old_resize_shrinks_to_the_ceiling() -> None:
    node = helper.make_node("Resize", ["x", "s"], ["y"], mode="nearest")
    constants = {"s": np.array((1, 1, 0.6, 0.6), np.float32)}
    assert_like_onnxruntime(build([node], SHAPE, constants=constants, opset=10))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_channels_last(mode: str) -> None:
    node = helper.make_node("Resize", ["x", "", "", "s"], ["y"], mode=mode)
    constants = {"s": np.array((1, 10, 14, 3), np.int64)}
    model = build([node], {"x": (1, 5, 7, 3)}, constants=constants)
    graph = assert_like_onnxruntime(model)
    assert kinds(graph)[0] == kinds(graph)[-1] == "Transpose"


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("shape", [(1, 2, 5), (1, 2, 3, 4, 5)])
def test_other_ranks(mode: str, shape: tuple[int, ...]) -> None:
    node = helper.make_node("Resize", ["x", "", "s"], ["y"], mode=mode)
    constants = {"s": np.array((1, 1, *(2 for _ in shape[2:])), np.float32)}
    assert_like_onnxruntime(build([node], {"x": shape}, constants=constants))


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
def test_aspect_ratio_and_axes(policy: str) -> None:
    node = helper.make_node(
        "Resize", ["x", "", "", "s"], ["y"], keep_aspect_ratio_policy=policy, axes=[2, 3]
    )
    constants = {"s": np.array((9, 10), np.int64)}
    assert_like_onnxruntime(build([node], SHAPE, constants=constants, opset=19))


def test_crop_inside() -> None:
    node = helper.make_node(
        "Resize",
        ["x", "roi", "", "s"],
        ["y"],
        mode="linear",
        coordinate_transformation_mode="tf_crop_and_resize",
    )
    constants = {
        "s": np.array((1, 2, 4, 4), np.int64),
        "roi": np.array([0, 0, 0.2, 0.1, 1, 1, 0.8, 0.9], np.float32),
    }
    assert_like_onnxruntime(build([node], SHAPE, constants=constants))


def test_same_size_is_nothing() -> None:
    nodes = [
        helper.make_node("Resize", ["x", "", "s"], ["a"], mode="cubic"),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    constants = {"s": np.ones(4, np.float32)}
    assert kinds(imported(build(nodes, SHAPE, constants=constants))) == ["Rescale"]


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"mode": "cubic"}, "mode 'cubic'"),
        ({"mode": "linear", "antialias": 1}, "antialias"),
        ({"coordinate_transformation_mode": "elsewhere"}, "coordinate_transformation_mode"),
    ],
)
def test_refused(attributes: dict[str, str | int], reason: str) -> None:
    node = helper.make_node("Resize", ["x", "", "s"], ["y"], **attributes)
    model = build([node], SHAPE, constants={"s": np.array((1, 1, 0.5, 0.5), np.float32)}, opset=19)
    with pytest.raises(UnsupportedError, match=reason):
        imported(model)


def test_channels_cannot_be_resized() -> None:
    node = helper.make_node("Resize", ["x", "", "s"], ["y"])
    model = build([node], SHAPE, constants={"s": np.array((1, 2, 2, 2), np.float32)})
    with pytest.raises(UnsupportedError, match="only spatial axes"):
        imported(model)


def test_scales_become_simple_fractions() -> None:
    assert exact_scale(float(np.float32(5 / 3))) == Fraction(5, 3)
    assert exact_scale(2.0) == 2
    assert exact_scale(1.0000001192092896) == Fraction(1.0000001192092896)
    node = helper.make_node("Resize", ["x", "", "s"], ["y"], mode="linear")
    constants = {"s": np.array((1, 1, 2, 2), np.float32)}
    (op,) = imported(build([node], SHAPE, constants=constants)).ops
    assert isinstance(op, LinearResize)
    assert op.common() == 16
