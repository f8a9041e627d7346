"""The FPGAs that area and speed can be given for, with what their data sheets say they hold.

This module imports nothing heavy: options are checked against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType

from qcompile.errors import UsageError


@dataclass(frozen=True, slots=True)
class Device:
    """One FPGA.

    Attributes:
        name: what `--device` takes.
        family: 'ecp5', 'ice40', 'xc7' or 'xcup': chooses the synthesis command.
        part: the vendor's name of the part, without package and speed grade.
        package: the one that placement and routing is run for.
        speed: the speed grade that timing is given for.
        luts: look-up tables of `lut_inputs` inputs.
        lut_inputs: 4 or 6.
        ffs: flip-flops.
        ram_blocks: block RAMs of `ram_block_bits`. Of AMD's blocks of 36 Kbit each counts as the
            two of 18 Kbit that it can be split into.
        ram_block_widths: the widths of a port, ascending; a block is `ram_block_bits // 9 * 8`
            bits large in widths that do not use parity.
        lut_ram_bits: the largest memory that LUTs can make; None where that is not known here.
        multipliers: hardware multipliers of `multiplier_a_bits` x `multiplier_b_bits`, signed.
        router: the program that places and routes it, and so gives a clock rate; None where there
            is no open one.
        router_options: what names the part to it.
        large_ram_bits: further memory in blocks that are not initialised (UltraRAM, SPRAM); it is
            not counted as block RAM.
    """

    name: str
    family: str
    part: str
    package: str
    speed: str
    luts: int
    lut_inputs: int
    ffs: int
    ram_blocks: int
    ram_block_bits: int
    ram_block_widths: tuple[int, ...]
    lut_ram_bits: int | None
    multipliers: int
    multiplier_a_bits: int
    multiplier_b_bits: int
    router: str | None
    router_options: tuple[str, ...] = ()
    large_ram_bits: int = 0

    @property
    def place_and_route(self) -> bool:
        """Whether an open router supports it, so that a clock rate can be had."""
        return self.router is not None

    @property
    def ram_bits(self) -> int:
        """All block RAM."""
        return self.ram_blocks * self.ram_block_bits

    def __str__(self) -> str:
        ram = f"{self.ram_blocks} x {self.ram_block_bits / 1024:g} Kbit RAM"
        route = "area and clock rate" if self.place_and_route else "area only"
        part = f"{self.part}-{self.speed}" if self.family == "ecp5" else self.part
        return (
            f"{part}, {self.luts} LUT{self.lut_inputs}, {ram}, "
            f"{self.multipliers} multipliers; {route}"
        )


def _ecp5(size: int, luts: int, ram_blocks: int, lut_ram_kbits: int, multipliers: int) -> Device:
    # Lattice FPGA-DS-02012, table 1.1. The exact LUTs are those of the routing database.
    return Device(
        name=f"ecp5-{size}k",
        family="ecp5",
        part=f"LFE5U-{size}F",
        package="CABGA381",
        speed="6",
        luts=luts,
        lut_inputs=4,
        ffs=luts,
        ram_blocks=ram_blocks,
        ram_block_bits=18432,
        ram_block_widths=(1, 2, 4, 9, 18, 36),
        lut_ram_bits=lut_ram_kbits * 1024,
        multipliers=multipliers,
        multiplier_a_bits=18,
        multiplier_b_bits=18,
        router="nextpnr-ecp5",
        router_options=(f"--{size}k", "--package", "CABGA381", "--speed", "6"),
    )


def _ice40(
    name: str, part: str, package: str, luts: int, ram_blocks: int, multipliers: int, spram: int
) -> Device:
    # Lattice FPGA-DS-02029 (LP/HX) and FPGA-DS-02008 (UltraPlus). No LUT RAM.
    option = name.removeprefix("ice40-")
    return Device(
        name=name,
        family="ice40",
        part=part,
        package=package,
        speed=option[:2].upper(),
        luts=luts,
        lut_inputs=4,
        ffs=luts,
        ram_blocks=ram_blocks,
        ram_block_bits=4096,
        ram_block_widths=(2, 4, 8, 16),
        lut_ram_bits=0,
        multipliers=multipliers,
        multiplier_a_bits=16,
        multiplier_b_bits=16,
        router="nextpnr-ice40",
        router_options=(f"--{option}", "--package", package),
        large_ram_bits=spram,
    )


def _amd(
    name: str,
    family: str,
    package: str,
    luts: int,
    ram_blocks_36: int,
    multipliers: int,
    ultra_ram_blocks: int = 0,
) -> Device:
    # AMD DS190 (Zynq-7000) and DS891 (Zynq UltraScale+). There is no open router that gives timing.
    return Device(
        name=name,
        family=family,
        part=name.upper(),
        package=package,
        speed="1",
        luts=luts,
        lut_inputs=6,
        ffs=2 * luts,
        ram_blocks=2 * ram_blocks_36,
        ram_block_bits=18432,
        ram_block_widths=(1, 2, 4, 9, 18, 36),
        lut_ram_bits=None,
        multipliers=multipliers,
        multiplier_a_bits=25 if family == "xc7" else 27,
        multiplier_b_bits=18,
        router=None,
        large_ram_bits=ultra_ram_blocks * 294912,
    )


DEVICES: Mapping[str, Device] = MappingProxyType(
    {
        device.name: device
        for device in (
            _ecp5(25, 24288, 56, 194, 28),
            _ecp5(45, 43848, 108, 351, 72),
            _ecp5(85, 83640, 208, 669, 156),
            _ice40("ice40-hx8k", "iCE40HX8K", "ct256", 7680, 32, 0, 0),
            _ice40("ice40-up5k", "iCE40UP5K", "sg48", 5280, 30, 8, 4 * 262144),
            _amd("xc7z010", "xc7", "clg400", 17600, 60, 80),
            _amd("xc7z020", "xc7", "clg400", 53200, 140, 220),
            _amd("xczu3eg", "xcup", "sbva484", 70560, 216, 360),
            _amd("xczu7ev", "xcup", "ffvc1156", 230400, 312, 1728, 96),
        )
    }
)
"""All devices by name."""


def find_device(name: str) -> Device:
    """
    Raises:
        UsageError: there is no such device; names those that are spelt alike.
    """
    found = DEVICES.get(name.lower())
    if found is None:
        near = get_close_matches(name.lower(), DEVICES, n=3, cutoff=0.5)
        advice = f"did you mean {' or '.join(near)}?" if near else f"use {', '.join(DEVICES)}"
        raise UsageError(f"--device: '{name[:80]}' is unknown; {advice} (see --list-devices)")
    return found
