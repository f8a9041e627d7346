"""The files of an accelerator: simulated, linted, and read as their readers read them."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from qcompile.backends.c.names import identifier
from qcompile.backends.hdl.assemble import assemble, stage_prefix
from qcompile.backends.hdl.backend import HdlBackend
from qcompile.backends.hdl.emit import constraint, emit
from qcompile.backends.hdl.emit_picture import picture
from qcompile.backends.hdl.emit_request import EmitRequest, LayerRow, PortTensor
from qcompile.backends.hdl.emit_vectors import beats, vector_files
from qcompile.backends.hdl.emit_verilog import readable, verilog
from qcompile.backends.hdl.flow import StreamGraph
from qcompile.devices import find_device
from qcompile.errors import DataError, UsageError
from qcompile.graph import Graph, Stage
from qcompile.hw.concat import Concat
from qcompile.hw.design import Design, Node
from qcompile.hw.fifo import Fifo
from qcompile.hw.fork import Fork
from qcompile.hw.schedule import schedule
from qcompile.hw.stage import Fold
from qcompile.hw.streams import TensorStream
from qcompile.ops import Dequantize, Lookup
from qcompile.passes.size_fifos import SizeFifos
from qcompile.sim.executor import Executor
from qcompile.types import UINT8, Array, IntType, Quantization, TensorType
from tests.backends.networks import FOUR_BITS, SIX_BITS, Builder, CodebookKind, image

iverilog = pytest.mark.skipif(
    shutil.which("iverilog") is None, reason="iverilog is not installed (apt-get install iverilog)"
)
verilator = pytest.mark.skipif(
    shutil.which("verilator") is None, reason="verilator is not installed"
)


def network(seed: int = 0) -> Graph:
    """Pixels, a table, two convolutions whose results are joined; odd names."""
    builder = Builder(FOUR_BITS, CodebookKind.UNIFORM, SIX_BITS, seed)
    builder.activation("image", 1, 4, 5, element=UINT8)
    table = builder.rng.integers(0, 64, 256).astype(np.uint8)
    builder.constants["pixels"] = table
    builder.types["pixels"] = TensorType((256,), SIX_BITS, Quantization.per_tensor(0.05))
    codes = builder.activation("codes", 1, 4, 5)
    builder.ops.append(Lookup(name="input", inputs=("image", "pixels"), outputs=(codes,)))
    x = builder.conv(codes, 2)
    x = builder.concat(x, builder.conv(x, 2))
    builder.types["logits"] = TensorType((1, 4, 4, 5))
    builder.ops.append(Dequantize(name="output", inputs=(x,), outputs=("logits",), scale=0.05))
    types, constants = builder.types, builder.constants
    return Graph(
        'net "*/ `x', Stage.INTEGER, ("image",), ("logits",), tuple(builder.ops), types, constants
    )


def request_of(graph: Graph, vectors: Sequence[Mapping[str, Array]] | None = None) -> EmitRequest:
    """Each operator with as much parallelism as four lanes allow."""
    streams = StreamGraph(graph)
    stages = {}
    for op in streams.ops:
        folds = [f for f in streams.folds()[op.name] if f.pe <= 4 and f.simd <= 4]
        stages[op.name] = streams.stage(op, max(folds, key=lambda f: f.pe * f.simd))
    flow = streams.flow(stages)
    sizes = SizeFifos().run(flow).sizes
    depths = {edge: size.depth for edge, size in sizes.items()}
    design = assemble(flow, depths, "model_core", streams.aliases)
    plan = schedule(flow)
    rows = tuple(
        LayerRow(
            name=identifier(stage.op.name),
            operator=stage.op.label(),
            kind=stage.op.kind,
            nodes=tuple(n.name for n in design.nodes if n.name.startswith(stage_prefix(index))),
            fold=stage.fold,
            cycles=stage.cycles,
            latency=stage.latency,
            ram_bits=stage.ram_bits,
            multipliers=stage.multipliers,
            estimate={"lut": 10},
        )
        for index, stage in enumerate(flow.stages)
    )
    if vectors is None:
        ends = {*streams.inputs, *streams.outputs}
        vectors = [Executor(graph).run(image(graph, k), ends) for k in range(2)]
        vectors = [{**image(graph, k), **vector} for k, vector in enumerate(vectors)]
    return EmitRequest(
        design=design,
        network=graph.name,
        inputs=tuple(PortTensor(value, graph.types[value]) for value in streams.inputs),
        outputs=tuple(PortTensor(value, graph.types[value]) for value in streams.outputs),
        layers=rows,
        interval=plan.interval,
        latency=plan.latency,
        fifo_minimum={node.name: 3 for node in design.nodes if isinstance(node.block, Fifo)},
        vectors=vectors,
        device=find_device("ecp5-85k"),
        estimate={"lut": 100},
        metadata={"qcompile": "0.1", "odd": "*/ ` \\ line\nend"},
        build=0x1234ABCD,
    )


def two_by_two() -> EmitRequest:
    """Two inputs, joined; the result leaves twice, once behind a FIFO."""
    left = TensorStream(2, 3, 2, IntType(5), 2)
    right = dataclasses.replace(left, channels=4)
    join = Concat((left, right), IntType(6))
    (both,) = join.outputs
    nodes = (
        Node("l00_join", join, ("left in", "right in"), ("join",)),
        Node("join_fork", Fork(both, 2), ("join",), ("join_fork.0", "join_fork.1")),
        Node("join_fifo", Fifo(both, 5), ("join_fork.1",), ("late",)),
    )
    design = Design(
        "pair",
        {"left in": left, "right in": right},
        {"join_fork.0": both, "late": both},
        nodes,
        {"joined": "join"},
    )
    rng = np.random.default_rng(1)
    vectors = []
    for _ in range(3):
        a = rng.integers(-16, 16, (1, 2, 2, 3))
        b = rng.integers(-16, 16, (1, 4, 2, 3))
        joined = np.concatenate([a, b], axis=1)
        vectors.append({"/Left in": a, "right.in": b, "joined": joined, "late": joined})
    kinds = [TensorType((1, c, 2, 3), IntType(bits)) for c, bits in ((2, 5), (4, 5), (6, 6))]
    row = LayerRow("join", "Concat '/join'", "Concat", ("l00_join",), Fold(1, 2), 18, 1, 0, 0)
    return EmitRequest(
        design=design,
        network="pair",
        inputs=(PortTensor("/Left in", kinds[0]), PortTensor("right.in", kinds[1])),
        outputs=(PortTensor("joined", kinds[2]), PortTensor("late", kinds[2])),
        layers=(row,),
        interval=18,
        latency=20,
        vectors=vectors,
        entry="pair",
    )


@pytest.fixture(scope="module")
def request_() -> EmitRequest:
    return request_of(network())


@pytest.fixture(scope="module")
def files(request_: EmitRequest) -> Mapping[str, str | bytes]:
    return emit(request_).files


@pytest.fixture
def folder(files: Mapping[str, str | bytes], tmp_path: Path) -> Path:
    for name, content in files.items():
        assert isinstance(content, str)
        (tmp_path / name).write_text(content, encoding="utf-8")
    return tmp_path


def make(folder: Path, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run(
        ["make", "-s", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


@iverilog
def test_the_testbench_passes_and_nothing_is_warned_of(folder: Path) -> None:
    for stalls in (("4", "4"), ("0", "0"), ("12", "2"), ("1", "13")):
        for seed in ("1", "77"):
            options = (f"SEED={seed}", f"STALL_IN={stalls[0]}", f"STALL_OUT={stalls[1]}")
            code, out, err = make(folder, "sim", *options)
            assert (code, err) == (0, ""), err
            assert out.startswith("PASS: 2 frames")


@iverilog
def test_the_testbench_names_the_first_wrong_value(folder: Path) -> None:
    path = folder / "vectors_out.hex"
    lines = path.read_text().splitlines()
    # Frame 1, pixel (2, 3), of two beats of two channels: the second beat.
    at = 1 + 20 * 2 + (2 * 5 + 3) * 2 + 1
    lines[at] = f"{int(lines[at], 16) ^ 0x100:04x}"
    path.write_text("\n".join(lines) + "\n")
    code, out, _ = make(folder, "sim")
    assert code != 0
    assert re.fullmatch(
        r"FAIL: m_axis frame 1 row 2 column 3 channel 2: got [0-9a-f]{4}, expected [0-9a-f]{4}",
        out.splitlines()[0],
    )


@iverilog
def test_one_changed_weight_fails(request_: EmitRequest, tmp_path: Path) -> None:
    graph = network()
    name = next(name for name in graph.constants if name.endswith("conv1.w"))
    weights = graph.constants[name].copy()
    weights[0, 0, 1, 1] += 1 if weights[0, 0, 1, 1] < 0 else -1
    other = dataclasses.replace(graph, constants={**graph.constants, name: weights})
    emit(request_of(other, request_.vectors)).write(tmp_path)
    code, out, _ = make(tmp_path, "sim")
    assert code != 0
    assert out.startswith("FAIL: m_axis frame 0")


@iverilog
def test_a_missing_register_value_fails(folder: Path) -> None:
    path = folder / "tb_model.v"
    path.write_text(path.read_text().replace("32'h51434f4d", "32'h51434f4e"))
    code, out, _ = make(folder, "sim")
    assert code != 0
    assert "FAIL: register 00 is 51434f4d, expected 51434f4e" in out


@iverilog
def test_an_accelerator_that_stops_fails(folder: Path) -> None:
    """The core never gets its clock: no beat arrives."""
    path = folder / "model.v"
    text = path.read_text()
    broken = re.sub(r"(model_core core \(\s*)\.aclk\(aclk\)", r"\1.aclk(1'b0)", text)
    assert broken != text
    path.write_text(broken)
    code, out, _ = make(folder, "sim")
    assert code != 0
    assert re.match(r"FAIL: no output beat for \d+ cycles; sent \d+, received 0 beats", out)


@iverilog
def test_several_inputs_and_outputs(tmp_path: Path) -> None:
    request = two_by_two()
    emit(request).write(tmp_path)
    names = [port.name for port in (*request.input_ports, *request.output_ports)]
    assert names == ["s_axis_left_in", "s_axis_right_in", "m_axis_joined", "m_axis_late"]
    for stalls in (("4", "4"), ("12", "2"), ("1", "13")):
        code, out, err = make(tmp_path, "sim", f"STALL_IN={stalls[0]}", f"STALL_OUT={stalls[1]}")
        assert (code, err) == (0, ""), err
        assert out.startswith("PASS: 3 frames")


@iverilog
@verilator
def test_lint(folder: Path) -> None:
    assert make(folder, "lint") == (0, "", "")


@verilator
def test_verilator_runs_the_same_testbench(folder: Path) -> None:
    code, out, err = make(folder, "sim-verilator", "SEED=3", "OPT_FAST=-O0", "OPT_GLOBAL=-O0")
    assert code == 0, err
    assert "%Warning" not in err
    assert re.search(r"^PASS: 2 frames", out, re.MULTILINE)


def test_files_are_the_same_each_time(files: Mapping[str, str | bytes]) -> None:
    assert emit(request_of(network())).files == files


def test_no_file_tells_where_it_was_made(files: Mapping[str, str | bytes]) -> None:
    here = Path(__file__).resolve()
    traces = [str(here.parents[2]), str(Path.home()), "site-packages", "/tmp", "hw/", "amaranth."]
    for name, content in files.items():
        for trace in traces:
            assert trace not in str(content), f"{name} has {trace}"
        assert not re.search(r"\w\.py:\d+", str(content)), name


def test_verilog_has_plain_names(files: Mapping[str, str | bytes]) -> None:
    text = str(files["model.v"])
    assert "\\" not in text.split("`timescale")[1]
    modules = re.findall(r"^module (\S+?)\(", text, re.MULTILINE)
    assert modules[0] == "model_top"
    assert all(re.fullmatch(r"model_[a-z0-9_]+", module) for module in modules)
    assert len(set(modules)) == len(modules)
    assert any("l01_enc_conv1" in module for module in modules)
    assert not re.search(r"n_signal|\[-\d|\$(?!(un)?signed\()", text)


def test_names_do_not_clash() -> None:
    text = (
        "module \\top.a (\\x[0] , x_0, \\output , bit);\n  output x_0;\n"
        "  wire \\$1 ;\n  wire n_1;\n  wire bit;\n  assign \\output  = bit & \\x[0] ;\nendmodule\n"
    )
    found = readable(text, "top", "net")
    assert found == (
        "module net_a(x_0_2, x_0, output_2, bit_2);\n  output x_0;\n"
        "  wire n_1_2;\n  wire n_1;\n  wire bit_2;\n  assign output_2 = bit_2 & x_0_2;\nendmodule\n"
    )


def test_manifest(files: Mapping[str, str | bytes], request_: EmitRequest) -> None:
    found = json.loads(str(files["manifest.json"]))
    assert (found["format"], found["format_version"]) == ("qcompile-hdl", 1)
    assert (found["top"], found["network"]) == ("model_top", 'net "*/ `x')
    assert found["build"] == "0x1234abcd"
    assert (found["clock_mhz"], found["device"]) == (100.0, "ecp5-85k")
    performance = found["performance"]
    assert performance["interval_cycles"] == request_.interval
    assert performance["frames_per_second"] == pytest.approx(1e8 / request_.interval, abs=1e-3)
    (source,) = found["inputs"]
    assert source["element"] == {"bits": 8, "signed": False, "low": 0, "high": 255, "bytes": 1}
    assert (source["port"], source["shape"], source["beats"]) == ("s_axis", [1, 1, 4, 5], 20)
    (result,) = found["outputs"]
    assert (result["lanes"], result["beats"], result["scale"]) == (2, 40, 0.05)
    # Every port of the top module, with its width.
    text = str(files["model.v"]).split("endmodule")[0]
    declared = {
        name: 1 if high == "" else int(high) + 1
        for high, name in re.findall(r"^  (?:in|out)put (?:\[(\d+):0\] )?(\w+);", text, re.M)
    }
    assert {port["name"]: port["width"] for port in found["ports"]} == declared
    assert all(port["text"] for port in found["ports"])
    assert [layer["kind"] for layer in found["layers"]] == ["Lookup", "Conv", "Conv", "Concat"]
    assert performance["bottleneck"] in [layer["name"] for layer in found["layers"]]
    nodes = {node["name"]: node for node in found["nodes"]}
    assert sum(node["ram_bits"] for node in nodes.values()) == found["resources"]["ram_bits"]
    # Both inputs of the join have one: it takes turns.
    assert [fifo["value"] for fifo in found["fifos"]] == ["enc/conv1.y", "enc/conv2.y"]
    fifo = found["fifos"][0]
    block = next(n.block for n in request_.design.nodes if n.name == fifo["node"])
    assert (fifo["minimum"], fifo["beat_bits"]) == (3, block.inputs[0].layout.size)
    assert fifo["depth"] == request_.fifo_depths[fifo["node"]]
    offsets = {register["name"]: register["offset"] for register in found["registers"]}
    assert offsets["ID"] == 0
    assert offsets["OUTPUT0_FORMAT"] == 0x5C


def test_picture(files: Mapping[str, str | bytes], request_: EmitRequest) -> None:
    root = ElementTree.fromstring(str(files["design.svg"]))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    text = [item.text for item in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"enc_conv1", "enc_conv2", "dec_concat3"} <= set(text)
    assert sum("bottleneck" in (item or "") for item in text) == 1
    depth = next(iter(request_.fifo_depths.values()))
    assert f"fifo {depth}" in text
    classes = [item.get("class") for item in root.iter("{http://www.w3.org/2000/svg}path")]
    assert classes.count("skip") == 1
    odd = dataclasses.replace(request_, network="a <b> & \x00 c")
    ElementTree.fromstring(picture(odd))


def test_the_documented_example() -> None:
    """docs/hdl-files.md has these numbers."""
    rgb = TensorStream(1, 2, 3, UINT8, 3)
    tensor = np.array([[[[10, 13]], [[11, 14]], [[12, 15]]]])
    assert [f"{beat:06x}" for beat in beats(rgb, tensor)] == ["0c0b0a", "0f0e0d"]
    codes = TensorStream(1, 1, 4, IntType(6), 2)
    assert [f"{beat:04x}" for beat in beats(codes, np.array([-1, 5, -32, 31]))] == ["05ff", "1fe0"]
    sums = TensorStream(1, 1, 2, IntType(12), 2)
    assert [f"{beat:08x}" for beat in beats(sums, np.array([-2, 1000]))] == ["03e8fffe"]


def test_wrong_vectors_are_refused(request_: EmitRequest) -> None:
    vectors = [dict(vector) for vector in request_.vectors]
    vectors[1]["image"] = np.zeros((1, 1, 4, 4))
    with pytest.raises(DataError, match=r"vector 1: 'image' has 16 elements, not 20"):
        vector_files(dataclasses.replace(request_, vectors=vectors))
    vectors[1]["image"] = np.full((1, 1, 4, 5), 256)
    with pytest.raises(DataError, match="codes 256 to 256, u8 holds 0 to 255"):
        vector_files(dataclasses.replace(request_, vectors=vectors))
    del vectors[1]["image"]
    with pytest.raises(DataError, match="vector 1: has no array for 'image'"):
        vector_files(dataclasses.replace(request_, vectors=vectors))


@pytest.mark.parametrize(
    ("device", "suffix", "line"),
    [
        ("ecp5-85k", "lpf", 'FREQUENCY PORT "aclk" 80.000 MHZ;'),
        ("ice40-hx8k", "pcf", "set_frequency aclk 80.000"),
        ("xc7z020", "xdc", "create_clock -name aclk -period 12.500 [get_ports aclk]"),
        (None, "sdc", "create_clock -name aclk -period 12.500 [get_ports {aclk}]"),
    ],
)
def test_constraints(request_: EmitRequest, device: str | None, suffix: str, line: str) -> None:
    chosen = None if device is None else find_device(device)
    changed = dataclasses.replace(request_, device=chosen, clock=80.0)
    assert constraint(changed) == (suffix, line)


def test_an_entry_that_is_a_keyword_is_refused(request_: EmitRequest) -> None:
    with pytest.raises(UsageError, match="wire"):
        emit(dataclasses.replace(request_, entry="wire"))


def test_the_python_module_is_the_same_accelerator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = HdlBackend(entry="tiny", multipliers=12).emit(network(), {"odd": "x"})
    program.artifacts.write(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    top = importlib.import_module("tiny_hw").top()
    assert str(program.artifacts.files["tiny.v"]).endswith(verilog(top, "tiny_top", "tiny"))


def test_other_files(files: Mapping[str, str | bytes]) -> None:
    compile(str(files["model_hw.py"]), "model_hw.py", "exec")
    core = str(files["model.core"])
    assert core.startswith("CAPI=2:\n")
    for name in re.findall(r"^      - ([\w.]+)", core, re.MULTILINE):
        assert name in files
    assert str(files["model.f"]).splitlines()[-1] == "model.v"
