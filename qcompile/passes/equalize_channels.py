"""Equalisation: channels of one tensor get ranges alike, for free.

    %y = relu(Conv(%x, @w1, @b1))          %y' = relu(Conv(%x, @w1 / t, @b1 / t))
    %z = Conv(MaxPool(%y), @w2)      ->    %z  = Conv(MaxPool(%y'), @w2 * t)

One scale quantizes a whole tensor, so channels with small values get few codes. With a factor t for
each channel, divided out where the channel is made and multiplied in where it is used, the function
stays what it was (Nagel et al. 2019, "Data-free quantization through weight equalization").

Tensors that meet in a Concat get one scale, too. Their factors are chosen so that this scale is the
best for each of them: no rescaling at run time, and nothing lost by sharing.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar

import numpy as np

from qcompile.boundary import InputKind, InputSpec
from qcompile.graph import Graph, Op, Rewriter
from qcompile.ops import WEIGHTED, Conv, ConvTranspose, LocalAttention2d, MatMul, SumOp
from qcompile.options import RangeMethod
from qcompile.passes.activation_ranges import Member, Start, choose_scale
from qcompile.passes.calibrate import Calibration, Statistics
from qcompile.passes.channel_domains import READERS, ChannelDomains, Domain
from qcompile.passes.compensation import FREE
from qcompile.passes.fold_affine import scaled_inputs, scaled_outputs
from qcompile.passes.parameters import add_float, vector
from qcompile.passes.quantize_weights import weight_format
from qcompile.passes.reader_energy import reader_energy
from qcompile.passes.weight_quantizers import exact_rows
from qcompile.passes.weight_rows import to_columns, to_rows
from qcompile.plan import Format, Plan
from qcompile.types import Array, IntType

QUANTILE = 0.999
"""Of a channel's magnitudes: what counts as its range."""
MOST = 8.0
"""Factors lie within 1/8..8 of their geometric mean."""

RANGE_EXPONENT, WEIGHT_EXPONENT = 0.3, 0.5
"""Of `Balance.BOTH`: t = range ** 0.3 / weight ** 0.5 did best on trained networks; a wide spread
of its columns is what a ternary layer stands least."""
PLENTY_OF_BITS = 7
"""Weights this wide are read through columns of any spread: only ranges count."""

FEWEST_ON_GRID = 8
"""Filters with fewer weights may lie on a grid by chance."""


class Balance(enum.Enum):
    """What the factors make alike: nothing (only the scales of whole tensors), the ranges of a
    tensor's channels, or these and the largest weights that read each channel, in part."""

    SCALES = "scales"
    RANGES = "ranges"
    BOTH = "both"


@dataclass(frozen=True)
class EqualizeChannels:
    """Moves a factor for each channel from where it is made to where it is used.

    Attributes:
        plan: formats of the activations.
        calibration: statistics of the graph's activations.
        inputs: how pixels become real numbers.
        balance: how factors are chosen.
    """

    name: ClassVar[str] = "equalize-channels"
    plan: Plan = field(default_factory=Plan)
    calibration: Calibration = field(default_factory=Calibration)
    inputs: Mapping[str, InputSpec] = field(default_factory=dict)
    balance: Balance = Balance.BOTH

    def run(self, graph: Graph) -> Graph:
        return _moved(graph, self._analysis(graph))

    def calibrated(self, graph: Graph) -> Calibration:
        """The statistics that the result of `run(graph)` has, without running it again."""
        values = dict(self.calibration.values)
        for value, factors in self.factors(graph).items():
            if value in values:
                values[value] = values[value].scaled(1 / factors)
        return Calibration(values, self.calibration.images)

    def factors(self, graph: Graph) -> dict[str, Array]:
        """What `run(graph)` divides each channel of a value by, for the values that change."""
        analysis = self._analysis(graph)
        found = {value: analysis.of_value(value) for value in graph.activations()}
        return {value: factors for value, factors in found.items() if factors is not None}

    def _analysis(self, graph: Graph) -> _Analysis:
        return _Analysis(self, graph)


