"""How close a compiled network's last sums are to the float network's: no labels needed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from qcompile.boundary import InputSpec
from qcompile.feeds import Feed, float_feed, integer_feed
from qcompile.graph import Graph
from qcompile.passes.assign_formats import first_and_last
from qcompile.sim.executor import Executor
from qcompile.types import Array, per_channel


def logits_sqnr(
    float_graph: Graph, integer_graph: Graph, feeds: Sequence[Feed], specs: Mapping[str, InputSpec]
) -> float | None:
    """Signal to noise of what the last layers compute, in dB; None if nothing can be compared.

    Args:
        float_graph: the network before quantization.
        integer_graph: compiled from it, with the same names of values.
        feeds: raw inputs.
        specs: how pixels become real numbers, for each input.
    """
    values = _last_values(float_graph, integer_graph)
    if not values:
        return None
    float_run, integer_run = Executor(float_graph), Executor(integer_graph)
    signal = noise = 0.0
    for feed in feeds:
        real = float_run.run(float_feed(feed, specs), taps=values)
        found = integer_run.run(integer_feed(feed, integer_graph, specs), taps=values)
        for value in values:
            wanted = real[value].astype(np.float64)
            signal += float(np.square(wanted).sum())
            noise += float(np.square(_real(integer_graph, value, found[value]) - wanted).sum())
    if signal == 0:
        return None
    return round(10 * math.log10(signal / max(noise, signal * 1e-15)), 3)


def _real(graph: Graph, value: str, data: Array) -> Array:
    kind = graph.types[value]
    if kind.quantization is None:
        return data.astype(np.float64)
    scales = kind.quantization
    return data * per_channel(scales.scale, "float64", scales.axis, kind.rank)


def _last_values(float_graph: Graph, integer_graph: Graph) -> list[str]:
    """Of each branch that ends in a graph output the first value behind all weights that both
    graphs have."""
    tail = first_and_last(float_graph)[1]
    values: list[str] = []
    covered: set[str] = set()
    for op in float_graph.ops:
        if op.name not in tail or op.output not in integer_graph.types:
            continue
        kind = integer_graph.types[op.output]
        same = kind.shape == float_graph.types[op.output].shape
        comparable = same and (kind.is_float or kind.quantization is not None)
        if covered.intersection(op.inputs):
            covered.add(op.output)
        elif comparable and float_graph.types[op.output].is_float:
            values.append(op.output)
            covered.add(op.output)
    return values
