"""How ternary a network is: products of three values each, and how many of these are 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np

from qcompile.graph import Graph, Op
from qcompile.multiplications import multiplications, weight_type
from qcompile.ops import MOVEMENT, WEIGHTED, AveragePool, LinearResize, Rescale
from qcompile.report.formats import stored_bits
from qcompile.types import Array, Range, TensorType

_TERNARY = Range(-1, 1)


@dataclass(frozen=True, slots=True)
class ValueSet:
    """What a tensor may hold: multiples of unit / parts within -unit..unit, or codes of `bits`.

    `parts` 1 is ternary, 4 what an average of 2 x 2 leaves of that, 16 what bilinear resizing by 2
    does; None for other tensors.
    """

    bits: int
    unit: Fraction = Fraction(1)
    parts: int | None = None

    @property
    def name(self) -> str:
        """'ternary', 'k/4', '8 bit', or 'float'."""
        if self.parts is None:
            return "float" if self.bits == 32 else f"{self.bits} bit"
        return "ternary" if self.parts == 1 else f"k/{self.parts}"


def value_sets(graph: Graph) -> dict[str, ValueSet]:
    """Of every activation of an integer network, from inputs to outputs."""
    found = {name: _plain(graph.types[name]) for name in graph.inputs}
    for op in graph.ops:
        found[op.output] = _set_of(graph, op, found)
    return found


def _plain(kind: TensorType) -> ValueSet:
    if kind.is_float:
        return ValueSet(32)
    bits = kind.integer.bits
    grid = kind.quantization
    if grid is None or not grid.is_per_tensor or not _TERNARY.contains(kind.codes):
        return ValueSet(bits)
    return ValueSet(bits, grid.exact(), 1)


def _set_of(graph: Graph, op: Op, known: Mapping[str, ValueSet]) -> ValueSet:
    kind = graph.output_type(op)
    plain = _plain(kind)
    grid = kind.quantization
    sources = [known[value] for value in op.inputs if not graph.is_constant(value)]
    units = {source.unit for source in sources if source.parts is not None}
    if plain.parts is not None or grid is None or not sources or len(units) != 1:
        return plain
    if any(source.parts is None for source in sources):
        return plain
    parts = units.copy().pop() / grid.exact()
    least = max(source.parts or 1 for source in sources)
    if isinstance(op, AveragePool):
        shapes = (graph.types[op.inputs[0]].shape[2:], kind.shape[2:])
        least *= op.common_divisor(*shapes)
    elif isinstance(op, LinearResize):
        least *= op.common()
    elif not isinstance(op, (Rescale, *MOVEMENT)):
        return plain
    # Coarser steps than the values need would have rounded them.
    exact = parts.denominator == 1 and parts.numerator % least == 0
    return ValueSet(plain.bits, units.pop(), parts.numerator) if exact else plain


class ZeroCounts:
    """Counts zeros of the codes of tensors, image by image."""

    def __init__(self) -> None:
        self._zeros: dict[str, tuple[int, int]] = {}

    def add(self, value: str, codes: Array) -> None:
        """Counts one tensor of one image."""
        zeros, size = self._zeros.get(value, (0, 0))
        self._zeros[value] = (zeros + int(np.count_nonzero(codes == 0)), size + codes.size)

    def share(self, values: tuple[str, ...]) -> float | None:
        """Of zeros in these tensors together; None if none was seen."""
        counts = [self._zeros[value] for value in values if value in self._zeros]
        size = sum(count[1] for count in counts)
        return round(sum(count[0] for count in counts) / size, 6) if size else None


@dataclass(frozen=True, slots=True)
class TernaryLayer:
    """The products of one layer: what its weights and its input may be, and shares of zeros (None:
    not ternary, or not measured)."""

    name: str
    weights: str
    inputs: str
    macs: int
    weight_zeros: float | None
    input_zeros: float | None


@dataclass(frozen=True, slots=True)
class TernarySummary:
    """What a report says of a network with ternary layers.

    Attributes:
        layers: all that have weights, in order of execution.
        weights: how many of the network's weights are ternary.
        weight_zeros: the share of 0 among these.
        activation_zeros: the share of 0 in ternary activations on the images that were run.
        hardened: operator name -> beta of each tanh that became ternary.
    """

    layers: tuple[TernaryLayer, ...]
    weights: int
    weight_zeros: float
    activation_zeros: float | None
    hardened: Mapping[str, float]

    def macs(self, inputs: str | None = None) -> int:
        """Products of ternary weights with such inputs (None: all products there are)."""
        if inputs is None:
            return sum(layer.macs for layer in self.layers)
        own = (layer for layer in self.layers if layer.weights == "ternary")
        return sum(layer.macs for layer in own if layer.inputs == inputs)

    @property
    def packed_bytes(self) -> int:
        """Of ternary weights at 2 bits each."""
        return -(-self.weights // 4)

    def to_dict(self) -> dict[str, Any]:
        """For `report.json`."""
        return {
            "macs": self.macs(),
            "macs_ternary": self.macs("ternary"),
            "weights": self.weights,
            "weight_bytes_2_bit": self.packed_bytes,
            "weight_bytes_fp32": 4 * self.weights,
            "weight_zeros": self.weight_zeros,
            "activation_zeros": self.activation_zeros,
            "hardened": dict(self.hardened),
            "layers": [
                {
                    "name": layer.name,
                    "weights": layer.weights,
                    "inputs": layer.inputs,
                    "macs": layer.macs,
                    "weight_zeros": layer.weight_zeros,
                    "input_zeros": layer.input_zeros,
                }
                for layer in self.layers
            ],
        }


def ternary_summary(
    graph: Graph, zeros: ZeroCounts, hardened: Mapping[str, float]
) -> TernarySummary | None:
    """What there is to say; None for networks without ternary weights and activations.

    Args:
        graph: the integer network.
        zeros: of its tensors.
        hardened: operator name -> beta of each tanh that became ternary.
    """
    sets = value_sets(graph)
    rows, codes = [], []
    for op in graph.ops:
        kind = weight_type(graph, op)
        if kind is None or not isinstance(op, WEIGHTED):
            continue
        data = graph.constants[op.inputs[1]]
        is_ternary = not kind.is_float and bool(np.abs(data).max(initial=0) <= 1)
        if is_ternary:
            codes.append(data)
        rows.append(
            TernaryLayer(
                op.name,
                "ternary" if is_ternary else ValueSet(stored_bits(kind)).name,
                sets[op.inputs[0]].name,
                multiplications(graph, op),
                round(float((data == 0).mean()), 6) if is_ternary else None,
                zeros.share((op.inputs[0],)) if sets[op.inputs[0]].parts is not None else None,
            )
        )
    if not codes and all(sets[op.output].parts is None for op in graph.ops):
        return None
    made = tuple(
        op.output for op in graph.ops if sets[op.output].parts == 1 and not isinstance(op, MOVEMENT)
    )
    total = sum(data.size for data in codes)
    none = sum(int(np.count_nonzero(data == 0)) for data in codes)
    return TernarySummary(
        tuple(rows), total, round(none / total, 6) if total else 0.0, zeros.share(made), hardened
    )


TERNARY_HEAD = ("Layer", "weights", "inputs", "MACs", "zero weights", "zero inputs")


def ternary_lines(summary: TernarySummary, most_names: int | None = None) -> list[tuple[str, str]]:
    """(what, how much): products by what they are of, zeros, bytes.

    Args:
        summary: what to show.
        most_names: of functions that became hard; None names all.
    """
    total = summary.macs() or 1
    lines = []
    for inputs in dict.fromkeys(("ternary", *(layer.inputs for layer in summary.layers))):
        macs = summary.macs(inputs)
        if macs or inputs == "ternary":
            lines.append((f"MACs, ternary x {inputs}", f"{macs:,} ({macs / total:.1%})"))
    if summary.weights:
        whole = 4 * summary.weights
        lines.append(("zeros, ternary weights", f"{summary.weight_zeros:.1%}"))
        text = f"{summary.packed_bytes:,} bytes at 2 bits, {whole:,} as float32"
        lines.append(("ternary weights", text))
    if summary.activation_zeros is not None:
        lines.append(("zeros, ternary activations", f"{summary.activation_zeros:.1%}"))
    if summary.hardened:
        names = [f"{name} ({beta:g})" for name, beta in summary.hardened.items()]
        shown = names[:most_names]
        if len(shown) < len(names):
            shown.append(f"{len(names) - len(shown)} more")
        lines.append(("ternary tanh made hard (beta)", ", ".join(shown)))
    return lines


def ternary_rows(summary: TernarySummary) -> list[tuple[str, ...]]:
    """A row for each layer."""
    return [
        (
            layer.name,
            layer.weights,
            layer.inputs,
            f"{layer.macs:,}",
            _share(layer.weight_zeros),
            _share(layer.input_zeros),
        )
        for layer in summary.layers
    ]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
