"""Scores by ONNX node find their filters, through norms, activations and ties."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qcompile.errors import UsageError
from qcompile.graph import Graph
from qcompile.importer import batch_norm_scales, import_model
from qcompile.ops import Conv
from qcompile.passes.base import run_passes
from qcompile.passes.filter_importance import NodeScores
from qcompile.passes.fold_affine import FoldAffine
from qcompile.passes.fuse_activations import FuseActivations
from qcompile.passes.prune_filters import PruneFilters
from qcompile.types import Array

GAMMA = np.array([0.5, -2.0, 0.01, 1.0], dtype="float32")


def norm_model(folder: Path, norm_first: bool = True) -> Path:
    """conv1 -> norm1 and relu1 in either order -> conv2, added to its input -> head."""
    rng = np.random.default_rng(0)
    constants: dict[str, Array] = {
        "w1": rng.normal(size=(4, 1, 3, 3)),
        "w2": rng.normal(size=(4, 4, 3, 3)),
        "w3": rng.normal(size=(2, 4, 1, 1)),
        "gamma": GAMMA,
        "beta": rng.normal(size=4),
        "mean": rng.normal(size=4),
        "variance": np.array([1e-4, 1.0, 4.0, 100.0]),
    }
    norm = ["gamma", "beta", "mean", "variance"]
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", *norm], ["b"], "norm1")
        if norm_first
        else helper.make_node("Relu", ["a"], ["b"], "relu1"),
        helper.make_node("Relu", ["b"], ["c"], "relu1")
        if norm_first
        else helper.make_node("BatchNormalization", ["b", *norm], ["c"], "norm1"),
        helper.make_node("Conv", ["c", "w2"], ["d"], "conv2", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["c", "d"], ["e"], "add"),
        helper.make_node("Conv", ["e", "w3"], ["y"], "head"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 8, 8])],
        [numpy_helper.from_array(data.astype("float32"), name) for name, data in constants.items()],
    )
    path = folder / "net.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def simplified(graph: Graph) -> Graph:
    return run_passes(graph, (FoldAffine(), FuseActivations()))


def kept(graph: Graph, name: str, before: Graph) -> list[int]:
    """Which filters of a convolution are left, told by their first weights."""
    op, old = graph.by_name[name], before.by_name[name]
    rows = before.constants[old.inputs[1]][:, 0].reshape(-1, 9).tolist()
    return [rows.index(row) for row in graph.constants[op.inputs[1]][:, 0].reshape(-1, 9).tolist()]


@pytest.mark.parametrize("norm_first", [True, False])
def test_scales_of_batch_norms_are_those_of_training(tmp_path: Path, norm_first: bool) -> None:
    """Not divided by the deviation, as they are in the imported network."""
    path = norm_model(tmp_path, norm_first)
    scales = batch_norm_scales(path)
    assert list(scales) == ["norm1"]
    np.testing.assert_array_equal(scales["norm1"], GAMMA)


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("node", ["norm1", "relu1", "conv1", "conv2", "add"])
def test_any_node_of_the_class_names_the_filters(
    tmp_path: Path, norm_first: bool, node: str
) -> None:
    imported = import_model(norm_model(tmp_path, norm_first))
    before = simplified(imported)
    scores = NodeScores(imported, {node: np.abs(GAMMA).astype("float64")}, "scores")
    after = PruneFilters(0.5, scores).run(before)
    assert [op.name for op in after.ops if isinstance(op, Conv)] == ["conv1", "conv2", "head"]
    for op in (after.by_name["conv1"], after.by_name["conv2"]):
        assert after.types[op.output].shape[1] == 2
    assert kept(after, "conv1", before) == [1, 3]


def test_tied_channels_share_the_mean_of_their_scores(tmp_path: Path) -> None:
    imported = import_model(norm_model(tmp_path))
    scores = {"conv1": np.array([9.0, 2.0, 3.0, 1.0]), "conv2": np.array([0.0, 3.0, 3.0, 1.0])}
    found = NodeScores(imported, scores, "scores").scores(simplified(imported))
    assert [found[("c", index)] for index in range(4)] == [4.5, 2.5, 3.0, 1.0]


def test_scores_are_compared_across_layers_as_they_are(tmp_path: Path) -> None:
    imported = import_model(norm_model(tmp_path))
    assert not NodeScores(imported, {}, "scores").is_relative


@pytest.mark.parametrize(
    ("scores", "fragments"),
    [
        ({"conv3": [1.0]}, ["scores: no node of the model is called 'conv3'", "such as 'conv"]),
        ({"conv1": [1.0, 2.0]}, ["Conv 'conv1' has 4 channels, but 2 scores are given"]),
        ({"head": [1.0]}, ["Conv 'head' has 2 channels"]),
    ],
)
def test_wrong_scores(tmp_path: Path, scores: dict[str, list[float]], fragments: list[str]) -> None:
    imported = import_model(norm_model(tmp_path))
    arrays = {name: np.array(values) for name, values in scores.items()}
    with pytest.raises(UsageError) as caught:
        PruneFilters(0.5, NodeScores(imported, arrays, "scores")).run(simplified(imported))
    for fragment in fragments:
        assert fragment in str(caught.value)
