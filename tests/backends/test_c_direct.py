"""Direct convolutions with SIMD: every level that the machine runs equals the simulator."""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from qcompile.backends.c import layers
from qcompile.backends.c.backend import CBackend, CProgram
from qcompile.backends.c.direct_layer import DirectLayer, Part, conv_layer
from qcompile.backends.c.direct_tiles import choose_tile, short_reach
from qcompile.backends.c.levels import X86_LEVELS, Level
from qcompile.graph import Graph, Op, Stage
from qcompile.numerics import Requantize
from qcompile.ops import Concat, Conv, ConvTranspose, MatMul, SumOp
from qcompile.packing import TernaryPacking
from qcompile.sim.executor import Executor
from qcompile.types import (
    TERNARY,
    Array,
    Codebook,
    CodebookKind,
    IntType,
    Quantization,
    Range,
    TensorType,
)
from tests.backends.compile_c import SANITIZERS, STRICT, build_capped, call, capped, check_levels
from tests.op_cases.build import STYLES, Style, activation, codes, sum_case
from tests.op_cases.case import OpCase
from tests.op_cases.side_by_side import side_by_side

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
U4, U6, U8 = (IntType(bits, signed=False) for bits in (4, 6, 8))
I5, I8 = IntType(5), IntType(8)
BINARY = CodebookKind.BINARY


