import itertools
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from amaranth.back import verilog

from qcompile.hw.gearbox import Gearbox
from qcompile.hw.streams import TensorStream
from qcompile.types import IntType
from tests.hw.drive import check_block, random_frame, simulate

PAIRS = [*itertools.permutations((1, 2, 3, 4, 6, 12), 2), (3, 3)]


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_all_ratios(before: int, after: int) -> None:
    rng = np.random.default_rng(before * 100 + after)
    bits = int(rng.integers(1, 8))
    stream = TensorStream(2, 2, 12, IntType(bits, signed=bool(bits % 2)), before)
    block = Gearbox(stream, after)
    frame = random_frame(stream, rng)
    (found,) = block.compute(frame)
    np.testing.assert_array_equal(
        block.outputs[0].from_beats(found), stream.from_beats(frame), strict=True
    )
    check_block(block, rng, stalls=((0.5, 0.5), (0.9, 0.3)), cycles_tolerance=0, reset=False)


@pytest.mark.parametrize(("before", "after"), [(2, 8), (8, 2), (8, 3), (3, 8), (4, 6), (12, 8)])
def test_reset_and_long_runs(before: int, after: int) -> None:
    rng = np.random.default_rng(5)
    block = Gearbox(TensorStream(1, 3, 24, IntType(3), before), after)
    check_block(block, rng, cycles_tolerance=0)
    frames = np.concatenate([random_frame(block.stream, rng) for _ in range(6)])
    for valid, ready in ((1.0, 0.5), (0.5, 1.0), (0.95, 0.95)):
        result = simulate(block, frames, valid=valid, ready=ready, seed=3)
        found = np.concatenate(result.outputs[0])
        np.testing.assert_array_equal(found, frames.reshape(found.shape))


@pytest.mark.parametrize(("before", "after"), [(2, 8), (8, 2), (8, 3), (3, 8), (2, 3), (3, 2)])
def test_the_narrower_side_never_waits(before: int, after: int) -> None:
    block = Gearbox(TensorStream(4, 4, 24, IntType(2), before), after)
    frame = random_frame(block.stream, np.random.default_rng(0))
    result = simulate(block, frame)
    ports = result.accepted[0] if before < after else result.sent[0]
    assert ports == list(range(ports[0], ports[0] + len(ports)))
    needed = -(-after // before) - 1
    assert result.offered[0][0] - result.accepted[0][needed] == block.latency


def test_lanes_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="5 lanes"):
        Gearbox(TensorStream(1, 1, 12, IntType(2), 4), 5)


@pytest.mark.skipif(shutil.which("verilator") is None, reason="verilator is not installed")
@pytest.mark.parametrize(("before", "after"), [(4, 6), (6, 4)])
def test_no_comparison_is_constant(before: int, after: int, tmp_path: Path) -> None:
    """As `held <= 7` would be in three bits: linters say so."""
    block = Gearbox(TensorStream(1, 3, 12, IntType(3), before), after)
    (tmp_path / "box.v").write_text(verilog.convert(block.create(), name="box"), encoding="utf-8")
    command = ["verilator", "--lint-only", "-Wall", "-Wno-fatal", "box.v"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert not {"CMPCONST", "UNSIGNED"} & set(re.findall(r"Warning-(\w+)", done.stderr))
