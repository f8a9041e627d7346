"""Attention over tokens in one step: the bits of its three operators, in less memory."""

from __future__ import annotations

import dataclasses
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from qcompile.backends.c import backend as backend_module
from qcompile.backends.c.backend import CBackend
from qcompile.backends.c.levels import Level
from qcompile.graph import Graph, Op, Stage
from qcompile.ops import Add, BatchMatMul, Softmax, Transpose
from qcompile.passes.fuse_attention import FuseAttention
from qcompile.sim.executor import Executor
from qcompile.types import MASK, Array, IntType, Shape, TensorType
from tests.backends.compile_c import check_levels
from tests.backends.test_c_winograd import build_sanitized, copied, run_sanitized
from tests.op_cases.build import Style, activation, codes, random_epilogue
from tests.op_cases.case import OpCase
from tests.op_cases.side_by_side import side_by_side

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
I6, I8, I12, I16 = IntType(6), IntType(8), IntType(12), IntType(16)
U8, U14, U15, U16 = (IntType(bits, signed=False) for bits in (8, 14, 15, 16))


def product(
    rng: np.random.Generator,
    name: str,
    factors: tuple[str, str],
    types: dict[str, TensorType],
    output: str,
    element: IntType,
    style: Style = Style.TENSOR,
    mass: int | None = None,
) -> BatchMatMul:
    """A product with an epilogue for its sums; adds the type of its output."""
    op = BatchMatMul(name=name, inputs=factors, outputs=(output,), mass=mass)
    kinds = [types[value] for value in factors]
    shape = op.infer_shape([kind.shape for kind in kinds])
    reach = op.reach(kinds, [None, None])
    epilogue = random_epilogue(rng, reach, shape[-1], element, style)
    types[output] = activation(element, *shape)
    return dataclasses.replace(op, epilogue=epilogue, accumulator=IntType.holding(reach))


def attention(
    name: str,
    batch: Shape = (1,),
    sizes: tuple[int, int] = (9, 9),
    depths: tuple[int, int] = (16, 16),
    inputs: tuple[IntType, IntType, IntType] = (I8, I8, I8),
    scores: IntType = I12,
    weights: IntType = U15,
    style: Style = Style.TENSOR,
    mask: Shape | None = None,
    bias: Shape | None = None,
    moved: bool = False,
    turned: bool = False,
) -> OpCase:
    """Queries [.., sizes[0], depths[0]], keys [.., depths[0], sizes[1]], values [.., sizes[1],
    depths[1]]. `moved`: all lie as [.., tokens, heads, depth] outside. `turned`: the last product
    is that of values [.., depths[1], sizes[1]] and weights [.., sizes[1], sizes[0]]."""
    rng = np.random.default_rng(list(name.encode()))
    queries, keys = sizes
    types = {
        "q": activation(inputs[0], *batch, queries, depths[0]),
        "k": activation(inputs[1], *batch, depths[0], keys),
        "v": activation(inputs[2], *batch, keys, depths[1]),
    }
    ops: list[Op] = [product(rng, "scores", ("q", "k"), types, "s", scores, style)]
    spread = scores.high - scores.low
    steep = float(rng.uniform(2, 8)) / spread
    table = tuple(math.floor(2**15 * math.exp(-d * steep) + 0.5) for d in range(spread + 1))
    parts: tuple[str, ...] = ("s",)
    constants: dict[str, Array] = {}
    if bias is not None:
        types["bias"], types["b"] = activation(I8, *bias), types["s"]
        constants["bias"] = codes(rng, types["bias"])
        add = Add(name="add", inputs=("bias", "s"), outputs=("b",), weights=(-700, 31))
        reach = add.reach([types["bias"], types["s"]], [None, None])
        epilogue = random_epilogue(rng, reach, 1, scores, Style.TENSOR)
        ops.append(dataclasses.replace(add, epilogue=epilogue, accumulator=IntType.holding(reach)))
        parts = ("b",)
    if mask is not None:
        types["mask"] = TensorType(mask, MASK)
        constants["mask"] = rng.integers(0, 2, mask).astype(MASK.storage)
        constants["mask"][..., 0, :] = 0  # nothing takes part
        parts = (*parts, "mask")
    types["w"] = activation(weights, *batch, queries, keys)
    levels = weights.high
    ops.append(
        Softmax(
            name="softmax",
            inputs=parts,
            outputs=("w",),
            axis=len(batch) + 1,
            table=table,
            levels=levels,
        )
    )
    mass = levels + (keys + 1) // 2
    if turned:
        axes = tuple(range(len(batch)))
        order = (*axes, len(batch) + 1, len(batch))
        ops.append(Transpose(name="turn", inputs=("w",), outputs=("t",), permutation=order))
        types["t"] = activation(weights, *batch, keys, queries)
        types["v"] = activation(inputs[2], *batch, depths[1], keys)
        ops.append(product(rng, "product", ("v", "t"), types, "y", I8))
    else:
        ops.append(product(rng, "product", ("w", "v"), types, "y", I8, Style.CHANNEL, mass))
    given, result = {"q": "q", "k": "k", "v": "v"}, "y"
    if moved:
        swap = {"q": (0, 2, 1, 3), "k": (0, 3, 1, 2), "v": (0, 2, 1, 3)}
        for value, order in swap.items():
            given[value] = f"{value}_in"
            kind = types[value]
            types[f"{value}_in"] = dataclasses.replace(
                kind, shape=tuple(kind.shape[axis] for axis in order)
            )
            back = tuple(int(axis) for axis in np.argsort(order))
            move = Transpose(
                name=f"move_{value}",
                inputs=(f"{value}_in",),
                outputs=(value,),
                permutation=back,
            )
            ops.insert(0, move)
        ops.append(Transpose(name="back", inputs=("y",), outputs=("z",), permutation=(0, 2, 1, 3)))
        shape = types["y"].shape
        types["z"] = dataclasses.replace(types["y"], shape=(shape[0], shape[2], shape[1], shape[3]))
        result = "z"
    names = tuple(given.values())
    graph = Graph(name, Stage.INTEGER, names, (result,), tuple(ops), types, constants)
    return OpCase(name, graph, {value: codes(rng, types[value]) for value in names})


