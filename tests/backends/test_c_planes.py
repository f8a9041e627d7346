"""Ternary and binary layers in bit planes: every tensor at every level equals the simulator."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from qcompile.backends.c.backend import CBackend, CProgram
from qcompile.backends.c.plane_codes import decoded
from qcompile.backends.c.render import harness
from qcompile.graph import Graph, Op, Stage
from qcompile.numerics import Thresholds
from qcompile.ops import Concat, Conv, ConvTranspose, MaxPool, NearestResize, Reshape, SumOp
from qcompile.packing import TernaryPacking
from qcompile.passes.place_planes import PlacePlanes, PlaneCodes, counter_bits
from qcompile.sim.executor import Executor
from qcompile.types import (
    TERNARY,
    UINT8,
    Array,
    Codebook,
    CodebookKind,
    IntType,
    Quantization,
    Range,
    TensorType,
)
from tests.backends.compile_c import KEEP, SANITIZERS, STRICT
from tests.op_cases.build import activation

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")

RUNS = ((0, 1), (0, 2), (1, 1), (1, 3), (2, 1), (2, 2), (2, 5))
"""The highest level, and the threads."""
CAP = """#include <stdlib.h>
#define QCOMPILE_LEVEL_MAX atoi(getenv("LEVEL"))
"""
EPILOGUES = ("unit", "sign", "ternary")


class Network:
    """Builds a graph of ternary layers behind one of 8 bits."""

    def __init__(self, seed: int, shape: tuple[int, ...], outputs: int, epilogue: str) -> None:
        self.rng = np.random.default_rng(seed)
        self.types: dict[str, TensorType] = {"image": activation(UINT8, *shape)}
        self.constants: dict[str, Array] = {}
        self.ops: list[Op] = []
        self.last = "image"
        data = self.rng.integers(-127, 128, (outputs, shape[1], 1, 1))
        self.conv(outputs, kernel=(1, 1), epilogue=epilogue, data=data, element=IntType(8))

    def add(self, op: Op, element: IntType = TERNARY) -> str:
        shapes = [self.types[value].shape for value in op.inputs]
        self.types[op.output] = activation(element, *op.infer_shape(shapes))
        self.ops.append(op)
        self.last = op.output
        return op.output

    def constant(self, data: Array, element: IntType, kind: CodebookKind) -> str:
        name = f"w{len(self.constants)}"
        book = Codebook(kind, 3 if kind is CodebookKind.TERNARY else 2)
        scale = Quantization((0.1,))
        self.types[name] = TensorType(data.shape, element, scale, book)
        self.constants[name] = data.astype(element.storage)
        return name

    def sum(self, op: SumOp, channels: int, epilogue: str) -> str:
        """Completes a layer by its accumulator and thresholds that split its sums."""
        kinds = [self.types[value] for value in op.inputs]
        reach = op.reach(kinds, [self.constants.get(value) for value in op.inputs])
        spread = max(1, int(np.sqrt(reach.magnitude)))
        each = channels if self.rng.random() < 0.7 else 1
        rows = self.rng.integers(-spread, spread + 1, (5 if epilogue == "many" else 2, each))
        rows.sort(axis=0)
        rows = rows.clip(reach.low, reach.high + 1)
        if self.rng.random() < 0.3:  # channels that never change
            rows[:, 0] = reach.low if self.rng.random() < 0.5 else reach.high + 1
        low, step = (-1, 2) if epilogue == "sign" else (-1, 1)
        if epilogue == "unit":
            rows[0] = reach.low
        rows = rows[:1] if epilogue == "sign" else rows
        limits = Thresholds(tuple(tuple(map(int, row)) for row in rows), low, step)
        if epilogue == "many":
            limits = dataclasses.replace(limits, low=-2)
        done = dataclasses.replace(op, epilogue=limits, accumulator=IntType.holding(reach))
        return self.add(done, IntType(4) if epilogue == "many" else TERNARY)

    def ternary(self, shape: Sequence[int], share: float) -> Array:
        """Weights with this share of zeros; of several filters one has none and one only zeros."""
        data = self.rng.integers(0, 2, shape) * 2 - 1
        data = np.where(self.rng.random(shape) < share, 0, data)
        if shape[0] > 2:
            data[0] = 0
            data[1] = np.where(data[1] == 0, 1, data[1])
        return data

    def conv(
        self,
        outputs: int,
        kernel: tuple[int, int] = (3, 3),
        stride: tuple[int, int] = (1, 1),
        pads: tuple[int, int, int, int] = (1, 1, 1, 1),
        dilation: tuple[int, int] = (1, 1),
        epilogue: str = "ternary",
        share: float = 0.45,
        data: Array | None = None,
        element: IntType = TERNARY,
        book: CodebookKind = CodebookKind.TERNARY,
    ) -> str:
        inputs = self.types[self.last].shape[1]
        if book is CodebookKind.BINARY:
            share = 0.0
            data = self.rng.integers(0, 2, (outputs, inputs, *kernel)) * 2 - 1
        if data is None:
            data = self.ternary((outputs, inputs, *kernel), share)
        kind = book if element is TERNARY else CodebookKind.UNIFORM
        op = Conv(
            name=f"conv{len(self.ops)}",
            inputs=(self.last, self.constant(data, element, kind)),
            outputs=(f"v{len(self.ops)}",),
            strides=stride,
            pads_begin=pads[:2] if kernel != (1, 1) else (0, 0),
            pads_end=pads[2:] if kernel != (1, 1) else (0, 0),
            dilations=dilation,
        )
        return self.sum(op, outputs, epilogue)

    def up(self, outputs: int, epilogue: str = "ternary") -> str:
        inputs = self.types[self.last].shape[1]
        data = self.ternary((inputs, outputs, 2, 2), 0.5)
        op = ConvTranspose(
            name=f"up{len(self.ops)}",
            inputs=(self.last, self.constant(data, TERNARY, CodebookKind.TERNARY)),
            outputs=(f"v{len(self.ops)}",),
            strides=(2, 2),
            pads_begin=(0, 0),
            pads_end=(0, 0),
            dilations=(1, 1),
            output_padding=(0, 0),
        )
        return self.sum(op, outputs, epilogue)

    def pool(self, kernel: int = 2, stride: int = 2, pad: int = 0) -> str:
        return self.add(
            MaxPool(
                name=f"pool{len(self.ops)}",
                inputs=(self.last,),
                outputs=(f"v{len(self.ops)}",),
                kernel=(kernel, kernel),
                strides=(stride, stride),
                pads_begin=(pad, pad),
                pads_end=(pad, pad),
                dilations=(1, 1),
            )
        )

    def resize(self, height: int, width: int) -> str:
        _, _, rows, columns = self.types[self.last].shape
        sources = (
            tuple(i * rows // height for i in range(height)),
            tuple(i * columns // width for i in range(width)),
        )
        name = f"v{len(self.ops)}"
        return self.add(
            NearestResize(
                name=f"resize{name}", inputs=(self.last,), outputs=(name,), sources=sources
            )
        )

    def concat(self, *values: str) -> str:
        name = f"v{len(self.ops)}"
        return self.add(Concat(name=f"concat{name}", inputs=values, outputs=(name,), axis=1))

    def finish(self) -> Graph:
        """Every layer is compared, so the end only brings the last one out."""
        shape = self.types[self.last].shape
        self.add(Reshape(name="out", inputs=(self.last,), outputs=("out",), shape=shape))
        return Graph(
            "planes",
            Stage.INTEGER,
            ("image",),
            ("out",),
            tuple(self.ops),
            self.types,
            self.constants,
        )


def build_taps(program: CProgram, folder: Path, flags: Sequence[str]) -> None:
    """The program that writes every tensor, for any level and number of threads."""
    layout = program.layout
    program.artifacts.write(folder)
    (folder / "harness.c").write_text(harness(layout), encoding="utf-8")
    (folder / "cap.h").write_text(CAP, encoding="utf-8")
    command = ["gcc", *STRICT, "-O1", KEEP, "-fopenmp", "-DMODEL_TAPS", "-include", "cap.h", *flags]
    command += ["-o", "harness", "harness.c", "model.c", "-lm"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[:4000]


def run_taps(
    program: CProgram, folder: Path, image: Array, level: int, threads: int
) -> dict[str, Array]:
    """Every tensor that the program computes from `image`."""
    layout = program.layout
    (folder / "image.bin").write_bytes(image.tobytes())
    command = ["./harness", "image.bin", "taps.bin", "1"]
    env = {**os.environ, "LEVEL": str(level), "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr[:4000]
    data, position, found = (folder / "taps.bin").read_bytes(), 0, {}
    for value in [*layout.graph.outputs, *(value for _, value in layout.taps)]:
        kind = layout.graph.types[value]
        if value in layout.planes:
            size = layout.planes[value].size(kind.shape)
            raw = np.frombuffer(data, np.uint8, size, position)
            found[value] = decoded(raw, kind.shape, layout.planes[value])
        else:
            raw = np.frombuffer(data, kind.element.storage, kind.size, position)
            placement = layout.placements[value]
            raw_shaped = raw.reshape(placement.physical(kind.shape))
            found[value] = raw_shaped.transpose(np.argsort(placement.order))
        position += raw.nbytes
    assert position == len(data)
    return found


def check(
    graph: Graph,
    folder: Path,
    native: int,
    packing: TernaryPacking = TernaryPacking.TWO_BITS,
    flags: Sequence[str] = (),
) -> None:
    """All tensors equal the simulator's; `native` operators worked on planes."""
    program = CBackend(ternary_packing=packing).emit(graph)
    assert len(PlacePlanes().run(graph).native) == native
    rng = np.random.default_rng(7)
    image = rng.integers(0, 256, graph.types["image"].shape).astype(np.uint8)
    build_taps(program, folder, flags)
    expected = Executor(graph).run({"image": image}, taps="all")
    for level, threads in RUNS:
        for value, array in run_taps(program, folder, image, level, threads).items():
            message = f"{value}, level {level}, {threads} threads"
            np.testing.assert_array_equal(array, expected[value], err_msg=message)


