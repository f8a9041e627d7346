"""Damaged, inconsistent and hostile models: one line of error each, quickly."""

from __future__ import annotations

import os
import pickle
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qcompile.errors import ModelError, QCompileError, UnsupportedError
from qcompile.importer import import_model
from qcompile.importer.protobuf import parse_model
from tests.importer.models import build, imported

RELU = helper.make_node("Relu", ["x"], ["y"])
CONV = helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
WEIGHTS = np.ones((3, 2, 1, 1), np.float32)


def _refused(model: onnx.ModelProto, message: str) -> None:
    started = time.monotonic()
    with pytest.raises(QCompileError, match=message) as caught:
        imported(model)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"this is no protobuf at all", "not a readable ONNX file|holds no graph"),
        (b"\x08\x08", "holds no graph"),
        (pickle.dumps({"weights": [1.0]}), "not a readable ONNX file|holds no graph"),
    ],
)
def test_no_model(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        import_model(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        import_model(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="not a regular file"):
        import_model(tmp_path)


def _imports(path: Path) -> bool:
    """Whether the model imports; if not, the error must be ours and of one line."""
    message = None
    try:
        import_model(path)
    except QCompileError as error:
        message = str(error)
    assert message is None or "\n" not in message
    return message is None


def test_every_truncation_is_an_error(tmp_path: Path) -> None:
    content = build([CONV], constants={"w": WEIGHTS}).SerializeToString()
    path = tmp_path / "model.onnx"
    complete = 0
    for length in range(1, len(content)):
        path.write_bytes(content[:length])
        complete += _imports(path)
    assert complete <= 2  # only trailing metadata may be missing


def test_random_damage_never_escapes(tmp_path: Path) -> None:
    content = bytearray(build([CONV], constants={"w": WEIGHTS}).SerializeToString())
    rng = np.random.default_rng(1)
    path = tmp_path / "model.onnx"
    for _ in range(1000):
        damaged = bytearray(content)
        for _ in range(int(rng.integers(1, 4))):
            damaged[int(rng.integers(len(damaged)))] = int(rng.integers(256))
        path.write_bytes(bytes(damaged))
        _imports(path)


def test_cycle() -> None:
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="second"),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    _refused(build(nodes), "cycle")


def test_unsorted_nodes_are_sorted() -> None:
    nodes = [helper.make_node("Relu", ["a"], ["y"]), helper.make_node("Sigmoid", ["x"], ["a"])]
    assert [op.kind for op in imported(build(nodes)).ops] == ["Sigmoid", "Rescale"]


def test_missing_value() -> None:
    _refused(build([helper.make_node("Relu", ["nowhere"], ["y"])]), "'nowhere' that nothing writes")
    _refused(build([RELU], outputs=["z"]), "graph output 'z' is written by no node")


def test_two_producers() -> None:
    _refused(build([RELU, helper.make_node("Tanh", ["x"], ["y"])]), "second producer")
    _refused(build([helper.make_node("Relu", ["x"], ["x"])], outputs=["x"]), "second producer")


def test_duplicate_initialisers_inputs_and_outputs() -> None:
    model = build([CONV], constants={"w": WEIGHTS})
    model.graph.initializer.append(model.graph.initializer[0])
    _refused(model, "initialiser 'w' is defined twice")
    model = build([RELU])
    model.graph.input.append(model.graph.input[0])
    _refused(model, "graph input 'x' is defined twice")
    _refused(build([RELU], outputs=["y", "y"]), "each once")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers(value: float) -> None:
    weights = WEIGHTS.copy()
    weights[1, 0] = value
    _refused(build([CONV], constants={"w": weights}), "Conv 'conv': .*1 value.* NaN or infinite")


def test_double_weights_beyond_float32() -> None:
    weights = WEIGHTS.astype(np.float64) * 1e300
    _refused(build([CONV], constants={"w": weights}), "NaN or infinite")


def test_wrong_shapes() -> None:
    _refused(build([CONV], constants={"w": np.ones((3, 5, 1, 1), np.float32)}), "do not fit")
    _refused(build([CONV], constants={"w": np.ones((3, 2, 9, 9), np.float32)}), "does not fit")
    add = helper.make_node("Add", ["x", "z"], ["y"])
    model = build([add], inputs={"x": (1, 2, 4, 4), "z": (1, 2, 3, 4)})
    _refused(model, "do not broadcast")


@pytest.mark.parametrize(
    "dims", [(1, 2, 2**40, 2**40), (1, 2**62, 2**62, 2**62), (1, 1, 20000, 20000)]
)
def test_huge_inputs(dims: tuple[int, ...]) -> None:
    _refused(build([RELU], inputs={"x": dims}), "the limit is")


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[1, 1], pads=[2**30] * 4),
        helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[1, 1], pads=[2**62] * 4),
        helper.make_node("Resize", ["x", "", "scale"], ["y"]),
        helper.make_node("Pad", ["x", "pads"], ["y"]),
        helper.make_node("Expand", ["x", "big"], ["y"]),
        helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2**30, 2**30]),
        helper.make_node("ConvTranspose", ["x", "w"], ["y"], output_shape=[2**30, 2**30]),
    ],
)
def test_huge_results(node: onnx.NodeProto) -> None:
    constants = {
        "scale": np.array([1, 1, 1e9, 1e9], np.float32),
        "pads": np.full(8, 2**30, np.int64),
        "big": np.array([2**30, 2**30, 1, 2, 4, 4], np.int64),
        "w": np.ones((2, 1, 1, 1), np.float32),
    }
    _refused(build([node], constants=constants), "limit|more than|not negative|an expansion to")


