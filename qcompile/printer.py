"""The text form of a graph: one line an operator, for tests and `--dump-ir`."""

from __future__ import annotations

import dataclasses
import enum
import json
import re
from collections.abc import Iterable
from fractions import Fraction

import numpy as np

from qcompile.graph import Graph, Op
from qcompile.ops.activation import Activation
from qcompile.types import IntType, TensorType, q_format

_PLAIN = re.compile(r"[A-Za-z0-9_./:\-]+")
_BASE_FIELDS = frozenset(field.name for field in dataclasses.fields(Op))
_SHOWN = 8
"""Longer vectors are shown by their first elements and their length."""


def print_graph(graph: Graph) -> str:
    """The graph as text, the same for equal graphs in every process.

    Values are written `%name`, constants `@name`; names with other characters than
    letters, digits and `_./:-` are quoted as in JSON, so every name stays on its line.
    Fields that have their default value are left out.
    """
    lines = [f"graph {_quoted(graph.name)} stage={graph.stage.value}"]
    lines += [f"input {_value(graph, name)}: {_type(graph.types[name])}" for name in graph.inputs]
    lines += [_constant_line(graph, name) for name in _constants_in_use_order(graph)]
    lines += [print_op(graph, op) for op in graph.ops]
    lines.append(f"return {', '.join(_value(graph, name) for name in graph.outputs)}")
    return "\n".join(lines) + "\n"


def print_op(graph: Graph, op: Op) -> str:
    """One operator as a line of `print_graph`."""
    results = ", ".join(f"{_value(graph, name)}: {_type(graph.types[name])}" for name in op.outputs)
    operands = ", ".join(_value(graph, name) for name in op.inputs)
    line = f"{results} = {op.kind} {_quoted(op.name)}({operands})"
    fields = " ".join(_fields(op))
    return f"{line} {fields}" if fields else line


def _constants_in_use_order(graph: Graph) -> Iterable[str]:
    read = dict.fromkeys(name for op in graph.ops for name in op.inputs if graph.is_constant(name))
    unread = sorted(set(graph.constants) - set(read))
    return [*read, *unread]


def _constant_line(graph: Graph, name: str) -> str:
    data = graph.constants[name]
    if data.size == 0:
        span = "empty"
    elif data.dtype.kind == "f":
        span = f"{np.min(data):.6g}..{np.max(data):.6g}"
    else:
        span = f"{np.min(data)}..{np.max(data)}"
    return f"const {_value(graph, name)}: {_type(graph.types[name])} {span}"


def _fields(op: Op) -> Iterable[str]:
    for field in dataclasses.fields(op):
        value = getattr(op, field.name)
        if field.name not in _BASE_FIELDS and value != field.default:
            yield f"{field.name}={_text(value)}"


def _text(value: object) -> str:
    match value:
        case Activation() | IntType() | Fraction():
            return str(value)
        case enum.Enum():
            return str(value.value)
        case str():
            return _quoted(value)
        case float():
            return f"{value:.6g}"
        case tuple():
            shown = [_text(element) for element in value[:_SHOWN]]
            if len(value) > _SHOWN:
                shown.append(f"... {len(value)} in all")
            return f"[{','.join(shown)}]"
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = (
            f"{field.name}={_text(getattr(value, field.name))}"
            for field in dataclasses.fields(value)
            if getattr(value, field.name) is not None
        )
        return f"{type(value).__name__}({' '.join(parts)})"
    return str(value)


def _type(kind: TensorType) -> str:
    text = str(kind)
    if kind.quantization is not None:
        scales = kind.quantization.scale
        if len(scales) == 1:
            text += f" s={scales[0]:.6g}"
        else:
            text += f" s={min(scales):.6g}..{max(scales):.6g} axis={kind.quantization.axis}"
        if isinstance(kind.element, IntType) and len(scales) == 1:
            name = q_format(kind.element, scales[0])
            text += f" {name}" if name is not None else ""
    if kind.limits is not None:
        text += f" in {kind.limits.range.low}..{kind.limits.range.high}"
        text += "" if kind.limits.is_per_tensor else " by channel"
    if kind.codebook is not None:
        text += f" {kind.codebook.kind.value}:{kind.codebook.levels}"
    return text


def _value(graph: Graph, name: str) -> str:
    sigil = "@" if graph.is_constant(name) else "%"
    return sigil + (name if _PLAIN.fullmatch(name) else _quoted(name))


def _quoted(name: str) -> str:
    """JSON in ASCII: no name can break the line or forge another one."""
    if _PLAIN.fullmatch(name):
        return f"'{name}'"
    return json.dumps(name)
