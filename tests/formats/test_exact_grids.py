"""Weights that lie on a grid already are read, not rounded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from qcompile.options import CompileOptions, Target
from qcompile.passes.weight_quantizers import exact_rows, quantize_rows
from qcompile.pipeline import compile_model
from qcompile.plan import Format, Quantizer, parse_format
from qcompile.types import Array, CodebookKind

EIGHT = Format(8, Quantizer.SCALED)


def grid_codes(kind: CodebookKind, rng: np.random.Generator) -> tuple[Array, int]:
    """Codes [5, 40] of a grid, and the bits that one takes."""
    shape = (5, 40)
    if kind is CodebookKind.BINARY:
        return rng.choice([-1, 1], shape), 1
    if kind is CodebookKind.TERNARY:
        codes = rng.integers(-1, 2, shape)
        codes[0, :2] = 0, 1
        return codes, 2
    if kind is CodebookKind.POW2:
        codes = rng.choice([-1, 0, 1], shape) * 2 ** rng.integers(0, 8, shape)
        codes[0, :3] = 0, 1, 128
        return codes, 5
    if kind is CodebookKind.DOREFA:
        codes = rng.choice(np.arange(-15, 16, 2), shape)
        codes[:, :2] = 15, 13
        return codes, 4
    codes = rng.integers(-7, 8, shape)
    codes[:, :3] = 7, 6, 0
    return codes, 4


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(
        [
            CodebookKind.BINARY,
            CodebookKind.TERNARY,
            CodebookKind.UNIFORM,
            CodebookKind.POW2,
            CodebookKind.DOREFA,
        ]
    ),
    seed=st.integers(0, 10**6),
    by_channel=st.booleans(),
)
def test_grids_are_found_and_kept(kind: CodebookKind, seed: int, by_channel: bool) -> None:
    """Whatever the scale of each channel, and after the rounding of float32 products."""
    rng = np.random.default_rng(seed)
    codes, bits = grid_codes(kind, rng)
    scales = rng.uniform(1e-3, 3, (5, 1) if by_channel else (1, 1)).astype(np.float32)
    weights = codes.astype(np.float32) * scales
    found = exact_rows(weights, EIGHT)
    assert found is not None
    assert found.codebook.exact
    assert found.codebook.kind is kind
    assert found.codebook.storage_bits(found.element) == bits
    np.testing.assert_allclose(found.reals(), weights, rtol=2.0**-20)
    assert ((found.codes == 0) == (weights == 0)).all()


def test_other_weights_are_not_on_a_grid() -> None:
    rng = np.random.default_rng(0)
    assert exact_rows(rng.normal(size=(16, 144)).astype(np.float32), EIGHT) is None
    codes, _ = grid_codes(CodebookKind.UNIFORM, rng)
    bent = codes * 0.25
    bent[3, 7] *= 1.001
    assert exact_rows(bent, EIGHT) is None


def test_a_tiny_weight_is_no_zero() -> None:
    tiny = np.array([[1.0, -1.0, 2.0**-31, 1.0]])
    assert exact_rows(tiny, Format(4, Quantizer.SCALED)) is None
    found = exact_rows(tiny, Format(7, Quantizer.POW2))
    assert found is not None
    assert found.codes.tolist() == [[2**31, -(2**31), 1, 2**31]]


def test_a_grid_must_have_room_in_the_format() -> None:
    codes, _ = grid_codes(CodebookKind.UNIFORM, np.random.default_rng(1))
    weights = codes * 0.25
    assert exact_rows(weights, Format(3, Quantizer.SCALED)) is None
    assert exact_rows(weights, Format(4, Quantizer.SCALED)) is not None
    assert exact_rows(weights, parse_format("ternary", Quantizer.SCALED, "")) is None
    assert exact_rows(weights, Format(4, Quantizer.FIXED)) is not None
    assert exact_rows(weights * 1.1, Format(4, Quantizer.FIXED)) is None


@pytest.mark.parametrize(
    ("width", "quantizer"),
    [
        ("5", Quantizer.POW2),
        ("7", Quantizer.POW2),
        ("4", Quantizer.DOREFA),
        ("ternary", Quantizer.TWN),
        ("binary", Quantizer.BINARY),
        ("Q0.4", Quantizer.FIXED),
        ("Q0.4", Quantizer.FXP_PAPER),
        ("Q0.4", Quantizer.FXP_EM),
        ("4", Quantizer.SCALED),
    ],
)
def test_what_a_quantizer_made_is_on_its_grid(width: str, quantizer: Quantizer) -> None:
    """A network exported with its quantized weights comes back with the same codes."""
    weights = np.random.default_rng(4).uniform(-1.2, 1.2, (8, 72)).astype(np.float32)
    chosen = parse_format(width, quantizer, "", weights=True)
    exported = quantize_rows(weights, chosen).reals().astype(np.float32)
    assert exact_rows(weights, chosen) is None
    found = exact_rows(exported, chosen)
    assert found is not None
    np.testing.assert_allclose(found.reals(), exported, rtol=0, atol=1e-6)


def test_the_level_one_of_fxp_paper_does_not_wrap_again() -> None:
    """0.99 becomes 1.0 in training; 1.0 would become 0."""
    found = exact_rows(np.array([[1.0, -1.0, 0.5]]), parse_format("Q0.4", Quantizer.FXP_PAPER, ""))
    assert found is not None
    assert found.codes.tolist() == [[16, -16, 8]]


def model(path: Path, weights: Array, gain: Array) -> Path:
    """Conv with given weights, batch norm, ReLU, and a second convolution."""
    rng = np.random.default_rng(2)
    channels = weights.shape[0]
    constants = {
        "w": weights,
        "gain": gain,
        "shift": rng.uniform(-1, 1, channels),
        "mean": rng.uniform(-1, 1, channels),
        "variance": rng.uniform(0.5, 2, channels),
        "w2": rng.normal(size=(channels, channels, 3, 3)),
        "w3": rng.normal(size=(1, channels, 1, 1)),
    }
    norm = ["c", "gain", "shift", "mean", "variance"]
    nodes = [
        helper.make_node("Conv", ["x", "w3.in"], ["a"], "first"),
        helper.make_node("Conv", ["a", "w"], ["c"], "grid", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", norm, ["n"], "bn"),
        helper.make_node("Relu", ["n"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "w2"], ["d"], "free", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["d", "w3"], ["y"], "last"),
    ]
    constants["w3.in"] = rng.normal(size=(channels, 1, 1, 1))
    graph = helper.make_graph(
        nodes,
        "grids",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 1, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in constants.items()],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


@pytest.mark.parametrize("wbits", ["8", "4", "ternary"])
def test_a_network_on_a_grid_keeps_its_codes(tmp_path: Path, wbits: str) -> None:
    """Also behind a norm that is folded in, and with calibration; the report says so."""
    rng = np.random.default_rng(3)
    codes = rng.integers(-1, 2, (4, 4, 3, 3))
    codes[:, 0, 0, :2] = 1, 0
    gain = np.array([1.0, -0.5, 0.7, 2.0])
    path = model(tmp_path / "net.onnx", 0.37 * codes, gain)
    images = tmp_path / "calib.npy"
    np.save(images, rng.integers(0, 256, (6, 1, 8, 8)).astype(np.uint8))
    result = compile_model(path, CompileOptions(target=Target.SIM, wbits=wbits, calib=str(images)))
    row = {row.name: row for row in result.report.layers}["grid"]
    assert row.weight_format == "ternary scale per channel, exact"
    assert (row.weight_bits, row.weight_levels) == (2, 3)
    free = {row.name: row for row in result.report.layers}["free"]
    assert "exact" not in (free.weight_format or "")
    op = result.integer_graph.by_name["grid"]
    wanted = codes * np.sign(gain)[:, None, None, None]
    np.testing.assert_array_equal(result.integer_graph.constants[op.inputs[1]], wanted)
