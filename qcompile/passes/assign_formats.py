"""Bit-width assignment: options and overrides become one format for each tensor.

--wbits 4 --abits 6 --first-last-bits 8   ->   Plan
    input      8 bits
    conv1      weights 8, output 6      (first layer)
    conv2      weights 4, output 6
    head       weights 8, output 8      (last layer)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qcompile.errors import UsageError
from qcompile.graph import Graph, Op
from qcompile.ops import MOVEMENT, WEIGHTED, Add, ArgMax, SumOp, Threshold
from qcompile.ops.code_limits import moved_inputs
from qcompile.options import CompileOptions, InputChoice, LayerOverride
from qcompile.passes.attention_widths import attention_bits
from qcompile.passes.carried_formats import carried_formats
from qcompile.passes.imported_formats import imported_plan
from qcompile.plan import Format, LayerPlan, Plan, Quantizer, parse_format

PIXEL_BITS = 8

RESULT_BITS = 16
"""Sums that nothing but the user (or the choice of a class) reads: more steps cost next to nothing
there, and 8 bits would be the largest error of a well quantized network."""

TERM_BITS = 8
"""Least width of values that are nothing but terms of sums: they are rounded once more behind."""


def assign_formats(graph: Graph, options: CompileOptions) -> Plan:
    """The plan of a simplified float graph.

    First and last layers (weighted operators with none before, or none behind them) keep
    `first_last_bits` where that is wider than the rest; so do graph inputs and the outputs of all
    operators with no weighted one before or behind them. Results have 16 bits, terms of a sum at
    least 8, and attention what `attention_bits` says. Overrides replace what these rules say.

    Raises:
        UsageError: a width does not fit its quantizer, or an override matches nothing.
    """
    quantizer = options.quantizer_kind
    weight = parse_format(options.wbits, quantizer, "--wbits", weights=True)
    uniform = quantizer.of_activations
    activation = parse_format(options.abits, uniform, "--abits")
    plain_ends = Quantizer.SCALED if quantizer.is_verbatim else uniform
    boundary = parse_format(options.first_last_bits, plain_ends, "--first-last-bits")
    _check_matches(options.layers, [op.name for op in graph.ops], "layer", "operator")
    _check_matches(options.inputs, graph.inputs, "input", "graph input")
    ends, tail = first_and_last(graph)
    head = _before_weights(graph)
    inputs: dict[str, LayerPlan] = {}
    for name in graph.inputs:
        plain = activation if activation.is_float else _wider(boundary, activation)
        override = options.input_override(name)
        chosen = override.output_format(plain, uniform.value)
        if _is_plain_pixels(options) and chosen.bits == 16 and override.scale is None:
            # More bits would only make the range wider, at the cost of whatever narrows it again.
            chosen = Format(PIXEL_BITS, chosen.quantizer)
        inputs[name] = LayerPlan(chosen, None, override.scale, override.signed)
    layers: dict[str, LayerPlan] = {}
    for op in graph.ops:
        override = options.layer_override(op.name)
        weights = None
        if isinstance(op, WEIGHTED):
            plain = _wider(boundary, weight) if op.name in ends else weight
            weights = override.weight_format(plain, options.quantizer)
        if isinstance(op, MOVEMENT):
            # Codes are only moved, so the format is that of the (widest) input.
            sources = [
                _format_of(graph, value, inputs, layers)
                for value in moved_inputs(op)
                if not graph.is_constant(value)
            ]
            integers = [source for source in sources if not source.is_float]
            output = max(integers or sources, key=lambda source: source.bits)
        else:
            plain = activation
            if op.name in tail and not activation.is_float:
                is_result = isinstance(op, SumOp) and _is_result(graph, op)
                result = Format(RESULT_BITS, plain_ends) if is_result else boundary
                plain = _wider(result, activation)
            elif op.name in head and not activation.is_float:
                plain = _wider(boundary, activation)
            elif _is_term(graph, op) and not _is_by_name(activation):
                plain = _wider(Format(TERM_BITS, plain_ends), activation)
            if not plain.is_float and not _is_by_name(activation):
                bits = attention_bits(graph, op, activation.bits)
                plain = _wider(Format(bits, plain_ends), plain)
            output = override.output_format(plain, uniform.value)
            _check_scale(override, output)
        layers[op.name] = LayerPlan(output, weights, override.scale, override.signed)
    plan = imported_plan(graph, Plan(inputs, layers), options)
    return carried_formats(graph, plan, lambda name: options.layer_override(name).abits is not None)


def _before_weights(graph: Graph) -> frozenset[str]:
    """Operators that no weighted one is before (or is one): they make the first layer's input."""
    behind: set[str] = set()
    found = set()
    for op in graph.ops:
        if isinstance(op, WEIGHTED) or behind.intersection(op.inputs):
            behind.update(op.outputs)
        else:
            found.add(op.name)
    return frozenset(found)


