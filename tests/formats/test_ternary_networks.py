"""Whole ternary networks: against onnxruntime, in C, in hardware, and what options do to them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from qcompile.backends.c.backend import CBackend
from qcompile.config import resolve
from qcompile.errors import UsageError
from qcompile.ops import Lookup
from qcompile.options import CompileOptions, InputChoice, LayerOverride, Target, TernaryTanhForm
from qcompile.passes.place_planes import PlacePlanes
from qcompile.pipeline import compile_model
from qcompile.result import CompileResult
from qcompile.sim.executor import Executor
from tests.backends.compile_c import build, call
from tests.formats.ternary import SPELLINGS, TernaryNet, unet


def options(target: Target = Target.SIM, verify: bool = False, **fields: str) -> CompileOptions:
    return CompileOptions(
        target=target,
        verify=verify,
        input_kind=InputChoice.FLOAT32,
        ternary_tanh=TernaryTanhForm(fields.pop("ternary_tanh", "hard")),
        **fields,  # type: ignore[arg-type]
    )


def inner(folder: Path, spelling: str) -> Path:
    """A U-Net from ternary input to ternary output: its float form rounds nothing that matters."""
    net = TernaryNet(5)
    skip = net.layer(net.ternary("x", spelling), 3, 4, spelling)
    pooled = net.add("AveragePool", skip, kernel_shape=[2, 2], strides=[2, 2])
    deep = net.layer(net.layer(pooled, 4, 8, spelling), 8, 8, spelling)
    mode = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    up = net.add("Resize", deep, "", net.constant([1, 1, 2, 2]), **mode)
    joined = net.layer(net.add("Concat", up, skip, axis=1), 12, 5, spelling)
    return net.save(folder / f"{spelling}.onnx", joined, x=(1, 3, 16, 16))


def test_every_spelling_is_the_hard_network(tmp_path: Path) -> None:
    images = np.random.default_rng(1).normal(size=(4, 1, 3, 16, 16)).astype(np.float32)
    session = onnxruntime.InferenceSession(inner(tmp_path, "sign"))
    wanted = [session.run(None, {"x": image})[0] for image in images]
    assert {-1.0, 0.0, 1.0} == set(np.unique(wanted))
    for spelling in SPELLINGS:
        result = compile_model(inner(tmp_path, spelling), options())
        executor = Executor(result.integer_graph)
        for image, reference in zip(images, wanted, strict=True):
            np.testing.assert_array_equal(executor.run({"x": image})["y"], reference)


def test_portable_c_is_the_simulator(tmp_path: Path) -> None:
    graph = compile_model(unet(tmp_path), options()).integer_graph
    assert len(PlacePlanes().run(graph).native) == 1
    program = CBackend("ternary", levels=()).emit(graph)
    library = build([program], tmp_path)
    for seed in range(3):
        image = np.random.default_rng(seed).normal(size=(1, 1, 16, 16)).astype(np.float32)
        expected = Executor(graph).run({"x": image})["y"]
        np.testing.assert_array_equal(call(library, program, {"x": image})["y"], expected)


@pytest.mark.slow
def test_c_of_all_levels_is_the_simulator(tmp_path: Path) -> None:
    assert compile_model(unet(tmp_path), options(Target.C, verify=True)).verified


def test_c_with_floats_between(tmp_path: Path) -> None:
    """--abits 32: the smooth function, and steps that are no grid, by their float kernels."""
    net = TernaryNet(6)
    smooth = net.ternary(net.conv("x", net.rng.normal(size=(3, 1, 3, 3)), pad=1), "sum", 3.0)
    sign = net.add("Sign", net.conv(smooth, net.rng.normal(size=(4, 3, 1, 1))))
    path = net.save(tmp_path / "net.onnx", sign, x=(1, 1, 6, 6))
    result = compile_model(path, options(Target.C, verify=True, abits="32", ternary_tanh="soft"))
    assert result.verified
    kinds = [op.kind for op in result.integer_graph.ops]
    assert "TernaryTanh" in kinds
    assert "Steps" in kinds


def test_averages_are_exact_up_to_8_bits(tmp_path: Path) -> None:
    """Each average over 2 x 2 takes two bits more, each bilinear resizing four."""
    net = TernaryNet(9)
    x = net.ternary("x")
    for _ in range(4):
        x = net.add("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2])
    path = net.save(tmp_path / "net.onnx", net.layer(x, 1, 2, "sum", 1), x=(1, 1, 16, 16))
    graph = compile_model(path, options()).integer_graph
    pools = [graph.output_type(op) for op in graph.ops if op.kind == "AveragePool"]
    scales = [kind.quantization.scale[0] for kind in pools if kind.quantization is not None]
    assert [kind.integer.bits for kind in pools] == [4, 6, 8, 8]
    assert scales[:3] == [1 / 4, 1 / 16, 1 / 64]
    # abits of one of them rounds it
    rounded = LayerOverride("AveragePool*", abits="4")
    found = dataclasses.replace(options(), layers=(rounded,))
    graph = compile_model(path, found).integer_graph
    pools = [graph.output_type(op) for op in graph.ops if op.kind == "AveragePool"]
    assert [kind.integer.bits for kind in pools] == [4, 4, 4, 4]


@pytest.mark.parametrize("form", ["soft", "hard"])
def test_exported_models_have_the_same_codes(tmp_path: Path, form: str) -> None:
    net = TernaryNet(8)
    first = net.ternary(net.conv("x", net.rng.normal(size=(4, 1, 3, 3)), pad=1), "sum")
    sign = net.add("Sign", net.conv(first, net.rng.normal(size=(4, 4, 1, 1))))
    last = net.conv(sign, net.rng.normal(size=(2, 4, 1, 1)))
    path = net.save(tmp_path / "net.onnx", last, x=(1, 1, 8, 8))
    result = compile_model(path, options(Target.QDQ, verify=True, ternary_tanh=form))
    assert result.verified
    assert result.report.details["onnx_codes_one_step_off"] == 0


@pytest.mark.slow
def test_hardware_is_the_simulator(tmp_path: Path) -> None:
    net = TernaryNet(2)
    first = net.conv("x", net.rng.normal(size=(3, 1, 3, 3)), net.rng.normal(size=3), pad=1)
    deep = net.layer(net.ternary(first, "sum"), 3, 4, "published")
    pooled = net.add("AveragePool", deep, kernel_shape=[2, 2], strides=[2, 2])
    last = net.conv(net.layer(pooled, 4, 3, "sign", 1), net.rng.normal(size=(2, 3, 1, 1)))
    path = net.save(tmp_path / "net.onnx", last, x=(1, 1, 8, 8))
    found = CompileOptions(target=Target.HDL, verify=True)
    result = compile_model(path, found)
    assert result.verified
    assert result.report.hardware is not None
    ternary = [row for row in result.report.hardware.rows if row.name in ("Conv8", "Conv20")]
    assert [row.multipliers for row in ternary] == [0, 0]


def test_floats_between_are_ternary_too(tmp_path: Path) -> None:
    """What follows a ternary value reads the codes, whatever computes it."""
    image = np.random.default_rng(2).normal(size=(1, 3, 16, 16)).astype(np.float32)
    path = inner(tmp_path, "sign")
    floats = compile_model(path, options(abits="32")).integer_graph
    codes = compile_model(path, options()).integer_graph
    found = Executor(floats).run({"x": image})["y"]
    np.testing.assert_array_equal(found, Executor(codes).run({"x": image})["y"])


def test_soft_functions_are_tables(tmp_path: Path) -> None:
    path = inner(tmp_path, "published")
    soft = compile_model(path, options(ternary_tanh="soft"))
    assert sum(isinstance(op, Lookup) for op in soft.integer_graph.ops) == 5
    assert soft.report.ternary is None or not soft.report.ternary.hardened
    assert soft.report.options["ternary_tanh"] == "soft"
    hard = compile_model(path, options())
    assert not any(isinstance(op, Lookup) for op in hard.integer_graph.ops)
    assert hard.report.ternary is not None
    assert list(hard.report.ternary.hardened.values()) == [8.0] * 5
    assert "ternary_tanh" not in hard.report.options


def flat(folder: Path, beta: float) -> CompileResult:
    net = TernaryNet(7)
    scores = net.conv("x", net.weights(3, 1, 3, 3))
    y = net.conv(net.ternary(scores, beta=beta), net.weights(2, 3, 1, 1))
    return compile_model(net.save(folder / "net.onnx", y, x=(1, 1, 8, 8)), options())


def test_functions_that_are_not_steep_are_warned_of(tmp_path: Path) -> None:
    warnings = flat(tmp_path, 3.0).report.warnings
    assert any("beta 3 became -1, 0, 1" in text for text in warnings)
    assert not any("became" in text for text in flat(tmp_path, 8.0).report.warnings)


def test_a_plan_repeats_a_run(tmp_path: Path) -> None:
    path = unet(tmp_path)
    first = compile_model(path, options())
    first.write(tmp_path / "out")
    again = compile_model(path, resolve({"config": tmp_path / "out" / "plan.toml"}))
    image = np.random.default_rng(3).normal(size=(1, 1, 16, 16)).astype(np.float32)
    outputs = [Executor(item.integer_graph).run({"x": image})["y"] for item in (first, again)]
    np.testing.assert_array_equal(outputs[0], outputs[1])


def test_searches_beside_ternary_activations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="activations of the model are ternary"):
        compile_model(inner(tmp_path, "sign"), CompileOptions(mean_wbits=3.0, target=Target.SIM))


def test_pruning_comes_before(tmp_path: Path) -> None:
    path = unet(tmp_path, spellings=("published",))
    result = compile_model(path, CompileOptions(target=Target.SIM, prune=0.25))
    assert result.report.ternary is not None
    assert result.report.ternary.macs("ternary") > 0