class _Analysis:
    """The factors of all free domains of one graph."""

    def __init__(self, options: EqualizeChannels, graph: Graph) -> None:
        self.options = options
        self.graph = graph
        self.domains = ChannelDomains(graph, _on_grids(graph, options.plan))

    def of_value(self, value: str) -> Array | None:
        """Factors [channels] of a value; None if all are 1."""
        found = self.domains.factors_of(value, self._lists)
        return None if found is None else np.array(found)

    @cached_property
    def _lists(self) -> Mapping[int, list[float]]:
        return {index: factors.tolist() for index, factors in self.factors.items()}

    @cached_property
    def factors(self) -> Mapping[int, Array]:
        """Free domain -> its factors t."""
        ratios = {
            index: self._ratios(domain)
            for index, domain in enumerate(self.domains.domains)
            if domain.is_free and self._seen(domain)
        }
        return {
            index: found * self._own_scale(index, found) / self._wanted_scale(index, ratios)
            for index, found in ratios.items()
        }

    def _seen(self, domain: Domain) -> bool:
        layers = [self.options.plan.layers.get(op.name) for op in domain.writers]
        known = [op.output for op in domain.writers]
        known += [reading.value for reading in domain.readings]
        if any(self._has_own_scale(value) for value in domain.values):
            return False
        return all(map(self._by_channel, known)) and all(
            layer is not None
            and not layer.output.is_float
            # A format by name is one of the tensor as the network has it.
            and layer.output.given_scale is None
            for layer in layers
        )

    def _has_own_scale(self, value: str) -> bool:
        """Whether the user gave a scale, which is one of the tensor as the network has it."""
        producer = self.graph.producers.get(value)
        layer = None if producer is None else self.options.plan.layers.get(producer.name)
        return layer is not None and layer.scale is not None

    def _by_channel(self, value: str) -> bool:
        """Whether a value has statistics of each channel (`calibrate.MOST_CHANNELS`)."""
        found = self.options.calibration.values.get(value)
        return found is not None and len(found.lows) == self.graph.types[value].shape[1]

    def _ratios(self, domain: Domain) -> Array:
        """Factors of the channels relative to one another, with geometric mean 1."""
        ranges = np.max([self._ranges(op) for op in domain.writers], axis=0)
        live = ranges > 0
        if self.options.balance is Balance.SCALES or not live.any():
            return np.ones(domain.channels)
        wanted = np.where(live, ranges, 1.0)
        if self.options.balance is Balance.BOTH and self._read_in_few_bits(domain):
            weights = self._column_weights(domain)
            live &= weights > 0
            wanted = np.where(live, ranges, 1.0) ** RANGE_EXPONENT
            wanted /= np.where(live, weights, 1.0) ** WEIGHT_EXPONENT
        if not live.any():
            return np.ones(domain.channels)
        mean = float(np.exp(np.log(wanted[live]).mean()))
        return np.where(live, np.clip(wanted / mean, 1 / MOST, MOST), 1.0)

    def _read_in_few_bits(self, domain: Domain) -> bool:
        """Whether some reader of a domain has weights that mind a spread of their columns."""
        formats = [weight_format(self.options.plan, reading.op) for reading in domain.readings]
        return any(chosen is not None and chosen.bits < PLENTY_OF_BITS for chosen in formats)

    def _ranges(self, op: Op) -> Array:
        """How far each channel of an operator's output reaches from where it starts."""
        sample = self.options.calibration.values[op.output].sample
        return np.asarray(np.quantile(np.abs(sample - _shift(op)), QUANTILE, axis=0))

    def _column_weights(self, domain: Domain) -> Array:
        """The largest weight that reads each channel."""
        largest = np.zeros(domain.channels)
        for reading in domain.readings:
            if isinstance(reading.op, WEIGHTED):
                weights = np.abs(self.graph.constants[reading.op.inputs[1]])
                columns = to_columns(reading.op, weights).max(axis=1)
                part = columns[reading.first : reading.first + domain.channels]
                largest = np.maximum(largest, part)
        return largest

    def _own_scale(self, index: int, ratios: Array) -> float:
        """The best scale of a domain's tensors, divided by `ratios`."""
        domain = self.domains.domains[index]
        members = []
        for op in domain.writers:
            chosen = self.options.plan.layers[op.name].output
            statistics = self.options.calibration.values[op.output].scaled(1 / ratios)
            energy = reader_energy(self.graph, op.output)
            if energy is not None:
                energy = energy * np.square(ratios)
            member = _member(op, chosen, statistics, ratios)
            members.append(dataclasses.replace(member, energy=energy, centred=energy is not None))
        return choose_scale(members, RangeMethod.BEST, False)

    def _wanted_scale(self, index: int, ratios: Mapping[int, Array]) -> float:
        """The scale of what a domain meets in a Concat, if that is not free; else 1."""
        first = self.domains.domains[index].writers[0]
        chosen = self.options.plan.layers[first.name].output
        seen, waiting = {index}, [index]
        while waiting:
            for other in sorted(self.domains.domains[waiting.pop()].neighbours - seen):
                if other not in ratios:
                    scale = self._fixed_scale(self.domains.domains[other], chosen)
                    if scale is not None:
                        return scale
                seen.add(other)
                waiting.append(other)
        return 1.0

    def _fixed_scale(self, domain: Domain, beside: Format) -> float | None:
        """The best scale of a domain that keeps its factors; floats get the format `beside`."""
        for value in domain.values:
            producer = self.graph.producers.get(value)
            statistics = self.options.calibration.values.get(value)
            if producer is None and statistics is not None:
                return self._input_scale(value, statistics)
            layer = self.options.plan.layers.get(producer.name) if producer is not None else None
            if producer is None or statistics is None or layer is None:
                continue
            chosen = beside if layer.output.is_float else layer.output
            member = _member(producer, chosen, statistics, np.ones(domain.channels))
            return choose_scale([member], RangeMethod.BEST, False)
        return None

    def _input_scale(self, name: str, statistics: Statistics) -> float | None:
        """What `QuantizeActivations` will give a graph input."""
        spec = self.options.inputs.get(name)
        if spec is not None and spec.kind is InputKind.UINT8 and spec.is_plain:
            return spec.scale[0]
        layer = self.options.plan.inputs.get(name)
        if layer is None or layer.output.is_float:
            return None
        element = layer.output.element(statistics.low < 0)
        member = Member(statistics, element, layer.output.codebook(element).kind)
        return choose_scale([member], RangeMethod.BEST, False)


