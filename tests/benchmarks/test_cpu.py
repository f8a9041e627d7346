"""`benchmarks/cpu.py`: its networks, its rivals and its tables, with small networks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks.cpu_bench import peers
from benchmarks.cpu_bench.compiled import (
    BUILDS,
    PORTABLE,
    compile_network,
    layer_times,
    make_rivals,
    port_macros,
)
from benchmarks.cpu_bench.networks import Setting
from benchmarks.cpu_bench.peers import AVX2, NATIVE, make_peers
from benchmarks.cpu_bench.rivals import Measured, Rival, measure
from benchmarks.cpu_bench.tables import Run, best_peer, layers, results, targets, written_between
from benchmarks.cpu_bench.unet import UNet

CPU = Path(__file__).parents[2] / "benchmarks" / "cpu.py"
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


def small(folder: Path, share: float | None = None) -> Path:
    path = folder / "small.onnx"
    onnx.save(UNet(4, depth=1, size=16, ternary_share=share).build(), path)
    return path


def test_the_u_net_has_the_layers_and_operations_it_is_known_for() -> None:
    model = UNet(16).build()
    onnx.checker.check_model(model, full_check=True)
    shapes = {
        item.name: [size.dim_value for size in item.type.tensor_type.shape.dim]
        for item in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    weights = {item.name: list(item.dims) for item in model.graph.initializer}
    macs = 0
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            at = node.input[0] if node.op_type == "ConvTranspose" else node.output[0]
            _, _, height, width = shapes.get(at, [1, 1, 256, 256])
            macs += int(np.prod(weights[node.input[1]])) * height * width
    assert macs == 3013607424
    assert shapes["bottom.act1"] == [1, 256, 16, 16]


def test_a_ternary_u_net_has_the_share_of_weights_asked_for() -> None:
    model = UNet(16, ternary_share=0.5).build()
    weights = [numpy_helper.to_array(item) for item in model.graph.initializer if ".w" in item.name]
    assert all(len(np.unique(np.abs(data))) <= 2 for data in weights)
    used = sum(np.count_nonzero(data) for data in weights) / sum(data.size for data in weights)
    assert used == pytest.approx(0.5, abs=0.005)
    assert "Relu" not in {node.op_type for node in model.graph.node}


@needs_gcc
def test_every_build_is_timed_after_its_bits_were_compared(tmp_path: Path) -> None:
    setting = Setting("ternary", small(tmp_path, share=0.5), "ternary", "ternary")
    compiled = compile_network(setting, tmp_path / "c")
    rivals = make_rivals(compiled, threads=1)
    assert "portable C" in rivals[-1].name
    measured = measure(rivals, threads=1, rounds=2, batch_seconds=0.001, cold_starts=1)
    for item in measured:
        assert 0 < item.least <= item.median
        assert item.peak_bytes > 100_000
        assert len(item.cold) == 1
        assert len(item.cpu) == 2
    assert 0.3 < compiled.share < 0.7
    instructions, times = layer_times(compiled, BUILDS[-1], seconds=0.001)
    assert instructions == "portable C"
    assert sum(item.macs for item in times) == compiled.macs
    assert {item.operator for item in times} >= {"Conv", "ConvTranspose", "MaxPool"}
    assert layers(times).splitlines()[-1].startswith(f"| all |  | {compiled.macs / 1e6:.1f} |")
    (compiled.folder / "expected.bin").write_bytes(bytes(16 * 16 * 4))
    with pytest.raises(RuntimeError, match="not the simulator's"):
        make_rivals(compiled, threads=1)


def test_a_peer_that_is_not_installed_is_left_out_with_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    found = make_peers(small(tmp_path), 1, tmp_path)
    assert not found.rivals
    assert len(found.missing) == 4
    assert all("is not installed" in reason for reason in found.missing)


def test_onnxruntime_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    found = make_peers(small(tmp_path), 1, tmp_path)
    rivals = [rival for rival in found.rivals if rival.name.startswith("onnxruntime")]
    assert [rival.name for rival in rivals] == ["onnxruntime fp32", "onnxruntime int8 (QDQ)"]
    assert rivals[0].install_bytes > 10_000_000
    measured = measure(rivals, threads=1, rounds=1, batch_seconds=0.001, cold_starts=0)
    assert all(item.seconds for item in measured)


def test_python_itself_takes_time_and_memory() -> None:
    seconds, peak = peers.python_alone(starts=1)
    assert 0.01 < seconds < 60
    assert 10_000_000 < peak < 1_000_000_000


def result(name: str, instructions: str, milliseconds: float, peak: int = 1000) -> Measured:
    seconds = milliseconds / 1e3
    rival = Rival(name, instructions, ())
    return Measured(rival, [seconds] * 3, [seconds], [seconds * 10], peak)


def test_ours_are_compared_with_the_best_peer_of_the_same_instructions() -> None:
    ours = result("qcompile w4a6, AVX-512 VNNI, 512-bit vectors", NATIVE, 5)
    capped = result("qcompile w4a6, AVX2", AVX2, 10)
    portable = result("qcompile w4a6, portable C", PORTABLE, 80, peak=300)
    openvino = result("OpenVINO int8 (NNCF)", NATIVE, 8)
    slower = result("OpenVINO int8 (NNCF), capped", AVX2, 25)
    floats = result("onnxruntime fp32", NATIVE, 28)
    run = Run("S", 1, 10**9, (ours, capped, portable, openvino, slower, floats))
    assert best_peer(run, ours) is openvino
    assert best_peer(run, capped) is slower
    assert best_peer(run, portable) is floats
    assert best_peer(run, openvino) is None
    first = results(run).splitlines()[2]
    assert first.startswith("| qcompile w4a6, AVX-512 VNNI, 512-bit vectors | 5.00 | 5.00 | 5.00 |")
    assert "| 200 | 1.60 |" in first
    rows = targets([run]).splitlines()[2:]
    assert [row.split(" | ")[1] for row in rows] == ["1.60", "2.50", "0.35", "1.00", "5.60"]
    assert [row.split(" | ")[-1] for row in rows] == [
        "aim |",
        "aim |",
        "met |",
        "missed |",
        "missed |",
    ]


def test_two_threads_are_held_against_one() -> None:
    """In the same turns, not in those of the run with one thread."""
    single = Run("M", 1, 1, (result("qcompile w4a6, AVX2", NATIVE, 300),))
    alone = result("qcompile w4a6, one thread, AVX2", NATIVE, 100)
    double = Run("M", 2, 1, (result("qcompile w4a6, AVX2", NATIVE, 50), alone))
    assert "| M w4a6: faster with two threads | 2.00 |" in targets([single, double])


def test_a_page_keeps_what_is_outside_of_its_marks() -> None:
    once = written_between("before\n", "| 1 |")
    page = once + "after\n"
    again = written_between(page, "| 2 |")
    assert again == page.replace("| 1 |", "| 2 |")
    assert again.startswith("before\n")
    assert again.endswith("\nafter\n")


def test_the_command_explains_itself() -> None:
    done = subprocess.run(
        [sys.executable, str(CPU), "--help"], capture_output=True, text=True, check=True
    )
    assert "--no-peers" in done.stdout


def test_networks_with_other_ports_are_refused() -> None:
    with pytest.raises(ValueError, match="one input and one output"):
        port_macros("int model_run(const uint8_t *x, void *arena);")
