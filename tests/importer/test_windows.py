"""Convolutions and pools against onnxruntime: padding modes, strides, ceil_mode, output shapes."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from qcompile.errors import ModelError, UnsupportedError
from qcompile.ops import MaxPool, ReduceMean
from tests.importer.models import assert_like_onnxruntime, build, imported, kinds

RNG = np.random.default_rng(5)
WEIGHTS = {
    "w": RNG.standard_normal((6, 2, 3, 3)).astype(np.float32),
    "b": RNG.standard_normal(6).astype(np.float32),
}
TRANSPOSED = {
    "w": RNG.standard_normal((4, 3, 3, 2)).astype(np.float32),
    "b": RNG.standard_normal(6).astype(np.float32),
}


@pytest.mark.parametrize("padding", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_automatic_padding(padding: str, stride: int) -> None:
    shape = {"x": (1, 4, 9, 8)}
    conv = helper.make_node(
        "Conv", ["x", "w", "b"], ["y"], auto_pad=padding, strides=[stride, stride], group=2
    )
    assert_like_onnxruntime(build([conv], shape, constants=WEIGHTS))
    for operator in ("MaxPool", "AveragePool"):
        pool = helper.make_node(
            operator, ["x"], ["y"], kernel_shape=[3, 2], auto_pad=padding, strides=[stride] * 2
        )
        assert_like_onnxruntime(build([pool], shape))


def test_dilation_and_uneven_padding() -> None:
    conv = helper.make_node(
        "Conv", ["x", "w"], ["y"], group=2, dilations=[2, 1], pads=[2, 0, 1, 3], strides=[1, 2]
    )
    assert_like_onnxruntime(build([conv], {"x": (1, 4, 9, 8)}, constants=WEIGHTS))


@pytest.mark.parametrize("rank", [1, 3])
def test_other_ranks(rank: int) -> None:
    weights = {"w": RNG.standard_normal((3, 2, *(3,) * rank)).astype(np.float32)}
    shape = {"x": (1, 2, *(6,) * rank)}
    conv = helper.make_node("Conv", ["x", "w"], ["a"], pads=[1] * (2 * rank))
    pool = helper.make_node("MaxPool", ["a"], ["y"], kernel_shape=[2] * rank, strides=[2] * rank)
    assert_like_onnxruntime(build([conv, pool], shape, constants=weights))


@pytest.mark.parametrize("ceil_mode", [0, 1])
@pytest.mark.parametrize("include", [0, 1])
@pytest.mark.parametrize("pads", [[1, 0, 1, 1], [0, 0, 2, 1]])
def test_pools(ceil_mode: int, include: int, pads: list[int]) -> None:
    shape = {"x": (1, 2, 9, 8)}
    average = helper.make_node(
        "AveragePool",
        ["x"],
        ["y"],
        kernel_shape=[3, 2],
        strides=[2, 3],
        pads=pads,
        ceil_mode=ceil_mode,
        count_include_pad=include,
    )
    assert_like_onnxruntime(build([average], shape, opset=19))
    largest = helper.make_node(
        "MaxPool",
        ["x"],
        ["y"],
        kernel_shape=[3, 2],
        strides=[2, 3],
        pads=pads,
        ceil_mode=ceil_mode,
        dilations=[1, 2],
    )
    assert_like_onnxruntime(build([largest], shape, opset=12))


def test_global_pools() -> None:
    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["y"]),
        helper.make_node("GlobalMaxPool", ["x"], ["z"]),
    ]
    graph = assert_like_onnxruntime(build(nodes, outputs=["y", "z"]))
    assert [type(op) for op in graph.ops] == [ReduceMean, MaxPool]


def test_indices_of_max_pool_are_no_output() -> None:
    pool = helper.make_node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2, 2])
    with pytest.raises(ModelError, match="graph output 'i' has indices"):
        imported(build([pool], outputs=["y", "i"]))
    assert kinds(imported(build([pool]))) == ["MaxPool"]


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", ["SAME_UPPER", "SAME_LOWER"])
def test_transposed_output_shape(stride: int, padding: str) -> None:
    # the largest sizes that need no extension, and one row less
    for less in (0, 1, 2):
        target = [4 * stride + 3 - less, 5 * stride + 2 - less]
        node = helper.make_node(
            "ConvTranspose",
            ["x", "w", "b"],
            ["y"],
            group=2,
            strides=[stride] * 2,
            output_shape=target,
            auto_pad=padding,
        )
        graph = assert_like_onnxruntime(build([node], {"x": (1, 4, 5, 6)}, constants=TRANSPOSED))
        assert graph.types["y"].shape == (1, 6, *target)


@pytest.mark.parametrize("extra", [[0, 0], [1, 0], [1, 1]])
def test_transposed_output_padding(extra: list[int]) -> None:
    node = helper.make_node(
        "ConvTranspose",
        ["x", "w", "b"],
        ["y"],
        group=2,
        strides=[2, 3],
        output_padding=extra,
        pads=[1, 0, 0, 1],
    )
    assert_like_onnxruntime(build([node], {"x": (1, 4, 5, 6)}, constants=TRANSPOSED))


def test_transposed_dilation() -> None:
    node = helper.make_node(
        "ConvTranspose", ["x", "w"], ["y"], group=2, dilations=[2, 1], pads=[1, 0, 2, 1]
    )
    assert_like_onnxruntime(build([node], {"x": (1, 4, 5, 6)}, constants=TRANSPOSED))


def test_transposed_same_padding_multiplies_the_size() -> None:
    node = helper.make_node(
        "ConvTranspose", ["x", "w"], ["y"], group=2, strides=[3, 3], auto_pad="SAME_UPPER"
    )
    graph = imported(build([node], {"x": (1, 4, 5, 6)}, constants=TRANSPOSED))
    assert graph.types["y"].shape == (1, 6, 15, 18)


def test_computed_weights_are_refused() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["w"]),
        helper.make_node("Conv", ["x", "w"], ["y"], name="conv"),
    ]
    with pytest.raises(UnsupportedError, match="Conv 'conv': weight tensor 'w' is computed"):
        imported(build(nodes))
