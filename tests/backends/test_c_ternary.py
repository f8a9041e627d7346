"""Ternary weights over bytes, added instead of multiplied: every level equals the simulator."""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from qcompile.backends.c import layers
from qcompile.backends.c.backend import CBackend, CProgram
from qcompile.backends.c.context import Context
from qcompile.backends.c.conv_planes import Window
from qcompile.backends.c.conv_ternary import Planes, TernaryLayer
from qcompile.backends.c.direct_layer import Part, conv_layer
from qcompile.backends.c.levels import X86_LEVELS, Level
from qcompile.ops import Conv
from qcompile.packing import TernaryPacking
from qcompile.passes.kernel_costs import ConvShape, TernaryShape, ternary_pays
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
from tests.backends.compile_c import build_capped, call, capped, check_levels
from tests.backends.test_c_direct import joined, run_sanitized
from tests.op_cases.build import Style, activation, pick, some, sum_case
from tests.op_cases.case import OpCase
from tests.op_cases.side_by_side import side_by_side

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
ELEMENTS = [IntType(bits, signed) for bits in range(2, 9) for signed in (False, True)]
TERNARY_CODES = Codebook(CodebookKind.TERNARY, 3)
SIGNS = Codebook(CodebookKind.BINARY, 2)
TWO_OR_THREE = (CodebookKind.TERNARY, CodebookKind.BINARY)
Pair = tuple[int, int]


def opposite(data: Array) -> Array:
    """What one filter adds, the next takes away."""
    signs = np.where(np.arange(len(data)) % 2 == 0, 1, -1)
    return np.broadcast_to(signs[:, None, None, None], data.shape)


FILLS: dict[str, Callable[[Array], Array]] = {
    "random": lambda data: data,
    "high": np.ones_like,
    "low": lambda data: -np.ones_like(data),
    "zero": np.zeros_like,
    "opposite": opposite,
}


