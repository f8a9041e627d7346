"""How much the sums that read a tensor suffer from fewer bits of it.

Rounding errors of different elements hardly depend on each other, so the noise they bring into the
sums of a layer with weights W is their mean square in each channel times the channel's squared
weights; what counts is its ratio to the variance of these sums, tr(W H W'). Sums over readers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from qcompile.graph import Graph, Op
from qcompile.ops import WEIGHTED, ConvTranspose
from qcompile.options import RangeMethod
from qcompile.passes.activation_ranges import Member, choose_scale
from qcompile.passes.calibrate import Calibration, Statistics
from qcompile.passes.fake_quantize import quantized
from qcompile.passes.weight_rows import to_columns
from qcompile.plan import Format
from qcompile.search.covariances import Covariances
from qcompile.search.readers import Reader, readers
from qcompile.search.sensitivity import TINY, grouped_rows, sum_power
from qcompile.types import Array


def output_errors(
    graph: Graph,
    calibration: Calibration,
    covariances: Mapping[str, Covariances],
    formats: Mapping[str, Sequence[Format]],
    method: RangeMethod,
) -> dict[str, dict[Format, float]]:
    """The relative error that outputs in several formats bring into what is computed of them.

    Args:
        graph: a float graph.
        calibration: of its activations.
        covariances: of its weighted operators.
        formats: operator name -> the formats its output may have.
        method: how ranges are chosen.

    Returns:
        Operator name -> format -> summed relative error of its readers.
    """
    powers = {
        op.name: max(sum_power(covariances[op.name], grouped_rows(graph, op)), TINY)
        for op in graph.ops
        if isinstance(op, WEIGHTED)
    }
    result: dict[str, dict[Format, float]] = {}
    for name, allowed in formats.items():
        value = graph.by_name[name].output
        found = readers(graph, value)
        result[name] = {}
        for chosen in allowed:
            noise = _noise(calibration.values[value], chosen, method)
            result[name][chosen] = sum(
                _relative(graph, calibration, powers, value, reader, noise) for reader in found
            )
    return result


def _noise(statistics: Statistics, chosen: Format, method: RangeMethod) -> Array:
    """Mean squared rounding error of each channel."""
    element = chosen.element(signed=statistics.low < 0)
    member = Member(statistics, element, chosen.codebook(element).kind)
    scale = choose_scale([member], method, chosen.power_of_two_scale)
    error = quantized(statistics.sample, scale, element) - statistics.sample
    return np.asarray(np.square(error, dtype=np.float64).mean(axis=0))


def _relative(
    graph: Graph,
    calibration: Calibration,
    powers: Mapping[str, float],
    value: str,
    reader: Reader,
    noise: Array,
) -> float:
    op = reader.op
    if op is None:
        sample = calibration.values[value].sample
        power = float(sample.var(axis=0, dtype=np.float64).mean())
        return float(noise.mean() / max(power, TINY))
    energy = _energy(graph, op)
    if reader.channels is None or len(noise) != len(energy[reader.channels]):
        return float(noise.mean() * energy.sum() / powers[op.name])
    return float((noise * energy[reader.channels]).sum() / powers[op.name])


def _energy(graph: Graph, op: Op) -> Array:
    """The squared weights that each input channel meets, on average over the output's positions."""
    columns = to_columns(op, graph.constants[op.inputs[1]]).astype(np.float64)
    reached = math.prod(op.strides) if isinstance(op, ConvTranspose) else 1
    return np.asarray(np.square(columns).sum(axis=1) / reached)
