"""From the planned program to text: everything that fills the file templates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import jinja2

from qcompile.backends.c import vectors as test_vectors
from qcompile.backends.c.declarations import shape_text, shape_types, table_values, wrapped
from qcompile.backends.c.layout import WORK, Layout, all_kernels, families, ports
from qcompile.backends.c.levels import ALL_LEVELS
from qcompile.backends.c.names import (
    c_type,
    comment_lines,
    comment_text,
    short,
    string_text,
)
from qcompile.backends.c.program import (
    ARENA_ALIGNMENT,
    WORK_ALIGNMENT,
    Kernel,
    Role,
)
from qcompile.backends.c.step_text import (
    dispatched,
    held_rows,
    kept_offsets,
    offset_macro,
    offsets,
    pointer_lines,
    step_comment,
    step_name,
)
from qcompile.multiplications import multiplications
from qcompile.passes.place_planes import memory_bytes
from qcompile.types import Array


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
            "name": step_name(step),
            "macs": sum(multiplications(graph, op) for op in (step.op, *step.inside)),
            "shapes": [line for shape in step.shapes for line in wrapped(shape_text(shape))],
            "pointers": pointer_lines(layout, index, step, names),
            "locals": [line for text in step.locals for line in wrapped(text)],
            "work": offset_macro(layout, index, WORK, None) if step.work_bytes else "",
            "aligns_work": step.aligns_work,
            "opening": step.opening,
            "closing": step.closing,
            "calls": [*step.before, *dispatched(index, step), *step.after],
        }
        for index, step in enumerate(layout.steps)
    ]
    taps = [
        {
            "operator": graph.producers[value].name,
            "value": value,
            "offset": offset_macro(layout, 0, "", value),
            "type": c_type(graph.types[value].element),
            "count": graph.types[value].size,
            "bytes": memory_bytes(graph.types[value], layout.planes.get(value)),
        }
        for step, value in layout.taps
    ]
    taps += [
        {
            "operator": step.op.name if value is None else graph.producers[value].name,
            "value": f"{step.op.output} {kept.name}" if value is None else value,
            "offset": offset_macro(layout, index, kept.name, None),
            "type": kept.ctype,
            "count": kept.count,
            "bytes": kept.size,
        }
        for index, step, kept in layout.kept
        for value in (kept.value,)
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
        "aligns_work": any(step.work_bytes and step.aligns_work for step in layout.steps),
        "levels": ALL_LEVELS,
        "offsets": [*offsets(layout), *held_rows(layout)],
        "kept_offsets": kept_offsets(layout),
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


def timing(layout: Layout) -> str:
    """The program that `--measure` runs."""
    return fill("timing.c.j2", model_context(layout, {}))


def fill(name: str, context: Mapping[str, Any]) -> str:
    """One file, without trailing blanks and with at most one empty line in sequence."""
    text = environment().get_template(name).render(**context)
    text = re.sub(r"[ \t]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text)
