"""What a design consists of before synthesis: operators, registers and memories of its RTLIL."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_WIDTH = re.compile(r"parameter \\(A_WIDTH|B_WIDTH|Y_WIDTH|WIDTH) (\d+)")
_MEMORY = re.compile(r"memory width (\d+) size (\d+) (\S+)")
_MEMORY_NAME = re.compile(r'parameter \\MEMID "\\?(\\.*)"')
_CONSTANT = re.compile(r"\d+'[01xz-]*|\{\s*\}")
_RANGE = re.compile(r"\[(\d+)(?::(\d+))?\]$")
_ASSIGNMENT = re.compile(r"assign (\S+)(?: \[(\d+)(?::(\d+))?\])? (.*)")
_COMPARISONS = frozenset(("$lt", "$le", "$gt", "$ge"))
_EQUALITIES = frozenset(("$eq", "$ne"))
_SUMS = frozenset(("$add", "$sub", "$neg"))
_GATES = frozenset(("$and", "$or", "$xor", "$xnor"))
_REDUCTIONS = frozenset(("$reduce_and", "$reduce_or", "$reduce_xor", "$reduce_bool"))
_SHIFTS = frozenset(("$shl", "$shr", "$sshl", "$sshr", "$shift", "$shiftx"))


@dataclass(frozen=True, slots=True)
class MemoryShape:
    """A memory: `clocked` says whether it is read with a clock, `constant` that nobody writes."""

    width: int
    depth: int
    clocked: bool
    constant: bool


@dataclass(slots=True)
class Operators:
    """Bits of operators in a design, summed over all of its modules.

    Attributes:
        registers: bits of flip-flops.
        sums: result bits of adders and subtractors.
        comparisons: operand bits of <, <=, >, >=.
        equalities: operand bits of == and !=.
        gates: bits of and, or, xor and their reductions.
        choices: bits of two-way multiplexers that are written as such.
        cases: bits of those that follow from cases, enables and resets not counted.
        tables: for each table of constants its result bits and its number of cases.
        shifts: bits of shifts by a computed distance, times the bits of the distance.
        products: operand widths of each multiplier.
        memories: their shapes.
    """

    registers: int = 0
    sums: int = 0
    comparisons: int = 0
    equalities: int = 0
    gates: int = 0
    choices: int = 0
    cases: int = 0
    tables: list[tuple[int, int]] = field(default_factory=list)
    shifts: int = 0
    products: list[tuple[int, int]] = field(default_factory=list)
    memories: list[MemoryShape] = field(default_factory=list)


def operators_of(rtlil: str) -> Operators:
    """Counts a design as Amaranth writes it (`amaranth.back.rtlil.convert`)."""
    found = Operators()
    shapes: dict[str, tuple[int, int]] = {}
    clocked: set[str] = set()
    written: set[str] = set()
    registers: dict[str, str] = {}
    processes: list[list[str]] = []
    lines = iter(rtlil.splitlines())
    for line in lines:
        text = line.strip()
        if text.startswith("module "):
            _finish(found, shapes, clocked, written, registers, processes)
        elif text.startswith("memory "):
            match = _MEMORY.match(text)
            if match:
                shapes[match.group(3)] = int(match.group(1)), int(match.group(2))
        elif text.startswith("process "):
            processes.append(list(_process(lines)))
        elif text.startswith("cell $"):
            kind = text.split()[1]
            cell = list(_until_end(lines))
            if kind.startswith("$mem"):
                name = _value(cell, _MEMORY_NAME)
                if kind.startswith("$memwr"):
                    written.add(name)
                elif "parameter \\CLK_ENABLE 1" in cell:
                    clocked.add(name)
            else:
                _count(found, kind, cell, registers)
    _finish(found, shapes, clocked, written, registers, processes)
    return found


def _until_end(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        text = line.strip()
        if text == "end":
            return
        yield text


def _process(lines: Iterator[str]) -> Iterator[str]:
    depth = 1
    for line in lines:
        text = line.strip()
        if text.startswith("switch "):
            depth += 1
        elif text == "end":
            depth -= 1
            if not depth:
                return
        if text and not text.startswith("attribute"):
            yield text


def _value(cell: list[str], pattern: re.Pattern[str]) -> str:
    return next((match.group(1) for line in cell if (match := pattern.match(line))), "")


def _count(found: Operators, kind: str, cell: list[str], registers: dict[str, str]) -> None:
    widths = {match[1]: int(match[2]) for line in cell if (match := _WIDTH.match(line))}
    a, b = widths.get("A_WIDTH", 0), widths.get("B_WIDTH", 0)
    y = widths.get("Y_WIDTH", 0)
    ports = {line.split()[1]: line.split(maxsplit=2)[2] for line in cell if line[:8] == "connect "}
    if kind == "$dff":
        found.registers += widths["WIDTH"]
        registers[_net(ports["\\D"])] = _net(ports["\\Q"])
    elif kind in _SUMS:
        found.sums += min(y, max(a, b) + 1)
    elif kind in _COMPARISONS:
        found.comparisons += max(a, b)
    elif kind in _EQUALITIES:
        found.equalities += max(a, b)
    elif kind in _GATES:
        found.gates += y
    elif kind in _REDUCTIONS:
        found.gates += a
    elif kind == "$mux":
        found.choices += widths["WIDTH"]
    elif kind in _SHIFTS and not _CONSTANT.fullmatch(ports["\\B"]):
        found.shifts += y * b
    elif kind == "$mul" and not any(_CONSTANT.fullmatch(ports[port]) for port in ("\\A", "\\B")):
        found.products.append((a, b))


def _net(text: str) -> str:
    """The name of a net without its range of bits."""
    return _RANGE.sub("", text).strip()


def _finish(
    found: Operators,
    shapes: dict[str, tuple[int, int]],
    clocked: set[str],
    written: set[str],
    registers: dict[str, str],
    processes: list[list[str]],
) -> None:
    """Adds what is known of a module only at its end, and clears it for the next one."""
    for name, (width, depth) in shapes.items():
        found.memories.append(MemoryShape(width, depth, name in clocked, name not in written))
    for process in processes:
        _count_process(found, process, registers)
    for store in (shapes, clocked, written, registers, processes):
        store.clear()


def _count_process(found: Operators, process: list[str], registers: dict[str, str]) -> None:
    """A process gives one net a default and replaces it case by case. A register that keeps its
    value by default has an enable for nothing, and so is its reset."""
    constants: dict[str, int] = {}
    variables: dict[str, list[int]] = {}
    keeping: set[str] = set()
    within = 0
    resetting = False
    for text in process:
        if text.startswith("switch "):
            within += 1
            resetting = within == 1 and text.startswith("switch \\rst ")
        elif text == "end":
            within -= 1
            resetting = False
        elif text.startswith("assign "):
            net, low, bits, value = _assignment(text)
            if not within:
                if registers.get(net) == _net(value):
                    keeping.add(net)
            elif not resetting:
                written = variables.setdefault(net, [])
                written += [0] * (low + bits - len(written))
                for bit in range(low, low + bits):
                    written[bit] += 1
                constants[net] = constants.get(net, 0) + (_CONSTANT.fullmatch(value) is not None)
    for net, counts in variables.items():
        most = max(counts)
        if most > 1 and constants[net] == most:
            found.tables.append((len(counts), most))
        else:
            found.cases += sum(max(0, count - (net in keeping)) for count in counts)


def _assignment(text: str) -> tuple[str, int, int, str]:
    """`assign target value` as net, lowest bit, number of bits, and value."""
    match = _ASSIGNMENT.match(text)
    assert match is not None, text
    high = int(match[2] or 0)
    low = int(match[3] or high)
    return match[1], low, high - low + 1, match[4]
