"""Area and clock rate of the accelerator's blocks, one by one, as the open tools measure them.

    pip install -c constraints.txt '.[synth]'
    python benchmarks/hdl_blocks.py                 # the table of docs/hardware.md: half an hour
    python benchmarks/hdl_blocks.py --only Fifo     # blocks whose name has "Fifo"
    python benchmarks/hdl_blocks.py --no-route      # area only: a minute or two

Every block is synthesised and routed for an ECP5-85k (speed grade 6), alone, with registers at its
ports that do not count, and synthesised for a Zynq 7020, for which there is no open router. The
estimate of the compiler stands beside. Prints Markdown.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from amaranth.back import verilog
from amaranth.lib import wiring

from qcompile.backends.hdl.assemble import assemble
from qcompile.backends.hdl.attention import LocalAttentionPlanner
from qcompile.backends.hdl.estimates import estimate, total
from qcompile.backends.hdl.netlist import Area
from qcompile.backends.hdl.patterns import linear_axis
from qcompile.backends.hdl.synthesize import Synthesis, synthesize
from qcompile.devices import DEVICES
from qcompile.graph import Graph
from qcompile.graph import Stage as GraphStage
from qcompile.hw.accelerator import Accelerator
from qcompile.hw.arg_max import ArgMax
from qcompile.hw.attention_scores import AttentionScores
from qcompile.hw.attention_sums import AttentionSums
from qcompile.hw.axis import sliding
from qcompile.hw.block import Block
from qcompile.hw.channel_weights import TapWeights
from qcompile.hw.channelwise import Channelwise
from qcompile.hw.design import Design, Node
from qcompile.hw.fifo import Fifo
from qcompile.hw.gearbox import Gearbox
from qcompile.hw.lookup import Lookup
from qcompile.hw.matrix_vector import MatrixVector
from qcompile.hw.products import MULTIPLIER_18, Products
from qcompile.hw.reduce_max import ReduceMax
from qcompile.hw.requantize import Requantize
from qcompile.hw.softmax import Softmax
from qcompile.hw.stage import Flow, Fold, Stage
from qcompile.hw.streams import TensorStream
from qcompile.hw.window import Window
from qcompile.numerics import Requantize as Epilogue
from qcompile.numerics import multiplier_and_shift
from qcompile.ops import AttentionWidths, LocalAttention2d
from qcompile.ops.linear_resize import LinearTaps
from qcompile.types import IntType, TensorType

ROUTED, SYNTHESISED = DEVICES["ecp5-85k"], DEVICES["xc7z020"]
CLOCK = 150.0
"""MHz that the router tries for."""
U6, S4, TERNARY = IntType(6, False), IntType(4, True), IntType(2, narrow=True)
TABLE = (tuple(code * code // 63 for code in range(64)),)
SIZE = 256


@dataclass(frozen=True)
class Case:
    """One row: its name, its blocks, each of which feeds the next."""

    name: str
    blocks: Callable[[], tuple[Block, ...]]

    def create(self) -> wiring.Component:
        """The hardware: the only block, or an accelerator of all."""
        blocks = self.blocks()
        if len(blocks) == 1:
            return blocks[0].create()
        first, last = blocks[0].inputs[0], blocks[-1].outputs[0]
        assert isinstance(first, TensorStream)
        assert isinstance(last, TensorStream)
        nodes = tuple(
            Node(f"block{index}", block, (f"c{index}",), (f"c{index + 1}",))
            for index, block in enumerate(blocks)
        )
        return Accelerator(Design("case", {"c0": first}, {f"c{len(nodes)}": last}, nodes, {}))

    def estimated(self) -> Area:
        return total(estimate(block, ROUTED) for block in self.blocks())


@dataclass(frozen=True)
class StageCase(Case):
    """A row of an operator: its blocks as an accelerator."""

    stage: Callable[[], Stage]

    def create(self) -> wiring.Component:
        stage = self.stage()
        inputs = dict(zip(stage.values, stage.inputs, strict=True))
        return Accelerator(assemble(Flow(inputs, (stage,), (stage.op.output,)), {}, "case"))

    def estimated(self) -> Area:
        return total(estimate(block, ROUTED) for block in self.stage().all_blocks)


def single(name: str, make: Callable[[], Block]) -> Case:
    """A case of one block."""
    return Case(name, lambda: (make(),))


def tensor(channels: int, lanes: int, element: IntType = U6, size: int = SIZE) -> TensorStream:
    """A square map."""
    return TensorStream(size, size, channels, element, lanes)


def window(channels: int = 16, simd: int = 8, folds: int = 2, kernel: int = 3) -> Window:
    """Of a convolution that keeps the size."""
    axis = sliding(SIZE, kernel, 1, 1, kernel // 2, SIZE)
    return Window(tensor(channels, simd), axis, axis, 1, folds)


def matrix(
    products: Products,
    pe: int = 8,
    simd: int = 8,
    weights: IntType = S4,
    activations: IntType = U6,
    channels: int = 16,
    filters: int = 16,
) -> MatrixVector:
    """A 3x3 convolution's matrix with random weights."""
    axis = sliding(SIZE, 3, 1, 1, 1, SIZE)
    flags = Window(tensor(channels, simd, activations), axis, axis, 1, filters // pe).output
    shape = (1, 1, filters // pe, pe, flags.fold_beats, simd)
    low = 0 if products is Products.BINARY else max(weights.low, -weights.high)
    codes = np.random.default_rng(1).integers(low, weights.high + 1, shape)
    if products is Products.BINARY:
        codes = 2 * codes - 1
    reach = flags.fold_beats * simd * weights.range.magnitude * activations.range.magnitude
    accumulator = IntType(reach.bit_length() + 1, True)
    return MatrixVector(flags, SIZE, SIZE, codes, weights, accumulator, products)


def requantize(sums: TensorStream, lanes: int, output: IntType = U6) -> Requantize:
    """Random scales and biases for each channel."""
    random = np.random.default_rng(2)
    reach = sums.element.range.magnitude
    pairs = [
        multiplier_and_shift(Fraction(ratio * output.high / reach), reach)
        for ratio in (random.uniform(1, 4, sums.channels)).tolist()
    ]
    shift = max(shift for _, shift in pairs)
    multipliers = tuple(m << (shift - s) for m, s in pairs)
    biases = tuple(int(b) for b in random.integers(-(1 << shift), 1 << shift, sums.channels))
    limits = sums.element.range
    epilogue = Epilogue(
        multipliers,
        biases,
        (shift,),
        (output.low,),
        (output.high,),
        (limits.low,),
        (limits.high,),
    )
    return Requantize(sums, epilogue, output, lanes)


def max_pool() -> tuple[Block, ...]:
    """Window and maximum."""
    axis = sliding(SIZE, 2, 2, 1, 0, SIZE // 2)
    gather = Window(tensor(16, 8), axis, axis, 2, 1)
    return (gather, ReduceMax(gather.output, SIZE // 2, SIZE // 2))


def resize() -> tuple[Block, ...]:
    """Half-pixel coordinates, weights 1/4 and 3/4: window, weighted sums, requantiser."""
    half = SIZE // 2
    first = tuple(max((position - 1) // 2, 0) for position in range(SIZE))
    second = tuple(min((position + 1) // 2, half - 1) for position in range(SIZE))
    upper = tuple(Fraction(1 if position % 2 else 3, 4) for position in range(SIZE))
    axis = linear_axis(LinearTaps(first, second, upper), half)
    taps = tuple(tuple(weight or 0 for weight in phase) for phase in axis.choices)
    gather = Window(tensor(16, 4, size=half), axis.pattern, axis.pattern, 4, 1)
    unit = Channelwise(gather.output, SIZE, SIZE, TapWeights(taps, taps), IntType(10, False))
    return (gather, unit, requantize(unit.outputs[0], 1))


def attention(pe: int, simd: int, channels: int = 32) -> Stage:
    """One head over 3 x 3 windows in 8 bits, `channels` of queries, keys and values."""
    element, shape = IntType(8), (1, channels, SIZE, SIZE)
    kind = TensorType(shape, element)
    relative = np.random.default_rng(3).integers(-200, 201, (channels, 3, 3))
    powers = tuple(round(2**15 * math.exp(-entry / 64)) for entry in range(712))
    sums = IntType.holding(element.range.scaled((1 << 14) + 4))
    epilogue = Epilogue((1,), (1 << 13,), (14,), (-128,), (127,), (sums.low,), (sums.high,))
    op = LocalAttention2d(
        name="attention",
        inputs=("q", "k", "v", "r"),
        outputs=("y",),
        kernel=(3, 3),
        pads_begin=(1, 1),
        pads_end=(1, 1),
        widths=AttentionWidths(2, 6, powers, 1 << 14),
        accumulator=sums,
        epilogue=epilogue,
    )
    types = {name: kind for name in "qkvy"}
    types["r"] = TensorType(relative.shape, IntType(9))
    graph = Graph(
        "case", GraphStage.INTEGER, ("q", "k", "v"), ("y",), (op,), types, {"r": relative}
    )
    return LocalAttentionPlanner().stage(graph, op, Fold(pe, simd), MULTIPLIER_18)


def attention_block(kind: type[Block]) -> Block:
    """One of the blocks of an attention."""
    return next(block for block in attention(8, 8).blocks if isinstance(block, kind))


def layer() -> tuple[Block, ...]:
    """A 3x3 convolution 16 -> 16 with its epilogue: window, matrix-vector unit, requantiser."""
    unit = matrix(Products.PACKED)
    return (window(), unit, requantize(unit.outputs[0], 1))


def softmax(channels: int, lanes: int) -> Softmax:
    """Probabilities of 8 bits from codes of 8 bits, of which 16 are one e-fold."""
    powers = tuple(round(2**15 * math.exp(-code / 16)) for code in range(179))
    stream = tensor(channels, lanes, IntType(8))
    return Softmax(stream, stream.groups, powers, 255, IntType(8, False))


HEAD = (
    *("block", "LUT est.", "LUT4", "FF", "EBR", "MULT18", "Fmax, MHz"),
    *("xc7 LUT", "xc7 FF", "RAMB18", "DSP48"),
)
CASES = (
    single("Window 3x3, 16 channels of 6 bits, SIMD 8, width 256", window),
    single("MatrixVector PE 8 x SIMD 8, w4 a6, multipliers", lambda: matrix(Products.MULTIPLIER)),
    single("MatrixVector PE 8 x SIMD 8, w4 a6, packed", lambda: matrix(Products.PACKED)),
    single(
        "MatrixVector PE 8 x SIMD 8, ternary x 6 bits",
        lambda: matrix(Products.LOGIC, weights=TERNARY),
    ),
    single(
        "MatrixVector PE 8 x SIMD 8, ternary x ternary",
        lambda: matrix(Products.TERNARY, weights=TERNARY, activations=TERNARY),
    ),
    single(
        "Requantize 8 sums of 18 bits, one at a time",
        lambda: requantize(tensor(16, 8, IntType(18)), 1),
    ),
    single(
        "Requantize 8 sums of 18 bits, 4 at a time",
        lambda: requantize(tensor(16, 8, IntType(18)), 4),
    ),
    Case("MaxPool 2x2, 8 lanes of 6 bits, width 256", max_pool),
    Case("LinearResize x2, 4 lanes of 6 bits, width 128 -> 256", resize),
    single("Lookup 6 -> 6 bits, 8 lanes", lambda: Lookup(tensor(16, 8), TABLE, 0, U6)),
    single("ArgMax 4 channels at once", lambda: ArgMax(tensor(4, 4), IntType(2, False))),
    single("Softmax of 4 classes of 8 bits, at once", lambda: softmax(4, 4)),
    single("Softmax of 16 classes of 8 bits, one at a time", lambda: softmax(16, 1)),
    single("Fifo 48 bits x 16", lambda: Fifo(tensor(8, 8), 16)),
    single("Fifo 48 bits x 512", lambda: Fifo(tensor(8, 8), 512)),
    single("Gearbox 2 -> 8 lanes of 6 bits", lambda: Gearbox(tensor(16, 2), 8)),
    single("Gearbox 8 -> 2 lanes of 6 bits", lambda: Gearbox(tensor(16, 8), 2)),
    single(
        "Attention scores 3x3, 32 channels, SIMD 8, 8 x 8 bits",
        lambda: attention_block(AttentionScores),
    ),
    single("Softmax of 9 scores of 23 bits, one in 4 cycles", lambda: attention_block(Softmax)),
    single("Attention sums 3x3, PE 8, 8 bits", lambda: attention_block(AttentionSums)),
    StageCase(
        "Local attention 3x3, 32 channels, width 256, PE 8 x SIMD 8, a8",
        tuple,
        lambda: attention(8, 8),
    ),
    Case("Convolution 3x3, 16 -> 16, width 256, PE 8 x SIMD 8, w4 a6, packed", layer),
)


def figures(area: Area | None) -> list[str]:
    """LUTs, flip-flops, block RAMs, multipliers."""
    if area is None:
        return ["-"] * 4
    return [str(item) for item in (area.luts, area.ffs, area.ram_blocks, area.multipliers)]


def measure(case: Case, route: bool) -> tuple[Synthesis, Synthesis]:
    """ECP5 and Zynq."""
    # The Yosys that comes with Amaranth: what another one makes of the design is not ours to say.
    os.environ["AMARANTH_USE_YOSYS"] = "builtin"
    source = verilog.convert(case.create(), name="block")
    estimated = case.estimated()
    return (
        synthesize(source, "block", ROUTED, clock=CLOCK, estimated=estimated, route=route),
        synthesize(source, "block", SYNTHESISED),
    )


def main() -> None:
    """Measures, and prints the table row by row."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--only", default="", help="part of the names of the blocks to run")
    arguments.add_argument("--no-route", action="store_true", help="synthesis only")
    given = arguments.parse_args()
    print("| " + " | ".join(HEAD) + " |")
    print("| --- |" + " ---: |" * (len(HEAD) - 1))
    tools: dict[str, None] = {}
    commands: tuple[str, ...] = ()
    for case in CASES:
        if given.only.lower() not in case.name.lower():
            continue
        start = time.perf_counter()
        ecp5, xc7 = measure(case, not given.no_route)
        fmax = "-" if ecp5.routed.fmax is None else f"{ecp5.routed.fmax:.0f}"
        estimated = figures(ecp5.estimated)[0]
        cells = [case.name, estimated, *figures(ecp5.area), fmax, *figures(xc7.area)]
        print("| " + " | ".join(cells) + " |", flush=True)
        print(f"{case.name}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
        for step in (ecp5.synthesised, ecp5.routed, xc7.synthesised):
            if step.tool is not None:
                tools[step.tool] = None
            if step.missing:
                print(f"{case.name}: {step.missing}", file=sys.stderr)
        commands = (*ecp5.commands, *xc7.commands)
    print(f"\nBy {', '.join(tools)}. What was run for each row, in a folder of its own:\n")
    print("\n".join(f"    {command}" for command in commands))


if __name__ == "__main__":
    main()