def test_huge_constants_are_not_evaluated() -> None:
    fill = helper.make_node("ConstantOfShape", ["shape"], ["c"])
    add = helper.make_node("Add", ["x", "c"], ["y"])
    model = build([fill, add], constants={"shape": np.array([2**20, 2**20], np.int64)})
    _refused(model, "ConstantOfShape.*the limit is")
    span = helper.make_node("Range", ["zero", "limit", "one"], ["c"])
    constants = {
        "zero": np.array(0, np.int64),
        "limit": np.array(2**60, np.int64),
        "one": np.array(1, np.int64),
    }
    _refused(build([span, add], constants=constants), "Range.*the limit is")


def test_huge_declared_tensor() -> None:
    model = build([CONV], constants={"w": WEIGHTS})
    model.graph.initializer[0].dims[:] = [2**31, 2**31, 1, 1]
    _refused(model, "more than the limit")
    model.graph.initializer[0].dims[:] = [-3, 2, 1, 1]
    _refused(model, "impossible shape")


def test_wrong_amount_of_data() -> None:
    model = build([CONV], constants={"w": WEIGHTS})
    model.graph.initializer[0].raw_data = b"\0" * 7
    _refused(model, "needs 24 bytes but the file has 7")
    typed = helper.make_tensor("w", TensorProto.FLOAT, [3, 2, 1, 1], [1.0] * 6)
    typed.float_data.append(1.0)
    model = build([CONV])
    model.graph.initializer.append(typed)
    _refused(model, "needs 6 elements but the file has 7")


def test_string_and_sparse_tensors() -> None:
    model = build([CONV])
    model.graph.initializer.append(helper.make_tensor("w", TensorProto.STRING, [1], [b"a"]))
    _refused(model, "elements of type string")
    model = build([CONV], constants={"w": WEIGHTS})
    values = numpy_helper.from_array(np.ones(1, np.float32), "s")
    indices = numpy_helper.from_array(np.zeros(1, np.int64), "i")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    _refused(model, "sparse initialiser 's'")


