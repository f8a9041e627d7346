"""Constant tables and descriptors as C text."""

from __future__ import annotations

from collections.abc import Sequence

from qcompile.backends.c.names import (
    double_literal,
    float_literal,
    integer_literal,
)
from qcompile.backends.c.program import (
    Shape,
    Step,
    Table,
)

COLUMNS = 100


def table_values(table: Table) -> str:
    """The initialiser of a table, wrapped."""
    if table.ctype in ("uint8_t", "uint32_t"):
        # Packed weights come by the million, so lines have a fixed number of values.
        form, each = ("{}", 19) if table.ctype == "uint8_t" else ("0x{:08x}", 8)
        data = table.values.tolist()
        rows = (data[i : i + each] for i in range(0, len(data), each))
        return ",\n    ".join(", ".join(map(form.format, row)) for row in rows)
    if table.ctype == "float":
        items = [float_literal(float(value)) for value in table.values]
    elif table.ctype == "double":
        items = [double_literal(float(value)) for value in table.values]
    else:
        items = [integer_literal(int(value), table.ctype) for value in table.values]
    lines, line = [], ""
    for item in items:
        if len(line) + len(item) > COLUMNS - 8:
            lines.append(line.rstrip())
            line = ""
        line += f"{item}, "
    lines.append(line.rstrip(", "))
    return "\n    ".join(lines)


def shape_types(steps: Sequence[Step]) -> list[tuple[str, list[str]]]:
    """(struct, declarations) of every descriptor type."""
    found: dict[str, list[str]] = {}
    for step in steps:
        for shape in step.shapes:
            declared = [
                f"{name}[{len(value)}]" if isinstance(value, tuple) else name
                for name, value in shape.fields
            ]
            if found.setdefault(shape.struct, declared) != declared:
                raise ValueError(f"two forms of {shape.struct}")
    return list(found.items())


def wrapped(text: str) -> list[str]:
    """An initialiser broken before its fields, where it exceeds the line."""
    lines = [""]
    for index, part in enumerate(text.split(", .")):
        piece = part if index == 0 else f".{part}"
        if index > 0:
            lines[-1] += ","
            if len(lines[-1]) + len(piece) > COLUMNS - 12:
                lines.append("    " + piece)
                continue
            piece = " " + piece
        lines[-1] += piece
    return lines


def shape_text(shape: Shape) -> str:
    """The initialiser of a descriptor."""
    parts = []
    for name, value in shape.fields:
        shown = f"{{ {', '.join(map(str, value))} }}" if isinstance(value, tuple) else str(value)
        parts.append(f".{name} = {shown}")
    return f"static const {shape.struct} {shape.name} = {{ {', '.join(parts)} }};"