def _is_term(graph: Graph, op: Op) -> bool:
    """Whether a value is only added to others: no product gets wider with it."""
    readers = graph.consumers[op.output]
    return bool(readers) and all(isinstance(reader, Add) for reader in readers)


def _is_result(graph: Graph, op: Op) -> bool:
    """Whether a value leaves the network as it is, or as the class with the largest one."""
    return all(
        isinstance(reader, ArgMax | Threshold)
        or (isinstance(reader, (SumOp, *MOVEMENT)) and _is_result(graph, reader))
        for reader in graph.consumers[op.output]
    )


def _is_plain_pixels(options: CompileOptions) -> bool:
    return (
        options.input_kind is InputChoice.UINT8
        and len(options.input_scale) == 1
        and options.input_mean == (0.0,)
        and options.input_std == (1.0,)
    )


def _check_matches(
    overrides: Sequence[LayerOverride], names: Sequence[str], table: str, what: str
) -> None:
    for override in overrides:
        if not any(override.matches(name) for name in names):
            raise UsageError(
                f"configuration: [[{table}]] '{override.pattern}' matches no {what} of the "
                f"network; --dump-ir shows their names"
            )


def _check_scale(override: LayerOverride, output: Format) -> None:
    if override.scale is not None and output.given_scale not in (None, override.scale):
        raise UsageError(
            f"configuration: [[layer]] '{override.pattern}': scale {override.scale:g} contradicts "
            f"{output.width_name}, whose steps are {output.given_scale:g}; leave out one of them"
        )


def _wider(boundary: Format, inner: Format) -> Format:
    """Formats by name are for the inside of a network: pixels, say, are all 0 in Q6.0."""
    return boundary if _is_by_name(inner) or boundary.bits > inner.bits else inner


def _is_by_name(chosen: Format) -> bool:
    """Whether a format means one certain grid."""
    return chosen.q is not None or chosen.quantizer.is_verbatim


def _format_of(
    graph: Graph, value: str, inputs: Mapping[str, LayerPlan], layers: Mapping[str, LayerPlan]
) -> Format:
    if value in inputs:
        return inputs[value].output
    return layers[graph.producers[value].name].output


def first_and_last(graph: Graph) -> tuple[frozenset[str], frozenset[str]]:
    """Names of the first and last weighted operators, and of all operators with none behind."""
    before: set[str] = set()
    first: set[str] = set()
    for op in graph.ops:
        weighted = isinstance(op, WEIGHTED)
        if weighted and not before.intersection(op.inputs):
            first.add(op.name)
        if weighted or before.intersection(op.inputs):
            before.update(op.outputs)
    behind: set[str] = set()
    tail: set[str] = set()
    for op in reversed(graph.ops):
        if not behind.intersection(op.outputs):
            tail.add(op.name)
        if isinstance(op, WEIGHTED) or behind.intersection(op.outputs):
            behind.update(op.inputs)
    last = {op.name for op in graph.ops if isinstance(op, WEIGHTED) and op.name in tail}
    return frozenset(first | last), frozenset(tail)
