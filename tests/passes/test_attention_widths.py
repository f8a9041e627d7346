"""Bits of scores, of attention weights and of what runs through the blocks of a transformer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from qcompile.config import resolve
from qcompile.graph import Graph
from qcompile.lowering.row_mass import row_mass
from qcompile.ops import Add, BatchMatMul, LocalAttention2d
from qcompile.options import CompileOptions, Target
from qcompile.passes.assign_formats import assign_formats
from qcompile.passes.base import run_passes
from qcompile.pipeline import compile_model, simplify_passes
from qcompile.plan_file import plan_text
from tests.importer.models import build, imported
from tests.passes.nets import Net


def block_model(keys: int) -> onnx.ModelProto:
    """x + softmax(n(x) n(x)' + bias) n(x), and a layer norm of it."""
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["t"], name="embed"),
        helper.make_node("LayerNormalization", ["t", "gain"], ["n"], name="n1", axis=-1),
        helper.make_node("Transpose", ["n"], ["nt"], perm=[0, 2, 1], name="transpose"),
        helper.make_node("MatMul", ["n", "nt"], ["s"], name="scores"),
        helper.make_node("Add", ["s", "bias"], ["sb"], name="bias"),
        helper.make_node("Softmax", ["sb"], ["a"], axis=-1, name="softmax"),
        helper.make_node("MatMul", ["a", "n"], ["o"], name="values"),
        helper.make_node("Add", ["t", "o"], ["r"], name="residual"),
        helper.make_node("LayerNormalization", ["r", "gain"], ["m"], name="n2", axis=-1),
        helper.make_node("MatMul", ["m", "w"], ["y"], name="head"),
    ]
    constants = {
        "w": rng.standard_normal((4, 4)).astype(np.float32),
        "gain": np.ones(4, np.float32),
        "bias": rng.standard_normal((keys, keys)).astype(np.float32),
    }
    return build(nodes, inputs={"x": (1, keys, 4)}, constants=constants)


def block(keys: int) -> Graph:
    return run_passes(imported(block_model(keys)), simplify_passes(CompileOptions()), None)


@pytest.mark.parametrize(
    ("abits", "keys", "scores", "weights"),
    [(8, 16, 12, 12), (8, 64, 12, 14), (8, 1000, 12, 15), (6, 64, 10, 12), (4, 9, 8, 8)],
)
def test_widths(abits: int, keys: int, scores: int, weights: int) -> None:
    options = CompileOptions(wbits="8", abits=str(abits), first_last_bits=str(abits))
    plan = assign_formats(block(keys), options)
    bits = {name: layer.output.bits for name, layer in plan.layers.items()}
    assert bits["scores"] == bits["bias"] == scores
    assert bits["softmax"] == weights
    assert bits["embed"] == bits["residual"] == bits["values"] == 16
    assert bits["n1"] == abits


@pytest.mark.parametrize(("abits", "wanted"), [(4, 6), (6, 8), (7, 8), (8, 8)])
def test_values_of_local_attention_have_more_bits(abits: int, wanted: int) -> None:
    net = Net(x=(1, 2, 6, 6))
    q, k, v, both = (net.conv(name, "x", 4) for name in ("q", "k", "v", "both"))
    window: dict[str, Any] = {"kernel": (3, 3), "pads_begin": (1, 1), "pads_end": (1, 1)}
    a = net.add("a", LocalAttention2d, q, k, v, net.random(4, 3, 3), **window)
    b = net.add("b", LocalAttention2d, both, k, both, net.random(4, 3, 3), **window)
    options = CompileOptions(wbits="8", abits=str(abits), first_last_bits=str(abits))
    plan = assign_formats(net.graph(net.conv("y", net.add("s", Add, a, b), 2)), options)
    bits = {name: layer.output.bits for name, layer in plan.layers.items()}
    assert bits["v"] == wanted
    assert [bits[name] for name in ("q", "k", "both")] == [abits] * 3, bits


def test_formats_by_name_stay() -> None:
    plan = assign_formats(
        block(16), CompileOptions(quantizer="fxp-paper", wbits="Q0.4", abits="Q4.2")
    )
    assert plan.layers["softmax"].output.bits == plan.layers["n1"].output.bits


def test_rows_of_other_values_have_no_known_mass() -> None:
    graph = block(8)
    products = [op for op in graph.ops if isinstance(op, BatchMatMul)]
    assert [op.name for op in products] == ["scores", "values"]
    assert row_mass(graph, products[0]) is None


def test_the_plan_repeats_the_widths(tmp_path: Path) -> None:
    model = tmp_path / "block.onnx"
    onnx.save(block_model(64), model)
    first = compile_model(model, CompileOptions(target=Target.SIM))
    plan = tmp_path / "plan.toml"
    plan.write_text(plan_text(first.options, first.plan), encoding="utf-8")
    again = compile_model(model, resolve({"config": plan}))
    assert again.integer_graph.types == first.integer_graph.types
