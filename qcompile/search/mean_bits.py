"""`--mean-wbits 3`: the bits of weights are dealt out to the layers by their sensitivity.

conv1 8, conv2 8, conv3 8, head 8   ->   conv1 8, conv2 4, conv3 2 (ternary), head 8
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from qcompile.errors import UsageError
from qcompile.graph import Graph
from qcompile.ops import WEIGHTED
from qcompile.options import CompileOptions
from qcompile.passes.assign_formats import first_and_last
from qcompile.plan import Format, Plan, Quantizer
from qcompile.search.cost import WeightBits
from qcompile.search.covariances import input_covariances
from qcompile.search.greedy import Choice, Part, within
from qcompile.search.sensitivity import weight_errors
from qcompile.types import Array

NARROWEST, WIDEST = 2, 8


def mean_bits_plan(
    graph: Graph,
    plan: Plan,
    feeds: Sequence[Mapping[str, Array]],
    options: CompileOptions,
    progress: Callable[[int, int], None] | None = None,
) -> Plan:
    """`plan` with widths of weights whose mean over all weights is at most `options.mean_wbits`.

    First and last layers and layers with an override keep what `plan` says; they count, too.

    Args:
        graph: the float graph that is quantised.
        plan: from `assign_formats`; its widths are the widest that are given.
        feeds: network inputs by name, already preprocessed.
        options: the mean, the quantizer and the seed.
        progress: called with (done, total) images.

    Raises:
        UsageError: the mean is out of reach.
    """
    assert options.mean_wbits is not None
    layers = [op for op in graph.ops if isinstance(op, WEIGHTED)]
    sizes = {op.name: graph.types[op.inputs[1]].size for op in layers}
    formats = free_weight_formats(graph, plan, options)
    fixed = {name: plan.layers[name].weights for name in sizes if name not in formats}
    taken = sum(sizes[name] * chosen.bits for name, chosen in fixed.items() if chosen is not None)
    budget = options.mean_wbits * sum(sizes.values()) - taken
    covariances = input_covariances(graph, feeds, options.seed, progress)
    errors = weight_errors(graph, covariances, formats)
    choices = [
        Choice((name, Part.WEIGHTS), {chosen.bits: error for chosen, error in found.items()})
        for name, found in errors.items()
    ]
    widths = within(choices, WeightBits(sizes), budget)
    if widths is None:
        least = taken + sum(
            sizes[name] * min(item.bits for item in found) for name, found in formats.items()
        )
        raise UsageError(
            f"--mean-wbits {options.mean_wbits:g}: out of reach, first and last layers and those "
            f"with overrides leave at least {least / max(1, sum(sizes.values())):.3f}; use more, "
            f"or a lower --first-last-bits"
        )
    chosen = {
        name: next(item for item in formats[name] if item.bits == bits)
        for (name, _), bits in widths.items()
    }
    return Plan(
        plan.inputs,
        {
            name: dataclasses.replace(layer, weights=chosen.get(name, layer.weights))
            for name, layer in plan.layers.items()
        },
    )


def free_weight_formats(
    graph: Graph, plan: Plan, options: CompileOptions
) -> dict[str, tuple[Format, ...]]:
    """For each weighted operator the formats its weights may be given, narrowest first.

    Left out are operators whose width an override says. First and last layers are never narrower
    than `--first-last-bits`, and left out where that is as much as `plan` gives them.
    """
    ends = first_and_last(graph)[0]
    quantizer = Quantizer.FIXED if options.quantizer == "fixed" else Quantizer.SCALED
    result = {}
    for op in graph.ops:
        weights = plan.layers[op.name].weights
        override = options.layer_override(op.name)
        if weights is None or override.wbits is not None or override.quantizer is not None:
            continue
        least = NARROWEST
        if op.name in ends and options.first_last_bits.isdigit():
            least = min(int(options.first_last_bits), weights.bits)
        allowed = range(least, min(WIDEST, weights.bits) + 1)
        if len(allowed) > 1:
            result[op.name] = tuple(_format(bits, quantizer) for bits in allowed)
    return result


def _format(bits: int, quantizer: Quantizer) -> Format:
    """Two bits are ternary; where scales are powers of two, a fixed-point number of 2 bits is."""
    if bits == NARROWEST and quantizer is Quantizer.SCALED:
        return Format(bits, Quantizer.TERNARY)
    return Format(bits, quantizer)
