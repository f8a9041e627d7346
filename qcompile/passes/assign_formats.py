"""Bit-width assignment: options and overrides become one format for each tensor.

--wbits 4 --abits 6 --first-last-bits 8   ->   Plan
    input      8 bits
    conv1      weights 8, output 6      (first layer)
    conv2      weights 4, output 6
    head       weights 8, output 8      (last layer)
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qcompile.errors import UsageError
from qcompile.graph import Graph, Op
from qcompile.ops import MOVEMENT, Conv, ConvTranspose, MatMul
from qcompile.plan import Format, LayerPlan, Plan, Quantizer, parse_format

WEIGHTED: tuple[type[Op], ...] = (Conv, ConvTranspose, MatMul)


@dataclass(frozen=True, slots=True)
class FormatOverride:
    """What a configuration file says of the operators (or graph inputs) whose name matches.

    An exact name wins over a pattern; among patterns the last one wins.
    """

    pattern: str
    wbits: str | None = None
    abits: str | None = None
    quantizer: Quantizer | None = None
    scale: float | None = None
    signed: bool | None = None


def assign_formats(
    graph: Graph,
    wbits: str,
    abits: str,
    quantizer: Quantizer,
    first_last_bits: str,
    overrides: Sequence[FormatOverride] = (),
) -> Plan:
    """The plan of a simplified float graph.

    First and last layers (weighted operators with none before, or none behind them) keep
    `first_last_bits` where that is wider than the rest; so do graph inputs and the outputs of all
    operators with no weighted one behind them.

    Raises:
        UsageError: a width is unknown, or an override matches nothing.
    """
    weight = parse_format(wbits, quantizer, "--wbits")
    activation = parse_format(abits, _activation_quantizer(quantizer), "--abits")
    boundary_quantizer = Quantizer.FIXED if quantizer is Quantizer.FIXED else Quantizer.SCALED
    boundary = parse_format(first_last_bits, boundary_quantizer, "--first-last-bits")
    ends, tail = _first_and_last(graph)
    names = {op.name for op in graph.ops} | set(graph.inputs)
    for known in overrides:
        if known.pattern not in names and not fnmatch.filter(names, known.pattern):
            raise UsageError(
                f"configuration: layer '{known.pattern}' matches no operator or input of the "
                f"network; --dump-ir shows their names"
            )
    inputs = {}
    for name in graph.inputs:
        plain = activation if activation.is_float else _wider(boundary, activation)
        inputs[name] = _output_format(plain, _find(overrides, name), quantizer)
    layers: dict[str, LayerPlan] = {}
    for op in graph.ops:
        override = _find(overrides, op.name)
        weights = None
        if isinstance(op, WEIGHTED):
            weights = _wider(boundary, weight) if op.name in ends else weight
            if override is not None and override.wbits is not None:
                weights = parse_format(
                    override.wbits, override.quantizer or quantizer, f"layer '{op.name}' wbits"
                )
        if isinstance(op, MOVEMENT):
            # Codes are only moved, so the format is that of the input.
            sources = [_format_of(graph, value, inputs, layers) for value in op.inputs]
            output = next((source for source in sources if not source.is_float), sources[0])
        else:
            is_end = op.name in tail and not activation.is_float
            plain = _wider(boundary, activation) if is_end else activation
            output = _output_format(plain, override, quantizer)
        layers[op.name] = LayerPlan(
            output,
            weights,
            override.scale if override else None,
            override.signed if override else None,
        )
    return Plan(inputs, layers)


def _format_of(
    graph: Graph, value: str, inputs: Mapping[str, Format], layers: Mapping[str, LayerPlan]
) -> Format:
    if value in inputs:
        return inputs[value]
    return layers[graph.producers[value].name].output


def _activation_quantizer(quantizer: Quantizer) -> Quantizer:
    """Ternary, binary and pow2 describe weights; activations are then uniform unless said."""
    return Quantizer.FIXED if quantizer is Quantizer.FIXED else Quantizer.SCALED


def _output_format(plain: Format, override: FormatOverride | None, quantizer: Quantizer) -> Format:
    if override is None or override.abits is None:
        return plain
    chosen = _activation_quantizer(override.quantizer or quantizer)
    return parse_format(override.abits, chosen, f"layer '{override.pattern}' abits")


def _wider(boundary: Format, inner: Format) -> Format:
    return boundary if boundary.bits > inner.bits else inner


def _find(overrides: Sequence[FormatOverride], name: str) -> FormatOverride | None:
    for override in reversed(overrides):
        if override.pattern == name:
            return override
    for override in reversed(overrides):
        if fnmatch.fnmatchcase(name, override.pattern):
            return override
    return None


def _first_and_last(graph: Graph) -> tuple[frozenset[str], frozenset[str]]:
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
