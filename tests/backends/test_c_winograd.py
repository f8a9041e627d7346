"""Convolution by Winograd F(2x2,3x3): where it is taken, and that it equals the simulator."""

from __future__ import annotations

import ctypes
import dataclasses
import re
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from qcompile.backends.c.backend import CBackend
from qcompile.backends.c.emitted import CProgram
from qcompile.backends.c.levels import X86_LEVELS
from qcompile.graph import Graph, Op, Stage
from qcompile.ops import Concat, Conv
from qcompile.passes import kernel_costs
from qcompile.sim.executor import Executor
from qcompile.types import Array, Codebook, CodebookKind, IntType, Quantization, TensorType
from tests.backends.compile_c import build, call
from tests.op_cases.build import Style, activation, codes, limited, random_epilogue
from tests.op_cases.case import OpCase

U6, I6, TERNARY = IntType(6, signed=False), IntType(6), IntType(2, narrow=True)
W4 = IntType(4, narrow=True)
NAMES = {level.value.suffix for level in X86_LEVELS}


def conv_case(
    rng: np.random.Generator,
    name: str,
    channels: tuple[int, ...],
    filters: int,
    size: tuple[int, int],
    pads: tuple[int, int, int, int] = (1, 1, 1, 1),
    element: IntType = U6,
    weights: Array | IntType = W4,
    style: Style = Style.CHANNEL,
    fill: str = "random",
    output: IntType = U6,
) -> OpCase:
    """A 3x3 convolution of the concatenation of tensors of `channels` channels."""
    shape = (filters, sum(channels), 3, 3)
    kind = weights if isinstance(weights, IntType) else W4
    scales = Quantization((0.1,) * filters, 0)
    w = TensorType(shape, kind, scales, Codebook(CodebookKind.UNIFORM, kind.high - kind.low + 1))
    data = codes(rng, w) if isinstance(weights, IntType) else weights.astype(np.int8)
    parts = [f"x{index}" for index in range(len(channels))]
    types = {
        part: activation(element, 1, count, *size)
        for part, count in zip(parts, channels, strict=True)
    }
    feeds = {part: codes(rng, types[part], fill) for part in parts}
    ops: list[Op] = []
    x = parts[0]
    if len(parts) > 1:
        x = "x"
        ops.append(Concat(name="join", inputs=tuple(parts), outputs=(x,), axis=1))
        types[x] = activation(element, 1, sum(channels), *size)
    op = Conv(
        name=name,
        inputs=(x, "w"),
        outputs=("y",),
        strides=(1, 1),
        pads_begin=pads[:2],
        pads_end=pads[2:],
        dilations=(1, 1),
        groups=1,
    )
    reach = op.reach([types[x], w], [None, data])
    epilogue = random_epilogue(rng, reach, filters, output, style)
    ops.append(dataclasses.replace(op, epilogue=epilogue, accumulator=IntType.holding(reach)))
    out = activation(output, *op.infer_shape([types[x].shape, shape]))
    types |= {"w": w, "y": limited(out, epilogue, 1)}
    graph = Graph(name, Stage.INTEGER, tuple(parts), ("y",), tuple(ops), types, {"w": data})
    return OpCase(name, graph, feeds)


def winograd_levels(program: CProgram) -> set[str]:
    """The levels whose variant of the convolution is Winograd's."""
    text = program.artifacts.files[f"{program.layout.entry}.c"]
    return set(re.findall(r"conv_winograd_\w+_(avx2|vnni|vnni512)\(&", text))


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Winograd wherever it is exact, be it slower."""
    monkeypatch.setattr(kernel_costs, "winograd_cycles", lambda *_: 0.0)


def check(cases: Sequence[OpCase], folder: Path, levels: set[str] = NAMES) -> None:
    """Every case takes Winograd's variant at `levels`, and each level equals the simulator."""
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    programs = [CBackend(entry=f"case_{i}").emit(case.graph) for i, case in enumerate(cases)]
    for case, program in zip(cases, programs, strict=True):
        assert winograd_levels(program) == levels, case.name
    # One library for all levels: the cap is a variable.
    cap = folder / "cap.h"
    cap.write_text("__attribute__((weak)) int level_cap = 0;\n")
    flags = ("-O1", "-include", str(cap), "-DQCOMPILE_LEVEL_MAX=level_cap")
    library = build(programs, folder, flags=flags)
    for rank in range(4):
        ctypes.c_int.in_dll(library, "level_cap").value = rank
        for case, program in zip(cases, programs, strict=True):
            expected = Executor(case.graph).run(case.feeds)["y"]
            actual = call(library, program, case.feeds)["y"]
            np.testing.assert_array_equal(actual, expected, err_msg=f"{case.name}, level {rank}")


@pytest.mark.usefixtures("always")
def test_shapes(tmp_path: Path) -> None:
    """Odd sizes, padding on any side, tails of channels and filters, joined inputs, bands."""
    rng = np.random.default_rng(11)
    cases = [
        conv_case(rng, "one_tile", (8,), 3, (2, 2)),
        conv_case(rng, "one_pixel", (8,), 5, (3, 3), (0, 0, 0, 0)),
        conv_case(rng, "odd", (16,), 16, (7, 13)),
        conv_case(rng, "upper_left", (36,), 24, (6, 9), (1, 1, 0, 0), I6),
        conv_case(rng, "lower_right", (4,), 20, (9, 6), (0, 0, 1, 1)),
        conv_case(rng, "left_right", (40,), 50, (5, 8), (0, 1, 0, 1), IntType(5, signed=False)),
        conv_case(rng, "joined", (16, 8), 32, (11, 12)),
        conv_case(rng, "joined_oddly", (12, 20, 4), 18, (8, 5), element=I6),
        conv_case(rng, "wide", (32,), 16, (3, 150), weights=TERNARY),
        conv_case(rng, "high", (96,), 40, (60, 40), weights=TERNARY),
        conv_case(rng, "deep", (256,), 96, (8, 8)),
    ]
    check(cases, tmp_path)
