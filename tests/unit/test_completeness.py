"""Every operator exists in every place where it must; names what is missing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qcompile.backends.c.table import PLANNERS
from qcompile.backends.hdl.table import PLANNERS as HDL_PLANNERS
from qcompile.backends.hdl.table import REFUSED
from qcompile.graph import Op
from qcompile.ops import ANNOTATIONS, OPERATORS, POINTWISE, Dequantize, Quantize
from qcompile.packing import Packing
from qcompile.sim.table import KERNELS
from tests.op_cases import CASES

ROOT = Path(__file__).resolve().parents[2]

NO_INTEGER_KERNEL = (*POINTWISE, Dequantize)
"""Functions become a `Lookup`; Dequantize makes floats."""

NO_FLOAT_KERNEL = (Quantize,)


def stem(operator: type[Op]) -> str:
    """`conv_transpose` for `ConvTranspose`: the name of its file in every folder."""
    return operator.__module__.rsplit(".", 1)[1]


def test_every_operator_file_is_listed() -> None:
    shared = {"__init__", "activation", "code_limits", "geometry", "pointwise", "sum_op"}
    files = {path.stem for path in (ROOT / "qcompile" / "ops").glob("*.py")} - shared
    assert files == {stem(operator) for operator in (*OPERATORS, *ANNOTATIONS)}


@pytest.mark.parametrize("operator", OPERATORS, ids=stem)
def test_the_simulator_has_it(operator: type[Op]) -> None:
    # A function of one tensor is the operator's own `function`; one kernel serves all of them.
    name = "pointwise" if operator in POINTWISE else stem(operator)
    assert (ROOT / "sim" / f"{name}.py").is_file()
    assert operator in KERNELS, f"sim/table.py has no row for {operator.__name__}"
    kernel = KERNELS[operator]
    assert (kernel.integer is None) == (operator in NO_INTEGER_KERNEL), "integer kernel"
    assert (kernel.float_ is None) == (operator in NO_FLOAT_KERNEL), "float kernel"


@pytest.mark.parametrize("operator", OPERATORS, ids=stem)
def test_it_has_cases(operator: type[Op]) -> None:
    assert (ROOT / "tests" / "op_cases" / f"{stem(operator)}.py").is_file()
    assert stem(operator) in CASES, "not in the list of tests/op_cases/__init__.py"


@pytest.mark.parametrize("operator", OPERATORS, ids=stem)
def test_the_c_back_end_has_it(operator: type[Op]) -> None:
    assert operator in PLANNERS, f"backends/c/table.py has no row for {operator.__name__}"
    for template in PLANNERS[operator].templates:
        path = ROOT / "templates" / "c" / "kernels" / f"{template}.c.j2"
        assert path.is_file(), f"{path.name} is missing"


def test_every_c_kernel_is_used() -> None:
    """Kernels are named in a planner's row, required by another kernel's planner, or dead."""
    sources = "".join(
        path.read_text(encoding="utf-8")
        for path in sorted((ROOT / "qcompile" / "backends" / "c").glob("*.py"))
    )
    by_packing = {f"unpack_{packing.value}" for packing in Packing}
    kernels = (ROOT / "templates" / "c" / "kernels").glob("*.c.j2")
    stems = {path.name.removesuffix(".c.j2") for path in kernels}
    assert not {name for name in stems - by_packing if f'"{name}"' not in sources}


def test_every_hardware_block_has_a_test() -> None:
    blocks = {
        path.stem
        for path in (ROOT / "hw").glob("*.py")
        if re.search(r"^class \w+\((Block|Pointwise)\)", path.read_text(encoding="utf-8"), re.M)
    }
    assert len(blocks) > 15
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / "hw").glob("test_*.py")}
    assert blocks - {"pointwise"} <= tests


def test_every_operator_is_planned_or_refused_by_hardware() -> None:
    assert {*HDL_PLANNERS, *REFUSED} == set(OPERATORS)
    assert not {*HDL_PLANNERS} & {*REFUSED}
