"""MaxPool with indices, and MaxUnpool."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from qcompile.errors import QCompileError
from qcompile.options import CompileOptions, InputChoice, Target
from qcompile.pipeline import compile_model
from qcompile.sim.executor import Executor
from tests.importer.models import assert_like_onnxruntime, build, images, imported, kinds

INTEGERS = {
    "one": np.array([1], np.int64),
    "begin": np.array([0, 0], np.int64),
    "end": np.array([1, 1], np.int64),
    "axes": np.array([2, 3], np.int64),
}


def pool(**attributes: Any) -> onnx.NodeProto:
    attributes = {"kernel_shape": [2, 2], "strides": [2, 2], **attributes}
    return helper.make_node("MaxPool", ["x"], ["p", "i"], **attributes)


def unpool(*more: str, indices: str = "i", **attributes: Any) -> onnx.NodeProto:
    attributes = {"kernel_shape": [2, 2], "strides": [2, 2], **attributes}
    return helper.make_node("MaxUnpool", ["p", indices, *more], ["y"], **attributes)


def test_there_and_back() -> None:
    graph = assert_like_onnxruntime(build([pool(), unpool()], {"x": (1, 3, 6, 8)}))
    assert sorted(kinds(graph)) == ["MaxPool", "MaxPoolIndex", "MaxUnpool"]


@pytest.mark.parametrize(
    ("shape", "attributes"),
    [
        ((1, 2, 7, 5), {}),
        ((1, 2, 8, 8), {"strides": [3, 2]}),
        ((1, 2, 6, 6), {"kernel_shape": [3, 3], "strides": [3, 3], "pads": [1, 1, 2, 2]}),
        ((1, 2, 9), {"kernel_shape": [3], "strides": [3]}),
    ],
)
def test_other_sizes_need_the_shape(shape: tuple[int, ...], attributes: dict[str, Any]) -> None:
    constants = {"shape": np.array(shape, np.int64)}
    model = build(
        [pool(**attributes), unpool("shape", **attributes)], {"x": shape}, ("y",), constants
    )
    assert_like_onnxruntime(model)


def test_the_first_of_equal_maxima() -> None:
    model = build([pool(), unpool()], {"x": (1, 1, 4, 4)})
    graph = imported(model)
    flat = {"x": np.ones((1, 1, 4, 4), np.float32)}
    found = Executor(graph).run(flat)["y"]
    assert np.flatnonzero(found).tolist() == [0, 2, 8, 10]


def test_indices_within_a_channel_as_torch_counts_them() -> None:
    """torch subtracts the indices of a pool of single elements, at the origin of each channel."""
    single = helper.make_node("MaxPool", ["x"], ["q", "all"], kernel_shape=[1, 1])
    origin = helper.make_node("Slice", ["all", "begin", "end", "axes"], ["origin"])
    nodes = [
        pool(),
        single,
        origin,
        helper.make_node("Sub", ["i", "origin"], ["within"]),
        helper.make_node("Cast", ["within"], ["plain"], to=onnx.TensorProto.INT64),
        helper.make_node("Add", ["origin", "plain"], ["whole"]),
        unpool(indices="whole"),
    ]
    graph = assert_like_onnxruntime(build(nodes, {"x": (1, 3, 4, 6)}, ("y",), INTEGERS))
    assert sorted(kinds(graph)) == ["MaxPool", "MaxPoolIndex", "MaxUnpool"]
    nodes[-1] = unpool(indices="within")
    with pytest.raises(QCompileError, match="do not count positions of the whole tensor"):
        imported(build(nodes, {"x": (1, 3, 4, 6)}, ("y",), INTEGERS))


@pytest.mark.parametrize(
    ("nodes", "message"),
    [
        ([pool(), unpool(strides=[3, 3])], "that was pooled"),
        ([pool(storage_order=1), unpool()], "column-major"),
        ([pool(), helper.make_node("Mul", ["i", "i"], ["y"])], "reads the indices of a MaxPool"),
        ([pool(), helper.make_node("Identity", ["i"], ["y"])], "for MaxUnpool alone"),
        ([pool(), unpool(indices="shape")], "are not those of a MaxPool"),
        (
            [pool(kernel_shape=[3, 3], pads=[0, 0, 1, 1]), unpool("shape", kernel_shape=[3, 3])],
            "overlap",
        ),
    ],
)
def test_what_is_refused(nodes: list[onnx.NodeProto], message: str) -> None:
    constants = {"shape": np.array([1, 2, 4, 4], np.int64)}
    with pytest.raises(QCompileError, match=message):
        imported(build(nodes, {"x": (1, 2, 4, 4)}, ("y",), constants))


@pytest.mark.parametrize(
    ("target", "abits"), [(Target.C, "8"), (Target.C, "32"), (Target.QDQ, "6")]
)
def test_a_decoder_with_indices_of_its_encoder(target: Target, abits: str, tmp_path: Path) -> None:
    """As in SUMNet: the decoder unpools what other layers made of the pooled map, beside the map
    before the pool."""
    if target is Target.C and shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    rng = np.random.default_rng(0)
    constants = {
        f"w{index}": rng.standard_normal(shape).astype(np.float32) / 3
        for index, shape in enumerate(((4, 1, 3, 3), (4, 4, 3, 3), (2, 8, 1, 1)))
    }
    nodes = [
        helper.make_node("Conv", ["image", "w0"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["x"]),
        pool(),
        helper.make_node("Conv", ["p", "w1"], ["b"], pads=[1] * 4),
        helper.make_node("MaxUnpool", ["b", "i"], ["u"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Concat", ["x", "u"], ["c"], axis=1),
        helper.make_node("Conv", ["c", "w2"], ["y"]),
    ]
    model = build(nodes, {"image": (1, 1, 8, 12)}, ("y",), constants)
    graph = assert_like_onnxruntime(model)
    onnx.save(model, tmp_path / "net.onnx")
    np.save(tmp_path / "calib.npy", images(graph)["image"])
    options = CompileOptions(
        calib=str(tmp_path / "calib.npy"),
        verify=True,
        target=target,
        abits=abits,
        input_kind=InputChoice.FLOAT32,
    )
    found = compile_model(tmp_path / "net.onnx", options).integer_graph
    indices = next(op for op in found.ops if op.kind == "MaxPoolIndex")
    assert found.types[indices.output].quantization is None
    assert str(found.types[indices.output].element) == "u2"