def unet(seed: int, height: int, width: int) -> Network:
    """Two levels with codes of all kinds; a layer reads one concatenation, two read another."""
    net = Network(seed, (1, 2, height, width), 5, "unit")
    skip = net.conv(7, epilogue="ternary")
    net.pool()
    net.conv(9, epilogue="sign")
    net.conv(11, epilogue="unit")
    up = net.up(6, epilogue="sign")
    net.concat(skip, up)
    joined = net.conv(8, epilogue="ternary", share=0.3)
    both = net.concat(joined, skip, up)
    net.conv(5, kernel=(1, 1))
    net.last = both
    net.pool(3, 1, 1)
    net.conv(4, kernel=(1, 3), pads=(0, 1, 0, 1), epilogue="unit")
    return net


def test_unet(tmp_path: Path) -> None:
    check(unet(1, 32, 40).finish(), tmp_path, 11)


def test_odd_sizes_strides_and_dilations(tmp_path: Path) -> None:
    """Rows that are no multiple of eight, stripes that differ from layer to layer."""
    net = Network(2, (1, 3, 43, 29), 4, "ternary")
    net.conv(6, stride=(2, 1), pads=(1, 0, 0, 2))
    net.conv(5, kernel=(2, 3), pads=(1, 1, 0, 1), dilation=(3, 2))
    net.resize(37, 50)
    net.conv(4, kernel=(5, 4), stride=(3, 2), pads=(4, 3, 2, 3), epilogue="unit")
    net.resize(50, 33)
    net.conv(3, kernel=(3, 3), stride=(1, 3), pads=(0, 0, 0, 0), epilogue="sign")
    net.pool(3, 2, 1)
    net.conv(17, share=0.9)
    check(net.finish(), tmp_path, 8)


