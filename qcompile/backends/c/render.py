"""From the planned program to text: everything that fills the file templates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import jinja2

from qcompile.backends.c import vectors as test_vectors
from qcompile.backends.c.levels import ALL_LEVELS, Family
from qcompile.backends.c.names import (
    c_type,
    comment_lines,
    comment_text,
    double_literal,
    float_literal,
    identifier,
    integer_literal,
    short,
    string_text,
    unique,
)
from qcompile.backends.c.program import (
    ARENA_ALIGNMENT,
    WORK_ALIGNMENT,
    Kernel,
    Role,
    Shape,
    Step,
    Table,
    Variant,
)
from qcompile.backends.c.row_groups import RowLayout, held_macro
from qcompile.graph import Graph
from qcompile.multiplications import multiplications
from qcompile.passes.place_planes import BitPlanes, memory_bytes
from qcompile.passes.place_tensors import Placement
from qcompile.passes.plan_buffers import BufferPlan
from qcompile.types import Array, FloatType, TensorType, q_format

COLUMNS = 100
WORK = "work"
"""Name of the memory that the variants of a step share."""


@dataclass(frozen=True)
class Layout:
    """The planned program: what the templates and the verification need to know."""

    entry: str
    graph: Graph
    steps: tuple[Step, ...]
    placements: Mapping[str, Placement]
    planes: Mapping[str, BitPlanes]
    release: BufferPlan
    debug: BufferPlan
    rows: RowLayout | None = None

    @property
    def taps(self) -> tuple[tuple[Step, str], ...]:
        """Every activation that lies in the arena, in order of production."""
        return tuple(
            (step, value)
            for step in self.steps
            for value in step.op.outputs
            if value not in self.graph.outputs
            and (self.rows is None or value not in self.rows.added)
        )

    @property
    def needs_math(self) -> bool:
        return any(item.needs_math for item in all_kernels(self.steps))


@dataclass(frozen=True)
class Port:
    """A public tensor: parameter of the entry function and macros of the header."""

    name: str
    macro: str
    value: str
    kind: TensorType

    @property
    def ctype(self) -> str:
        return c_type(self.kind.element)

    @property
    def shown_name(self) -> str:
        return comment_text(self.value, 60)

    @property
    def text(self) -> str:
        return type_text(self.kind)

    @property
    def scale(self) -> str | None:
        quantization = self.kind.quantization
        if quantization is None or not quantization.is_per_tensor:
            return None
        return double_literal(quantization.scale[0])


def value_name(value: str) -> str:
    """Buffer of an activation."""
    return f"value {value}"


def scratch_name(index: int, name: str) -> str:
    """Buffer of scratch memory `name` of step `index`."""
    return f"scratch {index} {name}"


def ports(layout: Layout, values: Sequence[str], role: str) -> list[Port]:
    """Parameters for the graph's inputs or outputs; `role` is 'input' or 'output'."""
    if len(values) == 1:
        names = [role]
    else:
        parts = [identifier(value) for value in values]
        names = unique(f"{role}_{part}" if part else role for part in parts)
    entry = layout.entry.upper()
    return [
        Port(name, f"{entry}_{name.upper()}", value, layout.graph.types[value])
        for name, value in zip(names, values, strict=True)
    ]


def type_text(kind: TensorType) -> str:
    """'u6[1,16,256,256] Q4.2': element, shape and format, for comments."""
    text = str(kind)
    quantization = kind.quantization
    if quantization is None or isinstance(kind.element, FloatType):
        return text
    if not quantization.is_per_tensor:
        return f"{text} scale per channel"
    fixed = q_format(kind.element, quantization.scale[0])
    return f"{text} {fixed}" if fixed else f"{text} scale {quantization.scale[0]:.6g}"


def all_kernels(steps: Sequence[Step]) -> list[Kernel]:
    """Every kernel once, each after the kernels it calls."""
    found: dict[str, Kernel] = {}

    def visit(item: Kernel) -> None:
        for required in item.requires:
            visit(required)
        known = found.setdefault(item.function, item)
        if known != item:
            raise ValueError(f"two kernels are named {item.function}")

    for step in steps:
        for item in step.all_kernels:
            visit(item)
    return list(found.values())


def families(steps: Sequence[Step]) -> list[str]:
    """The guards of the instruction sets that some step has a variant for."""
    used = {item.level.value.family for item in all_kernels(steps) if item.level is not None}
    return [family.value for family in Family if family in used]


