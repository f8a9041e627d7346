"""What the three forms look like: nodes, types, names, inputs, metadata."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from qcompile import __version__, ops
from qcompile.exporter.quant_functions import with_functions
from qcompile.exporter.table import EMITTERS
from qcompile.ops import OPERATORS
from qcompile.options import Target
from tests.exporter.networks import DIALECTS, compiled, constants_of, model_of, nodes_of

WIDTHS = {"wbits": 4, "abits": 6}


def test_every_operator_of_a_quantized_graph_is_exported() -> None:
    assert {*EMITTERS} == {*OPERATORS} - {ops.Lookup, ops.Quantize, ops.Dequantize}


@pytest.mark.parametrize("target", DIALECTS)
def test_models_pass_the_checker_and_have_all_shapes(target: Target, tmp_path: Path) -> None:
    model = model_of(compiled(tmp_path, target, **WIDTHS))
    onnx.checker.check_model(with_functions(model), full_check=True)
    known = {info.name for info in (*model.graph.value_info, *model.graph.output)}
    assert {name for node in model.graph.node for name in node.output} <= known
    assert model.opset_import[0].version == 17
    assert model.ir_version == 8


@pytest.mark.parametrize("target", DIALECTS)
def test_names_of_the_original_model_are_kept(target: Target, tmp_path: Path) -> None:
    model = model_of(compiled(tmp_path, target, **WIDTHS))
    nodes = nodes_of(model)
    kinds = {"enc/conv": "Conv", "enc/pool": "MaxPool", "mid/add": "Add", "dec/resize": "Resize"}
    assert {name: nodes[name].op_type for name in kinds} == kinds
    values = {name for node in model.graph.node for name in node.output}
    assert {"n1", "p1", "r2", "sum", "both", "up1", "up2", "skip", "logits", "mask"} <= values
    assert [item.name for item in model.graph.input] == ["image"]
    assert [item.name for item in model.graph.output] == ["mask"]


def test_metadata_says_where_a_model_comes_from(tmp_path: Path) -> None:
    model = model_of(compiled(tmp_path, Target.QDQ))
    said = {item.key: item.value for item in model.metadata_props}
    source = (tmp_path / "net.onnx").read_bytes()
    assert said["sha256"] == hashlib.sha256(source).hexdigest()
    assert said["model"] == "net.onnx"
    assert said["qcompile"] == __version__
    assert said["format"] == "qdq"
    assert model.producer_name == "qcompile"
    assert str(tmp_path) not in str(said)


def test_equal_runs_give_equal_bytes(tmp_path: Path) -> None:
    first = compiled(tmp_path, Target.QCDQ, **WIDTHS).artifacts.files["model.onnx"]
    assert compiled(tmp_path, Target.QCDQ, **WIDTHS).artifacts.files["model.onnx"] == first


def test_qdq_pairs_are_adjacent_and_narrow_codes_are_clipped_before(tmp_path: Path) -> None:
    model = model_of(compiled(tmp_path, Target.QDQ, **WIDTHS))
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    pairs = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert len(pairs) > 8
    assert all(readers[node.output[0]] == ["DequantizeLinear"] for node in pairs)
    constants, nodes = constants_of(model), nodes_of(model)
    ends = [constants[name] for name in nodes["mid/add/limits"].input[1:]]
    codes = [int(np.rint(end / constants["sum.scale"])) for end in ends]
    assert codes in ([-32, 31], [0, 63])


def test_qcdq_clips_codes_of_activations_and_weights(tmp_path: Path) -> None:
    model = model_of(compiled(tmp_path, Target.QCDQ, **WIDTHS))
    constants, nodes = constants_of(model), nodes_of(model)
    weights = nodes["mid/conv/weights"]
    clip = next(node for node in model.graph.node if node.output[0] == weights.input[0])
    assert clip.op_type == "Clip"
    assert [int(constants[name]) for name in clip.input[1:]] == [-7, 7]
    assert constants[clip.input[0]].dtype == np.int8
    ends = nodes["mid/add/limits"].input
    assert constants[ends[1]].dtype in (np.int8, np.uint8)
    assert int(constants[ends[2]]) in (31, 63)


def test_weights_are_narrow_codes_with_a_scale_by_channel(tmp_path: Path) -> None:
    result = compiled(tmp_path, Target.QDQ, **WIDTHS)
    constants, nodes = constants_of(model_of(result)), nodes_of(model_of(result))
    codes, scales, zeros = (constants[name] for name in nodes["mid/conv/weights"].input)
    assert codes.dtype == np.int8
    assert (codes.min(), codes.max()) >= (-7, -7)
    assert codes.max() <= 7
    assert scales.shape == zeros.shape == (6,)
    assert not zeros.any()
    original = constants_of(onnx.load(str(tmp_path / "net.onnx")))["w2"]
    error = np.abs(codes * scales[:, None, None, None] - original).max()
    assert error < np.abs(original).max() / 2


def test_biases_are_integers_in_the_unit_of_the_sum_where_fine_enough(tmp_path: Path) -> None:
    model = model_of(compiled(tmp_path, Target.QDQ))
    constants, nodes = constants_of(model), nodes_of(model)
    codes, units, _ = (constants[name] for name in nodes["mid/conv/bias"].input)
    assert codes.dtype == np.int32
    weights = constants[nodes["mid/conv/weights"].input[1]]
    np.testing.assert_array_equal(units, constants["p1.scale"] * weights)


def test_int4_storage_is_opset_21_and_half_the_size(tmp_path: Path) -> None:
    plain = compiled(tmp_path, Target.QDQ, wbits=4, first_last_bits=4)
    small = compiled(tmp_path, Target.QDQ, wbits=4, first_last_bits=4, onnx_weights="int4")
    model = model_of(small)
    assert model.opset_import[0].version == 21
    stored = {item.name: item for item in model.graph.initializer}
    codes = stored[nodes_of(model)["mid/conv/weights"].input[0]]
    assert codes.data_type == TensorProto.INT4
    assert len(codes.raw_data or codes.int32_data) <= 6 * 6 * 9
    before, after = (item.report.totals.weight_bytes_emitted for item in (plain, small))
    assert before is not None
    assert after is not None
    assert before - after >= 6 * 6 * 9 // 2


def quants(model: onnx.ModelProto) -> dict[str, dict[str, Any]]:
    """Name of each Quant node -> its attributes and constants."""
    constants = constants_of(model)
    result = {}
    for node in model.graph.node:
        if node.op_type == "Quant":
            assert node.domain == "qonnx.custom_op.general"
            said = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
            parts = zip(("scale", "zero", "bits"), node.input[1:], strict=True)
            result[node.name] = said | {part: constants[name] for part, name in parts}
    return result


def test_quant_nodes_say_width_sign_and_scales(tmp_path: Path) -> None:
    found = quants(model_of(compiled(tmp_path, Target.QONNX, **WIDTHS)))
    weights = found["mid/conv/weights"]
    assert (weights["bits"], weights["signed"], weights["narrow"]) == (4, 1, 1)
    assert weights["scale"].shape == (6, 1, 1, 1)
    image = found["image/quantize"]
    assert (image["bits"], image["signed"], image["narrow"]) == (8, 0, 0)
    assert image["scale"] == np.float32(1 / 255)
    assert image["bits"].shape == image["zero"].shape == ()
    assert found["head/sigmoid/quantize"]["signed"] == 0
    assert all(item["rounding_mode"] == b"ROUND" for item in found.values())
    assert "enc/pool/quantize" not in found  # copies of codes are on their grid already


def test_ternary_weights_are_two_narrow_bits_and_binary_ones_bipolar(tmp_path: Path) -> None:
    found = quants(model_of(compiled(tmp_path, Target.QONNX, wbits="ternary")))
    ternary = found["mid/conv/weights"]
    assert (ternary["bits"], ternary["signed"], ternary["narrow"]) == (2, 1, 1)
    model = model_of(compiled(tmp_path, Target.QONNX, wbits="binary"))
    node = nodes_of(model)["mid/conv/weights"]
    assert (node.op_type, node.domain) == ("BipolarQuant", "qonnx.custom_op.general")
    values, scale = (constants_of(model)[name] for name in node.input)
    assert scale.shape == (6, 1, 1, 1)
    np.testing.assert_array_equal(np.abs(values), np.broadcast_to(scale, values.shape))


def test_groups_of_a_transposed_convolution_keep_their_own_scales(tmp_path: Path) -> None:
    model = model_of(compiled(tmp_path, Target.QDQ))
    codes, scales, _ = (
        constants_of(model)[name] for name in nodes_of(model)["dec/up/weights"].input
    )
    assert codes.shape == (6, 24)
    assert len(set(scales.tolist())) == 6


@pytest.mark.parametrize("target", DIALECTS)
def test_pixels_as_input(target: Target, tmp_path: Path) -> None:
    result = compiled(tmp_path, target, onnx_input="uint8", verify=True, **WIDTHS)
    (image,) = model_of(result).graph.input
    assert image.type.tensor_type.elem_type == TensorProto.UINT8
    floats = model_of(compiled(tmp_path, target, **WIDTHS)).graph.input[0]
    assert floats.type.tensor_type.elem_type == TensorProto.FLOAT


def test_normalised_pixels_are_an_affine_form(tmp_path: Path) -> None:
    options = {"input_mean": (0.4, 0.5, 0.6), "input_std": (0.2, 0.25, 0.3)}
    result = compiled(tmp_path, Target.QDQ, onnx_input="uint8", verify=True, **options)
    nodes = nodes_of(model_of(result))
    assert nodes["image/mean"].op_type == "Sub"
    assert nodes["image/std"].op_type == "Div"
