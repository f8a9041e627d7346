"""The analytical energy: every number worked out by hand from the table, on tiny networks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

import qcompile.backends.c.measure as measure_module
from qcompile import CompileOptions, compile_model, targets
from qcompile.cli import run
from qcompile.energy_table import HOROWITZ, Memory, read_energy_table
from qcompile.errors import UsageError
from qcompile.graph import Graph, Op, Stage
from qcompile.multiplications import flops, multiplications
from qcompile.numerics import Requantize
from qcompile.ops import AttentionWidths, BatchMatMul, Conv, LocalAttention2d, Softmax
from qcompile.power_counters import find_counters, spent
from qcompile.report.energy import Arithmetic, energy_column, energy_report, measured_lines
from qcompile.report.operations import Products, operations
from qcompile.types import Array, Codebook, CodebookKind, IntType, Quantization, TensorType
from tests.importer.models import build
from tests.report.attention_models import save_model

U8, S4 = IntType(8, signed=False), IntType(4, narrow=True)


def kind(element: IntType, *shape: int, codebook: Codebook | None = None) -> TensorType:
    return TensorType(shape, element, Quantization((0.5,)), codebook=codebook)


def requantize(multiplier: int = 5) -> Requantize:
    return Requantize((multiplier,), (0,), (4,), (0,), (255,), (-4096,), (4096,))


def conv_graph(codebook: Codebook | None = None, element: IntType = S4) -> Graph:
    """3 filters of 2 x 2 x 2 over 2 x 5 x 5: 24 weights at 16 positions, 384 products."""
    op = Conv(
        name="c",
        inputs=("x", "w"),
        outputs=("y",),
        strides=(1, 1),
        pads_begin=(0, 0),
        pads_end=(0, 0),
        dilations=(1, 1),
        groups=1,
        epilogue=requantize(),
        accumulator=IntType(14),
    )
    weights = kind(element, 3, 2, 2, 2, codebook=codebook)
    types = {"x": kind(U8, 1, 2, 5, 5), "w": weights, "y": kind(U8, 1, 3, 4, 4)}
    constants = {"w": np.zeros((3, 2, 2, 2), np.int8)}
    return Graph("g", Stage.INTEGER, ("x",), ("y",), (op,), types, constants)


def test_the_table_between_its_entries() -> None:
    assert HOROWITZ.add_energy(8) == pytest.approx(0.03)
    assert HOROWITZ.add_energy(4) == pytest.approx(0.015)
    assert HOROWITZ.add_energy(20) == pytest.approx(0.065)
    assert HOROWITZ.add_energy(44) == pytest.approx(0.135)
    assert HOROWITZ.multiply_energy(8, 8) == pytest.approx(0.2)
    assert HOROWITZ.multiply_energy(4, 8) == pytest.approx(0.1)
    # 512 cells lie 448 of 960 above 64.
    assert HOROWITZ.multiply_energy(16, 32) == pytest.approx(0.2 + 2.9 * 448 / 960)
    assert HOROWITZ.memory_for(8 << 10) == Memory(10.0, 8 << 10)
    assert HOROWITZ.memory_for((8 << 10) + 1).name == "32 KiB"
    assert HOROWITZ.memory_for(1 << 21).name == "DRAM"


def test_a_convolution() -> None:
    graph = conv_graph()
    (op,) = graph.ops
    assert operations(graph, op).products == (Products(384, 48, 4, 8, 14),)
    # 14-bit sums: 0.03 + 6 / 24 * 0.07. The epilogue: 14 x 3 bits, and a sum of 17 bits.
    chosen = energy_column(graph, HOROWITZ, Arithmetic.CHOSEN)
    add14, add17 = 0.03 + 0.07 * 6 / 24, 0.03 + 0.07 * 9 / 24
    compute = 384 * (0.1 + add14) + 48 * (0.2 * 42 / 64 + add17)
    assert chosen.total.compute == pytest.approx(compute)
    # 24 weights of 4 bits, 50 + 48 activations of 8 bits, 10 pJ for 64 bits of 8 KiB.
    assert chosen.traffic == (96, 784)
    assert chosen.total.weights == pytest.approx(15.0)
    assert chosen.total.activations == pytest.approx(122.5)
    int8 = energy_column(graph, HOROWITZ, Arithmetic.INT8)
    # 8 products a sum: 16 + 3 bits; rounding as libraries do it, with 32 bits.
    compute = 384 * (0.2 + 0.03 + 0.07 * 11 / 24) + 48 * (3.1 + 0.1)
    assert int8.total.compute == pytest.approx(compute)
    assert int8.total.weights == pytest.approx(30.0)
    real = energy_column(graph, HOROWITZ, Arithmetic.FLOAT32)
    assert real.total.compute == pytest.approx(384 * (3.7 + 0.9) + 48 * 0.9)
    assert real.total.weights == pytest.approx(120.0)
    assert real.total.activations == pytest.approx(4 * 122.5)


def test_ternary_weights_multiply_nothing() -> None:
    ternary = IntType(2, narrow=True)
    graph = conv_graph(Codebook(CodebookKind.TERNARY, 3), ternary)
    column = energy_column(graph, HOROWITZ, Arithmetic.CHOSEN)
    add14, add17 = 0.03 + 0.07 * 6 / 24, 0.03 + 0.07 * 9 / 24
    assert column.total.compute == pytest.approx(384 * add14 + 48 * (0.2 * 42 / 64 + add17))


def attention_graph() -> Graph:
    """Products [2, 3, 4] by [2, 4, 5], then a softmax over 5."""
    product = BatchMatMul(
        name="p", inputs=("a", "b"), outputs=("s",), epilogue=requantize(), accumulator=IntType(18)
    )
    softmax = Softmax(name="m", inputs=("s",), outputs=("y",), axis=2, levels=255, table=(1,))
    types = {
        "a": kind(U8, 2, 3, 4),
        "b": kind(IntType(6), 2, 4, 5),
        "s": kind(IntType(12), 2, 3, 5),
        "y": kind(U8, 2, 3, 5),
    }
    return Graph("g", Stage.INTEGER, ("a", "b"), ("y",), (product, softmax), types, {})


def test_products_and_softmax() -> None:
    graph = attention_graph()
    product, softmax = graph.ops
    assert multiplications(graph, product) == 2 * 3 * 4 * 5
    assert multiplications(graph, softmax) == 0
    assert flops(graph, product) == 240
    assert flops(graph, softmax) == 5 * 30
    assert operations(graph, product).products == (Products(120, 30, 8, 6, 18),)
    found = operations(graph, softmax)
    # 30 elements: difference of 12 bits, sum of 32; by the levels (8 bits), by the inverse.
    assert found.adds == ((30, 12), (30, 32))
    assert found.multiplies == ((30, 16, 8), (30, 32, 32))
    column = energy_column(graph, HOROWITZ, Arithmetic.CHOSEN)
    expected = 30 * (0.03 + 0.07 * 4 / 24 + 0.1 + 0.2 + 2.9 * 64 / 960 + 3.1)
    assert column.layers["m"].compute == pytest.approx(expected)
    real = energy_column(graph, HOROWITZ, Arithmetic.FLOAT32)
    assert real.layers["m"].compute == pytest.approx(30 * 2 * (3.7 + 0.9))


def local_graph() -> tuple[Graph, Op]:
    """2 heads over 3 x 3 windows of 4 x 5 pixels: 4 channels of keys, 6 of values."""
    op = LocalAttention2d(
        name="l",
        inputs=("q", "k", "v", "r"),
        outputs=("y",),
        kernel=(3, 3),
        pads_begin=(1, 1),
        pads_end=(1, 1),
        heads=2,
        widths=AttentionWidths(1, 0, (1 << 15, 1 << 14), 1 << 14),
        epilogue=requantize(),
        accumulator=IntType(23),
    )
    types = {
        "q": kind(IntType(6), 1, 4, 4, 5),
        "k": kind(IntType(5), 1, 4, 4, 5),
        "v": kind(IntType(8), 1, 6, 4, 5),
        "r": kind(IntType(4), 4, 3, 3),
        "y": kind(U8, 1, 6, 4, 5),
    }
    constants: dict[str, Array] = {"r": np.zeros((4, 3, 3), np.int8)}
    return Graph("g", Stage.INTEGER, ("q", "k", "v"), ("y",), (op,), types, constants), op


def test_attention_over_windows() -> None:
    graph, op = local_graph()
    scores, sums = operations(graph, op).products
    # Keys k * 2 of -32..30 take 6 bits; scores are sums of 2 products of -32 by -32.
    assert scores == Products(9 * 4 * 20, 9 * 2 * 20, 6, 6, 13)
    # Weights of 0..2**14 take 15 bits.
    assert sums == Products(9 * 6 * 20, 6 * 20, 15, 8, 23)
    assert multiplications(graph, op) == 9 * 20 * (4 + 6)
    assert flops(graph, op) == 2 * 9 * 20 * 10 + 5 * 9 * 2 * 20
    assert operations(graph, op).multiplies == ((360, 16, 15), (360, 32, 32))
    assert operations(graph, op).adds == ((360, 13), (360, 32))


def test_bit_operations_of_attention_in_the_report(tmp_path: Path) -> None:
    options = CompileOptions(target="sim")  # type: ignore[arg-type]
    result = compile_model(save_model(tmp_path / "net.onnx"), options)
    rows = {row.name: row for row in result.report.layers}
    graph = result.integer_graph
    assert sum(row.macs for row in rows.values()) == result.report.totals.macs
    for op in graph.ops:
        if isinstance(op, BatchMatMul):
            a, b = (graph.types[value].integer.bits for value in op.inputs)
            assert rows[op.name].macs == 17 * 17 * 4
            assert rows[op.name].bops == 17 * 17 * 4 * a * b
    assert rows["../all<b>"].flops == 5 * 17 * 17
    assert rows["/local"].flops == 9 * 64 * (2 * 8 + 5 * 2)
    energy = json.loads(result.report.to_json())["energy"]
    assert energy["kind"] == "analytical"
    parts = [energy["chosen"][part] for part in ("compute", "weights", "activations")]
    assert energy["chosen"]["total"] == pytest.approx(sum(parts), abs=2e-6)
    assert sum(row["total"] for row in energy["layers"]) == pytest.approx(sum(parts), abs=1e-4)


TABLE = """
name = "7 nm"
[integer]
add = { 8 = 1, 16 = 3 }
multiply = { 8 = 10 }
[float32]
add = 20
multiply = 30
[[memory]]
bytes = 10
access = 64
[[memory]]
access = 640
"""


def test_another_table(tmp_path: Path) -> None:
    path = tmp_path / "table.toml"
    path.write_text(TABLE)
    table = read_energy_table(path)
    assert table.add_energy(12) == pytest.approx(2)
    assert table.multiply_energy(16, 8) == pytest.approx(20)
    real = energy_column(conv_graph(), table, Arithmetic.FLOAT32)
    assert real.total.compute == pytest.approx(384 * 50 + 48 * 20)
    assert real.total.weights == pytest.approx(10 * 24 * 32)
    assert real.weight_memory.bytes is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "7 nm"', "", "'name' is missing"),
        ("[float32]", "[float16]", "'float32' is missing"),
        ("8 = 1,", "0 = 1,", "'0' is no number of bits"),
        ("16 = 3", "16 = 0.5", "more bits must not cost less"),
        ("multiply = 30", "multiply = -1", "is no energy"),
        ("multiply = 30", 'multiply = "30"', "is no energy"),
        ("bytes = 10\n", "", "each but the last has bytes and access"),
        ("bytes = 10", "bytes = -10", "whole numbers that rise"),
        ("[integer]", "[integer", "is not valid TOML"),
    ],
)
def test_tables_that_are_none(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "table.toml"
    assert old in TABLE
    path.write_text(TABLE.replace(old, new))
    with pytest.raises(UsageError, match=message):
        read_energy_table(path)


def test_flags_that_fit_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = save_model(tmp_path / "net.onnx")
    missing = ["--energy-table", str(tmp_path / "none.toml")]
    for flags, message in (
        (missing, "no such file"),
        (["--measure", "--target", "sim"], "--target sim is not for"),
        (["--measure", "--mcu"], "--target c --mcu is not for"),
    ):
        assert run([str(model), *flags, "-o", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def make_counter(folder: Path, name: str, energy: str, label: str = "package-0") -> None:
    place = folder / name
    place.mkdir(parents=True)
    (place / "name").write_text(f"{label}\n")
    (place / "max_energy_range_uj").write_text("1000\n")
    (place / "energy_uj").write_text(energy)


def test_counters(tmp_path: Path) -> None:
    assert find_counters(tmp_path / "none") == ()
    make_counter(tmp_path, "intel-rapl:0", "900\n")
    make_counter(tmp_path, "intel-rapl:0:0", "100\n", "core")
    make_counter(tmp_path, "intel-rapl:1", "no number\n")
    (counter,) = find_counters(tmp_path)
    before = [counter.read()]
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("50\n")
    assert spent([counter], before, [counter.read()]) == 150


def test_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program is timed; its energy is what a counter says, or said not to be measured."""
    monkeypatch.setattr(measure_module, "SECONDS", 0.02)
    make_counter(tmp_path / "power", "intel-rapl:0", "500\n")
    counters = find_counters(tmp_path / "power")
    monkeypatch.setattr(targets, "find_counters", lambda: counters)
    model = tmp_path / "conv.onnx"
    node = helper.make_node("Conv", ["x", "w"], ["y"])
    weights = np.ones((1, 2, 1, 1), np.float32)
    model.write_bytes(build([node], constants={"w": weights}).SerializeToString())
    result = compile_model(model, CompileOptions(measure=True))
    energy = result.report.energy
    assert energy is not None
    assert energy.measured is not None
    assert energy.measured.runs >= 1
    assert 0 < energy.measured.seconds < 1
    assert energy.measured.joules == 0
    without = dataclasses.replace(energy.measured, joules=None)
    lines = measured_lines(dataclasses.replace(energy, measured=without), None)
    assert lines[1][1].startswith("not measured: no energy counter")
    with_counter = dataclasses.replace(energy.measured, joules=2.5e-6)
    lines = measured_lines(dataclasses.replace(energy, measured=with_counter), None)
    assert lines[1][1].startswith("2.5 \N{MICRO SIGN}J a run")
    plain = energy_report(result.integer_graph, HOROWITZ)
    assert measured_lines(plain, None)[0][1].startswith("not measured")
