"""Steps as C text: pointers, the choice among variants, places in the arena."""

from __future__ import annotations

from collections.abc import Mapping

from qcompile.backends.c.declarations import wrapped
from qcompile.backends.c.layout import WORK, Layout, scratch_name, type_text, value_name
from qcompile.backends.c.levels import Family
from qcompile.backends.c.names import (
    comment_text,
    string_text,
)
from qcompile.backends.c.program import (
    Step,
    Variant,
)
from qcompile.backends.c.row_groups import held_macro
from qcompile.graph import Graph


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
    if step.follower is not None:
        follower = step.follower
        text += f"; then {follower.label()} -> {type_text(graph.output_type(follower))}"
    text += "".join(
        f"; inside {item.label()} -> {type_text(graph.output_type(item))}" for item in step.inside
    )
    accumulator = getattr(op, "accumulator", None)
    if accumulator is not None:
        text += f"; sums {accumulator}"
    return comment_text(text, 240)


def step_name(step: Step) -> str:
    """What profiles call a step."""
    if step.inside:
        return " + ".join(op.name for op in (*step.inside, step.op))
    if step.follower is None:
        return step.op.name
    return f"{step.op.name} + {step.follower.kind} {step.follower.name}"


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
    for kept in step.kept:
        macro = offset_macro(layout, index, kept.name, None)
        pointer_type = f"{kept.ctype} *"
        lines += [
            f"#ifdef {layout.entry.upper()}_TAPS",
            f"{pointer_type}const {kept.name} = ({pointer_type})(void *)(memory + {macro});",
            "#else",
            f"{pointer_type}const {kept.name} = 0;",
            "#endif",
        ]
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
        if value in step.outputs:
            number = step.outputs.index(value)
            return f"AT_{step.prefix.upper()}" + (f"_{number}" if number else "")
    raise KeyError(value)


def offsets(layout: Layout) -> list[tuple[str, int, int]]:
    """(constant, release offset, debug offset) of every buffer."""
    rows = []
    for index, step in enumerate(layout.steps):
        names = [(value, None) for value in step.outputs if value not in layout.graph.outputs]
        scratch = [(None, pointer.name) for pointer in step.pointers if pointer.value is None]
        if step.work_bytes:
            scratch.append((None, WORK))
        for value, local in [*names, *scratch]:
            key = value_name(value) if value is not None else scratch_name(index, local or "")
            macro = offset_macro(layout, index, local or "", value)
            rows.append((macro, layout.release.offsets[key], layout.debug.offsets[key]))
    return rows


def kept_offsets(layout: Layout) -> list[tuple[str, int]]:
    """(constant, offset) of what steps keep in builds with taps."""
    return [
        (
            offset_macro(layout, index, kept.name, None),
            layout.debug.offsets[scratch_name(index, kept.name)],
        )
        for index, step in enumerate(layout.steps)
        for kept in step.kept
    ]


def held_rows(layout: Layout) -> list[tuple[str, int, int]]:
    """(constant, rows in the release build, in the debug build) of each tensor written by rows."""
    if layout.rows is None:
        return []
    held, rows, outputs = layout.rows.held, layout.rows.rows, layout.graph.outputs
    return [
        (held_macro(step), held[value], rows[value])
        for step in layout.steps
        for value in step.outputs
        if value in held and value not in outputs
    ]
