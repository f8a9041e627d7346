"""Formats by name through the whole compiler: C and hardware agree with the simulator, plans repeat
the run, and reports say what there is."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from qcompile.config import resolve
from qcompile.errors import GraphError, UnsupportedError, UsageError
from qcompile.ops import LinearResize
from qcompile.options import CompileOptions, LayerOverride, Target
from qcompile.pipeline import compile_model
from qcompile.report.layers import LayerRow
from qcompile.result import CompileResult
from qcompile.sim.executor import Executor
from qcompile.types import q_format
from tests.formats.test_published_networks import PIXEL, compiled
from tests.formats.unet import UNet

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return UNet.random(3, exact_norms=False).save(tmp_path / "net.onnx")


def compile_net(net: Path, target: Target = Target.SIM, **options: Any) -> CompileResult:
    verify = target is not Target.SIM
    chosen = CompileOptions(target=target, input_scale=(PIXEL,), verify=verify, **options)
    return compile_model(net, chosen)


def rows(result: CompileResult) -> dict[str, LayerRow]:
    return {row.name: row for row in result.report.layers}


@needs_gcc
@pytest.mark.parametrize(
    ("quantizer", "wq", "aq"),
    [("fxp-paper", "Q0.4", "Q6.0"), ("fxp-paper", "Q0.4", "Q3.3"), ("fxp-em", "Q0.4", "Q6.0")],
)
def test_c_agrees_on_published_formats(net: Path, quantizer: str, wq: str, aq: str) -> None:
    """Every tensor, on images and on extremes; mixed signs of norms included."""
    assert compiled(net, quantizer, wq, aq, Target.C).verified


@needs_gcc
@pytest.mark.parametrize(
    "options",
    [
        {"quantizer": "fixed", "wbits": "Q0.4", "abits": "Q6.0"},
        {"quantizer": "dorefa", "wbits": "4", "abits": "4"},
        {"quantizer": "twn"},
        {"quantizer": "pow2", "wbits": "7", "abits": "32"},
        {"quantizer": "dorefa", "wbits": "5", "abits": "32"},
        {"quantizer": "fxp-em", "abits": "32"},
    ],
)
def test_c_agrees_on_other_formats(net: Path, options: dict[str, str]) -> None:
    """Weights alone (`abits` 32) for every family too: float activations, codes of weights."""
    assert compile_net(net, Target.C, **options).verified


@pytest.mark.slow
@pytest.mark.parametrize("aq", ["Q6.0", "Q3.3"])
def test_hardware_agrees_on_fxp_paper(tmp_path: Path, aq: str) -> None:
    """Two lines for signed truncation, and tables where a fraction wraps."""
    path = UNet.random(3, exact_norms=False, channels=2).save(tmp_path / "net.onnx")
    assert compiled(path, "fxp-paper", "Q0.4", aq, Target.HDL).verified


def test_hardware_refuses_codes_that_are_too_wide(net: Path) -> None:
    """fxp-em activations behind a resize span 19 bits."""
    with pytest.raises(UnsupportedError, match="codes of more than 16 bits"):
        compiled(net, "fxp-em", "Q0.4", "Q6.0", Target.HDL)


@pytest.mark.parametrize("target", [Target.QDQ, Target.QONNX])
def test_onnx_has_no_such_rounding(net: Path, target: Target) -> None:
    """A quantizer of ONNX rounds to the nearest code, which truncation is not."""
    with pytest.raises(
        UnsupportedError, match=r"its output rounds as fxp-paper Q6\.0 does"
    ) as caught:
        compiled(net, "fxp-paper", "Q0.4", "Q6.0", target)
    assert len(caught.value.items) == 8


def test_the_report_names_formats_levels_and_bits(net: Path) -> None:
    """33 levels are 6 bits, in the table and in the sizes: Q0.4 is not called 4 bits."""
    found = rows(compile_net(net, quantizer="fxp-paper"))
    row = found["c_b"]
    assert (row.weight_format, row.weight_levels, row.weight_bits) == ("fxp-paper Q0.4", 33, 6)
    assert (row.activation_format, row.activation_levels) == ("fxp-paper Q6.0", 127)
    assert (row.activation_bits, row.weight_bytes) == (7, 4 * 4 * 9 * 6 // 8)
    # Sixteenths behind the resize, and what it meets is shifted to them.
    assert (found["up_e.out"].activation_format, found["up_e.out"].activation_bits) == ("Q6.4", 11)
    assert found["cat_e.out"].activation_format == "Q6.4"
    # First layer, and what the last one returns, are as wide as --first-last-bits says.
    assert found["c_a"].weight_format == "scale per channel"
    assert found["c_last"].activation_format.startswith("scale")


def test_fixed_formats_are_named_by_their_digits(net: Path) -> None:
    by_name = rows(compile_net(net, quantizer="fixed", wbits="Q0.4", abits="Q6.0"))
    row = by_name["c_b"]
    assert (row.weight_format, row.weight_levels, row.weight_bits) == ("Q0.4", 31, 5)
    assert (row.activation_format, row.activation_levels, row.activation_bits) == ("Q6.0", 128, 7)
    assert by_name["up_e.out"].activation_format == "Q6.0"
    by_bits = rows(compile_net(net, quantizer="fixed", wbits="4", abits="6"))
    assert re.fullmatch(r"U?Q-?\d+\.-?\d+", by_bits["c_b"].activation_format)
    assert re.match(r"Q-?\d+\.-?\d+", by_bits["c_b"].weight_format or "")


@pytest.mark.parametrize(
    "options",
    [
        {"quantizer": "fxp-paper"},
        {"quantizer": "fxp-em"},
        {"quantizer": "fixed", "wbits": "Q0.4", "abits": "Q6.0"},
        {"quantizer": "dorefa", "wbits": "3"},
        {"quantizer": "twn", "abits": "4"},
    ],
)
def test_a_written_plan_repeats_the_run(net: Path, tmp_path: Path, options: dict[str, str]) -> None:
    first = compile_net(net, **options)
    plan = tmp_path / "plan.toml"
    text = first.files()["plan.toml"]
    assert isinstance(text, str)
    plan.write_text(text, encoding="utf-8")
    again = compile_model(net, resolve({"config": plan}))
    assert again.files()["plan.toml"] == text
    assert again.artifacts.files == first.artifacts.files
    assert again.report.calibration == "plan"


def test_the_plan_says_what_the_formats_are(net: Path) -> None:
    text = compile_net(net, quantizer="fxp-em").files()["plan.toml"]
    assert isinstance(text, str)
    wanted = "# weights fxp-em Q0.4 (15 levels, 4 bits), output fxp-em Q6.0 (29 levels, 15 bits)\n"
    assert wanted + '[[layer]]\nname = "c_b"\n' in text


def test_a_layer_of_its_own_puts_a_quantizer_behind_a_resize(net: Path) -> None:
    """Without one the resize keeps sixteenths; with one it rounds towards zero again."""
    own = (LayerOverride("up_*", abits="Q6.0"),)
    result = compile_net(net, quantizer="fxp-paper", layers=own)
    assert rows(result)["up_e.out"].activation_format == "fxp-paper Q6.0"
    graph = result.integer_graph
    image = np.random.default_rng(0).integers(0, 256, (1, 1, 8, 8)).astype(np.uint8)
    values = Executor(graph).run({"x": image}, taps="all")
    op = graph.by_name["up_e"] if "up_e" in graph.by_name else graph.by_name["up_e.out"]
    assert isinstance(op, LinearResize)
    x = values[op.inputs[0]].astype(np.float64)
    kernel = np.array([[0.75, 0.25], [0.25, 0.75]])
    rounded = np.trunc(np.einsum("ia,jb,ncab->ncij", kernel, kernel, x[:, :, :2, :2]))
    np.testing.assert_array_equal(values[op.output][:, :, 1:3, 1:3], rounded)


def between(path: Path, *nodes: onnx.NodeProto) -> Path:
    """A model with these nodes, from p to q, between two convolutions."""
    rng = np.random.default_rng(1)
    constants = {
        "w1": rng.uniform(-1, 1, (4, 1, 3, 3)),
        "w2": rng.uniform(-1, 1, (1, 4, 3, 3)),
        "thrice": np.array([1, 1, 3, 3]),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w1"], ["p"], "c_1", pads=[1, 1, 1, 1]),
            *nodes,
            helper.make_node("Conv", ["q", "w2"], ["y"], "c_2", pads=[1, 1, 1, 1]),
        ],
        "between",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 1, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(v.astype(np.float32), name) for name, v in constants.items()],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(graph, opset_imports=[opset], ir_version=8), path)
    return path


def test_an_average_of_four_keeps_quarters(tmp_path: Path) -> None:
    pool = helper.make_node(
        "AveragePool", ["p"], ["q"], "pool", kernel_shape=[2, 2], strides=[2, 2]
    )
    result = compiled(between(tmp_path / "n.onnx", pool), "fxp-paper", "Q0.4", "Q6.0", Target.SIM)
    graph = result.integer_graph
    assert q_format(graph.types["q"].integer, graph.types["q"].quantization.scale[0]) == "Q6.2"
    image = np.random.default_rng(0).integers(0, 256, (1, 1, 8, 8)).astype(np.uint8)
    values = Executor(graph).run({"x": image}, taps="all")
    p = values["p"].astype(int)
    sums = p[..., ::2, ::2] + p[..., 1::2, ::2] + p[..., ::2, 1::2] + p[..., 1::2, 1::2]
    np.testing.assert_array_equal(values["q"], sums)


def test_what_no_fixed_point_format_holds_is_refused(tmp_path: Path, net: Path) -> None:
    half = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    resize = helper.make_node("Resize", ["p", "", "thrice"], ["q"], "up", **half)
    path = between(tmp_path / "n.onnx", resize)
    with pytest.raises(UsageError, match=r"'up'.* multiples of 1/9, which no fixed-point format"):
        compiled(path, "fxp-paper", "Q0.4", "Q6.0", Target.SIM)
    with pytest.raises(GraphError, match=r"floats cannot become fxp-em Q6\.0"):
        compile_net(net, quantizer="fxp-em", wbits="32", first_last_bits="32")
    with pytest.raises(UsageError, match="contradictory"):
        compile_net(net, quantizer="dorefa", wbits="Q0.4")
