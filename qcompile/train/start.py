"""Where training starts: the network as it is quantised without training.

The integer codes, scales and biases that `--effort` finds are turned back into a float graph and a
plan, so that training begins where quantising after training ends.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from qcompile.boundary import InputSpec
from qcompile.feeds import Feed, float_feed
from qcompile.graph import Graph, Op, Rewriter
from qcompile.ops import WEIGHTED, SumOp
from qcompile.options import CompileOptions
from qcompile.passes.assign_formats import assign_formats
from qcompile.passes.calibrate import calibrate
from qcompile.passes.equalize_channels import EqualizeChannels
from qcompile.passes.quantize_weights import weight_format
from qcompile.passes.resolved_plan import resolved_plan
from qcompile.plan import Plan, Quantizer
from qcompile.quantization import Lowered, Progress, Quantization
from qcompile.train.network import TrainedNetwork, check_float, make_trainable
from qcompile.types import Array, TensorType


def start_training(
    graph: Graph,
    specs: Mapping[str, InputSpec],
    options: CompileOptions,
    feeds: Sequence[Feed],
    learned_scales: bool = True,
    progress: Progress | None = None,
    incremental: bool = False,
) -> TrainedNetwork:
    """The network in training as it is before the first step.

    Args:
        graph: simplified, of stage FLOAT.
        specs: how pixels become real numbers, for each input.
        options: formats and effort.
        feeds: raw calibration images.
        learned_scales: whether scales take part in the training.
        progress: called with (done, total) operators.
        incremental: see `make_trainable`.

    Raises:
        UsageError: the model is quantised already, or no weights are to be frozen.
        UnsupportedError: torch cannot compute some operator.
    """
    check_float(graph)
    plan = assign_formats(graph, options)
    calibration = calibrate(graph, [float_feed(feed, specs) for feed in feeds], options.seed)
    quantization = Quantization(graph, calibration, specs, options, feeds)
    found = quantization.lowered(plan, progress)
    # Rules that are meant to the letter are for weights as trained, and not for their own results.
    verbatim = options.takes_weights_as_trained
    begun = _without_factors(graph, plan) if verbatim else _with_codes(found)
    network = make_trainable(
        begun,
        resolved_plan(found.quantized, plan),
        specs,
        options,
        learned_scales=learned_scales,
        incremental=incremental,
    )
    balance = found.method.balance
    if verbatim or balance is None:
        return network
    equalize = EqualizeChannels(plan, calibration, specs, balance)
    return dataclasses.replace(network, factors=equalize.factors(graph))


def _without_factors(graph: Graph, plan: Plan) -> Graph:
    """The graph with the largest tanh of weights that DoReFa divides by as the gain of the
    activation behind them, so that the network stays what it was but for rounding (and tanh)."""
    edit = Rewriter(graph)
    for op in graph.ops:
        chosen = weight_format(plan, op)
        if chosen is None or chosen.quantizer is not Quantizer.DOREFA or not isinstance(op, SumOp):
            continue
        factor = float(np.abs(np.tanh(graph.constants[op.inputs[1]])).max()) or 1.0
        inputs = list(op.inputs)
        for place, name in enumerate(op.inputs[2:], start=2):
            data = (graph.constants[name] / factor).astype(np.float32)
            inputs[place] = edit.add_constant(name, data, TensorType(data.shape))
        gain = tuple(value * factor for value in op.activation.gain)
        activation = dataclasses.replace(op.activation, gain=gain)
        edit.replace(op, dataclasses.replace(op, inputs=tuple(inputs), activation=activation))
    return edit.finish()


def _with_codes(found: Lowered) -> Graph:
    """The float graph with the weights, biases and activations of the quantized one."""
    edit = Rewriter(found.real)
    quantized = found.quantized.by_name
    for op in found.real.ops:
        other = quantized.get(op.name)
        if isinstance(op, SumOp) and isinstance(other, SumOp):
            edit.replace(op, _as_quantized(found, edit, op, other))
    return edit.finish()


def _as_quantized(found: Lowered, edit: Rewriter, op: SumOp, other: SumOp) -> Op:
    inputs = list(op.inputs)
    if isinstance(op, WEIGHTED):
        inputs = inputs[:1]
        for name in other.inputs[1:]:
            data, kind = found.quantized.constants[name], found.quantized.types[name]
            inputs.append(edit.add_constant(name, _real(data, kind), TensorType(kind.shape)))
    return dataclasses.replace(op, inputs=tuple(inputs), activation=other.activation)


def _real(data: Array, kind: TensorType) -> Array:
    if kind.quantization is None:
        return data.astype(np.float32)
    return np.asarray(data.astype(np.float32) * kind.quantization.factors(data.shape))
