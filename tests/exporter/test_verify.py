"""Comparison with the simulator: what passes, and what must not."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from qcompile.boundary import InputKind, InputSpec
from qcompile.errors import ToolError, UnsupportedError, VerificationError
from qcompile.exporter import ExportedModel, export_model
from qcompile.exporter.storage import Storage, storage_of
from qcompile.exporter.writer import LOWEST_OPSET, WIDE_OPSET
from qcompile.options import Target
from qcompile.types import CodeLimits, IntType, Quantization, TensorType
from tests.exporter.networks import DIALECTS, compiled, model_of

ort = pytest.importorskip("onnxruntime")


@pytest.mark.parametrize("target", DIALECTS)
@pytest.mark.parametrize(
    "options",
    [
        {"wbits": 8, "abits": 8},
        {"wbits": 4, "abits": 6},
        {"wbits": 4, "abits": 6, "effort": "normal"},
        {"wbits": 3, "abits": 4},
        {"wbits": 16, "abits": 16},
        {"wbits": "ternary", "abits": "ternary"},
        {"wbits": "binary", "abits": 6},
        {"wbits": 5, "quantizer": "pow2"},
        {"wbits": 7, "quantizer": "pow2", "first_last_bits": 7},
        {"quantizer": "fixed", "wbits": 6, "abits": 8},
        {"wbits": 4, "abits": 32},
        {"wbits": 32, "abits": 4},
        {"output_kind": "classes"},
        {"input_kind": "float32"},
    ],
    ids=str,
)
def test_every_operator_agrees(target: Target, options: dict[str, Any], tmp_path: Path) -> None:
    details = compiled(tmp_path, target, verify=True, **options).report.details
    assert details["runs"] > 3
    if options.get("abits") != 32:
        assert details["onnx_codes"] > 10_000
        assert details["onnx_codes_one_step_off"] < 0.02 * details["onnx_codes"]
    if options.get("abits") not in (16, 32):
        assert details["onnx_largest_distance"] < 0.51


def test_the_file_gives_in_onnxruntime_what_the_report_says(tmp_path: Path) -> None:
    """Independent of our own comparison: the written model against the simulator's codes."""
    from qcompile.sim.executor import Executor

    result = compiled(tmp_path, Target.QDQ)
    session = ort.InferenceSession(model_of(result).SerializeToString())
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (1, 3, 12, 12)).astype(np.uint8)
    (mask,) = session.run(None, {"image": pixels.astype(np.float32) / np.float32(255)})
    expected = Executor(result.integer_graph).run({"image": pixels})["mask"]
    step = float(np.unique(np.abs(np.diff(np.unique(expected)))).min())
    assert np.abs(mask - expected).max() < 3.5 * step
    assert np.mean(np.abs(mask - expected) > step / 2) < 0.2


def change_weight(model: onnx.ModelProto) -> None:
    """One code of one weight."""
    for tensor in model.graph.initializer:
        data = numpy_helper.to_array(tensor).copy()
        if data.dtype == np.int8 and data.ndim == 4:
            data.flat[5] = 127 if data.flat[5] < 0 else -127
            tensor.CopyFrom(numpy_helper.from_array(data, tensor.name))
            return


def change_scale(model: onnx.ModelProto) -> None:
    """The scale of one activation, by a tenth."""
    for tensor in model.graph.initializer:
        if tensor.name == "sum.scale":
            data = numpy_helper.to_array(tensor) * np.float32(1.1)
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(data), tensor.name))


def change_operator(model: onnx.ModelProto) -> None:
    """Add becomes Sub."""
    for node in model.graph.node:
        if node.name == "mid/add":
            node.op_type = "Sub"


@pytest.mark.parametrize("change", [change_weight, change_scale, change_operator])
def test_wrong_models_are_found(
    change: Callable[[onnx.ModelProto], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import qcompile.target_onnx as target_onnx

    def exported(*arguments: Any, **options: Any) -> ExportedModel:
        model = export_model(*arguments, **options)
        proto = onnx.ModelProto()
        proto.CopyFrom(model.proto)
        change(proto)
        return dataclasses.replace(model, proto=proto)

    monkeypatch.setattr(target_onnx, "export_model", exported)
    with pytest.raises(VerificationError, match=r"^the ONNX model differs at .* in onnxruntime, "):
        compiled(tmp_path, Target.QDQ, verify=True)


def test_without_onnxruntime_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ToolError, match=r"pip install 'qcompile\[onnxruntime\]'"):
        compiled(tmp_path, Target.QDQ, verify=True)
    compiled(tmp_path, Target.QDQ)  # needs none


def kind(element: IntType, limits: CodeLimits | None = None) -> TensorType:
    return TensorType((1, 2), element, Quantization.per_tensor(0.5), None, limits)


def test_storage_of_codes() -> None:
    assert storage_of("y", kind(IntType(6, signed=False)), LOWEST_OPSET).dtype == "uint8"
    assert storage_of("y", kind(IntType(6)), LOWEST_OPSET).dtype == "int8"
    assert storage_of("y", kind(IntType(8)), WIDE_OPSET).zero_point == 128
    imported = storage_of("y", kind(IntType(9), CodeLimits((-37,), (218,))), LOWEST_OPSET)
    assert isinstance(imported, Storage)
    assert (imported.dtype, imported.zero_point) == ("uint8", 37)
    assert storage_of("y", kind(IntType(9)), LOWEST_OPSET).dtype == "int16"
    with pytest.raises(UnsupportedError, match="at most 16 bits"):
        storage_of("y", kind(IntType(17)), LOWEST_OPSET)


def test_float_inputs_are_quantized_with_the_same_scale(tmp_path: Path) -> None:
    """uint8 pixels at 1/255 and the floats they stand for are the same codes."""
    result = compiled(tmp_path, Target.QDQ)
    constants = {item.name: item for item in model_of(result).graph.initializer}
    scale = numpy_helper.to_array(constants["image.quantized.scale"])
    floats = np.arange(256, dtype=np.float32) / np.float32(255)
    np.testing.assert_array_equal(np.rint(floats / scale), np.arange(256))
    assert InputSpec().kind is InputKind.UINT8


@pytest.mark.parametrize("quantizer", ["fxp-paper", "fxp-em"])
def test_formats_that_onnx_cannot_say_are_refused(quantizer: str, tmp_path: Path) -> None:
    with pytest.raises(
        UnsupportedError, match=rf"ONNX export does not support .* rounds as {quantizer}"
    ):
        compiled(tmp_path, Target.QDQ, quantizer=quantizer, wbits="Q0.4", abits="Q6.0")
