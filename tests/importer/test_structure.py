"""Shapes, names, outputs, functions and the complete list of what is not supported."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qcompile.errors import ModelError, UnsupportedError, UsageError
from qcompile.graph import Stage
from qcompile.importer import import_model
from qcompile.importer.model import convert_model
from qcompile.sim.executor import Executor
from tests.importer.models import build, images, imported, kinds

RELU = helper.make_node("Relu", ["x"], ["y"])


def test_stage_names_and_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(build([RELU]).SerializeToString())
    graph = import_model(path)
    assert (graph.stage, graph.inputs, graph.outputs) == (Stage.FLOAT, ("x",), ("y",))
    assert graph.types["y"].shape == (1, 2, 4, 4)
    assert graph.ops[0].name == "Relu_0"


def test_duplicate_node_names_become_unique() -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["a"], name="n"),
        helper.make_node("Tanh", ["a"], ["b"], name="n"),
        helper.make_node("Sigmoid", ["b"], ["y"], name="n.2"),
    ]
    names = [op.name for op in imported(build(nodes)).ops]
    assert names[0] == "n"
    assert names[2] == "n.2"
    assert len(set(names)) == 3


def test_dynamic_batch_is_one() -> None:
    graph = imported(build([RELU], inputs={"x": ("N", 2, 4, 4)}))
    assert graph.types["x"].shape == (1, 2, 4, 4)


def test_dynamic_axes_need_a_shape() -> None:
    model = build([RELU], inputs={"x": ("N", 2, "h", None)})
    with pytest.raises(UsageError, match="--input-shape x=1,2,N,N"):
        imported(model)
    graph = convert_model(model, Path(), {"x": (1, 2, 5, 6)})
    assert graph.types["y"].shape == (1, 2, 5, 6)


def test_named_dimensions_are_shared() -> None:
    add = helper.make_node("Add", ["x", "z"], ["y"])
    model = build([add], inputs={"x": (1, 2, "h", "w"), "z": (1, 1, "h", "w")})
    graph = convert_model(model, Path(), {"x": (1, 2, 5, 6)})
    assert graph.types["z"].shape == (1, 1, 5, 6)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"x": (1, 2, 5, 4)}, "contradicts the model"),
        ({"x": (1, 2, 4)}, "contradicts the model"),
        ({"x": (1, 2, 0, 4)}, "positive sizes"),
        ({"z": (1, 2, 4, 4)}, "names 'z'"),
    ],
)
def test_wrong_input_shapes(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        convert_model(build([RELU]), Path(), shapes)


def test_batches_are_refused() -> None:
    with pytest.raises(ModelError, match="batch 4"):
        imported(build([RELU], inputs={"x": (4, 2, 4, 4)}))
    with pytest.raises(ModelError, match="batch 4"):
        convert_model(build([RELU], inputs={"x": ("N", 2)}), Path(), {"x": (4, 2)})


def test_initialisers_listed_as_inputs() -> None:
    model = build(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        inputs={"x": (1, 2, 4, 4), "w": (3, 2, 1, 1)},
        constants={"w": np.ones((3, 2, 1, 1), np.float32)},
    )
    assert imported(model).inputs == ("x",)


def test_weights_from_constants_through_identities() -> None:
    weights = numpy_helper.from_array(np.ones((3, 2, 1, 1), np.float64))
    nodes = [
        helper.make_node("Constant", [], ["c"], value=weights),
        helper.make_node("Identity", ["c"], ["i"]),
        helper.make_node("Identity", ["i"], ["w"]),
        helper.make_node("Conv", ["x", "w"], ["y"]),
    ]
    graph = imported(build(nodes))
    (conv,) = graph.ops
    assert graph.constants[conv.inputs[1]].dtype == np.float32


def test_shared_weights_stay_independent() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Conv", ["a", "w"], ["y"]),
    ]
    graph = imported(build(nodes, constants={"w": np.ones((2, 2, 1, 1), np.float32)}))
    assert graph.ops[0].inputs[1] != graph.ops[1].inputs[1]


def test_everything_unsupported_is_listed_at_once() -> None:
    nodes = [
        helper.make_node("Cos", ["x"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Gelu", ["b"], ["c"], name="second", domain="com.microsoft"),
        helper.make_node("Sin", ["c"], ["d"], name="third"),
        helper.make_node("LpPool", ["x"], ["e"], name="fourth", kernel_shape=[2, 2]),
        helper.make_node("Concat", ["d", "e"], ["y"], axis=1),
    ]
    with pytest.raises(UnsupportedError) as caught:
        imported(build(nodes))
    assert [item.node for item in caught.value.items] == ["first", "second", "third", "fourth"]
    assert all(item.reason and item.advice for item in caught.value.items)


def test_nodes_behind_an_unsupported_one_are_checked_by_declared_shapes() -> None:
    nodes = [
        helper.make_node("Cos", ["x"], ["a"], name="first"),
        helper.make_node("Resize", ["a", "", "s"], ["y"], name="second", mode="cubic"),
    ]
    model = build(nodes, constants={"s": np.array([1, 1, 2, 2], np.float32)})
    model.graph.value_info.append(
        helper.make_tensor_value_info("a", TensorProto.FLOAT, (1, 2, 4, 4))
    )
    with pytest.raises(UnsupportedError) as caught:
        imported(model)
    assert [item.node for item in caught.value.items] == ["first", "second"]


def test_dynamic_quantisation_gets_its_own_advice() -> None:
    node = helper.make_node("DynamicQuantizeLinear", ["x"], ["y", "s", "z"])
    with pytest.raises(UnsupportedError, match="quantise statically"):
        imported(build([node]))


def test_control_flow_is_refused() -> None:
    branch = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["t"])],
        "branch",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
    )
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    model = build([node], constants={"c": np.array(True)})
    with pytest.raises(UnsupportedError, match="control flow"):
        imported(model)


def test_dead_nodes_do_not_matter() -> None:
    graph = imported(build([RELU, helper.make_node("Cos", ["x"], ["unused"])]))
    assert kinds(graph) == ["Rescale"]


def test_outputs_keep_their_names() -> None:
    nodes = [
        helper.make_node("Tanh", ["x"], ["a"]),
        helper.make_node("Identity", ["a"], ["y"]),
        helper.make_node("Dropout", ["a"], ["z"]),
        helper.make_node("Identity", ["x"], ["w"]),
    ]
    graph = imported(build(nodes, outputs=["y", "z", "a", "w"]))
    assert graph.outputs == ("y", "z", "a", "w")
    feeds = images(graph)
    results = Executor(graph).run(feeds)
    for name in ("y", "z", "a"):
        np.testing.assert_allclose(results[name], np.tanh(feeds["x"]), rtol=1e-6)
    np.testing.assert_array_equal(results["w"], feeds["x"])


def test_renamed_output_without_copies() -> None:
    nodes = [helper.make_node("Tanh", ["x"], ["a"]), helper.make_node("Identity", ["a"], ["y"])]
    assert kinds(imported(build(nodes))) == ["Tanh"]


def test_outputs_that_are_inputs_or_constants() -> None:
    with pytest.raises(ModelError, match="also a graph input"):
        imported(build([RELU], outputs=["y", "x"]))
    model = build([RELU], outputs=["y", "c"], constants={"c": np.ones(3, np.float32)})
    with pytest.raises(ModelError, match="'c' is a constant"):
        imported(model)


def test_integer_images_must_be_cast() -> None:
    with pytest.raises(UnsupportedError, match="integer values"):
        imported(build([RELU], element=TensorProto.UINT8))
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Cast", ["t"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Relu", ["f"], ["y"]),
    ]
    graph = imported(build(nodes, inputs={"x": (1, 4, 4, 3)}, element=TensorProto.UINT8))
    assert graph.types["y"].shape == (1, 3, 4, 4)


def test_model_functions_are_expanded() -> None:
    function = helper.make_function(
        "local",
        "Twice",
        ["a"],
        ["b"],
        [helper.make_node("Tanh", ["a"], ["t"]), helper.make_node("Tanh", ["t"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    model = build([helper.make_node("Twice", ["x"], ["y"], domain="local")])
    model.functions.append(function)
    model.opset_import.append(helper.make_opsetid("local", 1))
    assert kinds(imported(model)) == ["Tanh", "Tanh"]


def _function(name: str, called: str) -> onnx.FunctionProto:
    nodes = [
        helper.make_node(called, ["a"], ["t"], domain="local"),
        helper.make_node(called, ["t"], ["b"], domain="local"),
    ]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, ["a"], ["b"], nodes, opsets)


def test_functions_cannot_explode_or_recur() -> None:
    model = build([helper.make_node("F0", ["x"], ["y"], domain="local")])
    model.opset_import.append(helper.make_opsetid("local", 1))
    model.functions.extend(_function(f"F{index}", f"F{index + 1}") for index in range(60))
    with pytest.raises(ModelError, match="more than 100000 nodes"):
        imported(model)
    model.functions.append(_function("F60", "F0"))
    with pytest.raises(ModelError, match="calls itself"):
        imported(model)
