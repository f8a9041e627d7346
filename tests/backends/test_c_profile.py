"""Builds with <ENTRY>_PROFILE: the time of every step, and the same results."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from qcompile.backends.c.backend import CBackend
from qcompile.backends.c.step_text import step_name
from qcompile.multiplications import multiplications
from qcompile.sim.executor import Executor
from tests.backends.compile_c import STRICT, build, call
from tests.backends.networks import image, unet

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


class StepTime(ctypes.Structure):
    """`<entry>_step` of the header."""

    _fields_ = (
        ("op", ctypes.c_char_p),
        ("name", ctypes.c_char_p),
        ("kernel", ctypes.c_char_p),
        ("macs", ctypes.c_uint64),
        ("latest", ctypes.c_uint64),
        ("runs", ctypes.c_uint64),
        ("total", ctypes.c_uint64),
        ("least", ctypes.c_uint64),
    )


@pytest.mark.parametrize("clock", [[], ["-DUNET_PROFILE_CLOCK=clock", "-include", "time.h"]])
@pytest.mark.parametrize("portable", [[], ["-DQCOMPILE_PORTABLE"]])
def test_every_step_is_timed(tmp_path: Path, clock: list[str], portable: list[str]) -> None:
    graph = unet()
    program = CBackend("unet").emit(graph)
    library = build([program], tmp_path, flags=("-O1", "-DUNET_PROFILE", *clock, *portable))
    feeds = image(graph)
    expected = Executor(graph).run(feeds)
    for _ in range(3):
        for value, data in call(library, program, feeds).items():
            np.testing.assert_array_equal(data, expected[value])
    library.unet_get_step.restype = ctypes.POINTER(StepTime)
    steps = program.layout.steps
    assert library.unet_step_count() == len(steps)
    rows = [library.unet_get_step(index).contents for index in range(len(steps))]
    for row, step in zip(rows, steps, strict=True):
        assert row.name.decode() == step_name(step)
        assert row.op.decode() == step.op.kind
        assert row.macs == multiplications(graph, step.op)
        assert row.runs == 3
        assert 3 * row.least <= row.total
        assert (row.kernel != b"") == bool(step.variants)
        assert row.kernel == b"portable C" or not portable or not step.variants
    if not clock:
        assert all(row.least > 0 for row in rows if row.macs)


def test_without_the_macro_nothing_is_left_of_it(tmp_path: Path) -> None:
    program = CBackend("unet").emit(unet())
    source = str(program.artifacts.files["unet.c"])
    library = build([program], tmp_path)
    assert not hasattr(library, "unet_step_count")
    program.artifacts.write(tmp_path)
    text = subprocess.run(
        ["gcc", *STRICT, "-E", "-P", "unet.c"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "PROFILE" in source
    assert "PROFILE" not in text.upper()


def test_make_profile_prints_a_table(tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    graph = unet()
    feeds = image(graph)
    vector = {**feeds, **Executor(graph).run(feeds)}
    program = CBackend("unet").emit(graph, vectors=[vector])
    program.artifacts.write(tmp_path)
    printed = subprocess.run(
        ["make", "-s", "profile", "CFLAGS=-O1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    shares = [float(text) for text in re.findall(r"^ *([\d.]+)% ", printed, re.MULTILINE)]
    assert len(shares) == len(program.layout.steps)
    assert sum(shares) == pytest.approx(100, abs=0.05 * len(shares) + 0.1)
    assert "OK: 1 test vectors agree" in printed
