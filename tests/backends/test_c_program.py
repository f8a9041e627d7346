"""The emitted files as a whole: warnings, sizes, names, build files, verification."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from qcompile.backends.artifacts import Artifacts
from qcompile.backends.c.backend import CBackend, CProgram
from qcompile.backends.c.compiler import find_compiler
from qcompile.backends.c.names import comment_lines
from qcompile.backends.c.verify import verify
from qcompile.errors import ToolError, UnsupportedError, UsageError
from qcompile.graph import Graph
from qcompile.numerics import Requantize
from qcompile.ops import Conv
from qcompile.packing import TernaryPacking
from qcompile.sim.executor import Executor
from qcompile.types import CodebookKind, IntType
from tests.backends.compile_c import SANITIZERS, STRICT, build, call
from tests.backends.networks import float_unet, image, unet

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


def with_vectors(
    graph: Graph, backend: CBackend, metadata: dict[str, str] | None = None
) -> CProgram:
    feeds = image(graph)
    return backend.emit(graph, metadata, [{**feeds, **Executor(graph).run(feeds)}])


def run(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


FORMATS = {
    **{f"w{bits}": (IntType(bits, narrow=True), CodebookKind.UNIFORM) for bits in range(2, 9)},
    "w16": (IntType(16, narrow=True), CodebookKind.UNIFORM),
    "ternary": (IntType(2, narrow=True), CodebookKind.TERNARY),
    "binary": (IntType(2, narrow=True), CodebookKind.BINARY),
    "pow2": (IntType(8, narrow=True), CodebookKind.POW2),
}
BITS = {"ternary": 2, "binary": 1, "pow2": 4}


@needs_gcc
@pytest.mark.parametrize("name", FORMATS)
def test_weights_are_packed_and_right(name: str, tmp_path: Path) -> None:
    weights, kind = FORMATS[name]
    graph = unet(weights, kind)
    program = CBackend(entry="net").emit(graph)
    feeds = image(graph)
    actual = call(build([program], tmp_path), program, feeds)
    np.testing.assert_array_equal(actual["logits"], Executor(graph).run(feeds)["logits"])
    bits = BITS.get(name, weights.bits)
    # Without SIMD kernels nothing is padded.
    program = CBackend(entry="net", levels=()).emit(graph)
    np.testing.assert_array_equal(
        call(build([program], tmp_path / "plain"), program, feeds)["logits"], actual["logits"]
    )
    for op in graph.ops:
        if len(op.inputs) == 2 and op.inputs[1].endswith(".w"):
            count = graph.constants[op.inputs[1]].size
            packed = program.layer_bytes[op.name].weights
            # A table of the values that occur needs fewer bits where few occur.
            assert packed == -(-count * bits // 32) * 4 or (name == "pow2" and count < 64)


@needs_gcc
def test_five_ternary_weights_in_a_byte(tmp_path: Path) -> None:
    graph = unet(*FORMATS["ternary"])
    program = CBackend("net", ternary_packing=TernaryPacking.FIVE_PER_BYTE).emit(graph)
    feeds = image(graph)
    actual = call(build([program], tmp_path), program, feeds)
    np.testing.assert_array_equal(actual["logits"], Executor(graph).run(feeds)["logits"])
    name = graph.ops[1].name
    count = graph.constants[graph.ops[1].inputs[1]].size
    # Kernel rows of 3 taps of an odd number of channels are padded for SIMD kernels.
    assert -(-count // 5) <= program.layer_bytes[name].weights < count / 5 * 1.4
    plain = CBackend("net", ternary_packing=TernaryPacking.FIVE_PER_BYTE, levels=()).emit(graph)
    assert plain.layer_bytes[name].weights == -(-count // 5)


def static_bytes(folder: Path, *flags: str) -> int:
    """Bytes of the constants in the object file; there is nothing else in static memory."""
    run(["gcc", "-std=c99", "-O0", *flags, "-c", "net.c"], folder)
    sizes = 0
    for line in run(["nm", "-S", "net.o"], folder).splitlines():
        fields = line.split()
        if len(fields) == 4 and fields[2] in "rRdDbBC":
            assert fields[2] == "r", f"not a static constant: {line}"
            sizes += int(fields[1], 16)
    return sizes


@needs_gcc
@pytest.mark.parametrize("separate", [False, True])
def test_constant_bytes_equal_the_object_file(separate: bool, tmp_path: Path) -> None:
    program = CBackend("net", separate_weights=separate).emit(unet())
    program.artifacts.write(tmp_path)
    assert ("net_weights.h" in program.artifacts.files) == separate
    assert static_bytes(tmp_path, "-DQCOMPILE_PORTABLE") == program.constant_bytes
    # SIMD kernels have tables of their own: descriptors and start values, not weights.
    assert 0 <= static_bytes(tmp_path) - program.constant_bytes < 512 * len(program.layout.steps)
    assert program.constant_bytes == sum(item.total for item in program.layer_bytes.values())


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_no_warnings_and_clean_under_sanitizers(compiler: str, tmp_path: Path) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    with_vectors(unet(), CBackend("net")).artifacts.write(tmp_path)
    command = [compiler, *STRICT, *SANITIZERS, "-o", "test", "main.c", "net.c"]
    run(command, tmp_path)
    assert "agree" in run(["./test"], tmp_path)
    run([compiler, *STRICT, "-DNET_TAPS", "-c", "net.c"], tmp_path)


@needs_gcc
@pytest.mark.parametrize("size", [16, 160])
def test_makefile_passes_out_of_the_box(size: int, tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    program = with_vectors(unet(base=1, size=size), CBackend("net"))
    assert ("vectors.bin" in program.artifacts.files) == (size > 100)
    program.artifacts.write(tmp_path)
    assert "OK: 1 test vectors agree" in run(["make", "test", "CFLAGS=-O1"], tmp_path)


@needs_gcc
def test_cmake_passes_out_of_the_box(tmp_path: Path) -> None:
    if shutil.which("cmake") is None:
        pytest.skip("cmake is not installed")
    with_vectors(unet(), CBackend("net")).artifacts.write(tmp_path)
    run(["cmake", "-S", ".", "-B", "build"], tmp_path)
    run(["cmake", "--build", "build"], tmp_path)
    run(["ctest", "--test-dir", "build"], tmp_path)


@needs_gcc
def test_header_serves_cxx(tmp_path: Path) -> None:
    if shutil.which("g++") is None:
        pytest.skip("g++ is not installed")
    CBackend("net").emit(unet()).artifacts.write(tmp_path)
    run(["gcc", "-std=c99", "-c", "net.c"], tmp_path)
    user = '#include "net.h"\nint main() { return net_run(0, 0, 0) == NET_NULL_POINTER ? 0 : 1; }\n'
    (tmp_path / "user.cpp").write_text(user)
    run(["g++", "-o", "user", "user.cpp", "net.o"], tmp_path)
    run(["./user"], tmp_path)


def test_only_standard_headers_and_no_floats_inside() -> None:
    source = str(CBackend("net").emit(unet()).artifacts.files["net.c"])
    standard = {'"net.h"', "<string.h>", "<time.h>"}  # the last only with NET_PROFILE
    vectors = {"<immintrin.h>", "<arm_neon.h>", "<stddef.h>", "<sys/auxv.h>"}
    threads = {"<omp.h>"}  # only with _OPENMP
    assert standard <= set(re.findall(r"#include (\S+)", source)) <= standard | vectors | threads
    assert "#ifdef _OPENMP\n#include <omp.h>\n#endif" in source
    portable = str(CBackend("net", levels=()).emit(unet()).artifacts.files["net.c"])
    assert set(re.findall(r"#include (\S+)", portable)) == standard
    assert "malloc" not in source
    assert "double" not in source


@needs_gcc
def test_hostile_names_stay_in_comments(tmp_path: Path) -> None:
    evil = '*/ ??/ \\\n"; system("x"); // /* é \x00'
    graph = unet()
    ops = tuple(dataclasses.replace(op, name=f"{evil}{i}") for i, op in enumerate(graph.ops))
    graph = dataclasses.replace(graph, name=evil, ops=ops)
    program = with_vectors(graph, CBackend("net"), {evil: evil})
    program.artifacts.write(tmp_path)
    run(["gcc", *STRICT, "-Wtrigraphs", "-c", "net.c"], tmp_path)
    run(["gcc", *STRICT, "-DNET_TAPS", "-c", "net.c"], tmp_path)
    assert verify(graph, program, [image(graph)]).passed


@pytest.mark.parametrize("entry", ["", "1x", "a-b", "int", "class", "../x", "x" * 60, "a b"])
def test_entry_must_be_an_identifier(entry: str) -> None:
    with pytest.raises(UsageError, match="--entry"):
        CBackend(entry)


def test_emission_is_reproducible() -> None:
    first = with_vectors(unet(), CBackend("net"))
    assert first.artifacts == with_vectors(unet(), CBackend("net")).artifacts


def test_clamps_are_tables_only_where_they_differ() -> None:
    graph = unet()
    op = next(op for op in graph.ops if isinstance(op, Conv))
    assert isinstance(op.epilogue, Requantize)
    channels = graph.types[op.output].shape[1]

    def emitted(lows: tuple[int, ...]) -> CProgram:
        changed = dataclasses.replace(op, epilogue=dataclasses.replace(op.epilogue, lows=lows))
        ops = tuple(changed if other is op else other for other in graph.ops)
        return CBackend("net").emit(dataclasses.replace(graph, ops=ops))

    plain = CBackend("net").emit(graph)
    alike = emitted(op.epilogue.lows * channels)
    assert alike.artifacts == plain.artifacts
    apart = emitted((0,) * (channels - 1) + (1,))
    assert "< low[c]" not in str(plain.artifacts.files["net.c"])
    assert "< low[c]" in str(apart.artifacts.files["net.c"])


@needs_gcc
def test_arena_is_checked_and_reused(tmp_path: Path) -> None:
    graph = unet()
    program = CBackend("net").emit(graph)
    library = build([program], tmp_path)
    feeds = image(graph)
    first, second = call(library, program, feeds), call(library, program, feeds)
    np.testing.assert_array_equal(first["logits"], second["logits"])
    out = np.zeros(graph.types["logits"].shape, np.float32)
    memory = np.zeros(program.arena_bytes + 32, np.uint8)
    odd = memory.ctypes.data + (-memory.ctypes.data % 16) + 1
    import ctypes

    pointers = [feeds["image"].ctypes.data, out.ctypes.data, odd]
    assert library.net_run(*map(ctypes.c_void_p, pointers)) == 2
    activations = sum(graph.types[op.output].storage_bytes for op in graph.ops[:-1])
    assert program.arena_bytes < activations + 8192


@needs_gcc
def test_verify_agrees() -> None:
    graph = unet()
    program = CBackend("net").emit(graph)
    result = CBackend("net").verify(graph, program, [image(graph, 1), image(graph, 2)])
    assert result.passed
    concats = sum(op.kind == "Concat" for op in graph.ops)  # read in parts by the convolution
    assert result.values == len(graph.ops) - concats
    assert result.float_difference is None


@needs_gcc
def test_float_islands_agree_within_the_limit(tmp_path: Path) -> None:
    graph = float_unet()
    program = with_vectors(graph, CBackend("net"))
    result = verify(graph, program, [image(graph, 1), image(graph, 2)])
    assert result.passed
    assert result.float_difference is not None
    assert result.float_difference <= 1e-5 < result.float_limit
    program.artifacts.write(tmp_path)
    run(["gcc", *STRICT, *SANITIZERS, "-o", "test", "main.c", "net.c", "-lm"], tmp_path)
    run(["./test"], tmp_path)


@needs_gcc
def test_a_wrong_float_layer_is_found() -> None:
    graph = float_unet()
    program = CBackend("net").emit(graph)
    files = dict(program.artifacts.files)
    source, count = re.subn(r"value \* 0|sums\[c\];", "sums[c] * 1.01f;", str(files["net.c"]))
    assert count >= 1
    files["net.c"] = source
    broken = dataclasses.replace(program, artifacts=Artifacts(files))
    result = verify(graph, broken, [image(graph)])
    assert result.mismatch is not None
    assert result.mismatch.value == graph.ops[1].output


BUGS = {
    "rounding": (r"\+ bias\[c\], shift", "+ bias[c] - 1, shift"),
    "first pixel of a pool": (r"= left\[c\] > right\[c\]", "= left[c] >= right[c] + 2"),
}


@needs_gcc
@pytest.mark.parametrize("name", BUGS)
def test_a_bug_in_a_kernel_is_found_and_located(name: str) -> None:
    graph = unet()
    program = CBackend("net", levels=()).emit(graph)
    pattern, wrong = BUGS[name]
    files = dict(program.artifacts.files)
    source, count = re.subn(pattern, wrong, str(files["net.c"]))
    assert count >= 1
    files["net.c"] = source
    broken = dataclasses.replace(program, artifacts=Artifacts(files))
    result = verify(graph, broken, [image(graph)])
    assert result.mismatch is not None
    assert result.build == "debug"
    first = "Conv" if name == "rounding" else "MaxPool"
    expected = next(op for op in graph.ops if op.kind == first)
    assert result.mismatch.value == expected.output
    if name == "rounding":
        assert int(result.mismatch.expected) - int(result.mismatch.actual) == 1


@needs_gcc
@pytest.mark.parametrize("layer", [1, 4, 8])
def test_one_lsb_in_one_bias_is_located(layer: int) -> None:
    """One table entry of one layer is too small by one output step at most."""
    graph = unet()
    program = CBackend("net").emit(graph)
    op = [op for op in graph.ops if op.kind in ("Conv", "ConvTranspose")][layer % 5]
    step = next(step for step in program.layout.steps if step.op is op)
    shift = op.epilogue.shifts[0]  # type: ignore[attr-defined]
    files = dict(program.artifacts.files)
    pattern = (
        rf"(_{re.escape(step.prefix)}_bias|{re.escape(step.prefix)}_bias)(\[\d+\] = {{\s*)(-?\d+)"
    )

    def lower(match: re.Match[str]) -> str:
        return f"{match[1]}{match[2]}{int(match[3]) - (1 << shift)}"

    source, count = re.subn(pattern, lower, str(files["net.c"]))
    assert count == 1
    files["net.c"] = source
    result = verify(graph, dataclasses.replace(program, artifacts=Artifacts(files)), [image(graph)])
    assert result.mismatch is not None
    assert result.mismatch.value == op.output
    assert int(result.mismatch.expected) - int(result.mismatch.actual) == 1
    assert result.mismatch.index[1] == 0


@needs_gcc
def test_the_compiler_may_bring_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "gcc -O1 -Wall")
    graph = unet()
    assert verify(graph, CBackend("net").emit(graph), [image(graph)]).compiler == "gcc -O1 -Wall"


def test_a_missing_compiler_is_a_tool_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(ToolError, match="no-such-compiler"):
        find_compiler("--verify")


def test_unsupported_operators_are_listed_together() -> None:
    from tests.op_cases import cases_of

    graph = next(case.graph for case in cases_of("conv") if "3d" in case.name)
    problems = CBackend().check(graph)
    assert [problem.node for problem in problems] == [graph.ops[0].name]
    with pytest.raises(UnsupportedError, match="3-D"):
        CBackend().emit(graph)


@pytest.mark.parametrize("word", ["x*/y", "?" * 7, "a\\", "//", "/*", "*/ " * 60, "é\n#error"])
def test_long_comments_are_wrapped_and_harmless(word: str) -> None:
    lines = comment_lines("options: " + f"{word} " * 90)
    assert len(lines) > 1
    assert max(map(len, lines)) <= 98
    text = "\n".join(f" * {line}" for line in lines)
    assert not any(bad in text for bad in ("*/", "/*", "??", "\\"))
    assert all(char == "\n" or " " <= char <= "~" for char in text)