CASES = [
    attention("class_token", (1, 4), (65, 65)),
    attention("heads", (1, 3), (17, 33), (12, 20), moved=True),
    attention("windows", (3, 2), (9, 9), (6, 5), mask=(3, 1, 9, 9)),
    attention("causal", (2,), (11, 70), (16, 64), mask=(11, 70)),
    attention("same_mask_for_all_keys", (1,), (5, 6), mask=(1, 5, 1)),
    attention("narrow", (2,), (10, 40), (8, 8), (I6, I6, I6), IntType(10), U14),
    attention("bytes", (1,), (7, 20), (3, 1), (U8, I8, U8), I8, U8, Style.NEGATIVE),
    attention("each_key", (1,), (4, 19), (5, 17), style=Style.CHANNEL),
    attention("single", (1,), (1, 1), (1, 1)),
    attention("wide_weights", (1,), (6, 18), weights=U16),
    attention("wide_factors", (1,), (6, 18), inputs=(I16, I16, I16), style=Style.WIDE),
    attention("positions", (2, 3), (9, 18), mask=(2, 1, 9, 18), bias=(3, 9, 18)),
    attention("turned", (3,), (9, 20), (8, 6), bias=(1,), turned=True),
    attention("thresholds", (1,), (6, 130), scores=IntType(4), style=Style.THRESHOLDS),
]


def products_alone() -> OpCase:
    """More columns than sums are held of, rows and columns that are no multiples of a vector."""
    rng = np.random.default_rng(7)
    types = {"a": activation(U15, 2, 13, 21), "b": activation(I8, 2, 21, 75)}
    op = product(rng, "alone", ("a", "b"), types, "y", I8, Style.CHANNEL)
    graph = Graph("alone", Stage.INTEGER, ("a", "b"), ("y",), (op,), types, {})
    return OpCase("alone", graph, {value: codes(rng, types[value]) for value in "ab"})


@needs_gcc
def test_all_levels_equal_the_simulator(tmp_path: Path) -> None:
    case = side_by_side("all", [*CASES, products_alone()])
    assert len(FuseAttention().run(case.graph)) == len(CASES)
    program = check_levels(case, tmp_path)
    text = str(program.artifacts.files["model.c"])
    for kernel in (
        "batch_matmul_",
        "softmax_row_x86_",
        "softmax_row_",
        "dot_tile_x86_vnni512",
        "dot_tile_x86_avx2",
    ):
        assert f" {kernel}" in text, kernel
    products = [step for step in program.layout.steps if isinstance(step.op, BatchMatMul)]
    assert [len(step.inside) for step in products] == [
        *(len(case.graph.ops) - 1 - 4 * ("move_q" in case.graph.by_name) for case in CASES),
        0,
    ]


