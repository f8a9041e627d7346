"""Coarse formats through operators that have no quantizer of their own.

    %skip Q6.0                               %skip Q6.0
    %up   = LinearResize(%x Q6.0)     ->     %up  Q6.4    (multiples of 1/16, exactly)
    %cat  = Concat(%skip, %up)               %cat Q6.4    (%skip shifted by 4)

The published fixed-point networks quantize behind convolutions only. A bilinear resize by 2, or an
average over 2 x 2, then leaves sixteenths or quarters, which the next convolution reads as they
are. A layer's own `abits` in the configuration puts a quantizer there. It is the same behind
ternary activations: quarters of -4..4, sixteenths of -16..16.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from qcompile.errors import UsageError
from qcompile.fixed_point import QFormat
from qcompile.graph import Graph, Op
from qcompile.ops import MOVEMENT, AveragePool, Concat, LinearResize
from qcompile.ops.code_limits import moved_inputs
from qcompile.passes.imported_formats import is_imported, is_ternary
from qcompile.plan import Format, LayerPlan, Plan, Quantizer
from qcompile.types import TensorType

MOST_COARSE_BITS = 8
"""Ternary values that were averaged so often that they need more get the format of other values."""


def carried_formats(graph: Graph, plan: Plan, has_own_format: Callable[[str], bool]) -> Plan:
    """The plan with exact formats behind resizes, average pools and concatenations.

    Args:
        graph: a float graph.
        plan: formats as the options say them.
        has_own_format: whether the configuration gives an operator's output a width.

    Raises:
        UsageError: a resize or pool divides by something else than a power of two.
    """
    layers = dict(plan.layers)
    published = any(layer.output.quantizer.is_published_fixed_point for layer in layers.values())
    ternary = any(is_ternary(kind) for kind in graph.types.values())
    if not published and not ternary:
        return plan
    formats = {
        name: _as_named(graph.types[name], layer.output) for name, layer in plan.inputs.items()
    }
    for op in graph.ops:
        layer = layers[op.name]
        if is_imported(graph.output_type(op)):
            formats[op.output] = _as_named(graph.output_type(op), layer.output)
            continue
        if not has_own_format(op.name) or isinstance(op, MOVEMENT):
            carried = _carried(graph, op, layer, formats)
            if carried is not None and carried != layer.output:
                layer = LayerPlan(carried, layer.weights, None, layer.signed)
        layers[op.name] = layer
        formats[op.output] = layer.output
    return dataclasses.replace(plan, layers=layers)


def _carried(graph: Graph, op: Op, layer: LayerPlan, formats: dict[str, Format]) -> Format | None:
    """The format of an output that follows from those of the inputs; None where it is its own."""
    values = moved_inputs(op) if isinstance(op, MOVEMENT) else op.inputs
    sources = [formats[value] for value in values if not graph.is_constant(value)]
    if any(source.is_float for source in sources):
        return None
    if isinstance(op, Concat):
        named = [source for source in sources if source.q is not None]
        if len(named) < len(sources) and not layer.output.quantizer.is_published_fixed_point:
            return None
        return _union(named)
    if isinstance(op, MOVEMENT):
        return sources[0]
    if not isinstance(op, LinearResize | AveragePool) or not op.activation.is_identity:
        return None
    divisor = _divisor(graph, op)
    if layer.output.quantizer.is_published_fixed_point:
        return _divided(op, sources[0], divisor)
    fixed = sources[0].q is not None and sources[0].quantizer is Quantizer.FIXED
    if layer.output.is_float or not fixed or divisor & (divisor - 1):
        return None
    carried = _divided(op, sources[0], divisor)
    return carried if carried.bits <= MOST_COARSE_BITS else None


def _as_named(kind: TensorType, chosen: Format) -> Format:
    """Ternary codes with a power-of-two scale as the fixed-point format that holds them."""
    grid = kind.quantization
    if not is_ternary(kind) or grid is None or not grid.is_power_of_two:
        return chosen
    return _holding(-math.frexp(grid.scale[0])[1] + 1, 1)


def _divisor(graph: Graph, op: LinearResize | AveragePool) -> int:
    if isinstance(op, LinearResize):
        return op.common()
    shapes = graph.types[op.inputs[0]].shape[2:], graph.types[op.output].shape[2:]
    return op.common_divisor(*shapes)


def _divided(op: Op, source: Format, divisor: int) -> Format:
    if source.q is None:
        return source
    if divisor & (divisor - 1):
        raise UsageError(
            f"{op.label()}: its results are multiples of 1/{divisor}, which no fixed-point format "
            f"holds; give this layer abits of its own in --config, such as {source.q}"
        )
    return _holding(_fraction(source) + divisor.bit_length() - 1, _largest(source) * divisor)


def _union(sources: list[Format]) -> Format | None:
    """The format that holds the codes of all sources exactly."""
    if not sources:
        return None
    if all(source == sources[0] for source in sources):
        return sources[0]
    fraction = max(_fraction(source) for source in sources)
    return _holding(fraction, max(_largest(s) << (fraction - _fraction(s)) for s in sources))


def _holding(fraction: int, largest: int) -> Format:
    """The fixed-point format with steps of 2**-fraction for codes up to `largest`."""
    digits = largest.bit_length()
    return Format(digits + 1, Quantizer.FIXED, QFormat(digits - fraction, fraction))


def _fraction(source: Format) -> int:
    assert source.q is not None
    return source.q.em_fraction if source.quantizer is Quantizer.FXP_EM else source.q.fraction


def _largest(source: Format) -> int:
    return (
        source.element(signed=True).high if source.quantizer is Quantizer.FIXED else source.largest
    )
