"""`--mean-wbits 3`: the bits of weights are dealt out to the layers by their sensitivity.

conv1 8, conv2 8, conv3 8, head 8   ->   conv1 8, conv2 4, conv3 2 (ternary), head 8
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qcompile.errors import UsageError
from qcompile.feeds import Feed
from qcompile.plan import Plan
from qcompile.quantization import Quantization
from qcompile.search.choices import choices_of
from qcompile.search.cost import LayerSum, layers_of, weight_bits
from qcompile.search.greedy import Limit, within
from qcompile.search.slots import widths_plan


def mean_bits_plan(
    quantization: Quantization,
    plan: Plan,
    feeds: Sequence[Feed],
    progress: Callable[[int, int], None] | None = None,
) -> Plan:
    """`plan` with widths of weights whose mean over all weights is at most `options.mean_wbits`.

    First and last layers and layers with an override keep what `plan` says; they count, too.

    Args:
        quantization: the network, how it will be quantised, and the options.
        plan: from `assign_formats`; its widths are the widest that are given.
        feeds: raw calibration images.
        progress: called with (done, total) images.

    Raises:
        UsageError: the mean is out of reach.
    """
    graph, options = quantization.graph, quantization.options
    assert options.mean_wbits is not None
    choices = choices_of(quantization, plan, feeds, activations=False, progress=progress)
    layers = layers_of(graph, plan, frozenset(choice.slot for choice in choices))
    bits = LayerSum(layers, weight_bits)
    count = max(1, sum(layer.weights for layer in layers))
    widths = within(choices, [Limit(bits, options.mean_wbits * count)])
    if widths is None:
        least = bits.total({choice.slot: min(choice.errors) for choice in choices}) / count
        raise UsageError(
            f"--mean-wbits {options.mean_wbits:g}: out of reach, first and last layers and those "
            f"with overrides leave at least {least:.3f}; use more, or a lower --first-last-bits"
        )
    return widths_plan(graph, options, widths)