def _on_grids(graph: Graph, plan: Plan) -> frozenset[str]:
    """Operators whose weights must not be rescaled: they lie on a grid, or their format's rule is
    made for the weights as they were trained."""
    found = set()
    for op in graph.ops:
        chosen = weight_format(plan, op)
        if chosen is None:
            continue
        rows = to_rows(op, graph.constants[op.inputs[1]])
        if chosen.quantizer not in FREE or (
            rows.shape[1] >= FEWEST_ON_GRID and exact_rows(rows, chosen) is not None
        ):
            found.add(op.name)
    return frozenset(found)


def _shift(op: Op) -> Array:
    """Where each channel of an operator's output starts: 0, or the shift of a norm after a ReLU."""
    if isinstance(op, SumOp) and op.activation.slope == (0.0,):
        return np.asarray(op.activation.shift)
    return np.zeros(1)


def _member(op: Op, chosen: Format, statistics: Statistics, ratios: Array) -> Member:
    """What `QuantizeActivations` will make of an operator's output, once it is rescaled."""
    signed = statistics.low < 0
    element = chosen.element(signed)
    start = None
    if signed and isinstance(op, SumOp) and _shift(op).any():
        channels = len(statistics.lows)
        shift = np.broadcast_to(_shift(op), channels) / ratios
        rises = np.broadcast_to(op.activation.gain, channels)
        start = Start(tuple(shift.tolist()), tuple((rises >= 0).tolist()), 1 << chosen.bits)
        element = IntType(min(16, chosen.bits + 1))
    return Member(statistics, element, chosen.codebook(chosen.element(signed)).kind, start)


def _moved(graph: Graph, analysis: _Analysis) -> Graph:
    """The graph with every factor divided out of its writers and multiplied into its readers."""
    writers = {
        op.name for domain in analysis.domains.domains if domain.is_free for op in domain.writers
    }
    rewriter = Rewriter(graph)
    for op in graph.ops:
        written = analysis.of_value(op.output) if op.name in writers else None
        place = READERS.get(type(op))
        read = None if place is None else analysis.of_value(op.inputs[place])
        if written is not None or read is not None:
            assert isinstance(op, SumOp)
            rewriter.replace(op, _rescaled(graph, rewriter, op, read, written))
    return rewriter.finish()


def _rescaled(
    graph: Graph, rewriter: Rewriter, op: SumOp, read: Array | None, written: Array | None
) -> SumOp:
    """The operator for inputs divided by `read`, with its outputs divided by `written`."""
    kind = graph.types[op.output]
    channels = kind.shape[op.channel_axis(kind.rank)]
    first = 4 if isinstance(op, LocalAttention2d) else 1
    weights = vector(graph, op.inputs, first, channels, 1.0)
    bias = vector(graph, op.inputs, first + 1, channels, 0.0)
    if read is not None:
        if isinstance(op, Conv | ConvTranspose | MatMul):
            weights = scaled_inputs(op, weights, read)
        else:
            weights = weights * read
    activation = op.activation
    if written is not None:
        if activation.gain == (1.0,) and activation.shift == (0.0,):
            inverse = 1 / written
            bias = bias * inverse
            if isinstance(op, Conv | ConvTranspose | MatMul):
                weights = scaled_outputs(op, weights, inverse)
            else:
                weights = weights * inverse
        else:
            activation = dataclasses.replace(
                activation,
                gain=tuple((np.broadcast_to(activation.gain, channels) / written).tolist()),
                shift=tuple((np.broadcast_to(activation.shift, channels) / written).tolist()),
            )
    inputs = (
        *op.inputs[:first],
        add_float(rewriter, f"{op.name}.weight", weights),
        add_float(rewriter, f"{op.name}.bias", bias),
    )
    return dataclasses.replace(op, inputs=inputs, activation=activation)