def test_long_sums_and_wide_images(tmp_path: Path) -> None:
    """Counters of many bits; several bands, and blocks that end in the middle of one."""
    net = Network(3, (1, 1, 24, 19), 150, "ternary")
    net.conv(3, share=0.0)
    net.resize(160, 171)
    net.conv(2, epilogue="unit")
    net.conv(3, kernel=(1, 1), epilogue="sign")
    check(net.finish(), tmp_path, 4)


def test_binary_weights_and_weights_of_five_in_a_byte(tmp_path: Path) -> None:
    net = Network(4, (1, 2, 20, 24), 5, "sign")
    net.conv(6, book=CodebookKind.BINARY, epilogue="sign")
    net.conv(7, epilogue="sign")
    net.conv(3, book=CodebookKind.BINARY, epilogue="unit")
    net.conv(3, kernel=(1, 1), epilogue="sign")
    check(net.finish(), tmp_path, 4, TernaryPacking.FIVE_PER_BYTE)


def test_heads_count_the_bits_of_planes(tmp_path: Path) -> None:
    """One filter and several, of one plane and of two, wider than a block of columns."""
    net = Network(9, (1, 1, 19, 267), 4, "ternary")
    both = net.conv(13, epilogue="ternary")
    net.conv(1, kernel=(1, 1), epilogue="many", share=0.0)
    net.last = both
    net.conv(5, kernel=(1, 1), epilogue="many")
    net.last = both
    net.conv(9, epilogue="sign")
    net.conv(3, kernel=(1, 1), epilogue="many")
    graph = net.finish()
    assert str(CBackend().emit(graph).artifacts.files["model.c"]).count("bit planes, counted") >= 3
    check(graph, tmp_path, 2)


def test_nothing_is_read_or_written_outside(tmp_path: Path) -> None:
    # Stripes of 12 and 24 rows do not match, so the transposed convolution works on bytes.
    check(unet(5, 24, 22).finish(), tmp_path, 10, flags=SANITIZERS)


def test_codes_behind_a_relu_take_one_plane() -> None:
    net = unet(6, 32, 32)
    values = PlacePlanes().run(net.finish()).values
    assert values["v1"].codes is PlaneCodes.TERNARY
    assert values["v0"].codes is PlaneCodes.UNIT
    assert values["v0"].planes == 1
    assert values["v1"].size((1, 7, 32, 32)) == 7 * 2 * 4 * 32


def test_layers_on_bytes_get_codes_and_write_planes() -> None:
    """Only layers with ternary weights and activations work on planes; others convert."""
    graph = unet(7, 32, 32).finish()
    plan = PlacePlanes().run(graph)
    assert "conv0" not in plan.native
    assert "v0" in plan.values
    assert "out" not in plan.values
    text = str(CBackend().emit(graph).artifacts.files["model.c"])
    assert "pack_planes_i8(" in text
    assert "unpack_planes_i8(" in text


def test_networks_without_ternary_layers_have_no_planes() -> None:
    net = Network(8, (1, 1, 32, 32), 4, "ternary")
    assert not PlacePlanes().run(net.finish()).values


def test_counters_hold_every_sum() -> None:
    rows = np.ones((3, 100), np.int8)
    assert counter_bits(rows, 2) == 9
    assert Range(-(1 << 8), (1 << 8) - 1).contains(Range(-224, 224))
