"""What a block will take of a device, by formula, before any tool runs.

Memories, flip-flops and multipliers are counted from the operators of the block; look-up tables
are a weighted sum of them. The weights, and a factor for each kind of block that corrects what
synthesis makes of its operators, were fitted to what yosys 0.23 made of 52 blocks for ECP5 and for
Zynq 7000; docs/hardware.md says by how much they miss. These are estimates, never measurements.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from amaranth.back import rtlil

from qcompile.backends.hdl.netlist import Area, cells_of
from qcompile.backends.hdl.operators import MemoryShape, Operators, operators_of
from qcompile.devices import Device
from qcompile.hw.block import Block


@dataclass(frozen=True, slots=True)
class _Library:
    """How a family builds operators.

    Attributes:
        lut_words: words of a table that one LUT holds.
        rom_bits: a memory without writer stays in LUTs up to so many bits for each block RAM it
            would take.
        ram_slice: words, bits and LUTs of a slice of LUT RAM, in its shapes, deepest last; empty
            if there is none.
        ram_slices: a memory stays in LUT RAM up to so many slices for each block RAM.
        ram_join: LUTs of a deep LUT RAM, relative to its slices alone.
        smallest_product: products of fewer bits are made of LUTs.
        product_luts: LUTs for each pair of bits of those.
        weights: LUTs for each bit of operators, by the fields of `Operators`.
        base: LUTs of any block.
        factors: kind of block -> factors on LUTs and on flip-flops.
    """

    lut_words: int
    rom_bits: int
    ram_slice: tuple[tuple[int, int, int], ...]
    ram_slices: int
    ram_join: float
    smallest_product: int
    product_luts: float
    weights: Mapping[str, float]
    base: float
    factors: Mapping[str, tuple[float, float]]


_ECP5 = _Library(
    lut_words=16,
    rom_bits=2048,
    ram_slice=((16, 4, 4),),
    ram_slices=20,
    ram_join=2.0,
    smallest_product=0,
    product_luts=1.3,
    weights={
        "sums": 0.76,
        "comparisons": 1.05,
        "gates": 0.14,
        "cases": 0.82,
        "tables": 0.53,
        "roms": 0.97,
        "rams": 1.19,
    },
    base=20,
    factors={
        "Add": (0.83, 0.82),
        "ArgMax": (0.47, 0.81),
        "AttentionSums": (1.3, 1.0),
        "Channelwise": (1.09, 1.0),
        "Concat": (1.83, 1.0),
        "Fifo": (1.14, 1.0),
        "Fork": (0.56, 1.0),
        "FrameInput": (1.6, 1.0),
        "FrameOutput": (1.2, 1.0),
        "Gearbox": (1.92, 1.0),
        "GlobalSum": (1.16, 1.0),
        "MatrixVector": (1.12, 1.0),
        "Multiply": (0.68, 1.0),
        "ReduceMax": (1.12, 1.44),
        "Registers": (0.6, 1.0),
        "Requantize": (1.16, 0.71),
        "Softmax": (1.62, 0.81),
        "Window": (1.05, 1.2),
    },
)
# No LUT RAM, and hardly anything is read with a clock that is not a block RAM.
_ICE40 = replace(_ECP5, rom_bits=1024, ram_slice=(), smallest_product=11)
_XILINX = _Library(
    lut_words=64,
    rom_bits=6144,
    ram_slice=((32, 6, 4), (64, 3, 4)),
    ram_slices=15,
    ram_join=1.4,
    smallest_product=9,
    product_luts=0.9,
    weights={
        "sums": 0.36,
        "comparisons": 0.71,
        "gates": 0.17,
        "choices": 0.25,
        "cases": 0.7,
        "tables": 0.0,
        "roms": 1.16,
        "rams": 0.51,
    },
    base=11,
    factors={
        "Add": (1.23, 0.82),
        "ArgMax": (0.74, 0.71),
        "AttentionScores": (0.9, 0.44),
        "AttentionSums": (0.67, 0.05),
        "Channelwise": (1.05, 0.45),
        "Concat": (1.44, 1.0),
        "Fifo": (0.91, 1.0),
        "Fork": (0.45, 1.0),
        "FrameInput": (1.6, 1.0),
        "FrameOutput": (1.2, 1.0),
        "Gearbox": (0.86, 1.0),
        "Lookup": (1.27, 1.0),
        "MatrixVector": (1.2, 0.64),
        "Multiply": (1.34, 0.12),
        "Registers": (0.5, 1.0),
        "Requantize": (1.28, 0.48),
        "Softmax": (1.68, 0.74),
        "Window": (1.01, 0.73),
    },
)
_LIBRARIES = {"ecp5": _ECP5, "ice40": _ICE40, "xilinx": _XILINX}
_NO_FACTORS = (1.0, 1.0)


def estimate(block: Block, device: Device) -> Area:
    """What one block takes. It is elaborated for that, which takes a moment for large ones."""
    return estimate_component(block.create(), device, type(block).__name__)


def estimate_component(component: Any, device: Device, kind: str = "") -> Area:
    """What any hardware takes; `kind` is the class of a block, '' for something else."""
    library = _LIBRARIES[cells_of(device.family)]
    operators = operators_of(rtlil.convert(component, name="estimated"))
    luts, ffs = library.base, float(operators.registers)
    for name in ("sums", "comparisons", "equalities", "gates", "choices", "cases", "shifts"):
        luts += library.weights.get(name, 0.0) * getattr(operators, name)
    for bits, cases in operators.tables:
        luts += library.weights["tables"] * bits * max(1, _power(cases) / library.lut_words)
    ram_blocks = 0
    for memory in operators.memories:
        blocks, in_luts, in_ffs = _memory(memory, device, library)
        weight = library.weights["roms" if memory.constant else "rams"]
        ram_blocks, luts, ffs = ram_blocks + blocks, luts + weight * in_luts, ffs + in_ffs
    multipliers, in_luts = _products(operators, device, library)
    more_luts, more_ffs = library.factors.get(kind, _NO_FACTORS)
    return Area(round(luts * more_luts + in_luts), round(ffs * more_ffs), ram_blocks, multipliers)


def total(areas: Iterable[Area]) -> Area:
    """The sum of several."""
    items = list(areas)
    return Area(
        sum(item.luts for item in items),
        sum(item.ffs for item in items),
        sum(item.ram_blocks for item in items),
        sum(item.multipliers for item in items),
    )


def ram_blocks(width: int, depth: int, device: Device) -> int:
    """Block RAMs of a memory, all in the shape of a port that needs fewest."""
    return min(
        -(-width // port) * -(-depth // _port_words(port, device))
        for port in device.ram_block_widths
    )


def _port_words(width: int, device: Device) -> int:
    """Words of a block behind a port: the bits of parity are only there in multiples of 9."""
    bits = device.ram_block_bits
    return (bits if width % 9 == 0 else 1 << (bits.bit_length() - 1)) // width


def _memory(memory: MemoryShape, device: Device, library: _Library) -> tuple[int, float, float]:
    """Block RAMs, LUTs and flip-flops of a memory."""
    width, depth = memory.width, memory.depth
    blocks = ram_blocks(width, depth, device)
    register = width if memory.clocked else 0
    if memory.constant:
        if memory.clocked and width * depth > library.rom_bits * blocks:
            return blocks, 0, 0
        return 0, width * max(1, _power(depth) / library.lut_words), register
    if not library.ram_slice:
        return (blocks, 0, 0) if memory.clocked else (0, width * depth, width * depth)
    words, bits, luts = next(
        (shape for shape in library.ram_slice if shape[0] >= depth), library.ram_slice[-1]
    )
    slices = -(-width // bits) * -(-depth // words)
    if memory.clocked and slices > library.ram_slices * blocks:
        return blocks, 0, 0
    return 0, luts * slices * (library.ram_join if depth > words else 1), register


def _products(operators: Operators, device: Device, library: _Library) -> tuple[int, float]:
    """Multipliers of all products, and LUTs of those that are too small for one."""
    multipliers, luts = 0, 0.0
    for a, b in operators.products:
        if not device.multipliers or a + b < library.smallest_product:
            luts += library.product_luts * a * b
        else:
            sizes = (device.multiplier_a_bits, device.multiplier_b_bits)
            multipliers += min(
                _parts(a, sizes[0]) * _parts(b, sizes[1]), _parts(b, sizes[0]) * _parts(a, sizes[1])
            )
    return multipliers, luts


def _parts(bits: int, size: int) -> int:
    """Multipliers side by side for an operand; all parts but the highest are without sign."""
    return 1 if bits <= size else -(-(bits - 1) // (size - 1))


def _power(number: int) -> int:
    """The next power of two."""
    return 1 << (number - 1).bit_length()