@pytest.fixture(autouse=True)
def no_winograd(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers that Winograd would compute are computed directly."""
    monkeypatch.setattr(layers, "plan_winograd", lambda context, *_: context.levels)


def weights(
    rng: np.random.Generator, shape: tuple[int, ...], axis: int, bits: int, kind: CodebookKind
) -> tuple[TensorType, Array]:
    """Random narrow weights, at times all at their limits."""
    element = TERNARY if kind in (CodebookKind.TERNARY, BINARY) else IntType(bits, narrow=True)
    if kind is CodebookKind.POW2:
        data = rng.choice([-64, -8, -1, 0, 1, 2, 32], shape)
    elif kind is BINARY:
        data = rng.choice([-1, 1], shape)
    else:
        data = rng.integers(element.low, element.high + 1, shape)
    scale = Quantization((0.01,) * shape[axis], axis)
    levels = 2 if kind is BINARY else element.high - element.low + 1
    return TensorType(shape, element, scale, Codebook(kind, levels)), data.astype(element.storage)


def conv(
    rng: np.random.Generator,
    element: IntType,
    bits: int,
    size: tuple[int, int],
    channels: Sequence[int],
    filters: int,
    kernel: tuple[int, int] = (3, 3),
    strides: tuple[int, int] = (1, 1),
    dilations: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (1, 1, 1, 1),
    style: Style = Style.CHANNEL,
    kind: CodebookKind = CodebookKind.UNIFORM,
    fill: str = "random",
) -> OpCase:
    """A convolution, of several inputs side by side where `channels` has several numbers."""
    x = activation(element, 1, sum(channels), *size)
    w, data = weights(rng, (filters, sum(channels), *kernel), 0, bits, kind)
    if fill != "random":
        data = codes(rng, w, fill)
    op = Conv(
        name="conv",
        inputs=("x", "w"),
        outputs=("y",),
        strides=strides,
        pads_begin=pads[:2],
        pads_end=pads[2:],
        dilations=dilations,
    )
    output = I8 if style is Style.NEGATIVE else U6
    case = sum_case(rng, "conv", op, {"x": x, "w": w}, {"w": data}, style, "random", output)
    return case if len(channels) == 1 else joined(case, channels)


def joined(case: OpCase, channels: Sequence[int]) -> OpCase:
    """`case` with its input given in parts, which a concatenation joins.

    Concatenations are read in parts only where these lie channels last, so each part first passes
    through a convolution that copies it.
    """
    graph, x = case.graph, case.graph.types["x"]
    types, constants, ops, feeds = dict(graph.types), dict(graph.constants), [], {}
    start = 0
    for index, count in enumerate(channels):
        kind = dataclasses.replace(x, shape=(1, count, *x.shape[2:]))
        data = np.eye(count, dtype=np.int8).reshape(count, count, 1, 1)
        scale = Quantization((1.0,) * count, 0)
        copy = Conv(
            name=f"copy{index}",
            inputs=(f"in{index}", f"eye{index}"),
            outputs=(f"part{index}",),
            strides=(1, 1),
            pads_begin=(0, 0),
            pads_end=(0, 0),
            dilations=(1, 1),
        )
        types |= {f"in{index}": kind, f"part{index}": kind}
        types[f"eye{index}"] = TensorType(data.shape, IntType(2), scale)
        constants[f"eye{index}"] = data
        ops.append(with_identity(copy, x.integer))
        feeds[f"in{index}"] = case.feeds["x"][:, start : start + count]
        start += count
    parts = tuple(f"part{index}" for index in range(len(channels)))
    whole: list[Op] = [*ops, Concat(name="join", inputs=parts, outputs=("x",), axis=1), *graph.ops]
    made = Graph("joined", Stage.INTEGER, tuple(feeds), ("y",), tuple(whole), types, constants)
    return OpCase(f"{case.name}_joined", made, feeds)


def with_identity(op: SumOp, element: IntType) -> SumOp:
    """`op` with an epilogue that returns its sums."""
    epilogue = Requantize(
        (1 << 6,), (1 << 5,), (6,), (element.low,), (element.high,), (element.low,), (element.high,)
    )
    return dataclasses.replace(op, epilogue=epilogue, accumulator=IntType(17))


def transposed(
    rng: np.random.Generator,
    element: IntType,
    size: tuple[int, int],
    channels: int,
    filters: int,
    kernel: int,
    stride: int,
    pad: int = 0,
    extra: int = 0,
    bits: int = 4,
) -> OpCase:
    x = activation(element, 1, channels, *size)
    w, data = weights(rng, (channels, filters, kernel, kernel), 1, bits, CodebookKind.UNIFORM)
    op = ConvTranspose(
        name="up",
        inputs=("x", "w"),
        outputs=("y",),
        strides=(stride, stride),
        pads_begin=(pad, pad),
        pads_end=(pad, pad),
        dilations=(1, 1),
        output_padding=(extra, extra),
    )
    return sum_case(rng, "up", op, {"x": x, "w": w}, {"w": data}, Style.CHANNEL, "random", U6)


def single(
    rng: np.random.Generator, element: IntType, size: tuple[int, int], channels: int, style: Style
) -> OpCase:
    """A convolution with one filter of one tap."""
    return conv(rng, element, 5, size, [channels], 1, (1, 1), pads=(0, 0, 0, 0), style=style)


def product(
    rng: np.random.Generator, element: IntType, bits: int, rows: int, inner: int, outer: int
) -> OpCase:
    x = activation(element, 1, rows, inner)
    w, data = weights(rng, (inner, outer), 1, bits, CodebookKind.UNIFORM)
    op = MatMul(name="product", inputs=("x", "w"), outputs=("y",))
    return sum_case(rng, "product", op, {"x": x, "w": w}, {"w": data}, Style.CHANNEL, "random", U8)


def extremes(rng: np.random.Generator, element: IntType, bits: int, sign: str) -> OpCase:
    """Every code and every weight at a limit: what saturating instructions would get wrong."""
    case = conv(rng, element, bits, (5, 9), [24], 17, fill=sign)
    highest = np.full_like(case.feeds["x"], element.high)
    return dataclasses.replace(case, feeds={"x": highest})


POW2, TERNARIES = CodebookKind.POW2, CodebookKind.TERNARY
CASES: dict[str, Sequence[Callable[[np.random.Generator], OpCase]]] = {
    "kernels": [
        lambda rng: conv(rng, U6, 4, (19, 23), [16], 16),
        lambda rng: conv(rng, U6, 4, (7, 33), [1], 16),
        lambda rng: conv(rng, U8, 5, (17, 14), [3], 24, (5, 5), (2, 3), (2, 1), (2, 4, 0, 3)),
        lambda rng: conv(rng, U4, 3, (12, 9), [5], 17, (3, 3), (1, 1), (2, 2), (2, 2, 2, 2)),
        lambda rng: conv(rng, U6, 4, (6, 40), [12], 32, (1, 5), pads=(0, 2, 0, 2)),
        lambda rng: conv(rng, I5, 4, (8, 21), [20], 9),
        lambda rng: conv(rng, U6, 4, (1, 1), [40], 33, (1, 1), pads=(0, 0, 0, 0)),
        lambda rng: conv(rng, U6, 4, (9, 16), [32], 64, (1, 1), pads=(0, 0, 0, 0)),
        lambda rng: conv(rng, U6, 4, (10, 17), [8], 3, (2, 2), (2, 2), pads=(0, 0, 0, 1)),
    ],
    "single": [
        lambda rng: single(rng, U6, (5, 21), 16, Style.TENSOR),
        lambda rng: single(rng, U8, (1, 16), 48, Style.THRESHOLDS),
        lambda rng: single(rng, I5, (4, 9), 16, Style.TENSOR),
        lambda rng: single(rng, U6, (1, 7), 32, Style.TENSOR),
        lambda rng: single(rng, U6, (13, 23), 16, Style.WIDE),
    ],
    "large": [
        lambda rng: conv(rng, U6, 4, (24, 300), [32], 8),
        lambda rng: conv(rng, U6, 4, (9, 12), [144], 160),
    ],
    "extremes": [
        *(lambda rng, sign=sign: extremes(rng, U8, 8, sign) for sign in ("low", "high")),
        *(lambda rng, sign=sign: extremes(rng, I8, 8, sign) for sign in ("low", "high")),
        *(lambda rng, sign=sign: extremes(rng, U6, 4, sign) for sign in ("low", "high")),
        lambda rng: extremes(rng, U8, 7, "low"),
        lambda rng: conv(rng, I8, 8, (6, 11), [16], 16, (1, 1), pads=(0, 0, 0, 0)),
    ],
    "joined": [
        lambda rng: conv(rng, U6, 4, (9, 20), [16, 32], 16),
        lambda rng: conv(rng, I5, 4, (5, 9), [3, 8, 2], 9),
    ],
    "transposed": [
        lambda rng: transposed(rng, U6, (4, 8), 16, 8, 2, 2),
        lambda rng: transposed(rng, U6, (5, 7), 12, 17, 2, 2),
        lambda rng: transposed(rng, U6, (5, 7), 12, 16, 2, 2),
        lambda rng: transposed(rng, I5, (3, 8), 8, 16, 2, 2),
        lambda rng: transposed(rng, U6, (4, 5), 8, 16, 2, 2, extra=1),
        lambda rng: transposed(rng, I5, (6, 5), 6, 9, 3, 2, 1, 1),
        lambda rng: transposed(rng, U6, (4, 5), 8, 32, 4, 2, 1),
        lambda rng: transposed(rng, U6, (3, 6), 5, 4, 2, 3),
    ],
    "products": [
        lambda rng: product(rng, U6, 4, 1, 70, 10),
        lambda rng: product(rng, U8, 8, 24, 32, 40),
        lambda rng: product(rng, I8, 6, 13, 33, 21),
    ],
    "packings": [
        *(lambda rng, bits=bits: conv(rng, U4, bits, (3, 9), [7], 19) for bits in (2, 3, 5, 6, 7)),
        lambda rng: conv(rng, U4, 2, (4, 9), [16], 24, kind=TERNARIES),
        lambda rng: conv(rng, U4, 8, (4, 9), [6], 24, kind=POW2),
        # Few weights get a code for the zero that pads them.
        lambda rng: conv(rng, U8, 2, (7, 21), [1], 8, (1, 1), pads=(0, 0, 0, 0), kind=BINARY),
    ],
    "epilogues": [
        *(
            lambda rng, style=style: conv(rng, U6, 4, (3, 13), [8], 29, style=style)
            for style in STYLES
        )
    ],
}


@needs_gcc
@pytest.mark.parametrize(
    ("group", "packing"),
    [
        *((group, TernaryPacking.TWO_BITS) for group in CASES),
        ("packings", TernaryPacking.FIVE_PER_BYTE),
    ],
)
def test_levels_equal_simulator(group: str, packing: TernaryPacking, tmp_path: Path) -> None:
    rng = np.random.default_rng(sorted(CASES).index(group))
    program = check_levels(
        side_by_side(group, [make(rng) for make in CASES[group]]), tmp_path, packing
    )
    for step in program.layout.steps:
        if isinstance(step.op, (Conv, ConvTranspose, MatMul)):
            for variant in step.variants:
                functions = [item.function for item in variant.kernels]
                assert variant.level is None or re.match("conv_(direct|single)_", functions[0])


@needs_gcc
def test_threads_share_the_work(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    cases = [
        conv(rng, U6, 4, (24, 300), [32], 40),
        conv(rng, I5, 4, (9, 12), [144], 160),
        transposed(rng, U6, (5, 7), 12, 16, 2, 2),
        single(rng, U6, (5, 21), 16, Style.TENSOR),
    ]
    case = side_by_side("threads", cases)
    program = CBackend().emit(case.graph)
    library = build_capped([program], tmp_path, ("-fopenmp",))
    expected = Executor(case.graph).run(case.feeds)
    threads = ctypes.CDLL("libgomp.so.1")
    for level, count in itertools.product(X86_LEVELS, (2, 3)):
        if capped(library, program, level):
            threads.omp_set_num_threads(count)
            actual = call(library, program, case.feeds)
            for value in case.graph.outputs:
                np.testing.assert_array_equal(actual[value], expected[value], err_msg=value)
    threads.omp_set_num_threads(1)


SANITIZED = [
    pytest.param(level, id=level.name, marks=[pytest.mark.slow] if level is Level.VNNI else [])
    for level in X86_LEVELS
]


@needs_gcc
@pytest.mark.parametrize("level", SANITIZED)
def test_nothing_is_read_or_written_outside(level: Level, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    makers: list[Callable[[np.random.Generator], OpCase]] = [
        lambda rng: product(rng, U6, 4, 23, 17, 21),
        lambda rng: product(rng, U6, 3, 16, 32, 24),
        lambda rng: conv(rng, U6, 5, (7, 13), [1], 11),
        lambda rng: conv(rng, I5, 2, (5, 10), [3], 8, kind=TERNARIES),
        lambda rng: transposed(rng, U6, (3, 5), 1, 9, 2, 2),
    ]
    for index, make in enumerate(makers):
        case = make(rng)
        folder = tmp_path / str(index)
        vector = {**case.feeds, **Executor(case.graph).run(case.feeds)}
        program = CBackend("net", levels=(level,)).emit(case.graph, None, [vector])
        program.artifacts.write(folder)
        assert run_sanitized(folder).returncode == 0, case.name


def run_sanitized(folder: Path) -> subprocess.CompletedProcess[str]:
    """The emitted test program under the sanitizers; its output says whether vectors agree."""
    command = ["gcc", *STRICT, *SANITIZERS, "-o", "test", "main.c", "net.c"]
    subprocess.run(command, cwd=folder, check=True)
    return subprocess.run(["./test"], cwd=folder, capture_output=True, text=True, check=False)


def plain_layer(data: Array, inputs: Range) -> DirectLayer:
    """A 1x1 convolution [filters, channels] of a row of 8 pixels."""
    part = Part("x", "uint8_t", data.shape[1])
    shaped = data[:, None, None, :]
    return conv_layer([part], (1, 8), (1, 8), inputs, shaped, (1, 1), (0, 0), (1, 1))


def test_sums_in_16_bits_never_overflow() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        bits, high = int(rng.integers(2, 9)), int(rng.integers(1, 256))
        limit = (1 << (bits - 1)) - 1
        data = rng.integers(-limit, limit + 1, (5, int(rng.integers(1, 200))))
        reach = short_reach(plain_layer(data, Range(0, high)))
        padded = np.zeros((5, -(-data.shape[1] // 4) * 4), np.int64)
        padded[:, : data.shape[1]] = data
        pairs = padded.reshape(5, -1, 2, 2)
        # Each half of a dword has a sum of its own; the worst inputs meet one sign only.
        for sign in (-1, 1):
            worst = np.maximum(pairs * sign, 0).sum(axis=3) * high
            bound = 32767 + (sign < 0)
            if reach == 0:
                continue
            step = reach // 4
            for start in range(0, worst.shape[1], step):
                assert worst[:, start : start + step].sum(axis=1).max() <= bound
        if reach == 0:
            pair_sums = [np.maximum(pairs * sign, 0).sum(axis=3) * high for sign in (-1, 1)]
            assert pair_sums[0].max() > 32768 or pair_sums[1].max() > 32767


def test_wide_products_are_not_added_in_16_bits() -> None:
    highest = np.full((16, 64), 127)
    assert choose_tile(plain_layer(highest, Range(0, 255)), Level.AVX2).form == "wide"
    assert choose_tile(plain_layer(highest // 4, Range(0, 255)), Level.AVX2).form == "pairs"
    assert choose_tile(plain_layer(highest // 18, Range(0, 63)), Level.AVX2).form == "short"


def test_weights_are_unpacked_in_groups_only_where_they_are_many() -> None:
    rng = np.random.default_rng(0)
    notes = {}
    for channels in (16, 144):
        case = conv(rng, U6, 4, (9, 12), [channels], 160)
        program: CProgram = CBackend("net").emit(case.graph)
        (step,) = program.layout.steps
        notes[channels] = next(v.note for v in step.variants if v.level is Level.VNNI512)
    assert notes[16].endswith("160 filters")
    assert notes[144].endswith("96 filters")