@needs_gcc
def test_builds_with_taps_keep_scores_and_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "cc-o0"
    script.write_text('#!/bin/sh\nexec gcc "$@" -O0 -DQCOMPILE_KEEP_FLAGS\n')
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))
    case = attention("masked", (1, 2), (5, 6), (4, 4), mask=(5, 6))
    graph = case.graph
    sizes = {value: graph.types[value].size for value in ("s", "w", "y")}
    for levels, builds in (((Level.AVX2,), 3), ((), 2)):
        backend = CBackend(levels=levels)
        program = backend.emit(graph)
        found = backend.verify(graph, program, [case.feeds])
        assert found.passed
        assert found.values == 3
        assert found.elements == sum(sizes.values()) + (builds - 1) * sizes["y"]
    text = str(program.artifacts.files["model.c"])
    stored = "*kept_weights++ = "
    assert stored in text
    files = {**program.artifacts.files, "model.c": text.replace(stored, f"{stored}1 ^ ")}
    artifacts = dataclasses.replace(program.artifacts, files=files)
    changed = dataclasses.replace(program, artifacts=artifacts)
    wrong = backend.verify(graph, changed, [case.feeds]).mismatch
    assert wrong is not None
    assert wrong.value == "w"
    assert wrong.index == (0, 0, 0, 0)


@needs_gcc
def test_nothing_is_read_or_written_outside(tmp_path: Path) -> None:
    """Under the sanitizers, with an arena that is exactly as large as announced."""
    case = side_by_side("all", [CASES[1], CASES[3], CASES[9]])
    vector = {**case.feeds, **Executor(case.graph).run(case.feeds)}
    CBackend("net").emit(case.graph, None, [vector]).artifacts.write(tmp_path)
    build_sanitized(tmp_path)
    done = run_sanitized(tmp_path, 1)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_arena_has_no_matrix_of_all_tokens() -> None:
    tokens, heads = 512, 4
    case = attention("large", (1, heads), (tokens, tokens), moved=True)
    program = CBackend().emit(case.graph)
    assert program.arena_bytes < tokens * tokens
    kept = {item.value: item.count for _, _, item in program.layout.kept}
    assert kept == {"s": heads * tokens**2, "w": heads * tokens**2}
    assert program.layout.debug.size > 4 * heads * tokens**2
    small = CBackend(mcu=True).emit(case.graph)
    assert small.arena_bytes < program.arena_bytes


def test_scores_that_are_too_large_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is compared is the result alone; a network is not refused for its taps."""
    case = attention("large", (1, 4), (256, 256))
    whole = CBackend().emit(case.graph).layout
    monkeypatch.setattr(backend_module, "LARGEST_ARENA", whole.debug.size - 1)
    layout = CBackend().emit(case.graph).layout
    assert not layout.kept
    assert layout.debug.size < whole.debug.size
    assert layout.release.size == whole.release.size


def fused(graph: Graph) -> int:
    return len(FuseAttention().run(graph))


@pytest.mark.parametrize("value", ["s", "w"])
def test_what_others_read_is_a_tensor(value: str) -> None:
    graph = attention("read").graph
    assert fused(graph) == 1
    other = dataclasses.replace(
        graph,
        ops=(*graph.ops, copied(value, "other")),
        types={**graph.types, "other": graph.types[value]},
        outputs=("y", "other"),
    )
    assert fused(other) == 0
    assert fused(dataclasses.replace(graph, outputs=("y", value))) == 0


def test_a_softmax_over_queries_is_none() -> None:
    graph = attention("queries").graph
    ops = tuple(
        dataclasses.replace(op, axis=1) if isinstance(op, Softmax) else op for op in graph.ops
    )
    assert fused(dataclasses.replace(graph, ops=ops)) == 0


def test_values_of_a_larger_batch_are_none() -> None:
    """Weights would be computed again for each matrix of values."""
    graph = attention("larger").graph
    types = {**graph.types}
    for value in ("v", "y"):
        types[value] = dataclasses.replace(types[value], shape=(2, *graph.types[value].shape[1:]))
    assert fused(dataclasses.replace(graph, types=types)) == 0
