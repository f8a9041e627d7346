"""Depthwise convolutions with SIMD: every level that the machine runs equals the simulator."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from qcompile.backends.c.backend import CBackend
from qcompile.backends.c.conv_depthwise import DepthwiseLayer, choose_form
from qcompile.backends.c.direct_layer import Part
from qcompile.backends.c.levels import Level
from qcompile.ops import Conv
from qcompile.packing import TernaryPacking
from qcompile.sim.executor import Executor
from qcompile.types import Array, CodebookKind, IntType, Range
from tests.backends.compile_c import check_levels
from tests.backends.test_c_direct import I5, I8, U4, U6, U8, run_sanitized, weights
from tests.op_cases.build import STYLES, Style, activation, codes, sum_case
from tests.op_cases.case import OpCase
from tests.op_cases.side_by_side import side_by_side

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
LEVELS = (Level.AVX2, Level.VNNI)


def depthwise(
    rng: np.random.Generator,
    element: IntType,
    bits: int,
    size: tuple[int, int],
    channels: int,
    kernel: tuple[int, int] = (3, 3),
    strides: tuple[int, int] = (1, 1),
    dilations: tuple[int, int] = (1, 1),
    pads: tuple[int, int, int, int] = (1, 1, 1, 1),
    style: Style = Style.CHANNEL,
    kind: CodebookKind = CodebookKind.UNIFORM,
    fill: str = "random",
    inputs: str = "random",
) -> OpCase:
    """A convolution of each channel by itself; `fill` and `inputs` may be limits."""
    x = activation(element, 1, channels, *size)
    w, data = weights(rng, (channels, 1, *kernel), 0, bits, kind)
    if fill != "random":
        data = codes(rng, w, fill)
    op = Conv(
        name="depthwise",
        inputs=("x", "w"),
        outputs=("y",),
        strides=strides,
        pads_begin=pads[:2],
        pads_end=pads[2:],
        dilations=dilations,
        groups=channels,
    )
    output = I8 if style is Style.NEGATIVE else U6
    types, constants = {"x": x, "w": w}, {"w": data}
    feeds = {"x": codes(rng, x, inputs)}
    return sum_case(rng, "depthwise", op, types, constants, style, "random", output, feeds)


CASES: dict[str, Sequence[Callable[[np.random.Generator], OpCase]]] = {
    "shapes": [
        lambda rng: depthwise(rng, U6, 4, (9, 21), 32),
        lambda rng: depthwise(rng, U6, 4, (6, 17), 16),
        lambda rng: depthwise(rng, U8, 8, (5, 9), 37),
        lambda rng: depthwise(rng, I5, 4, (7, 6), 23, (5, 5), (2, 3), (1, 1), (2, 2, 2, 1)),
        lambda rng: depthwise(rng, U4, 3, (11, 12), 70, (3, 2), (1, 2), (2, 3), (0, 1, 2, 3)),
        lambda rng: depthwise(rng, I8, 8, (4, 5), 48, (2, 2), pads=(0, 0, 0, 0)),
        lambda rng: depthwise(rng, U6, 4, (5, 33), 19, (1, 1), pads=(0, 0, 0, 0)),
        lambda rng: depthwise(rng, U6, 2, (1, 1), 96, (1, 3), pads=(0, 1, 0, 1)),
        lambda rng: depthwise(rng, U8, 6, (9, 9), 33, (7, 7), pads=(3, 3, 3, 3)),
        lambda rng: depthwise(rng, U6, 4, (40, 30), 128),
    ],
    "extremes": [
        lambda rng, element=element, bits=bits, fill=fill, inputs=inputs: depthwise(
            rng, element, bits, (4, 6), 40, fill=fill, inputs=inputs
        )
        for element, bits in ((U8, 8), (I8, 8), (I8, 4))
        for fill, inputs in (("low", "high"), ("high", "high"), ("low", "low"))
    ],
    "packings": [
        *(lambda rng, bits=bits: depthwise(rng, U4, bits, (3, 9), 21) for bits in (2, 3, 7)),
        lambda rng: depthwise(rng, U4, 2, (3, 9), 34, kind=CodebookKind.TERNARY),
        lambda rng: depthwise(rng, U4, 8, (3, 9), 34, kind=CodebookKind.POW2),
    ],
    "epilogues": [
        lambda rng, style=style: depthwise(rng, U6, 4, (3, 13), 50, style=style) for style in STYLES
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
        if isinstance(step.op, Conv):
            functions = [item.function for item in step.all_kernels]
            for level in LEVELS:
                pattern = rf"conv_depthwise_stream_.*_{level.value.suffix}$"
                assert any(re.match(pattern, function) for function in functions), functions


@needs_gcc
@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.name)
def test_nothing_is_read_or_written_outside(level: Level, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for index, make in enumerate(CASES["shapes"][2:5]):
        case = make(rng)
        folder = tmp_path / str(index)
        vector = {**case.feeds, **Executor(case.graph).run(case.feeds)}
        program = CBackend("net", levels=(level,)).emit(case.graph, None, [vector])
        program.artifacts.write(folder)
        assert run_sanitized(folder).returncode == 0, case.name


def layer(data: Array, inputs: Range) -> DepthwiseLayer:
    part = Part("x", "uint8_t", data.shape[0])
    return DepthwiseLayer(part, (4, 4), (4, 4), inputs, data, (1, 1), (1, 1), (1, 1))


def test_sums_in_16_bits_only_where_they_fit() -> None:
    weights = np.full((32, 3, 3), 7)
    largest = 32767 // 63
    assert choose_form(layer(weights, Range(0, 63)), Level.AVX2, 0).name == "short"
    assert choose_form(layer(weights, Range(0, largest)), Level.AVX2, 0).name == "short"
    assert choose_form(layer(weights, Range(0, largest + 1)), Level.AVX2, 0).name == "wide"
    # Both signs at their limits: neither can cancel what the other reaches first.
    weights[:, 0] = -7
    assert choose_form(layer(weights, Range(-largest, largest)), Level.NEON, 0).name == "short"
    assert choose_form(layer(weights, Range(-520, 521)), Level.NEON, 0).name == "wide"
