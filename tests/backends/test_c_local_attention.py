"""Local attention with SIMD: windows, heads, tails, bands and threads; every level equals the
simulator."""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from qcompile.backends.c.backend import CBackend
from qcompile.backends.c.exponential_factors import DIGITS, exponential_factors
from qcompile.backends.c.levels import X86_LEVELS, Level
from qcompile.ops import AttentionWidths, LocalAttention2d
from qcompile.sim.executor import Executor
from qcompile.types import Array, IntType, TensorType
from tests.backends.compile_c import SANITIZERS, STRICT, build_capped, call, capped
from tests.op_cases.build import Style, activation, codes, sum_case
from tests.op_cases.case import OpCase
from tests.op_cases.side_by_side import side_by_side

U8, I8, I4, I12 = IntType(8, signed=False), IntType(8), IntType(4), IntType(12)


def exponentials(step: float) -> tuple[int, ...]:
    """The table of docs/attention.md for one step of the index."""
    count = min(2048, math.ceil(16 * math.log(2) / step) + 1)
    return tuple(math.floor(2**15 * math.exp(-i * step) + 0.5) for i in range(count))


def attention(
    rng: np.random.Generator,
    heads: int,
    depth: int,
    width: int,
    size: tuple[int, int],
    kernel: tuple[int, int] = (3, 3),
    types: tuple[IntType, IntType, IntType] = (I8, I8, I8),
    powers: tuple[int, ...] = exponentials(0.0075),
    shift: int = 5,
    pads: tuple[int, int, int, int] | None = None,
    fill: str = "random",
    style: Style = Style.CHANNEL,
) -> OpCase:
    """Attention of `size` queries with `depth` channels of keys and `width` of values in a head."""
    top, left, bottom, right = pads or (kernel[0] // 2, kernel[1] // 2) * 2
    keys = (size[0] - top - bottom + kernel[0] - 1, size[1] - left - right + kernel[1] - 1)
    named = {
        "q": activation(types[0], 1, heads * depth, *size),
        "k": activation(types[1], 1, heads * depth, *keys),
        "v": activation(types[2], 1, heads * width, *keys),
    }
    relative = TensorType((heads * depth, *kernel), IntType(10))
    op = LocalAttention2d(
        name="attention",
        inputs=("q", "k", "v", "r"),
        outputs=("y",),
        kernel=kernel,
        pads_begin=(top, left),
        pads_end=(bottom, right),
        heads=heads,
        widths=AttentionWidths(3, shift, powers, 1 << 14),
    )
    feeds = {name: codes(rng, kind, fill) for name, kind in named.items()}
    constants = {"r": codes(rng, relative)}
    return sum_case(
        rng, "case", op, {**named, "r": relative}, constants, style, output=U8, feeds=feeds
    )


def all_cases() -> list[OpCase]:
    rng = np.random.default_rng(11)
    steep = exponentials(0.02)
    # No exponential: entries are looked up.
    odd = tuple(sorted((int(value) for value in rng.integers(0, 1 << 15, 300)), reverse=True))
    return [
        attention(rng, 8, 1, 1, (37, 16), types=(I4, U8, U8)),
        attention(rng, 8, 1, 1, (3, 7), powers=steep, style=Style.TENSOR),
        attention(rng, 2, 4, 3, (5, 35), powers=steep, fill="high"),
        attention(rng, 2, 4, 3, (4, 15), powers=steep, fill="low", style=Style.WIDE),
        attention(rng, 4, 3, 3, (6, 24), types=(I12, I4, I12), shift=9),
        attention(rng, 1, 20, 2, (2, 33), kernel=(1, 2), pads=(0, 1, 0, 0), shift=12),
        attention(rng, 1, 2, 5, (9, 9), kernel=(7, 9), powers=steep, pads=(5, 1, 0, 8)),
        attention(rng, 1, 2, 1, (4, 18), powers=(1 << 15, *odd), style=Style.WIDE),
    ]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_every_level_and_number_of_threads_equals_the_simulator(tmp_path: Path) -> None:
    case = side_by_side("attention", all_cases())
    program = CBackend().emit(case.graph)
    for step in program.layout.steps:
        assert {variant.level for variant in step.variants} == {None, Level.AVX2, Level.VNNI512}
    library = build_capped([program], tmp_path, ("-fopenmp",))
    expected = Executor(case.graph).run(case.feeds)
    threads = ctypes.CDLL("libgomp.so.1")
    for level in (None, *X86_LEVELS):
        for count in (1, 3) if capped(library, program, level) else ():
            threads.omp_set_num_threads(count)
            actual = call(library, program, case.feeds)
            for value in case.graph.outputs:
                message = f"{value}: {level}, {count} threads"
                np.testing.assert_array_equal(actual[value], expected[value], err_msg=message)
    threads.omp_set_num_threads(1)


@pytest.mark.parametrize("level", DIGITS)
def test_factors_give_every_entry(level: Level) -> None:
    rng = np.random.default_rng(3)
    for step in (0.0055, 0.0108, 0.011, 20.0, *np.exp(rng.uniform(-5.2, 1.0, 30))):
        powers = np.array(exponentials(float(step)))
        factors = exponential_factors(powers, level)
        assert factors is not None
        products = multiplied(factors, np.arange(powers.size), level)
        np.testing.assert_array_equal(np.rint(products), powers)


def multiplied(factors: Array, index: Array, level: Level) -> Array:
    """What lanes hold before they are rounded to integers."""
    if level is Level.VNNI512:
        return np.asarray(factors[index % 32] * factors[32 + index // 32])
    a, b, c, d = (factors[8 * k + index // 8**k % 8] for k in range(4))
    return np.asarray((a * b) * (c * d))


def test_what_is_no_exponential_has_no_factors() -> None:
    powers = np.array(exponentials(0.01))
    for place, change in ((400, 40), (0, -1)):
        wrong = powers.copy()
        wrong[place] += change
        assert all(exponential_factors(wrong, level) is None for level in DIGITS)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_nothing_is_read_or_written_outside(tmp_path: Path) -> None:
    cases = all_cases()
    case = side_by_side("attention", [cases[index] for index in (1, 4, 5)])
    vector = {**case.feeds, **Executor(case.graph).run(case.feeds)}
    program = CBackend("net").emit(case.graph, None, [vector])
    program.artifacts.write(tmp_path)
    for level in (1, 3):
        command = ["gcc", *STRICT, *SANITIZERS, f"-DQCOMPILE_LEVEL_MAX={level}", "-o", "test"]
        subprocess.run([*command, "main.c", "net.c"], cwd=tmp_path, check=True)
        assert subprocess.run(["./test"], cwd=tmp_path, check=False).returncode == 0