@cache
def environment(trim: bool = True) -> jinja2.Environment:
    """The templates, with the few filters they use; `trim` drops lines that only have a tag."""
    result = jinja2.Environment(
        loader=jinja2.PackageLoader("qcompile.templates", "c"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
        trim_blocks=trim,
        lstrip_blocks=trim,
    )
    result.filters["short"] = short
    result.filters["comment"] = comment_text
    result.filters["string"] = string_text
    return result


def kernel_text(item: Kernel) -> str:
    """The C function of one kernel."""
    template = environment(trim=False).get_template(f"kernels/{item.template}.c.j2")
    settings = dict(item.settings)
    level = item.level
    if level is not None:
        settings |= {"level": level.value.suffix, "vector_bytes": level.value.vector_bytes}
    text = template.render(function=item.function, **settings).strip() + "\n"
    if level is None:
        return text
    text = re.sub("^static ", f"{level.target} static ", text, flags=re.MULTILINE)
    return f"#if defined({level.value.guard})\nVECTORS_BEGIN\n{text}VECTORS_END\n#endif\n"


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


def step_comment(graph: Graph, step: Step) -> str:
    """One line that says what a step computes."""
    op = step.op
    inputs = ", ".join(
        type_text(graph.types[value]) for value in op.inputs if value not in graph.constants
    )
    text = f"{op.label()}: {inputs} -> {type_text(graph.output_type(op))}"
    for value in op.inputs:
        if value in graph.constants and not graph.types[value].is_float:
            kind = graph.types[value]
            text += f"; constant {kind.element}[{','.join(map(str, kind.shape))}]"
    text += "".join(f"; {note}" for note in step.notes)
    accumulator = getattr(op, "accumulator", None)
    if accumulator is not None:
        text += f"; sums {accumulator}"
    return comment_text(text, 240)


def pointer_lines(layout: Layout, index: int, step: Step, public: Mapping[str, str]) -> list[str]:
    """Declarations of a step's pointers."""
    lines = []
    for pointer in step.pointers:
        constant = "const " if pointer.value is not None and not pointer.writes else ""
        if pointer.value is not None and pointer.value in public:
            source = public[pointer.value]
        else:
            macro = offset_macro(layout, index, pointer.name, pointer.value)
            source = f"({constant}{pointer.ctype} *)(void *)(memory + {macro})"
        place = f" + {pointer.place}" if pointer.place else ""
        lines.append(f"{constant}{pointer.ctype} *const {pointer.name} = {source}{place};")
    return lines


def dispatched(index: int, step: Step) -> list[str]:
    """The calls of step `index`, with the choice among its variants."""
    if not step.variants:
        return step.calls
    lines = []
    for family in Family:
        found = [v for v in step.variants if v.level is not None and v.level.value.family is family]
        if not found:
            continue
        lines.append(f"#if defined({family.value})")
        for variant in sorted(found, key=lambda v: -v.level.value.rank if v.level else 0):
            assert variant.level is not None
            test = f"if (level >= {variant.level.macro}) {{"
            branch = [test, *variant_lines(index, variant), "} else"]
            guard = variant.level.value.guard
            guarded = guard != family.value
            lines += [f"#if defined({guard})", *branch, "#endif"] if guarded else branch
        lines.append("#endif")
    (portable,) = (variant for variant in step.variants if variant.level is None)
    return [*lines, "{", *variant_lines(index, portable), "}"]


def variant_lines(index: int, variant: Variant) -> list[str]:
    """The body of one variant of step `index`, indented."""
    comment = [f"/* {comment_text(variant.note)} */"] if variant.note else []
    note = variant.note or (variant.level.value.shown if variant.level else "portable C")
    profile = f'PROFILE_KERNEL({index}, "{string_text(note)}");'
    declared = [line for text in variant.locals for line in wrapped(text)]
    lines = [*comment, *variant.pointers, *declared, profile, *variant.calls]
    return [f"    {line}" for line in lines]


def offset_macro(layout: Layout, index: int, name: str, value: str | None) -> str:
    """Name of the constant that holds a buffer's offset."""
    if value is None:
        return f"AT_{layout.steps[index].prefix.upper()}_{name.upper()}"
    for step in layout.steps:
        if value in step.op.outputs:
            number = step.op.outputs.index(value)
            return f"AT_{step.prefix.upper()}" + (f"_{number}" if number else "")
    raise KeyError(value)


def offsets(layout: Layout) -> list[tuple[str, int, int]]:
    """(constant, release offset, debug offset) of every buffer."""
    rows = []
    for index, step in enumerate(layout.steps):
        names = [(value, None) for value in step.op.outputs if value not in layout.graph.outputs]
        scratch = [(None, pointer.name) for pointer in step.pointers if pointer.value is None]
        if step.work_bytes:
            scratch.append((None, WORK))
        for value, local in [*names, *scratch]:
            key = value_name(value) if value is not None else scratch_name(index, local or "")
            macro = offset_macro(layout, index, local or "", value)
            rows.append((macro, layout.release.offsets[key], layout.debug.offsets[key]))
    return rows


def held_rows(layout: Layout) -> list[tuple[str, int, int]]:
    """(constant, rows in the release build, in the debug build) of each tensor written by rows."""
    if layout.rows is None:
        return []
    held, rows, outputs = layout.rows.held, layout.rows.rows, layout.graph.outputs
    return [
        (held_macro(step), held[value], rows[value])
        for step in layout.steps
        for value in step.op.outputs
        if value in held and value not in outputs
    ]


def model_context(layout: Layout, metadata: Mapping[str, str]) -> dict[str, Any]:
    """Variables of the templates of header and source."""
    graph = layout.graph
    inputs = ports(layout, graph.inputs, "input")
    outputs = ports(layout, tuple(dict.fromkeys(graph.outputs)), "output")
    names = {port.value: port.name for port in [*outputs, *inputs]}
    written = {value for op in graph.ops for value in op.outputs}
    passed = [port for port in outputs if port.value not in written]
    tables = [table for step in layout.steps for table in step.tables]
    blocks = [
        {
            "comment": step_comment(graph, step),
            "kind": step.op.kind,
            "name": step.op.name,
            "macs": multiplications(graph, step.op),
            "shapes": [line for shape in step.shapes for line in wrapped(shape_text(shape))],
            "pointers": pointer_lines(layout, index, step, names),
            "locals": [line for text in step.locals for line in wrapped(text)],
            "work": offset_macro(layout, index, WORK, None) if step.work_bytes else "",
            "opening": step.opening,
            "closing": step.closing,
            "calls": [*step.before, *dispatched(index, step), *step.after],
        }
        for index, step in enumerate(layout.steps)
    ]
    taps = [
        {
            "operator": step.op.name,
            "value": value,
            "offset": offset_macro(layout, 0, "", value),
            "type": c_type(graph.types[value].element),
            "count": graph.types[value].size,
            "bytes": memory_bytes(graph.types[value], layout.planes.get(value)),
        }
        for step, value in layout.taps
    ]
    return {
        "entry": layout.entry,
        "macro": layout.entry.upper(),
        "metadata": [
            line for key, value in metadata.items() for line in comment_lines(f"{key}: {value}")
        ],
        "network": comment_text(graph.name),
        "inputs": inputs,
        "outputs": outputs,
        "passed": passed,
        "release_bytes": layout.release.size,
        "debug_bytes": layout.debug.size,
        "alignment": ARENA_ALIGNMENT,
        "work_alignment": WORK_ALIGNMENT,
        "families": families(layout.steps),
        "uses_work": any(step.work_bytes for step in layout.steps),
        "levels": ALL_LEVELS,
        "offsets": [*offsets(layout), *held_rows(layout)],
        "needs_math": layout.needs_math,
        "has_floats": test_vectors.has_float_island(graph),
        "shape_types": shape_types(layout.steps),
        "kernels": [kernel_text(item) for item in all_kernels(layout.steps)],
        "weights": [table for table in tables if table.role is Role.WEIGHTS],
        "other_tables": [table for table in tables if table.role is not Role.WEIGHTS],
        "table_values": table_values,
        "steps": blocks,
        "taps": taps,
    }


def render(
    layout: Layout,
    metadata: Mapping[str, str],
    vectors: Sequence[Mapping[str, Array]],
    separate_weights: bool,
) -> dict[str, str | bytes]:
    """All files of the program."""
    entry = layout.entry
    context = model_context(layout, metadata) | {"separate_weights": separate_weights}
    files: dict[str, str | bytes] = {
        f"{entry}.h": fill("model.h.j2", context),
        f"{entry}.c": fill("model.c.j2", context),
    }
    if separate_weights:
        files[f"{entry}_weights.h"] = fill("weights.h.j2", context)
    data = test_vectors.lay_out(layout.graph, vectors)
    embedded = data.embeddable
    context |= {"vectors": data, "embedded": embedded}
    if embedded:
        files["vectors.h"] = fill("vectors.h.j2", context)
    else:
        files["vectors.bin"] = data.binary()
    files["main.c"] = fill("main.c.j2", context)
    files["Makefile"] = fill("Makefile.j2", context)
    files["CMakeLists.txt"] = fill("CMakeLists.txt.j2", context)
    return files


def harness(layout: Layout) -> str:
    """The program that verification runs."""
    return fill("harness.c.j2", model_context(layout, {}))


def fill(name: str, context: Mapping[str, Any]) -> str:
    """One file, without trailing blanks and with at most one empty line in sequence."""
    text = environment().get_template(name).render(**context)
    text = re.sub(r"[ \t]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text)
