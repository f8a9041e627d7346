"""The slots of a search, each with the error that every width of it adds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from qcompile.feeds import Feed, float_feed
from qcompile.ops import MOVEMENT
from qcompile.passes.equalize_channels import EqualizeChannels
from qcompile.plan import Format, Plan
from qcompile.quantization import Quantization
from qcompile.search.activations import output_errors
from qcompile.search.covariances import input_covariances
from qcompile.search.greedy import Choice, Part
from qcompile.search.joined import members
from qcompile.search.sensitivity import weight_errors
from qcompile.search.slots import output_formats, weight_formats


def choices_of(
    quantization: Quantization,
    plan: Plan,
    feeds: Sequence[Feed],
    activations: bool,
    progress: Callable[[int, int], None] | None = None,
) -> list[Choice]:
    """All slots: the weights of layers, and if `activations` the outputs of operators.

    Args:
        quantization: the network, and how it will be quantised.
        plan: what holds for tensors without a slot, and the widest for those with one.
        feeds: raw calibration images.
        activations: whether narrower activations save anything.
        progress: called with (done, total) images.
    """
    options, method = quantization.options, quantization.methods()[0]
    graph, calibration = quantization.graph, quantization.calibration
    if method.balance is not None and calibration.values:
        equalize = EqualizeChannels(plan, calibration, quantization.specs, method.balance)
        graph, calibration = equalize.run(graph), equalize.calibrated(graph)
    images = [float_feed(feed, quantization.specs) for feed in feeds]
    covariances = input_covariances(graph, images, options.seed, progress)
    compensated = method.recipe.positions > 0
    weights = weight_errors(graph, covariances, weight_formats(graph, plan, options), compensated)
    found = [_choice(name, Part.WEIGHTS, errors) for name, errors in weights.items()]
    if activations:
        allowed = output_formats(graph, plan, options)
        groups = members(graph)
        moved = {op.name for op in graph.ops if isinstance(op, MOVEMENT)}
        every = {
            name: formats
            for leader, formats in allowed.items()
            for name in groups[leader]
            if name not in moved
        }
        outputs = output_errors(graph, calibration, covariances, every, options.range_method)
        for leader, formats in allowed.items():
            own = [outputs[name] for name in groups[leader] if name in outputs]
            summed = {chosen: sum(errors[chosen] for errors in own) for chosen in formats}
            found.append(_choice(leader, Part.OUTPUT, summed))
    return found


def _choice(name: str, part: Part, errors: Mapping[Format, float]) -> Choice:
    return Choice((name, part), {chosen.bits: error for chosen, error in errors.items()})


def reweighted(choices: Sequence[Choice], power: float, outputs: float) -> list[Choice]:
    """The same with errors to a power, and those of outputs times a factor: another trade."""
    return [
        dataclasses.replace(
            choice,
            errors={
                bits: (outputs if choice.slot[1] is Part.OUTPUT else 1.0) * error**power
                for bits, error in choice.errors.items()
            },
        )
        for choice in choices
    ]
