"""Which tensors a search may give a width, and the plan that its choice makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from qcompile.budget_options import SEARCH_DEFAULTS
from qcompile.graph import Graph, Op
from qcompile.ops import MOVEMENT, WEIGHTED
from qcompile.options import CompileOptions, LayerOverride
from qcompile.passes.assign_formats import assign_formats, first_and_last
from qcompile.plan import Format, Plan, Quantizer
from qcompile.search.greedy import Part, Slot, Widths
from qcompile.search.joined import members

NARROWEST_WEIGHTS, WIDEST_WEIGHTS = 2, 8
NARROWEST_OUTPUT = 3
"""Fewer activation bits ruin every network that is not trained for them."""


def weight_formats(
    graph: Graph, plan: Plan, options: CompileOptions
) -> dict[str, tuple[Format, ...]]:
    """For each weighted operator the formats its weights may be given, narrowest first.

    Left out are operators whose width an override says. First and last layers are never narrower
    than `--first-last-bits`, and left out where that is as much as `plan` gives them.
    """
    ends = first_and_last(graph)[0]
    result = {}
    for op in graph.ops:
        weights = plan.layers[op.name].weights
        override = options.layer_override(op.name)
        if weights is None or override.wbits is not None or override.quantizer is not None:
            continue
        least = NARROWEST_WEIGHTS
        if op.name in ends and options.first_last_bits.isdigit():
            least = min(int(options.first_last_bits), weights.bits)
        allowed = range(least, min(WIDEST_WEIGHTS, weights.bits) + 1)
        if len(allowed) > 1:
            result[op.name] = tuple(_weights(bits, options) for bits in allowed)
    return result


def output_formats(
    graph: Graph, plan: Plan, options: CompileOptions
) -> dict[str, tuple[Format, ...]]:
    """For each group of outputs the formats they may be given, narrowest first.

    A group is what meets in a concatenation, by the name of its first operator. Left out are
    operators that only move codes (their format follows from their input), those with no weighted
    one behind them, those with an override of their own, and what is joined with one of these.
    Widths the plan gives beyond 8 bits are one more choice.
    """
    free = _free_outputs(graph, plan, options)
    moved = {op.name for op in graph.ops if isinstance(op, MOVEMENT)}
    result = {}
    for leader, names in members(graph).items():
        computed = [name for name in names if name not in moved]
        if leader in free and all(name in free for name in computed):
            result[leader] = free[leader]
    return result


def _free_outputs(
    graph: Graph, plan: Plan, options: CompileOptions
) -> dict[str, tuple[Format, ...]]:
    """The formats of single operators, before they are grouped."""
    tail = first_and_last(graph)[1]
    result = {}
    for op in graph.ops:
        output = plan.layers[op.name].output
        override = options.layer_override(op.name)
        said = (override.abits, override.quantizer, override.activation_quantizer, override.scale)
        if isinstance(op, MOVEMENT) or op.name in tail or output.is_float:
            continue
        if any(item is not None for item in said) or _is_index(graph, op):
            continue
        allowed = [*range(NARROWEST_OUTPUT, min(8, output.bits) + 1)]
        allowed += [output.bits] if output.bits > 8 else []
        if len(allowed) > 1:
            result[op.name] = tuple(Format(bits, output.quantizer) for bits in allowed)
    return result


def _is_index(graph: Graph, op: Op) -> bool:
    return not graph.output_type(op).is_float


def _weights(bits: int, options: CompileOptions) -> Format:
    """Two bits are ternary; where scales are powers of two, a fixed-point number of 2 bits is."""
    if options.quantizer == Quantizer.FIXED.value:
        return Format(bits, Quantizer.FIXED)
    return Format(bits, Quantizer.TERNARY if bits == NARROWEST_WEIGHTS else Quantizer.SCALED)


def widths_plan(graph: Graph, options: CompileOptions, widths: Widths) -> Plan:
    """The plan in which the slots have these widths, and all else is as the options say."""
    said: dict[str, LayerOverride] = {}
    groups = members(graph)
    moved = {op.name for op in graph.ops if isinstance(op, MOVEMENT)}
    for (name, part), bits in widths.items():
        if part is Part.WEIGHTS:
            override = said.get(name, LayerOverride(name))
            said[name] = replace(override, wbits=_weights(bits, options).width_name)
            continue
        for member in groups[name]:
            if member not in moved:
                override = said.get(member, LayerOverride(member))
                said[member] = replace(override, abits=str(bits))
    layers = (*options.layers, *said.values())
    return assign_formats(graph, replace(options, layers=layers))


def uniform_plan(graph: Graph, options: CompileOptions, wbits: int, abits: int | None) -> Plan:
    """What `--wbits` and `--abits` (None: as the options say) would give."""
    width = _weights(wbits, options).width_name
    bits = options.abits if abits is None else str(abits)
    said = replace(options, **SEARCH_DEFAULTS, mean_wbits=None, budgeted=False)
    return assign_formats(graph, replace(said, wbits=width, abits=bits))


def widths_of(plan: Plan, slots: Mapping[Slot, object]) -> dict[Slot, int]:
    """The widths that a plan gives to slots."""
    result = {}
    for name, part in slots:
        layer = plan.layers[name]
        chosen = layer.weights if part is Part.WEIGHTS else layer.output
        assert chosen is not None
        result[name, part] = chosen.bits
    return result


def weight_sizes(graph: Graph) -> dict[str, int]:
    """Operator name -> how many weights it has."""
    return {op.name: graph.types[op.inputs[1]].size for op in graph.ops if isinstance(op, WEIGHTED)}
