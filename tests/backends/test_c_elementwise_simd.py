"""Layers without products of weights at every level: rows of several pixels, tails and extremes."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from qcompile.backends.c.backend import CBackend
from qcompile.numerics import Requantize
from qcompile.ops import Add, Affine, AveragePool, LinearResize, Mul, Rescale, SumOp
from qcompile.types import Array, IntType, TensorType
from tests.backends.compile_c import check_levels
from tests.op_cases.build import Style, activation, codes, sum_case
from tests.op_cases.case import OpCase
from tests.op_cases.linear_resize import align_corners, half_pixel
from tests.op_cases.side_by_side import side_by_side

CHANNELS = (1, 2, 3, 5, 7, 8, 9, 12, 16, 20, 24, 31, 40)
STYLES = (
    Style.TENSOR,
    Style.CHANNEL,
    Style.NEGATIVE,
    Style.NEGATIVE_CHANNEL,
    Style.CLAMPS,
    Style.CLAMPS_CHANNEL,
    Style.CLAMPS_NEGATIVE,
    Style.WIDE,
)
OUTPUTS = (IntType(6, signed=False), IntType(8), IntType(16), IntType(16, signed=False), IntType(7))
INPUTS = (IntType(8), IntType(6, signed=False), IntType(4))
KINDS = ("add", "add_broadcast", "mul", "affine", "rescale", "resize", "average", "extremes")


def operator(
    rng: np.random.Generator, kind: str, index: int, channels: int
) -> tuple[SumOp, dict[str, TensorType], dict[str, Array]]:
    """An operator with its input types and constants."""
    size = (1, channels, int(rng.integers(1, 9)), int(rng.integers(1, 40)))
    a, b = INPUTS[index % 3], INPUTS[(index // 3) % 3]
    x = {"x": activation(a, *size)}
    if kind in ("add", "extremes"):
        types = {"a": activation(a, *size), "b": activation(b, *size)}
        weights = (int(rng.integers(1, 4000)), int(rng.integers(-4000, 4000)))
        return Add(name="op", inputs=("a", "b"), outputs=("y",), weights=weights), types, {}
    if kind == "add_broadcast":
        other = ((1, channels, 1, 1), (1, 1, *size[2:]), (1, channels, size[2], 1))[index % 3]
        types = {"a": activation(a, *size), "b": activation(b, *other)}
        return Add(name="op", inputs=("a", "b"), outputs=("y",), weights=(5, -300)), types, {}
    if kind == "mul":
        types = {"a": activation(a, *size), "b": activation(b, 1, channels, 1, 1)}
        return Mul(name="op", inputs=("a", "b"), outputs=("y",)), types, {}
    if kind == "affine":
        scale = TensorType((channels,), IntType(12))
        op = Affine(name="op", inputs=("x", "scale"), outputs=("y",))
        return op, {**x, "scale": scale}, {"scale": codes(rng, scale)}
    if kind == "rescale":
        return Rescale(name="op", inputs=("x",), outputs=("y",)), x, {}
    if kind == "resize":
        make = (half_pixel, align_corners)[index % 2]
        taps = tuple(make(count, int(rng.integers(1, 2 * count + 2))) for count in size[2:])
        return LinearResize(name="op", inputs=("x",), outputs=("y",), taps=taps), x, {}
    window = tuple(min(3, count) for count in size[2:])
    pool = AveragePool(
        name="op",
        inputs=("x",),
        outputs=("y",),
        kernel=window,
        strides=(1 + index % 2, 1 + index % 3),
        pads_begin=tuple(count // 2 for count in window),
        pads_end=(0, 0),
        dilations=(1, 1),
        ceil_mode=False,
        count_include_pad=bool(index % 2),
    )
    return pool, x, {}


def cases_of_kind(kind: str) -> Iterator[OpCase]:
    rng = np.random.default_rng(KINDS.index(kind))
    for index, channels in enumerate(CHANNELS):
        op, types, constants = operator(rng, kind, index, channels)
        fill = ("low", "high")[index % 2] if kind == "extremes" else "random"
        style = STYLES[index % len(STYLES)]
        output = OUTPUTS[index % len(OUTPUTS)]
        yield sum_case(rng, f"{kind}_{channels}", op, types, constants, style, fill, output)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
@pytest.mark.parametrize("kind", KINDS)
def test_every_level_equals_the_simulator(kind: str, tmp_path: Path) -> None:
    check_levels(side_by_side(kind, list(cases_of_kind(kind))), tmp_path)


def test_short_channels_are_repeated_to_fill_vectors() -> None:
    rng = np.random.default_rng(0)
    types = {"x": activation(IntType(8), 1, 3, 4, 4), "scale": TensorType((3,), IntType(8))}
    op = Affine(name="op", inputs=("x", "scale"), outputs=("y",))
    data = {"scale": codes(rng, types["scale"])}
    case = sum_case(rng, "affine", op, types, data, Style.CHANNEL, output=IntType(8))
    for levels, count in (((), 3), (CBackend().levels, 48)):
        program = CBackend(levels=levels).emit(case.graph)
        (step,) = program.layout.steps
        (factors,) = [table for table in step.tables if table.name.endswith("factors")]
        np.testing.assert_array_equal(factors.values, np.tile(data["scale"], count // 3))


def test_layers_alike_but_for_the_epilogue_of_a_level(tmp_path: Path) -> None:
    """Products that fit in 32 bits need no limits before them; portable kernels have one name."""
    rng = np.random.default_rng(9)
    x = {"x": activation(IntType(8), 1, 20, 6, 6)}
    op = AveragePool(
        name="op",
        inputs=("x",),
        outputs=("y",),
        kernel=(2, 2),
        strides=(1, 1),
        pads_begin=(0, 0),
        pads_end=(0, 0),
        dilations=(1, 1),
    )
    case = sum_case(rng, "case", op, x, {}, Style.CHANNEL, output=IntType(8))
    cases = []
    for name, limit, multiplier, shift in (("large", 60, 1 << 23, 22), ("small", 4096, 3, 6)):
        (layer,) = case.graph.ops
        assert isinstance(layer, AveragePool)
        assert isinstance(layer.epilogue, Requantize)
        epilogue = dataclasses.replace(
            layer.epilogue,
            multipliers=(multiplier,) * 20,
            biases=(5,) * 20,
            shifts=(shift,) * 20,
            lows=(-120,) * 20,
            highs=(120,) * 20,
            acc_low=(-limit,) * 20,
            acc_high=(limit,) * 20,
        )
        changed = dataclasses.replace(layer, epilogue=epilogue)
        graph = dataclasses.replace(case.graph, ops=(changed,))
        cases.append(OpCase(name, graph, case.feeds))
    both = side_by_side("both", cases)
    text = str(check_levels(both, tmp_path).artifacts.files["model.c"])
    for name in ("requantize_x86_i32_i8_each", "requantize_x86_i32_i8_each_unclipped"):
        assert f" average_pool_i8_{name}_avx2(" in text
