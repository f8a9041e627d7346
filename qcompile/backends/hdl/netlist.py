"""What a synthesised netlist costs: cells of each family, counted from the JSON of yosys."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

WRAPPER_NETS = ("qcompile_chain", "qcompile_in", "qcompile_out", "qcompile_fold")
"""Registers that the driver puts round a design; they do not count."""
SHIFTED_NETS = ("qcompile_chain", "qcompile_fold")
"""Those with a gate before each register."""


@dataclass(frozen=True, slots=True)
class Area:
    """What a circuit takes of a device.

    Attributes:
        luts: look-up tables, with those that make carries and LUT RAM.
        ffs: flip-flops.
        ram_blocks: block RAMs in the unit of `Device.ram_blocks`.
        multipliers: hardware multipliers.
        cells: all cells by type, as the tool counts them.
    """

    luts: int
    ffs: int
    ram_blocks: int
    multipliers: int
    cells: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, int]:
        """For the report."""
        return {
            "luts": self.luts,
            "ffs": self.ffs,
            "ram_blocks": self.ram_blocks,
            "multipliers": self.multipliers,
        }


# Cell type (a pattern of the whole name) -> LUTs. A slice of LUT RAM takes the LUTs it is made of.
_LUTS: Mapping[str, tuple[tuple[str, int], ...]] = {
    "ecp5": (("LUT4", 1), ("CCU2C", 2), ("TRELLIS_DPR16X4", 4)),
    "ice40": (("SB_LUT4", 1),),
    "xilinx": (
        (r"LUT[1-6]", 1),
        (r"SRL16E?|SRLC16E|SRLC32E", 1),
        (r"RAM(32|64)X1S.*", 1),
        (r"RAM(32|64)X1D.*", 2),
        (r"RAM128X1D|RAM32M|RAM64M", 4),
        (r"RAM256X1D|RAM32M16|RAM64M8|RAM256X1S", 8),
    ),
}
_FFS = {"ecp5": "TRELLIS_FF", "ice40": "SB_DFF.*", "xilinx": "FD[RSCP]E.*|LD[CP]E.*"}
_RAMS: Mapping[str, tuple[tuple[str, int], ...]] = {
    "ecp5": (("DP16KD|PDPW16KD", 1),),
    "ice40": (("SB_RAM40_4K.*", 1),),
    "xilinx": (("RAMB18E[12]", 1), ("RAMB36E[12]", 2)),
}
_MULTIPLIERS: Mapping[str, tuple[tuple[str, int], ...]] = {
    "ecp5": (("MULT18X18D", 1),),
    "ice40": (("SB_MAC16", 1),),
    "xilinx": (("DSP48E[12]", 1),),
}


def cells_of(family: str) -> str:
    """Which cell library a family of `Device` has."""
    return "xilinx" if family in ("xc7", "xcup") else family


def area_of(netlist: Mapping[str, Any], top: str, family: str) -> Area:
    """Area of the flat module `top`, without the registers that the driver put round it.

    Args:
        netlist: what `write_json` wrote.
        top: its module.
        family: of the device.

    Raises:
        ValueError: the module is missing or empty, so this is no result of a synthesis.
    """
    library = cells_of(family)
    module = netlist.get("modules", {}).get(top)
    if not module or not module.get("cells"):
        raise ValueError(f"no module '{top}' with cells")
    cells: Mapping[str, Any] = module["cells"]
    ours = _wrapper_cells(module, library)
    counts = Counter(cell["type"] for name, cell in cells.items() if name not in ours)
    return Area(
        luts=_weighted(counts, _LUTS[library]),
        ffs=_weighted(counts, ((_FFS[library], 1),)),
        ram_blocks=_weighted(counts, _RAMS[library]),
        multipliers=_weighted(counts, _MULTIPLIERS[library]),
        cells=dict(sorted(counts.items())),
    )


def wrapper_ffs(netlist: Mapping[str, Any], top: str, family: str) -> int:
    """How many flip-flops of `top` are those that the driver put round the design."""
    library = cells_of(family)
    module = netlist["modules"][top]
    return sum(
        _matches(module["cells"][name]["type"], _FFS[library])
        for name in _wrapper_cells(module, library)
    )


def _wrapper_cells(module: Mapping[str, Any], library: str) -> frozenset[str]:
    """Names of the cells that make the nets `WRAPPER_NETS`: their registers, and the LUTs that do
    nothing but invert or fold what is shifted."""
    nets = module.get("netnames", {})
    ours = {bit for name in WRAPPER_NETS for bit in nets.get(name, {}).get("bits", ())}
    shifted = {bit for name in SHIFTED_NETS for bit in nets.get(name, {}).get("bits", ())}
    cells: Mapping[str, Any] = module["cells"]
    found = set()
    gates = set()
    for name, cell in cells.items():
        output = cell["connections"].get("Q", [None])[0]
        if output in ours and _matches(cell["type"], _FFS[library]):
            found.add(name)
            if output in shifted:
                gates.update(cell["connections"].get("D", ()))
    for name, cell in cells.items():
        if cell["type"] == "SB_LUT4" and gates.intersection(cell["connections"].get("O", ())):
            found.add(name)
    return frozenset(found)


def _weighted(counts: Mapping[str, int], weights: Iterable[tuple[str, int]]) -> int:
    return sum(
        weight * count
        for pattern, weight in weights
        for kind, count in counts.items()
        if _matches(kind, pattern)
    )


def _matches(kind: str, pattern: str) -> bool:
    return re.fullmatch(pattern, kind) is not None
