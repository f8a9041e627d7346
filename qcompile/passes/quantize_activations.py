"""Every activation gets an integer type and a scale.

    %skip f32[1,16,64,64]          %skip u6[1,16,64,64] s=0.031
    %up   f32[1,16,64,64]    ->    %up   i6[1,16,64,64] s=0.031
    %cat  f32[1,32,64,64]          %cat  i7[1,32,64,64] s=0.031

Values that only move (pooling by maximum, concat, resize, reshape, ...) share one scale; where a
scale is fixed from outside (pixels, softmax), a visible `Rescale` brings the value to the shared
one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from math import inf
from typing import ClassVar

import numpy as np

from qcompile.boundary import InputKind, InputSpec
from qcompile.errors import UsageError
from qcompile.graph import Graph, Op, Rewriter, Stage
from qcompile.lowering.sums import constant_operand
from qcompile.ops import (
    INDICES,
    MOVEMENT,
    Add,
    BatchMatMul,
    Concat,
    Div,
    LinearResize,
    Mul,
    Rescale,
    Softmax,
    SumOp,
)
from qcompile.ops.code_limits import moved_inputs, moved_limits
from qcompile.ops.fake_quantize import integer_type
from qcompile.options import RangeMethod
from qcompile.passes.activation_ranges import Member, Start, choose_scale
from qcompile.passes.calibrate import Calibration, Statistics
from qcompile.passes.imported_formats import is_imported
from qcompile.passes.narrow_table_inputs import narrow_table_inputs
from qcompile.passes.reader_energy import reader_energy
from qcompile.passes.signs import nonnegative_values
from qcompile.plan import Format, Plan, Quantizer
from qcompile.types import (
    CodebookKind,
    IntType,
    Quantization,
    Range,
    TensorType,
)

CONSTANT_OPERAND_BITS = 16

FEWEST_STARTED_BITS, WIDEST_STARTED_BITS = 3, 8
"""Widths of norms after a ReLU whose codes start elsewhere in every channel."""


@dataclass(frozen=True)
class QuantizeActivations:
    """Chooses scales from the calibration (or takes the plan's) and annotates all types.

    With `snap`, a norm after a ReLU gets a shift that is a code: all pixels that the ReLU cut are
    then without error, and what the shift changed by is a constant, for the biases behind to take
    up (`QuantizeWeights` measures it; exact but where a convolution pads).
    """

    name: ClassVar[str] = "quantize-activations"
    plan: Plan
    inputs: Mapping[str, InputSpec]
    calibration: Calibration = field(default_factory=Calibration)
    method: RangeMethod = RangeMethod.BEST
    snap: bool = False

    def run(self, graph: Graph) -> Graph:
        prepared = narrow_table_inputs(graph, self.plan)
        return _Annotator(self, *prepared).run()


class _Groups:
    """Union-find over value names."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def find(self, value: str) -> str:
        root = value
        while self._parent.get(root, root) != root:
            root = self._parent[root]
        self._parent[value] = root
        return root

    def union(self, a: str, b: str) -> None:
        self._parent[self.find(b)] = self.find(a)


class _Annotator:
    """One run of the pass: groups, scales, then types in topological order."""

    def __init__(
        self,
        options: QuantizeActivations,
        graph: Graph,
        formats: Mapping[str, Format],
        narrowed: Mapping[str, str],
    ) -> None:
        self.options = options
        self.graph = graph
        self.formats = formats
        self.narrowed = narrowed
        self.groups = _Groups()
        self.fixed: dict[str, float] = {}
        self.nonnegative = nonnegative_values(
            graph, options.plan, options.inputs, options.calibration
        )

    def run(self) -> Graph:
        self._fix_boundaries()
        self._tie()
        scales = self._choose_scales()
        return self._annotate(scales)

    def _is_integer(self, value: str) -> bool:
        """Whether a value becomes codes; class indices are integers already, without a scale."""
        if self._is_imported(value):
            return True
        is_real = value in self.formats and self.graph.types[value].is_float
        return is_real and not self.formats[value].is_float

    def _is_imported(self, value: str) -> bool:
        """Whether the value's grid came with the model."""
        return is_imported(self.graph.types[value])

    def _statistics(self, value: str) -> Statistics | None:
        return self.options.calibration.values.get(value)

    def _fix_boundaries(self) -> None:
        """Scales that do not come from statistics: plain pixels, softmax, formats by name."""
        for op in self.graph.ops:
            given = self.formats[op.output].given_scale
            if given is not None and self._is_integer(op.output):
                self.fixed[op.output] = given
        for name in self.graph.activations():
            grid = self.graph.types[name].quantization
            if grid is not None and self._is_imported(name):
                self.fixed[name] = grid.scale[0]
        for name, spec in self.options.inputs.items():
            if name in self.fixed or not self._is_integer(name):
                continue
            chosen = self.formats[name]
            given = self.options.plan.inputs[name].scale
            if given is not None:
                self.fixed[name] = given
                continue
            if spec.kind is InputKind.FLOAT32:
                continue
            values = spec.pixel_values()
            element = chosen.element(name not in self.nonnegative)
            if spec.is_plain and chosen.quantizer is Quantizer.SCALED and chosen.bits >= 8:
                self.fixed[name] = spec.scale[0]
                continue
            sample = values.reshape(-1, 1).astype(np.float32)
            pixels = Statistics(sample.min(axis=0), sample.max(axis=0), sample)
            member = Member(pixels, element, CodebookKind.UNIFORM)
            self.fixed[name] = choose_scale([member], RangeMethod.MINMAX, chosen.power_of_two_scale)
        for op in self.graph.ops:
            if isinstance(op, Softmax) and self._is_integer(op.output):
                self.fixed[op.output] = 1 / softmax_levels(self.formats[op.output])

    def _tie(self) -> None:
        for op in self.graph.ops:
            tied = isinstance(op, MOVEMENT) and not isinstance(op, Concat)
            if (
                (tied or self._keeps_codes(op))
                and self._is_integer(op.inputs[0])
                and self._is_integer(op.output)
            ):
                self.groups.union(op.inputs[0], op.output)
        for op in self.graph.ops:
            if not isinstance(op, Concat) or not self._is_integer(op.output):
                continue
            integers = [value for value in op.inputs if self._is_integer(value)]
            scales = {self._fixed_scale(value) for value in integers}
            if len(scales) > 1 or (None not in scales and len(integers) < len(op.inputs)):
                integers = [value for value in integers if self._fixed_scale(value) is None]
            for value in integers:
                self.groups.union(value, op.output)

    def _keeps_codes(self, op: Op) -> bool:
        """A linear resize into the format of its input takes its codes over, too."""
        if not isinstance(op, LinearResize) or not op.activation.is_identity:
            return False
        if self._is_imported(op.output):
            return False
        return self.formats[op.output] == self.formats[op.inputs[0]]

    def _fixed_scale(self, value: str) -> float | None:
        root = self.groups.find(value)
        return next((s for name, s in self.fixed.items() if self.groups.find(name) == root), None)

    def _choose_scales(self) -> dict[str, float]:
        """Scale of every group, by the name of its root value."""
        scales = {self.groups.find(name): scale for name, scale in self.fixed.items()}
        members: dict[str, list[str]] = {}
        for op in self.graph.ops:
            if not self._is_integer(op.output) or isinstance(op, INDICES):
                continue
            if op.output in self.narrowed:
                continue
            root = self.groups.find(op.output)
            layer = self.options.plan.layers.get(op.name)
            if layer is not None and layer.scale is not None:
                scales.setdefault(root, layer.scale)
            members.setdefault(root, []).append(op.output)
        for name in self.graph.inputs:
            if self._is_integer(name):
                members.setdefault(self.groups.find(name), []).append(name)
        for root, values in members.items():
            if root not in scales:
                scales[root] = self._group_scale(values)
        return scales

    def _group_scale(self, values: list[str]) -> float:
        sources = [value for value in values if not self._only_moves(value)] or values
        placed = [(value, self.formats[value]) for value in sources]
        placed += self._brought_in(values)
        members = []
        for value, chosen in placed:
            statistics = self._statistics(value)
            if statistics is None:
                raise UsageError(
                    f"value '{value}': neither calibration data nor the configuration gives its "
                    f"range; give --calib, or a scale for its layer in --config"
                )
            start = self._start(value, chosen)
            element = self._element(value, chosen, start)
            kind = chosen.codebook(element).kind
            energy = reader_energy(self.graph, value) if self.options.snap else None
            member = Member(statistics, element, kind, start, energy, energy is not None)
            members.append(member)
        power_of_two = any(chosen.power_of_two_scale for _, chosen in placed)
        return choose_scale(members, self.options.method, power_of_two)

    def _start(self, value: str, chosen: Format) -> Start | None:
        """Where each channel of a norm after a ReLU begins; None for all other values."""
        op = self.graph.producers.get(value)
        if (
            not isinstance(op, SumOp)
            or self._is_imported(value)
            or value in self.nonnegative
            or chosen.quantizer not in (Quantizer.SCALED, Quantizer.FIXED)
            or chosen.q is not None
            or chosen.bits < FEWEST_STARTED_BITS
            or op.channel_axis(self.graph.types[value].rank) != 1
        ):
            return None
        activation = op.activation
        if activation.slope != (0.0,) or (activation.low, activation.high) != (-inf, inf):
            return None
        channels = self.graph.types[value].shape[1]
        gain = np.broadcast_to(activation.gain, channels)
        shift = np.broadcast_to(activation.shift, channels)
        return Start(tuple(shift.tolist()), tuple((gain >= 0).tolist()), 1 << chosen.bits)

    def _element(self, value: str, chosen: Format, start: Start | None) -> IntType:
        """Codes that start elsewhere in each channel need one more bit to be told apart; an 8-bit
        tensor does without, as its 256 codes are plenty."""
        element = chosen.element(value not in self.nonnegative)
        if start is None or chosen.bits >= WIDEST_STARTED_BITS:
            return element
        return IntType(chosen.bits + 1)

    def _brought_in(self, values: list[str]) -> list[tuple[str, Format]]:
        """Values that a Concat of the group quantizes or rescales to the shared scale."""
        found: list[tuple[str, Format]] = []
        for value in values:
            producer = self.graph.producers.get(value)
            if not isinstance(producer, Concat):
                continue
            root = self.groups.find(value)
            found += [
                (other, self.formats[value])
                for other in dict.fromkeys(producer.inputs)
                if self.groups.find(other) != root and not self.graph.is_constant(other)
            ]
        return found

    def _only_moves(self, value: str) -> bool:
        producer = self.graph.producers.get(value)
        if isinstance(producer, Concat) and any(map(self.graph.is_constant, producer.inputs)):
            return False  # its constants are no other operator's result
        return producer is not None and (
            isinstance(producer, MOVEMENT) or self._keeps_codes(producer)
        )

    def _annotate(self, scales: Mapping[str, float]) -> Graph:
        rewriter = Rewriter(self.graph)
        types: dict[str, TensorType] = dict(self.graph.types)
        for name in self.graph.inputs:
            if self._is_integer(name):
                types[name] = self._type(name, types[name], scales[self.groups.find(name)])
        for op in self.graph.ops:
            if not self._is_integer(op.output) or isinstance(op, INDICES):
                continue
            if op.output in self.narrowed:
                types[op.output] = self._narrow_type(op.output, types)
                continue
            scale = scales[self.groups.find(op.output)]
            if isinstance(op, Concat):
                op = self._rescale_inputs(op, scale, types, rewriter)
            if isinstance(op, MOVEMENT) or self._keeps_codes(op):
                types[op.output] = self._moved_type(op, types, scale)
            else:
                types[op.output] = self._type(op.output, types[op.output], scale)
            if isinstance(op, Add | Mul | Div | BatchMatMul):
                self._quantize_operands(op, types, rewriter)
            if self.options.snap:
                self._snap(op, types[op.output], rewriter)
        for value, kind in types.items():
            rewriter.set_type(value, kind)
        return rewriter.finish(Stage.QUANTIZED)

    def _snap(self, op: Op, kind: TensorType, rewriter: Rewriter) -> None:
        """Replaces the shift of a norm after a ReLU by the code where its channels start."""
        start = self._start(op.output, self.formats[op.output])
        if start is None or kind.limits is None or kind.quantization is None:
            return
        assert isinstance(op, SumOp)
        ends = zip(start.rises, kind.limits.low, kind.limits.high, strict=True)
        codes = [low if rises else high for rises, low, high in ends]
        shift = tuple(code * kind.quantization.scale[0] for code in codes)
        activation = dataclasses.replace(op.activation, shift=shift)
        rewriter.replace(op, dataclasses.replace(op, activation=activation))

    def _type(self, value: str, old: TensorType, scale: float) -> TensorType:
        if value in self.graph.types and self._is_imported(value):
            return integer_type(self.graph.types[value])
        chosen = self.formats[value]
        start = self._start(value, chosen)
        element = self._element(value, chosen, start)
        return TensorType(
            old.shape,
            element,
            Quantization.per_tensor(scale),
            chosen.codebook(chosen.element(value not in self.nonnegative)),
            None if start is None else start.limits(scale, element),
        )

    def _narrow_type(self, value: str, types: Mapping[str, TensorType]) -> TensorType:
        """The range of a wide value in fewer steps: no calibration of its own."""
        source = types[self.narrowed[value]]
        assert source.quantization is not None
        narrow = self._type(value, source, source.quantization.scale[0])
        wide = source.integer.range.magnitude.bit_length()
        steps = wide - narrow.integer.range.magnitude.bit_length()
        scale = source.quantization.scale[0] * 2.0**steps
        return dataclasses.replace(narrow, quantization=Quantization.per_tensor(scale))

    def _moved_type(self, op: Op, types: Mapping[str, TensorType], scale: float) -> TensorType:
        """The elements of all integer inputs; float inputs will be quantized to the own format."""
        moved = moved_inputs(op)
        kinds = [types[value] for value in moved if not types[value].is_float]
        own = self._type(op.output, types[op.output], scale)
        if len(kinds) < len(moved):
            kinds.append(own)
        # A linear resize stays between its inputs, channel by channel.
        resized = isinstance(op, LinearResize)
        limits = kinds[0].limits if resized else moved_limits(op, kinds)
        own = dataclasses.replace(own, limits=limits)
        if all(kind.element == kinds[0].element for kind in kinds):
            return dataclasses.replace(own, element=kinds[0].element, codebook=kinds[0].codebook)
        codes = reduce(Range.union, (kind.integer.range for kind in kinds))
        element = IntType.holding(codes)
        return dataclasses.replace(
            own, element=element, codebook=self.formats[op.output].codebook(element)
        )

    def _rescale_inputs(
        self, op: Concat, scale: float, types: dict[str, TensorType], rewriter: Rewriter
    ) -> Concat:
        """The visible requantise of inputs whose scale is fixed otherwise; codes of constants."""
        inputs: list[str] = []
        added: list[Op] = []
        for value in op.inputs:
            kind = types[value]
            if self.graph.is_constant(value) and kind.is_float:
                inputs.append(self._quantized_part(op, value, scale, types, rewriter))
                continue
            if kind.quantization is None or kind.quantization.scale == (scale,):
                inputs.append(value)
                continue
            chosen = self.formats[op.output]
            element = chosen.element(value not in self.nonnegative)
            name = rewriter.add_value(f"{value}.rescaled")
            types[name] = TensorType(
                kind.shape, element, Quantization.per_tensor(scale), chosen.codebook(element)
            )
            added.append(
                Rescale(name=rewriter.fresh(f"{op.name}/rescale"), inputs=(value,), outputs=(name,))
            )
            inputs.append(name)
        if inputs == list(op.inputs):
            return op
        changed = dataclasses.replace(op, inputs=tuple(inputs))
        rewriter.replace(op, *added, changed)
        return changed

    def _quantized_part(
        self, op: Concat, value: str, scale: float, types: dict[str, TensorType], rewriter: Rewriter
    ) -> str:
        """A constant that is joined with computed values (class tokens) in codes of their scale."""
        data = self.graph.constants[value]
        chosen = self.formats[op.output]
        element = chosen.element(signed=float(data.min()) < 0)
        codes = np.floor(data.astype(np.float64) / scale + 0.5)
        kind = TensorType(
            data.shape, element, Quantization.per_tensor(scale), chosen.codebook(element)
        )
        limited = codes.clip(element.low, element.high).astype(element.storage)
        name = rewriter.add_constant(f"{value}.codes", limited, kind)
        types[name] = kind
        return name

    def _quantize_operands(self, op: Op, types: dict[str, TensorType], rewriter: Rewriter) -> None:
        """Constant operands become codes of their own."""
        inputs = list(op.inputs)
        for position, value in enumerate(op.inputs):
            if not self.graph.is_constant(value) or not self.graph.types[value].is_float:
                continue
            data = self.graph.constants[value]
            codes, element, scale = constant_operand(data, CONSTANT_OPERAND_BITS)
            kind = TensorType(data.shape, element, Quantization.per_tensor(scale))
            inputs[position] = rewriter.add_constant(f"{value}.codes", codes, kind)
            types[inputs[position]] = kind
        if inputs != list(op.inputs):
            rewriter.replace(op, dataclasses.replace(op, inputs=tuple(inputs)))


def softmax_levels(chosen: Format) -> int:
    """The code that stands for probability 1: a power of two where scales must be."""
    if chosen.power_of_two_scale:
        return 1 << (chosen.bits - 1)
    return chosen.element(signed=False).high