def always(context: Context, ternary: TernaryLayer, _: Sequence[str]) -> tuple[Level | None, ...]:
    """Instead of asking what it costs."""
    assert ternary.fits()
    return (None, *(level for level in context.levels if level in X86_LEVELS))


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers are added wherever they can."""
    monkeypatch.setattr(layers, "ternary_levels", always)


def layer(
    rng: np.random.Generator,
    element: IntType,
    size: Pair,
    channels: Sequence[int],
    filters: int,
    kernel: Pair = (3, 3),
    strides: Pair = (1, 1),
    dilations: Pair = (1, 1),
    pads: tuple[int, int, int, int] = (1, 1, 1, 1),
    style: Style = Style.CHANNEL,
    fill: str = "random",
    inputs: str = "random",
    book: Codebook = TERNARY_CODES,
    bits: int = 2,
) -> OpCase:
    """A convolution with weights of -1, 0 and 1, and codes that may all be at one limit."""
    shape = (filters, sum(channels), *kernel)
    stored = TERNARY if book.kind in TWO_OR_THREE else IntType(bits, narrow=True)
    w = TensorType(shape, stored, Quantization((0.01,) * filters, 0), book)
    op = Conv(
        name="conv",
        inputs=("x", "w"),
        outputs=("y",),
        strides=strides,
        pads_begin=pads[:2],
        pads_end=pads[2:],
        dilations=dilations,
    )
    types = {"x": activation(element, 1, sum(channels), *size), "w": w}
    output = IntType(8) if style is Style.NEGATIVE else IntType(6, signed=False)
    data = FILLS[fill](rng.integers(-1, 2, shape)).astype(np.int8)
    case = sum_case(rng, "conv", op, types, {"w": data}, style, inputs, output)
    return case if len(channels) == 1 else joined(case, channels)


def randomised(rng: np.random.Generator, count: int) -> list[OpCase]:
    """Windows, strides, paddings and sizes of all kinds, small ones more often than not."""
    cases: list[OpCase] = []
    while len(cases) < count:
        kernel = pick(rng, [(1, 1), (3, 3), (2, 3), (1, 4), (5, 2), (3, 1)])
        strides = pick(rng, [(1, 1), (2, 2), (1, 2), (3, 1)])
        dilations = pick(rng, [(1, 1), (1, 1), (2, 1), (1, 3), (2, 2)])
        pads = (some(rng, 0, 3), some(rng, 0, 3), some(rng, 0, 3), some(rng, 0, 3))
        size = pick(rng, [(1, 1), (2, 3), (5, 17), (9, 40), (16, 16), (3, 131)])
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        if any(n + pads[a] + pads[a + 2] < reach[a] for a, n in enumerate(size)):
            continue
        channels = pick(rng, [[1], [3], [16], [17], [4, 16, 3], [32, 16]])
        filters = pick(rng, [1, 2, 3, 16, 17, 35])
        style, element = (
            pick(rng, [Style.TENSOR, Style.CHANNEL, Style.THRESHOLDS]),
            pick(rng, ELEMENTS),
        )
        cases.append(
            layer(rng, element, size, channels, filters, kernel, strides, dilations, pads, style)
        )
    return cases


def check_is_added(program: CProgram) -> None:
    """Nothing took another kernel, but the copies that make parts of an input."""
    for step in program.layout.steps:
        if isinstance(step.op, Conv) and step.op.name.startswith("conv"):
            for variant in step.variants:
                if variant.level is None or variant.level in X86_LEVELS:
                    assert variant.note.startswith("ternary"), step.op.name


@needs_gcc
@pytest.mark.usefixtures("added")
@pytest.mark.parametrize("packing", list(TernaryPacking))
def test_random_layers_equal_the_simulator(packing: TernaryPacking, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    count = 16 if packing is TernaryPacking.TWO_BITS else 3
    case = side_by_side("random", randomised(rng, count))
    check_is_added(check_levels(case, tmp_path, packing))


@needs_gcc
@pytest.mark.usefixtures("added")
def test_weights_may_be_stored_otherwise(tmp_path: Path) -> None:
    """Codes of more bits, powers of two and signs, as long as all are -1, 0 or 1."""
    rng = np.random.default_rng(6)
    element = IntType(4, False)
    uniform, powers = Codebook(CodebookKind.UNIFORM, 15), Codebook(CodebookKind.POW2, 15)
    cases = [
        layer(rng, element, (4, 9), [7], 5, book=uniform, bits=4),
        layer(rng, element, (4, 9), [7], 19, book=Codebook(CodebookKind.UNIFORM, 3), bits=2),
        layer(rng, element, (4, 9), [8], 5, book=powers, bits=4),
        layer(rng, element, (4, 9), [4], 6, book=SIGNS, fill="opposite"),
    ]
    program = check_levels(side_by_side("stored", cases), tmp_path)
    check_is_added(program)


@needs_gcc
@pytest.mark.usefixtures("added")
def test_sums_are_exact_at_the_limits_of_every_width(tmp_path: Path) -> None:
    """All weights of one sign, all codes at one limit: one more in 8 or 16 bits would wrap."""
    rng = np.random.default_rng(2)
    cases = [
        layer(rng, element, (2, 5), [17], 3, fill=fill, inputs=inputs)
        for element in ELEMENTS
        for fill, inputs in (("high", "high"), ("low", "high" if element.bits % 2 else "low"))
    ]
    # Sums of 32 bits, from lists longer than what 16 bits hold.
    cases += [
        layer(rng, IntType(8, signed), (2, 3), [129], 2, fill=fill, inputs="high")
        for signed, fill in ((False, "high"), (True, "low"))
    ]
    cases += [
        layer(rng, element, (3, 4), [5], 4, fill=fill, inputs="high")
        for element, fill in ((ELEMENTS[5], "zero"), (ELEMENTS[8], "opposite"))
    ]
    check_is_added(check_levels(side_by_side("limits", cases), tmp_path))


@needs_gcc
@pytest.mark.usefixtures("added")
def test_bands_groups_of_filters_and_threads(tmp_path: Path) -> None:
    """Layers of several bands, and with lists that are made in turns, on several threads."""
    rng = np.random.default_rng(3)
    cases = [
        layer(rng, IntType(4, False), (70, 160), [33], 5),
        layer(rng, IntType(6, False), (12, 31), [24, 200], 35),
        layer(rng, IntType(8), (9, 300), [3], 20, (5, 5), (2, 2), pads=(2, 2, 2, 2)),
    ]
    case = side_by_side("bands", cases)
    program = CBackend().emit(case.graph)
    check_is_added(program)
    notes = [step.variants[0].note for step in program.layout.steps if len(step.variants) > 2]
    assert any(note.endswith(" 16 filters") for note in notes)
    library = build_capped([program], tmp_path, ("-fopenmp",))
    expected = Executor(case.graph).run(case.feeds)
    threads = ctypes.CDLL("libgomp.so.1")
    for level, count in itertools.product((None, *X86_LEVELS), (1, 2, 3)):
        if capped(library, program, level):
            threads.omp_set_num_threads(count)
            actual = call(library, program, case.feeds)
            for value in case.graph.outputs:
                message = f"{value}: {level}, {count} threads"
                np.testing.assert_array_equal(actual[value], expected[value], err_msg=message)
    threads.omp_set_num_threads(1)


@needs_gcc
@pytest.mark.usefixtures("added")
@pytest.mark.parametrize("levels", [(Level.NEON,), (Level.AVX2,)], ids=["portable", "AVX2"])
def test_nothing_is_read_or_written_outside(levels: tuple[Level, ...], tmp_path: Path) -> None:
    """On x86 a program for NEON runs its portable form."""
    rng = np.random.default_rng(4)
    cases = [
        layer(rng, IntType(5), (7, 9), [3], 3, (3, 2), pads=(0, 1, 2, 0)),
        layer(rng, IntType(2, False), (1, 33), [16], 17, (1, 1), pads=(0, 0, 0, 0)),
        layer(rng, IntType(8, False), (6, 5), [9], 2, (2, 3), (2, 3), (2, 1), (3, 0, 0, 3)),
        layer(rng, IntType(3), (4, 18), [4, 18], 5),
        layer(rng, IntType(8), (1, 1), [70], 2, inputs="high"),
    ]
    for index, case in enumerate(cases if levels == (Level.NEON,) else cases[2:4]):
        folder = tmp_path / str(index)
        vector = {**case.feeds, **Executor(case.graph).run(case.feeds)}
        program = CBackend("net", levels=levels).emit(case.graph, None, [vector])
        program.artifacts.write(folder)
        assert run_sanitized(folder).returncode == 0, index


def small(high: int, filters: int = 4, channels: int = 4, low: int = 0) -> TernaryLayer:
    """A 3x3 layer of 8 x 8 pixels, all weights 1."""
    data = np.ones((filters, 3, 3, channels), np.int8)
    part = Part("x", "uint8_t", channels)
    window = Window((3, 3), (1, 1), (1, 1), (1, 1))
    made = conv_layer([part], (8, 8), (8, 8), Range(low, high), data, (1, 1), (1, 1), (1, 1))
    return TernaryLayer(made, window, data)


def test_as_many_codes_as_fit_are_added_in_8_bits() -> None:
    counted = {high: small(high).most for high in (1, 31, 32, 63, 64, 85, 127, 128, 255)}
    assert counted == {1: 8, 31: 8, 32: 4, 63: 4, 64: 2, 85: 2, 127: 2, 128: 1, 255: 1}
    assert all(count * high <= 255 for high, count in counted.items())
    assert small(15, low=-16).most == 8  # after adding 16
    assert small(16, low=-16).most == 4


def test_sums_have_16_bits_where_the_range_is_proven() -> None:
    assert small(255, channels=14).short
    assert not small(255, channels=15).short


def test_what_two_filters_have_in_common_is_in_one_list() -> None:
    ternary = small(3, filters=3)
    data = ternary.codes.copy()
    data[1, 0] = -1  # 12 of 36 weights
    data[2, :, :, 0] = 0  # a last filter without another
    lengths = dataclasses.replace(ternary, codes=data).lengths().tolist()
    assert lengths == [[0, 12, 24, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 28, 0, 0]]


def test_planes_of_skipped_rows_and_columns_have_images_of_their_own() -> None:
    window = Window((3, 2), (2, 3), (1, 1), (1, 2))
    data = np.ones((2, 3, 2, 4), np.int8)
    part = Part("x", "uint8_t", 4)
    made = conv_layer([part], (9, 20), (5, 7), Range(0, 3), data, (2, 3), (1, 1), (1, 2))
    planes = Planes.of(made, window)
    assert planes.skips == (2, 3)
    assert (planes.band, planes.image_rows, planes.pitch) == (5, 6, 7)
    images = 6 * 7
    assert planes.taps(window) == [0, 2 * images, 3 * images, 5 * images, 7, 2 * images + 7]


def test_additions_replace_products_where_they_are_clearly_fewer() -> None:
    """A layer of 64 to 64 channels on 64 x 64 pixels, by its share of weights that are not 0."""
    shape = ConvShape(64, 64, 64, 64)
    chosen = {}
    for share in (0.1, 0.5, 1.0):
        entries = round(32 * 576 * (1 - (1 - share) ** 2))
        work = TernaryShape(64 * 66, entries, 32, 64, 36864, single=False, wide=False)
        chosen[share] = [
            level
            for level in ("portable", "AVX2", "VNNI512")
            if ternary_pays(work, shape, level, winograd=True)
        ]
    assert chosen == {0.1: ["portable", "AVX2"], 0.5: ["portable"], 1.0: ["portable"]}


def test_dense_layers_of_bytes_keep_their_products_on_simd() -> None:
    rng = np.random.default_rng(5)
    case = layer(rng, IntType(4, False), (32, 32), [32], 32)
    (step,) = CBackend("net").emit(case.graph).layout.steps
    notes = {variant.level: variant.note.split(":")[0] for variant in step.variants}
    assert notes[None] == "ternary"
    assert notes[Level.VNNI512] == notes[Level.AVX2] == "Winograd"
    assert notes[Level.NEON] == "direct"