def _external(folder: Path, location: str, **entries: str) -> Path:
    model = build([CONV], constants={"w": WEIGHTS})
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_external_data(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0" * 8 + WEIGHTS.tobytes())
    graph = import_model(_external(tmp_path, "w.bin", offset="8", length="24"))
    np.testing.assert_array_equal(graph.constants["w"], WEIGHTS)


@pytest.mark.parametrize(
    "location", ["../w.bin", "/etc/passwd", "a/../../w.bin", "..\\w.bin", "C:\\w.bin", "", "."]
)
def test_external_data_outside(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    with pytest.raises(ModelError, match="outside the model's folder"):
        import_model(_external(folder, location))


def test_external_data_through_links(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    (folder / "w.bin").symlink_to(tmp_path / "w.bin")
    with pytest.raises(ModelError, match="outside the model's folder"):
        import_model(_external(folder, "w.bin"))
    (folder / "up").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(ModelError, match="outside the model's folder"):
        import_model(_external(folder, "up/w.bin"))
    (folder / "loop").symlink_to(folder / "loop")
    with pytest.raises(ModelError):
        import_model(_external(folder, "loop"))


def test_external_data_damaged(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    cases = {
        "20 bytes|do not|does not fit": {"length": "20"},
        "needed": {"offset": "4"},
        "offset -1": {"offset": "-1"},
        "no number": {"offset": "many"},
    }
    for message, entries in cases.items():
        with pytest.raises(ModelError, match=message):
            import_model(_external(tmp_path, "w.bin", **entries))
    with pytest.raises(ModelError, match="cannot be read"):
        import_model(_external(tmp_path, "none.bin"))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError, match="not a regular file"):
        import_model(_external(tmp_path, "pipe"))


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (helper.make_node("Relu", [], ["y"]), "0 inputs"),
        (helper.make_node("Relu", ["x"], ["y"], speed=3), "unknown attribute 'speed'"),
        (helper.make_node("Concat", ["x", "x"], ["y"]), "attribute 'axis' is missing"),
        (helper.make_node("Concat", ["x", "x"], ["y"], axis=9), "axis 9 does not exist"),
        (helper.make_node("LeakyRelu", ["x"], ["y"], alpha=1), "wrong type"),
        (helper.make_node("LeakyRelu", ["x"], ["y"], alpha=float("nan")), "NaN"),
        (helper.make_node("Conv", ["x", "w"], ["y"], strides=[0, 1]), "positive"),
        (helper.make_node("Conv", ["x", "w"], ["y"], strides=[1]), "strides"),
        (helper.make_node("Conv", ["x", "w"], ["y"], pads=[-1, 0, 0, 0]), "not negative"),
        (helper.make_node("Conv", ["x", "w"], ["y"], group=0), "positive"),
        (helper.make_node("Conv", ["x", "w"], ["y"], group=-2), "positive"),
        (helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="MAYBE"), "auto_pad"),
        (helper.make_node("Conv", ["x", "w"], ["y"], kernel_shape=[3, 3]), "kernel_shape"),
        (helper.make_node("Transpose", ["x"], ["y"], perm=[0, 0, 1, 2]), "twice"),
        (helper.make_node("Transpose", ["x"], ["y"], perm=[0, 1]), "permutation"),
        (helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2]), "kernel"),
        (helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2**40, 1]), "kernel"),
        (helper.make_node("Reshape", ["x", "s"], ["y"]), "cannot become"),
        (helper.make_node("Squeeze", ["x", "axes"], ["y"]), "not all 1"),
    ],
)
def test_malformed_nodes(node: onnx.NodeProto, message: str) -> None:
    constants = {
        "w": WEIGHTS,
        "s": np.array([5, -1], np.int64),
        "axes": np.array([1], np.int64),
    }
    _refused(build([node], constants=constants), message)


HOSTILE = ('"; system("x"); //', "../../evil", "a\nb", "\x1b[31m", "*/ int main(){}", "{{ 7*7 }}")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_data(name: str) -> None:
    nodes = [
        helper.make_node("Relu", [name], [f"{name}1"], name=name),
        helper.make_node("Tanh", [f"{name}1"], [f"{name}2"], name=name),
    ]
    graph = imported(build(nodes, inputs={name: (1, 2)}, outputs=[f"{name}2"]))
    assert graph.inputs == (name,)
    assert graph.outputs == (f"{name}2",)
    assert len({op.name for op in graph.ops}) == 2
    with pytest.raises(UnsupportedError) as caught:
        imported(build([helper.make_node("Cos", ["x"], ["y"], name=name)]))
    assert "\n" not in str(caught.value)


def test_text_that_is_not_utf8() -> None:
    content = build([helper.make_node("Relu", ["x"], ["y"], name="QQQQ")]).SerializeToString()
    with pytest.raises(ModelError, match=r"not UTF-8|not a readable ONNX file"):
        imported(parse_model(content.replace(b"QQQQ", b"\xff\xfe\xff\xfe"), "model"))


@pytest.mark.parametrize("opset", [1, 8, 9999])
def test_opsets_that_are_not_supported(opset: int) -> None:
    model = build([RELU])
    model.opset_import[0].version = opset
    _refused(model, f"opset {opset}, supported are 9 to")


def test_no_opset() -> None:
    model = build([RELU])
    del model.opset_import[:]
    _refused(model, "states 0 versions")
