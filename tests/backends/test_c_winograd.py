"""Convolution by Winograd F(2x2,3x3): where it is taken, and that it equals the simulator."""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from qcompile.backends.c.backend import CBackend
from qcompile.backends.c.direct_layer import DirectLayer, Part, conv_layer
from qcompile.backends.c.emitted import CProgram
from qcompile.backends.c.levels import X86_LEVELS, Level
from qcompile.backends.c.winograd_ranges import pair_runs, transformed
from qcompile.graph import Graph, Op, Stage
from qcompile.ops import Concat, Conv, MaxPool
from qcompile.passes import kernel_costs
from qcompile.passes.kernel_costs import RATES, ConvShape, winograd_pays
from qcompile.sim.executor import Executor
from qcompile.types import (
    Array,
    Codebook,
    CodebookKind,
    CodeLimits,
    IntType,
    Quantization,
    Range,
    TensorType,
)
from tests.backends.compile_c import SANITIZERS, STRICT, build_capped, call
from tests.op_cases.build import Style, activation, codes, limited, random_epilogue
from tests.op_cases.case import OpCase

U6, I6, TERNARY = IntType(6, signed=False), IntType(6), IntType(2, narrow=True)
W4 = IntType(4, narrow=True)
needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
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
    strides: tuple[int, int] = (1, 1),
    kind: IntType | None = None,
    window: int = 3,
) -> OpCase:
    """A 3x3 convolution of the concatenation of tensors of `channels` channels."""
    shape = (filters, sum(channels), window, window)
    kind = kind or (weights if isinstance(weights, IntType) else IntType(8, narrow=True))
    scales = Quantization((0.1,) * filters, 0)
    w = TensorType(shape, kind, scales, Codebook(CodebookKind.UNIFORM, kind.high - kind.low + 1))
    data = codes(rng, w) if isinstance(weights, IntType) else weights.astype(np.int8)
    inputs = [f"x{index}" for index in range(len(channels))]
    types = {
        value: activation(element, 1, count, *size)
        for value, count in zip(inputs, channels, strict=True)
    }
    feeds = {value: codes(rng, types[value], fill) for value in inputs}
    ops: list[Op] = []
    x = inputs[0]
    if len(inputs) > 1:
        # Concatenations are read in parts where these lie channels last, as outputs of operators.
        parts = [value.replace("x", "part") for value in inputs]
        for source, part in zip(inputs, parts, strict=True):
            types[part] = types[source]
            ops.append(copied(source, part))
        x = "x"
        ops.append(Concat(name="join", inputs=tuple(parts), outputs=(x,), axis=1))
        types[x] = activation(element, 1, sum(channels), *size)
    op = Conv(
        name=name,
        inputs=(x, "w"),
        outputs=("y",),
        strides=strides,
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
    graph = Graph(name, Stage.INTEGER, tuple(inputs), ("y",), tuple(ops), types, {"w": data})
    return OpCase(name, graph, feeds)


def copied(source: str, target: str) -> MaxPool:
    """A pool of single pixels."""
    one, none = (1, 1), (0, 0)
    return MaxPool(
        name=f"copy_{source}",
        inputs=(source,),
        outputs=(target,),
        kernel=one,
        strides=one,
        pads_begin=none,
        pads_end=none,
        dilations=one,
    )


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
    programs = [CBackend(entry=f"case_{i}").emit(case.graph) for i, case in enumerate(cases)]
    for case, program in zip(cases, programs, strict=True):
        assert winograd_levels(program) == levels, case.name
    library = build_capped(programs, folder)
    for rank in range(4):
        ctypes.c_int.in_dll(library, "level_cap").value = rank
        for case, program in zip(cases, programs, strict=True):
            expected = Executor(case.graph).run(case.feeds)["y"]
            actual = call(library, program, case.feeds)["y"]
            np.testing.assert_array_equal(actual, expected, err_msg=f"{case.name}, level {rank}")


@needs_gcc
@pytest.mark.usefixtures("always")
def test_shapes(tmp_path: Path) -> None:
    """Odd sizes, padding on any side, tails of channels and filters, joined inputs, bands."""
    rng = np.random.default_rng(11)
    cases = [
        conv_case(rng, "one_tile", (8,), 3, (2, 2)),
        conv_case(rng, "one_pixel", (8,), 5, (3, 3), (0, 0, 0, 0)),
        conv_case(rng, "odd", (16,), 16, (7, 13), (2, 3, 3, 2)),
        conv_case(rng, "upper_left", (36,), 24, (6, 9), (1, 1, 0, 0), I6),
        conv_case(rng, "lower_right", (4,), 20, (9, 6), (0, 0, 1, 1)),
        conv_case(rng, "left_right", (40,), 50, (5, 8), (0, 1, 0, 1), IntType(5, signed=False)),
        conv_case(rng, "joined", (16, 8), 32, (11, 12)),
        conv_case(rng, "joined_oddly", (12, 20, 4), 18, (8, 5), element=I6),
        conv_case(rng, "bands", (96,), 40, (60, 40), weights=TERNARY),
        conv_case(rng, "blocks", (512,), 80, (4, 5)),
    ]
    check(cases, tmp_path)


@needs_gcc
@pytest.mark.usefixtures("always")
def test_types(tmp_path: Path) -> None:
    """Epilogues of each kind, narrow and wide outputs, limited codes."""
    rng = np.random.default_rng(12)
    styles = [
        (Style.TENSOR, U6),
        (Style.NEGATIVE_CHANNEL, IntType(8)),
        (Style.WIDE, IntType(16)),
        (Style.CLAMPS_CHANNEL, U6),
        (Style.THRESHOLDS_CHANNEL, TERNARY),
    ]
    cases = [
        conv_case(rng, style.value, (8,), 10, (5, 6), style=style, output=output)
        for style, output in styles
    ]
    limited = [
        limited_case(rng, [-20], [43]),
        limited_case(rng, range(-63, -51), range(0, 12)),
    ]
    check([*cases, *limited, mixed_case(rng)], tmp_path)


def limited_case(rng: np.random.Generator, lows: Sequence[int], highs: Sequence[int]) -> OpCase:
    """The codes of the input need 8 bits, but those of a channel are fewer than 65."""
    case = conv_case(rng, "limited", (12,), 16, (5, 6), element=IntType(8))
    types = dict(case.graph.types)
    limits = CodeLimits(tuple(lows), tuple(highs))
    types["x0"] = dataclasses.replace(types["x0"], limits=limits)
    ends = np.broadcast_to(np.array([lows, highs]), (2, 12))
    chosen = rng.integers(0, 2, types["x0"].shape)
    data = np.where(chosen, ends[1][:, None, None], ends[0][:, None, None])
    graph = dataclasses.replace(case.graph, types=types)
    return OpCase(case.name, graph, {"x0": data.astype(np.int8)})


def mixed_case(rng: np.random.Generator) -> OpCase:
    """Signed and unsigned codes side by side, all at their limits."""
    case = conv_case(rng, "mixed", (12, 20), 16, (5, 6), element=IntType(7))
    unsigned, signed = activation(U6, 1, 12, 5, 6), activation(I6, 1, 20, 5, 6)
    parts = {"x0": unsigned, "part0": unsigned, "x1": signed, "part1": signed}
    types = {**case.graph.types, **parts}
    feeds = {
        "x0": rng.choice([0, 63], (1, 12, 5, 6)).astype(np.uint8),
        "x1": rng.choice([-32, 31], (1, 20, 5, 6)).astype(np.int8),
    }
    return OpCase(case.name, dataclasses.replace(case.graph, types=types), feeds)


@needs_gcc
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("element", [U6, I6], ids=str)
def test_extremes(element: IntType, tmp_path: Path) -> None:
    """Weights and inputs that drive the products of every position to their limits."""
    rng = np.random.default_rng(13)
    signs = np.array([[1, 1, 1], [1, -1, 1], [2, 0, 0], [0, 0, 2], [1, 0, -1], [-1, 1, 1]])
    kinds = [
        np.clip(7 * np.outer(rows, columns), -7, 7) * sign
        for rows in signs
        for columns in signs
        for sign in (1, -1)
    ]
    data = np.stack(kinds)[:, None].repeat(24, axis=1)
    # One half alternates in sign by channel, so that its pairs of products cancel.
    data[::2, 1::2] *= -1
    case = conv_case(rng, "extreme", (24,), len(data), (9, 10), element=element, weights=data)
    program = CBackend(entry="case_0").emit(case.graph)
    assert winograd_levels(program) == NAMES
    library = build_capped([program], tmp_path)
    for name, codes_of_input in extreme_inputs(rng, element, (24, 9, 10)):
        feeds = {"x0": codes_of_input[None]}
        expected = Executor(case.graph).run(feeds)["y"]
        for rank in range(4):
            ctypes.c_int.in_dll(library, "level_cap").value = rank
            actual = call(library, program, feeds)["y"]
            np.testing.assert_array_equal(actual, expected, err_msg=f"{name}, level {rank}")


def extreme_inputs(
    rng: np.random.Generator, element: IntType, shape: tuple[int, int, int]
) -> Iterator[tuple[str, Array]]:
    """Only the lowest and highest code: stripes of one and two pixels, shifted, and noise."""
    low, high = element.low, element.high
    rows, columns = np.arange(shape[1])[:, None], np.arange(shape[2])
    for down, across, shift in itertools.product((1, 2, 99), (1, 2, 99), (0, 1)):
        pattern = (((rows + shift) // down + (columns + shift) // across) % 2).astype(bool)
        picture = np.where(pattern, high, low).astype(element.storage)
        yield f"stripes {down} {across} {shift}", np.broadcast_to(picture, shape).copy()
    yield "noise", rng.choice([low, high], shape).astype(element.storage)


def levels_of(case: OpCase) -> set[str]:
    return winograd_levels(CBackend(entry="net").emit(case.graph))


@pytest.mark.usefixtures("always")
def test_what_does_not_fit_is_computed_directly() -> None:
    rng = np.random.default_rng(14)
    size = (5, 6)
    assert levels_of(conv_case(rng, "wide inputs", (8,), 4, size, element=IntType(7))) == set()
    assert levels_of(conv_case(rng, "no dwords", (6,), 4, size)) == set()
    assert levels_of(conv_case(rng, "no whole bytes", (4,), 3, size)) == set()
    strided = conv_case(rng, "stride", (8,), 4, size, strides=(2, 1))
    assert levels_of(strided) == set()
    weights = np.zeros((4, 8, 3, 3))
    # Nine times 14 is 126, 15 is too much; two products of 126 and 254 exceed 16 bits.
    weights[0, 0] = 14
    assert levels_of(conv_case(rng, "single", (8,), 4, size, weights=weights)) == NAMES
    weights[0, 1] = 14
    pairs = conv_case(rng, "pair", (8,), 4, size, weights=weights)
    assert levels_of(pairs) == NAMES - {"avx2"}
    weights[0, 0] = 15
    assert levels_of(conv_case(rng, "sum", (8,), 4, size, weights=weights)) == set()
    # 32 times 4 is 128: the outer positions count twice, and twice again.
    weights[0, 0] = 0
    weights[0, 0, 0, 0] = 32
    corner = conv_case(rng, "corner", (8,), 4, size, weights=weights)
    assert levels_of(corner) == set()


@needs_gcc
@pytest.mark.usefixtures("always")
def test_wide_weights(tmp_path: Path) -> None:
    """Weights of 5 bits whose sums happen to be small, in each way to pack them."""
    rng = np.random.default_rng(15)
    cases = []
    for index in range(3):
        weights = rng.integers(-3, 4, (20, 16, 3, 3))
        weights[index, 3, 1, 1] = 15
        weights[index, 2, 0, 2] = -14
        kind = IntType(5 + index, narrow=True)
        cases.append(conv_case(rng, f"wide_{index}", (16,), 20, (6, 7), weights=weights, kind=kind))
    check(cases, tmp_path)


@needs_gcc
@pytest.mark.usefixtures("always")
def test_threads(tmp_path: Path) -> None:
    rng = np.random.default_rng(16)
    cases = [
        conv_case(rng, "bands", (40,), 40, (33, 70)),
        conv_case(rng, "blocks", (512,), 80, (4, 5)),
    ]
    programs = [CBackend(entry=f"case_{i}").emit(case.graph) for i, case in enumerate(cases)]
    library = build_capped(programs, tmp_path, ("-fopenmp",))
    threads = ctypes.CDLL("libgomp.so.1")
    for rank, count in itertools.product((1, 2, 3), (2, 3, 5)):
        threads.omp_set_num_threads(count)
        ctypes.c_int.in_dll(library, "level_cap").value = rank
        for case, program in zip(cases, programs, strict=True):
            expected = Executor(case.graph).run(case.feeds)["y"]
            actual = call(library, program, case.feeds)["y"]
            np.testing.assert_array_equal(actual, expected, err_msg=f"{case.name}, level {rank}")
    threads.omp_set_num_threads(1)


@needs_gcc
@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("level", X86_LEVELS, ids=lambda level: level.name)
def test_nothing_is_read_or_written_outside(level: Level, tmp_path: Path) -> None:
    """Under the sanitizers, with an arena that is exactly as large as announced."""
    rng = np.random.default_rng(17)
    cases = [
        conv_case(rng, "odd", (12,), 18, (7, 5)),
        conv_case(rng, "joined", (40, 8), 50, (4, 9), (1, 0, 0, 1), I6),
    ]
    for case in cases:
        vector = {**case.feeds, **Executor(case.graph).run(case.feeds)}
        program = CBackend("net", levels=(level,)).emit(case.graph, None, [vector])
        assert winograd_levels(program) == {level.value.suffix}
        folder = tmp_path / case.name
        program.artifacts.write(folder)
        build_sanitized(folder)
        for threads in range(1, 5):
            done = run_sanitized(folder, threads)
            assert done.returncode == 0, done.stdout + done.stderr


def build_sanitized(folder: Path) -> None:
    """The emitted test program under the sanitizers."""
    command = ["gcc", *STRICT, *SANITIZERS, "-fopenmp", "-o", "test", "main.c", "net.c"]
    subprocess.run(command, cwd=folder, check=True)


def run_sanitized(folder: Path, threads: int) -> subprocess.CompletedProcess[str]:
    """Its status says whether vectors agree."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    return subprocess.run(
        ["./test"], cwd=folder, capture_output=True, text=True, check=False, env=environment
    )


def layer_of(weights: Array, inputs: Range) -> DirectLayer:
    """A convolution of 8x8 pixels with weights [filters, 3, 3, channels]."""
    part = Part("x", "uint8_t", weights.shape[3])
    return conv_layer([part], (8, 8), (8, 8), inputs, weights, (1, 1), (1, 1), (1, 1))


def test_runs_of_pairs_never_overflow() -> None:
    rng = np.random.default_rng(18)
    for _ in range(30):
        limit = int(rng.integers(1, 13))
        weights = rng.integers(-limit, limit + 1, (20, 3, 3, 4 * int(rng.integers(1, 40))))
        layer = layer_of(weights, Range(0, 63))
        moved = transformed(layer, 1)
        runs = pair_runs(layer, moved)
        pairs = moved.reshape(20, -1, 2, 2, 16)
        worst = [255 * np.maximum(sign * pairs, 0).sum(axis=3) for sign in (1, -1)]
        if runs is None:
            assert max(int(item.max()) for item in worst) > 32767
            continue
        for block, position in itertools.product(range(2), range(16)):
            ends = np.cumsum(runs[block, position].astype(int))
            assert ends[-1] == weights.shape[3] // 4
            filters = slice(16 * block, 16 * block + 16)
            for start, end in itertools.pairwise([0, *ends]):
                for item in worst:
                    assert (item[filters, start:end, :, position].sum(axis=1) <= 32767).all()


def test_the_cost_model_leaves_few_channels_to_direct_kernels() -> None:
    for level in RATES:
        assert winograd_pays(ConvShape(64, 64, 64, 64), level)
        assert winograd_pays(ConvShape(512, 512, 16, 16), level)
        assert not winograd_pays(ConvShape(4, 8, 256, 256), level)
        # Weights of a tiny map are used too rarely to be worth a transformation.
        assert not winograd_pays(ConvShape(256, 256, 1, 1), level)
