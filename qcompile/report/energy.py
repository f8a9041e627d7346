"""The analytical energy of a network: operations by width and memory traffic, times a table.

docs/energy.md has the formulas. Nothing here is measured on a processor.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qcompile.backends.c.measure import Measurement
from qcompile.energy_table import ACCESS_BITS, EnergyTable, Memory
from qcompile.graph import Graph, Op
from qcompile.ops import Reshape
from qcompile.report.formats import FLOAT_BITS, element_bits, stored_bits
from qcompile.report.hardware import HardwareReport
from qcompile.report.operations import Operations, Products, operations
from qcompile.types import TensorType

INT8 = 8
INT8_ROUNDING = 32
"""Bits of sums and multipliers where libraries of int8 round."""


class Arithmetic(enum.Enum):
    """The numbers that a network is taken to compute with."""

    FLOAT32 = "float32"
    INT8 = "int8"
    CHOSEN = "chosen"


@dataclass(frozen=True, slots=True)
class Energy:
    """pJ of one run: products and sums, reading constants, reading and writing activations."""

    compute: float
    weights: float
    activations: float

    @property
    def total(self) -> float:
        return self.compute + self.weights + self.activations

    def plus(self, other: Energy) -> Energy:
        return Energy(
            self.compute + other.compute,
            self.weights + other.weights,
            self.activations + other.activations,
        )


@dataclass(frozen=True)
class EnergyColumn:
    """The energy with one kind of numbers.

    Attributes:
        layers: operator name -> its energy.
        weight_memory: where the constants lie.
        activation_memory: where the activations lie.
        traffic: bits of constants and of activations that are moved.
    """

    layers: Mapping[str, Energy]
    weight_memory: Memory
    activation_memory: Memory
    traffic: tuple[int, int]

    @property
    def total(self) -> Energy:
        result = Energy(0.0, 0.0, 0.0)
        for item in self.layers.values():
            result = result.plus(item)
        return result


@dataclass(frozen=True)
class EnergyReport:
    """What the report says of energy; `measured` is what `--measure` found on this machine."""

    table: EnergyTable
    columns: Mapping[Arithmetic, EnergyColumn]
    measured: Measurement | None = None

    def to_dict(self) -> dict[str, Any]:
        """The part of `report.json`: microjoules."""
        result: dict[str, Any] = {"kind": "analytical", "unit": "uJ", "table": self.table.name}
        for arithmetic, column in self.columns.items():
            total = column.total
            result[arithmetic.value] = {
                **_microjoules(total),
                "weight_memory": column.weight_memory.name,
                "activation_memory": column.activation_memory.name,
                "weight_bits_moved": column.traffic[0],
                "activation_bits_moved": column.traffic[1],
            }
        result["measured"] = None
        if self.measured is not None:
            joules = self.measured.joules
            result["measured"] = {
                "runs": self.measured.runs,
                "milliseconds": round(1e3 * self.measured.seconds, 6),
                "microjoules": None if joules is None else round(1e6 * joules, 3),
            }
        chosen = self.columns[Arithmetic.CHOSEN].layers
        result["layers"] = [{"name": name, **_microjoules(item)} for name, item in chosen.items()]
        return result


def _microjoules(energy: Energy) -> dict[str, float]:
    return {
        "compute": round(energy.compute / 1e6, 6),
        "weights": round(energy.weights / 1e6, 6),
        "activations": round(energy.activations / 1e6, 6),
        "total": round(energy.total / 1e6, 6),
    }


def energy_report(
    graph: Graph, table: EnergyTable, measured: Measurement | None = None
) -> EnergyReport:
    """The energy of a lowered graph as it is, and of the same operators in float32 and int8."""
    columns = {kind: energy_column(graph, table, kind) for kind in Arithmetic}
    return EnergyReport(table, columns, measured)


def energy_column(graph: Graph, table: EnergyTable, arithmetic: Arithmetic) -> EnergyColumn:
    """The energy of one run of the operators of a lowered graph."""
    constants = {
        value: graph.types[value].size * _weight_bits(graph.types[value], arithmetic)
        for value in graph.constants
    }
    moved = {op.name: _moved_bits(graph, op, arithmetic) for op in graph.ops}
    read = {
        op.name: sum(constants[value] for value in dict.fromkeys(op.inputs) if value in constants)
        for op in graph.ops
    }
    used = {value for op in graph.ops for value in op.inputs}
    stored = sum(bits for value, bits in constants.items() if value in used)
    weight_memory = table.memory_for(-(-stored // 8))
    activation_memory = table.memory_for(-(-max(moved.values(), default=0) // 8))
    layers = {}
    for op in graph.ops:
        layers[op.name] = Energy(
            compute_energy(operations(graph, op), table, arithmetic),
            read[op.name] * weight_memory.access / ACCESS_BITS,
            moved[op.name] * activation_memory.access / ACCESS_BITS,
        )
    traffic = sum(read.values()), sum(moved.values())
    return EnergyColumn(layers, weight_memory, activation_memory, traffic)


def compute_energy(work: Operations, table: EnergyTable, arithmetic: Arithmetic) -> float:
    """pJ of the arithmetic of one operator."""
    total = 0.0
    for item in work.products:
        if arithmetic is Arithmetic.FLOAT32 or (item.is_float and arithmetic is Arithmetic.CHOSEN):
            total += item.count * (table.float_multiply + table.float_add)
        elif arithmetic is Arithmetic.INT8:
            product = table.multiply_energy(INT8, INT8)
            total += item.count * (product + table.add_energy(int8_sum_bits(item)))
        else:
            product = 0.0 if item.signs else table.multiply_energy(item.left, item.right)
            total += item.count * (product + table.add_energy(item.total))
    is_float = arithmetic is Arithmetic.FLOAT32 or (
        work.is_float and arithmetic is Arithmetic.CHOSEN
    )
    if is_float:
        single = sum(count for count, *_ in work.multiplies) * table.float_multiply
        single += sum(count for count, _ in work.adds) * table.float_add
        bias = work.products[-1].sums * table.float_add if work.products else 0.0
        return total + single + bias
    multiplies, adds = list(work.multiplies), list(work.adds)
    if arithmetic is Arithmetic.INT8 and work.products:
        # As libraries of int8 do: sums of 32 bits by multipliers of 32 bits.
        multiplies.append((work.products[-1].sums, INT8_ROUNDING, INT8_ROUNDING))
        adds.append((work.products[-1].sums, INT8_ROUNDING))
    else:
        multiplies += work.rounding_multiplies
        adds += work.rounding_adds
    total += sum(count * table.multiply_energy(left, right) for count, left, right in multiplies)
    return total + sum(count * table.add_energy(bits) for count, bits in adds)


def int8_sum_bits(products: Products) -> int:
    """Of sums of products of 8 bits by 8 bits: 16, and what their number adds."""
    return 2 * INT8 + math.ceil(math.log2(max(1, products.count // products.sums)))


def _moved_bits(graph: Graph, op: Op, arithmetic: Arithmetic) -> int:
    """Bits of the activations that an operator reads and writes; a new shape moves nothing."""
    if isinstance(op, Reshape):
        return 0
    values = [*dict.fromkeys(op.inputs), *op.outputs]
    return sum(
        graph.types[value].size * _activation_bits(graph.types[value], arithmetic)
        for value in values
        if not graph.is_constant(value)
    )


def _activation_bits(kind: TensorType, arithmetic: Arithmetic) -> int:
    if arithmetic is Arithmetic.CHOSEN:
        return element_bits(kind)
    return FLOAT_BITS if arithmetic is Arithmetic.FLOAT32 else INT8


def _weight_bits(kind: TensorType, arithmetic: Arithmetic) -> int:
    if arithmetic is Arithmetic.CHOSEN:
        return stored_bits(kind)
    return FLOAT_BITS if arithmetic is Arithmetic.FLOAT32 else INT8


TITLES: Mapping[Arithmetic, str] = {
    Arithmetic.FLOAT32: "float32",
    Arithmetic.INT8: "int8",
    Arithmetic.CHOSEN: "as compiled",
}
ENERGY_HEAD = ("analytical energy", "compute", "weights", "activations", "together", "of float32")


def energy_rows(report: EnergyReport) -> list[tuple[str, ...]]:
    """The three columns as rows of text, in microjoules."""
    whole = report.columns[Arithmetic.FLOAT32].total.total
    rows: list[tuple[str, ...]] = []
    for arithmetic, column in report.columns.items():
        total = column.total
        rows.append(
            (
                TITLES[arithmetic],
                microjoule_text(total.compute),
                f"{microjoule_text(total.weights)} ({column.weight_memory.name})",
                f"{microjoule_text(total.activations)} ({column.activation_memory.name})",
                microjoule_text(total.total),
                f"{100 * total.total / whole:.1f} %" if whole else "-",
            )
        )
    return rows


def microjoule_text(picojoules: float) -> str:
    """'12.3 uJ', '4.56 mJ': three digits."""
    if picojoules >= 999.5e6:
        return f"{picojoules / 1e9:.3g} mJ"
    return f"{picojoules / 1e6:.3g} \N{MICRO SIGN}J"


def energy_text(report: EnergyReport) -> str:
    """One line on what the figures are."""
    return (
        f"analytical, not measured: operations by width and memory traffic times the table "
        f"'{report.table.name}' (docs/energy.md)"
    )


def measured_lines(report: EnergyReport, hardware: HardwareReport | None) -> list[tuple[str, str]]:
    """(what, how much) of latency and of measured energy; what was not measured is said."""
    measured = report.measured
    if hardware is not None:
        milliseconds = hardware.latency / hardware.clock / 1e3
        text = f"{milliseconds:.3g} ms at {hardware.clock:g} MHz, from cycles"
        return [("latency", text), ("measured energy", "not measured")]
    if measured is None:
        return [("measured latency and energy", "not measured (--measure does, for --target c)")]
    lines = [
        (
            "measured latency",
            f"{1e3 * measured.seconds:.3g} ms on this machine, one thread, median of "
            f"{measured.runs:,} runs",
        )
    ]
    if measured.joules is None:
        text = "not measured: no energy counter of the processor can be read"
    else:
        text = (
            f"{1e6 * measured.joules:.3g} \N{MICRO SIGN}J a run: whole processor packages, with "
            "all else that ran"
        )
    return [*lines, ("measured energy", text)]
